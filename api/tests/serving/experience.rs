//! Level and experience on the profile: from gold, and from nowhere else.

use crate::support::{Run, TestApp, run};

fn of(user: &str, run: Run) -> Run {
    Run { user: Some(user.to_owned()), ..run }
}

/// `exp` and `level` of the user's own profile.
async fn own(app: &TestApp) -> (u64, u64) {
    let mut figures = Vec::new();
    for path in ["/auth/me", "/users/me", &format!("/users/{}", app.user_id)] {
        let reply = app.get_as_user(&format!("/api/v1{path}")).await;
        let figure =
            |name: &str| reply.at(&format!("/data/{name}")).as_u64().unwrap_or_else(|| panic!("{}", reply.text));
        figures.push((figure("exp"), figure("level")));
    }
    assert!(figures.windows(2).all(|pair| pair[0] == pair[1]), "{figures:?}");
    figures[0]
}

#[tokio::test]
async fn experience_follows_gold_up_and_down_and_nobody_sets_it() {
    let app = TestApp::start().await;
    assert_eq!(own(&app).await, (0, 1));
    let user = app.user_id.clone();
    let mut runs: Vec<Run> =
        (0..9).map(|hour| run(&format!("a{hour}"), "s", "j", &format!("2026-01-05T0{hour}:00:00Z"))).collect();
    runs.push(run("b", "s", "j", "2026-01-06T10:00:00Z"));
    let mut runs: Vec<Run> = runs.into_iter().map(|run| of(&user, run)).collect();
    runs.push(of("somebody", run("c", "s", "j", "2026-01-07T10:00:00Z")));
    runs.push(run("d", "s", "j", "2026-01-07T10:00:00Z"));
    app.publish(&runs, 12).await;
    // Ten runs, and a day after a day.
    assert_eq!(own(&app).await, (105, 2));
    // A run turns out to have failed.
    runs[9].status = "failed".to_owned();
    app.publish(&runs, 13).await;
    assert_eq!(own(&app).await, (90, 1));
    let token = format!("Bearer {}", app.user);
    for body in [r#"{"version": 1, "exp": 9000}"#, r#"{"version": 1, "level": 9}"#] {
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let reply = app.send("PUT", "/api/v1/users/me", &headers, body).await;
        assert_eq!(reply.status, 422, "{}", reply.text);
    }
    assert_eq!(own(&app).await, (90, 1));
}
