//! `GET /profits`: pages, exact totals, whose rows, and that they are of their own epochs.

use std::collections::HashMap;

use karat_access::Role;
use serde_json::{Value, json};

use crate::support::{Profit, TestApp, at, run};

pub fn profit(company: &str, year: i64, month: i64, cents: i128) -> Profit {
    Profit {
        company: company.to_owned(),
        year,
        month,
        cents,
        source: "/books".to_owned(),
        user: None,
        recorded_at_us: at("2026-01-05T09:00:00Z"),
    }
}

/// Two years of three companies, in no order.
fn profits() -> Vec<Profit> {
    let all = (0..72).map(|n| {
        let n = n * 5 % 72;
        let company = ["dune", "alder", "ember"][n as usize % 3];
        profit(company, 2024 + n / 36, n / 3 % 12 + 1, i128::from(n) * 100_001 - 999)
    });
    all.collect()
}

#[tokio::test]
async fn pages_of_profits_join_to_the_whole_and_totals_are_of_all_pages() {
    let app = TestApp::start().await;
    app.publish_profits(&profits(), 72).await;
    let mut sorted = profits();
    sorted.sort_by(|a, b| (&a.company, a.year, a.month).cmp(&(&b.company, b.year, b.month)));
    let expected: Vec<Value> = sorted
        .iter()
        .map(|row| {
            let (sign, cents) = (if row.cents < 0 { "-" } else { "" }, row.cents.abs());
            let profit = format!("{sign}{}.{:02}", cents / 100, cents % 100);
            json!({"company": row.company, "year": row.year, "month": row.month, "profit": profit,
                   "recorded_at": "2026-01-05T09:00:00Z"})
        })
        .collect();
    let whole = app.get("/api/v1/profits?size=1000").await;
    assert_eq!(whole.at("/data/profits"), &Value::from(expected), "{}", whole.text);
    let mut pages = Vec::new();
    for number in 1..=8 {
        let page = app.get(&format!("/api/v1/profits?page={number}&size=10")).await;
        assert_eq!((page.at("/data/pages"), page.at("/data/page")), (&8.into(), &number.into()), "{}", page.text);
        assert_eq!(page.at("/data/totals"), whole.at("/data/totals"));
        pages.extend(page.at("/data/profits").as_array().unwrap().clone());
    }
    assert_eq!(&Value::from(pages), whole.at("/data/profits"));
    assert_eq!(app.get("/api/v1/profits?page=9&size=10").await.at("/data/profits"), &json!([]));
    assert_eq!(app.get("/api/v1/profits").await.at("/data/profits").as_array().unwrap().len(), 50);

    let one = app.get("/api/v1/profits?company=alder&year=2025").await;
    let sum: i128 = sorted.iter().filter(|row| row.company == "alder" && row.year == 2025).map(|row| row.cents).sum();
    let total = format!("{}.{:02}", sum / 100, sum % 100);
    assert_eq!(one.at("/data/totals"), &json!({"rows": 12, "companies": 1, "profit": total}), "{}", one.text);
}

#[tokio::test]
async fn a_page_that_is_too_deep_is_refused_with_what_to_ask_instead() {
    let app = TestApp::start().await;
    app.publish_profits(&profits()[..3], 3).await;
    for (page, status) in
        [("page=100&size=1000", 200), ("page=101&size=1000", 422), ("page=2000", 200), ("page=1000000", 422)]
    {
        let reply = app.get(&format!("/api/v1/profits?{page}")).await;
        assert_eq!(reply.status, status, "{page}: {}", reply.text);
        assert_eq!(reply.text.contains("follow the cursor"), status == 422, "{page}: {}", reply.text);
    }
}

#[tokio::test]
async fn sums_of_profits_are_exact_beyond_every_float_and_beyond_38_digits() {
    let app = TestApp::start().await;
    let largest = 10_i128.pow(38) - 1;
    let rows = [
        profit("small", 2026, 1, 10),
        profit("small", 2026, 2, 20),
        profit("large", 2026, 1, largest),
        profit("large", 2026, 2, largest),
        profit("large", 2026, 3, largest),
        profit("loss", 2026, 1, -largest),
    ];
    app.publish_profits(&rows, 6).await;
    let total = async |company: &str| {
        let reply = app.get(&format!("/api/v1/profits?company={company}")).await;
        reply.text_at("/data/totals/profit").to_owned()
    };
    assert_eq!(total("small").await, "0.30");
    assert_eq!(total("large").await, "2999999999999999999999999999999999999.97");
    assert_eq!(total("loss").await, "-999999999999999999999999999999999999.99");
    assert_eq!(total("nobody").await, "0.00");
}

#[tokio::test]
async fn profits_have_an_epoch_and_a_freshness_of_their_own() {
    let app = TestApp::start().await;
    let runs = [run("r", "s", "j", "2026-01-05T10:00:00Z")];
    app.publish(&runs, 1).await;
    app.publish(&runs, 1).await;
    assert_eq!(app.publish_profits(&profits()[..3], 3).await, 1);
    app.log_ends_at(3);
    let first = app.get("/api/v1/profits").await;
    assert_eq!((first.at("/data/epoch"), first.text_at("/data/data_state")), (&1.into(), "complete"));
    assert_eq!(first.headers["karat-as-of"], "2026-01-05T09:00:00Z");
    let etag = first.headers["etag"].clone();
    let again = async || app.get_as(&app.admin, "/api/v1/profits", &[("if-none-match", &etag)]).await;
    assert_eq!(again().await.status, 304);
    // Runs are no news of profits.
    app.publish(&runs, 3).await;
    assert_eq!(again().await.status, 304);
    assert_eq!(app.get("/api/v1/profits").await.text, first.text, "from memory");
    app.publish_profits(&profits()[..4], 4).await;
    let next = again().await;
    assert_eq!((next.status, next.at("/data/totals/rows")), (200, &4.into()), "{}", next.text);
}

#[tokio::test]
async fn a_user_sees_the_own_profits_and_those_of_granted_sources() {
    let granted = HashMap::from([(Role::User, vec!["/shared".to_owned()])]);
    let app = TestApp::start_with(|settings| settings.serving.granted_sources = granted).await;
    let of = |company: &str, user: &str, source: &str| Profit {
        user: Some(user.to_owned()),
        source: source.to_owned(),
        ..profit(company, 2026, 1, 100)
    };
    let mine = app.user_id.clone();
    app.publish_profits(&[of("mine", &mine, "/a"), of("theirs", "x", "/a"), of("shared", "x", "/shared")], 3).await;
    let seen = app.get_as_user("/api/v1/profits").await;
    assert_eq!(seen.column("/data/profits", "company"), ["mine", "shared"]);
    assert_eq!(seen.at("/data/totals"), &json!({"rows": 2, "companies": 2, "profit": "2.00"}));
    assert_eq!(app.get_as_user("/api/v1/profits?company=theirs").await.at("/data/totals/rows"), 0);
    assert_eq!(app.get("/api/v1/profits").await.at("/data/totals/rows"), 3);
}

#[tokio::test]
async fn a_company_is_a_value_whatever_it_looks_like() {
    let app = TestApp::start().await;
    let odd = ["' OR 1=1 --", "\";", "/*", "%", "a'; DROP TABLE profits; --"];
    app.publish_profits(&odd.map(|company| profit(company, 2026, 1, 100)), 5).await;
    for company in odd {
        let coded: String = company.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = app.get(&format!("/api/v1/profits?company={coded}")).await;
        assert_eq!(reply.column("/data/profits", "company"), [company], "{}", reply.text);
    }
}
