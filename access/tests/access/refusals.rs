//! What the audit log keeps of refusals: each leaves a row, and a flood of them few.

use crate::factors::{code, enroll, ticket};
use crate::lockout::hold;
use crate::sms::with_messages;
use crate::support::{Instance, PASSWORD, secret, settings, tamper, who};
use karat_access::{
    Access, AccessError, AccessSettings, AuditFilter, AuditRow, Callback, Caller, Origin, Permission, ProfileChange,
    Role, SmsCaps, TokenFault,
};
use secrecy::ExposeSecret;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PHONE: &str = "+34600123456";
const NEW: &str = "other-Green-8-cars";

fn origin() -> Origin {
    Origin::new(Some("203.0.113.5".parse().unwrap()), Some("a browser"), Some("a-request"))
}

/// Rows that something left.
async fn rows_of<T>(access: &Access, work: impl Future<Output = T>) -> (T, Vec<AuditRow>) {
    let before = access.audit_log(&AuditFilter::default(), 1).await.unwrap().first().map_or(0, |row| row.seq);
    let result = work.await;
    let mut rows = access.audit_log(&AuditFilter::default(), 500).await.unwrap();
    rows.retain(|row| row.seq > before);
    (result, rows)
}

/// Does something that must be refused, and leave one row that says so; answers the row.
async fn refused<T: Debug>(
    access: &Access,
    way: &str,
    action: &str,
    work: impl Future<Output = Result<T, AccessError>>,
) -> AuditRow {
    let (result, mut rows) = rows_of(access, work).await;
    assert!(result.is_err(), "{way}: {result:?}");
    assert_eq!(rows.len(), 1, "{way}: {result:?} {rows:?}");
    let row = rows.remove(0);
    assert_eq!((row.action.as_str(), row.outcome.as_str()), (action, "denied"), "{way}: {result:?}");
    let from = (row.ip.as_deref(), row.user_agent.as_deref(), row.request_id.as_deref());
    assert_eq!(from, (Some("203.0.113.5"), Some("a browser"), Some("a-request")), "{way}");
    row
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<(), AccessError>> + 'a>>;

/// A callback that no browser of ours began.
fn made_up_callback(state: &str) -> Callback {
    Callback {
        provider: "github".to_owned(),
        code: secret("x"),
        state: state.to_owned(),
        iss: None,
        cookie: secret("x"),
    }
}

#[tokio::test]
async fn security_81_every_refusal_leaves_one_row() {
    let (mut instance, service) = with_messages().await;
    let strict = AccessSettings { sms: service.settings(), refreshes_per_hour: Some(1), ..settings(&instance.folder) };
    instance.access = Access::open(strict).await.unwrap();
    let (access, origin) = (&instance.access, origin());
    let pair = instance.register("maria_77").await;
    let maria = Some(pair.user.id);
    let caller = who(access, &pair).await.unwrap();

    let login = |name: &'static str, password: &'static str| access.login(name, secret(password), &origin);
    assert_eq!(refused(access, "a wrong password", "login", login("maria_77", "wrong")).await.target_id, maria);
    assert_eq!(refused(access, "an unknown name", "login", login("nobody_1", "wrong")).await.target_id, None);

    wrong_passwords_of_a_session(&instance, &caller, &origin).await;
    wrong_codes_and_links(&instance, &caller, &origin).await;

    let request = access.request_phone_code(PHONE, &origin).await.unwrap();
    let right = service.code_for(PHONE, 1).await;
    let wrong = if right == "000000" { "000001" } else { "000000" };
    refused(access, "a wrong code", "login", access.login_by_phone(PHONE, &request, wrong, &origin)).await;
    let link = access.link_phone(&caller, PHONE, &request, wrong, Some(secret(PASSWORD)), &origin);
    assert_eq!(refused(access, "a wrong code to link", "phone_link", link).await.actor_id, maria);

    let next = access.refresh(&pair.refresh_token, &origin).await.unwrap();
    let row = refused(access, "too many refreshes", "refresh", access.refresh(&next.refresh_token, &origin)).await;
    assert_eq!(row.target_id, caller.session());
    let reuse = access.refresh(&pair.refresh_token, &origin);
    assert_eq!(refused(access, "a used token", "refresh_reuse", reuse).await.target_id, maria);
    let made_up = secret("0123456789");
    refused(access, "an unknown refresh token", "refresh", access.refresh(&made_up, &origin)).await;

    let admin = instance.user("admin_a", Role::Admin).await;
    let admin_caller = who(access, &instance.login("admin_a", PASSWORD).await.unwrap()).await.unwrap();
    let own = access.set_role_of(&admin_caller, admin.id, Role::User, &origin);
    assert_eq!(refused(access, "the own role", "role_set", own).await.target_id, Some(admin.id));
    let own = access.delete_user(&admin_caller, admin.id, &origin);
    assert_eq!(refused(access, "an own account by the wrong route", "user_delete", own).await.actor_id, Some(admin.id));
    let denied = async {
        access.note_access_denied(&caller, Permission::ReadUsers, &origin).await;
        caller.require(Permission::ReadUsers)
    };
    let row = refused(access, "a missing permission", "access_denied", denied).await;
    assert_eq!((row.actor_id, row.details.unwrap()["permission"].as_str()), (maria, Some("read_users")));
    let callback = access.finish_oauth(made_up_callback("x"), &origin);
    refused(access, "a callback that was not begun here", "oauth_login", callback).await;

    let closed = AccessSettings { registration_open: false, ..settings(&instance.folder) };
    let closed = Access::open(closed).await.unwrap();
    let register = closed.register(crate::support::account("pedro_12"), &origin);
    refused(&closed, "closed registration", "register", register).await;
}

/// Everything that asks for the password again.
async fn wrong_passwords_of_a_session(instance: &Instance, caller: &Caller, origin: &Origin) {
    let access = &instance.access;
    let wrong = || Some(secret("wrong"));
    let version = access.find_user(caller.id).await.unwrap().unwrap().version;
    let change = || ProfileChange {
        email: Some("new@example.org".to_owned()),
        current_password: wrong(),
        version,
        ..ProfileChange::default()
    };
    let ways: [(&str, Work<'_>); 11] = [
        ("password_change", Box::pin(access.change_password(caller, wrong(), secret(NEW), origin))),
        ("user_delete", Box::pin(async { access.delete_own_account(caller, wrong(), origin).await.map(drop) })),
        ("user_update", Box::pin(async { access.update_own_account(caller, change(), origin).await.map(drop) })),
        ("mfa_enroll", Box::pin(async { access.enroll_totp(caller, wrong(), origin).await.map(drop) })),
        ("mfa_remove", Box::pin(access.remove_totp(caller, wrong(), origin))),
        (
            "phone_link",
            Box::pin(async { access.link_phone(caller, PHONE, "x", "000000", wrong(), origin).await.map(drop) }),
        ),
        ("phone_unlink", Box::pin(async { access.unlink_phone(caller, wrong(), origin).await.map(drop) })),
        ("oauth_link", Box::pin(async { access.begin_oauth_link(caller, "any", wrong(), origin).await.map(drop) })),
        ("oauth_unlink", Box::pin(access.unlink_oauth(caller, "any", wrong(), origin))),
        ("passkey_add", Box::pin(async { access.begin_passkey(caller, wrong(), origin).await.map(drop) })),
        ("passkey_remove", Box::pin(access.remove_passkey(caller, caller.id, wrong(), origin))),
    ];
    for (action, work) in ways {
        // The wait after five wrong ones is looked at below.
        tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
        let row = refused(access, "the wrong password", action, work).await;
        assert_eq!((row.actor_id, row.target_id, row.details), (Some(caller.id), Some(caller.id), None), "{action}");
    }
    let too_long = Some(secret(&"x".repeat(10_000)));
    refused(access, "a password too long to be one", "mfa_remove", access.remove_totp(caller, too_long, origin)).await;
    // Without a password the log-in stands for it, and this one is too old.
    tamper(&instance.folder, "UPDATE sessions SET created_at = created_at - 360000000").await.unwrap();
    tamper(&instance.folder, "UPDATE users SET full_name = password_hash, password_hash = NULL").await.unwrap();
    let stale = access.change_password(caller, None, secret(NEW), origin);
    refused(access, "an old log-in", "password_change", stale).await;
    tamper(&instance.folder, "UPDATE users SET password_hash = full_name, full_name = NULL").await.unwrap();
    tamper(&instance.folder, "DELETE FROM attempts").await.unwrap();
}

/// Second factors and links.
async fn wrong_codes_and_links(instance: &Instance, caller: &Caller, origin: &Origin) {
    let access = &instance.access;
    access.enroll_totp(caller, Some(secret(PASSWORD)), origin).await.unwrap();
    refused(access, "a wrong first code", "mfa_confirm", access.confirm_totp(caller, "x", origin)).await;
    access.remove_totp(caller, Some(secret(PASSWORD)), origin).await.unwrap();

    let enrolled = enroll(instance, "pedro_12").await;
    let of_pedro = ticket(instance, "pedro_12").await;
    let step = access.login_with_factor(&of_pedro, "x", origin);
    assert_eq!(refused(access, "a wrong second code", "login_mfa", step).await.target_id, Some(enrolled.caller.id));
    access.login_with_factor(&of_pedro, &code(&enrolled.secret, 1), origin).await.unwrap();
    let recovery = enrolled.recovery[0].expose_secret();
    let again = access.login_with_factor(&of_pedro, recovery, origin);
    refused(access, "a ticket that was used", "login_mfa", again).await;

    let made_up = secret("0123456789");
    let reset = access.confirm_password_reset(&made_up, secret(NEW), origin);
    refused(access, "an unknown link to reset", "password_reset", reset).await;
    refused(access, "an unknown link to confirm", "email_verify", access.verify_email(&made_up, origin)).await;
}

#[tokio::test]
async fn security_81_being_told_to_wait_leaves_a_row_too() {
    let (instance, _service) = with_messages().await;
    let (access, origin) = (&instance.access, origin());
    let caller = who(access, &instance.register("maria_77").await).await.unwrap();
    let maria = Some(caller.id);
    let change = ProfileChange {
        email: Some("maria@example.org".to_owned()),
        current_password: Some(secret(PASSWORD)),
        version: access.find_user(caller.id).await.unwrap().unwrap().version,
        ..ProfileChange::default()
    };
    access.update_own_account(&caller, change, &origin).await.unwrap();
    let enrolled = enroll(&instance, "pedro_12").await;
    let of_pedro = ticket(&instance, "pedro_12").await;
    let request = access.request_phone_code("+34600999999", &origin).await.unwrap();
    let login = || access.login("maria_77", secret("wrong"), &origin);
    let second = || access.login_with_factor(&of_pedro, "x", &origin);
    let by_phone = || access.login_by_phone("+34600999999", &request, "x", &origin);
    for _ in 0..5 {
        assert!(login().await.is_err() && second().await.is_err() && by_phone().await.is_err());
        access.request_phone_code(PHONE, &origin).await.unwrap();
        access.request_password_reset("nobody@example.org", &origin).await.unwrap();
        let (asked, rows) = rows_of(access, access.request_verification(&caller, &origin)).await;
        asked.unwrap();
        let rows: Vec<_> = rows.iter().filter(|row| row.action == "email_verify_request").collect();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].outcome.as_str(), rows[0].actor_id), ("success", maria));
    }
    hold(&instance).await;

    let rows = [
        refused(access, "a log-in", "login", login()).await,
        refused(access, "the second step", "login_mfa", second()).await,
        refused(access, "a code to a telephone", "login", by_phone()).await,
        refused(access, "asking for a code", "phone_code_request", access.request_phone_code(PHONE, &origin)).await,
        refused(
            access,
            "asking for a link to reset",
            "password_reset_request",
            access.request_password_reset("nobody@example.org", &origin),
        )
        .await,
        refused(
            access,
            "asking for a link to confirm",
            "email_verify_request",
            access.request_verification(&caller, &origin),
        )
        .await,
    ];
    for row in &rows {
        assert_eq!(row.details.as_ref().unwrap()["reason"], "too_many_attempts", "{row:?}");
    }
    let targets: Vec<_> = rows.iter().map(|row| row.target_id).collect();
    assert_eq!(targets, [maria, Some(enrolled.caller.id), None, None, None, maria]);
}

#[tokio::test]
async fn security_81_a_flood_of_refusals_writes_few_rows() {
    const FLOOD: usize = 100;
    let instance = Instance::start().await;
    let (access, origin) = (&instance.access, origin());
    let caller = who(access, &instance.register("maria_77").await).await.unwrap();
    for _ in 0..5 {
        assert!(access.login("maria_77", secret("wrong"), &origin).await.is_err());
    }
    hold(&instance).await;
    let began = Instant::now();
    let flood = async {
        for n in 0..FLOOD {
            let made_up = secret(&format!("{n:064x}"));
            assert!(access.login("maria_77", secret("wrong"), &origin).await.is_err());
            assert!(access.login_with_factor(&made_up, "000000", &origin).await.is_err());
            assert!(access.refresh(&made_up, &origin).await.is_err());
            assert!(access.verify_email(&made_up, &origin).await.is_err());
            assert!(access.confirm_password_reset(&made_up, secret(NEW), &origin).await.is_err());
            assert!(access.finish_oauth(made_up_callback(&n.to_string()), &origin).await.is_err());
            assert!(access.login_by_phone(PHONE, &n.to_string(), "000000", &origin).await.is_err());
            access.note_access_denied(&caller, Permission::ReadUsers, &origin).await;
            access.note_access_denied(&caller, Permission::SetRoles, &origin).await;
        }
    };
    let ((), rows) = rows_of(access, flood).await;
    // One a minute of each kind: the wait, the ticket, the refresh, two links, the callback, the code, two permissions.
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap() + 1;
    assert!((9..=9 * minutes).contains(&rows.len()), "{} rows in {minutes} minutes: {rows:?}", rows.len());
    // In parallel, and in another network: a row more for that.
    let elsewhere = Origin::new(Some("203.0.113.6".parse().unwrap()), None, None);
    let flood = async {
        let tasks: Vec<_> = (0..FLOOD)
            .map(|n| {
                let (access, elsewhere) = (access.clone(), elsewhere.clone());
                tokio::spawn(async move { access.refresh(&secret(&format!("{n:064x}")), &elsewhere).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().is_err());
        }
    };
    let began = Instant::now();
    let ((), rows) = rows_of(access, flood).await;
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap() + 1;
    assert!((1..=minutes).contains(&rows.len()), "{rows:?}");
}

/// What asking for codes to these numbers came to, in order; none when the hour of the clock changed meanwhile, with which
/// the counts begin anew.
async fn asked_in_one_hour(access: &Access, numbers: &[String]) -> Option<Vec<bool>> {
    let hour = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
    let (before, mut sent) = (hour(), Vec::new());
    for number in numbers {
        sent.push(match access.request_phone_code(number, &origin()).await {
            Ok(_) => true,
            Err(AccessError::TooManyAttempts { retry_after }) => {
                assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(3600), "{retry_after:?}");
                false
            }
            Err(error) => panic!("{number}: {error}"),
        });
    }
    (hour() == before).then_some(sent)
}

#[tokio::test]
async fn security_36_messages_of_an_hour_are_capped_by_country_and_in_total() {
    // Spain has its three, the United Kingdom too, and those are all that there are.
    let number = |country: &str, n: usize| format!("+{country}60012345{n}");
    let mut numbers: Vec<String> = (0..4).map(|n| number("34", n)).collect();
    numbers.extend((0..3).map(|n| number("44", n)));
    numbers.extend((0..20).flat_map(|n| [number("34", n % 10), number("49", n % 10)]));
    let is_sent = |n: usize| n < 3 || (4..7).contains(&n);
    loop {
        let (mut instance, service) = with_messages().await;
        let sms_caps = SmsCaps { per_hour: 6, per_country_hour: 3 };
        let capped = AccessSettings { sms: service.settings(), sms_caps, ..settings(&instance.folder) };
        instance.access = Access::open(capped).await.unwrap();
        let began = Instant::now();
        let (sent, rows) = rows_of(&instance.access, asked_in_one_hour(&instance.access, &numbers)).await;
        let Some(sent) = sent else { continue };
        let expected: Vec<bool> = (0..numbers.len()).map(is_sent).collect();
        assert_eq!(sent, expected);
        let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap() + 1;
        for cap in ["+34", "all"] {
            let of_cap = rows.iter().filter(|row| {
                let details = row.details.as_ref();
                row.action == "phone_code_request"
                    && row.outcome == "denied"
                    && details.is_some_and(|d| d["cap"] == cap)
            });
            let count = of_cap.count();
            assert!((1..=minutes).contains(&count), "{cap}: {count} rows in {minutes} minutes: {rows:?}");
        }
        break;
    }
}

#[tokio::test]
async fn what_a_cap_of_messages_refuses_does_not_count_for_its_number() {
    // The first takes what there is; the other one is asked for more often than a number gets messages in an hour.
    let mut numbers = vec![PHONE.to_owned()];
    numbers.extend((0..6).map(|_| "+34600123457".to_owned()));
    loop {
        let (mut instance, service) = with_messages().await;
        let sms_caps = SmsCaps { per_country_hour: 1, ..SmsCaps::default() };
        let capped = AccessSettings { sms: service.settings(), sms_caps, ..settings(&instance.folder) };
        instance.access = Access::open(capped).await.unwrap();
        let Some(sent) = asked_in_one_hour(&instance.access, &numbers).await else { continue };
        assert_eq!(sent, [true, false, false, false, false, false, false]);
        // As when the hour is over.
        tamper(&instance.folder, "DELETE FROM attempts WHERE name LIKE 'sms-cap:%'").await.unwrap();
        instance.access.request_phone_code("+34600123457", &origin()).await.unwrap();
        break;
    }
}

#[tokio::test]
async fn security_81_a_flood_of_credentials_that_do_not_hold_writes_a_row_a_minute_for_each_network() {
    let instance = Instance::start().await;
    let (access, origin) = (&instance.access, origin());
    let elsewhere = Origin::new(Some("203.0.113.6".parse().unwrap()), None, None);
    let began = Instant::now();
    let flood = async {
        for _ in 0..100 {
            access.note_bad_credential(TokenFault::Missing, &origin).await;
            access.note_bad_credential(TokenFault::Invalid, &origin).await;
            access.note_bad_credential(TokenFault::Expired, &origin).await;
            access.note_bad_credential(TokenFault::Invalid, &elsewhere).await;
        }
    };
    let ((), rows) = rows_of(access, flood).await;
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap() + 1;
    assert!((3..=3 * minutes).contains(&rows.len()), "{rows:?}");
    assert!(rows.iter().all(|row| row.action == "credential_refused" && row.outcome == "denied"), "{rows:?}");
}

#[tokio::test]
async fn security_81_a_flood_from_many_networks_leaves_few_rows_and_how_many_more_it_was() {
    const NETWORKS: u64 = 300;
    const ROWS_A_MINUTE: usize = 120;
    let instance = Instance::start().await;
    let access = &instance.access;
    let maria = instance.register("maria_77").await.user.id;
    let began = Instant::now();
    let flood = async {
        for n in 0..NETWORKS {
            let from = format!("2001:db8:1:{n:x}::1").parse().unwrap();
            access.note_bad_credential(TokenFault::Invalid, &Origin::new(Some(from), None, None)).await;
        }
        // Other actions have rows of their own all the same.
        assert!(access.login("maria_77", secret("wrong"), &origin()).await.is_err());
        assert!(access.refresh(&secret("0123456789"), &origin()).await.is_err());
        access.flush().await.unwrap();
    };
    let ((), rows) = rows_of(access, flood).await;
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap() + 1;
    assert_eq!(rows.iter().filter(|row| row.action == "login" && row.target_id == Some(maria)).count(), 1, "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row.action == "refresh").count(), 1, "{rows:?}");
    let of_flood: Vec<_> = rows.iter().filter(|row| row.action == "credential_refused").collect();
    let left_out = of_flood.iter().filter_map(|row| row.details.as_ref()?["left_out"].as_u64());
    let (sums, left_out) = (left_out.clone().count(), left_out.sum::<u64>());
    let single = of_flood.len() - sums;
    assert_eq!(u64::try_from(single).unwrap() + left_out, NETWORKS, "{of_flood:?}");
    assert!((ROWS_A_MINUTE..=ROWS_A_MINUTE * minutes).contains(&single), "{single} rows in {minutes} minutes");
    assert!(access.verify_audit_log().await.unwrap().broken.is_none());
    // What was told is told once.
    let ((), rows) = rows_of(access, async { access.flush().await.unwrap() }).await;
    assert!(rows.is_empty(), "{rows:?}");
}

#[tokio::test]
async fn rows_are_found_by_time() {
    let instance = Instance::start().await;
    instance.register("maria_77").await;
    instance.register("pedro_12").await;
    let access = &instance.access;
    let all = access.audit_log(&AuditFilter::default(), 10).await.unwrap();
    let (newest, oldest) = (all[0].at_us, all[all.len() - 1].at_us);
    let between = async |from_us, to_us| {
        let filter = AuditFilter { from_us: Some(from_us), to_us: Some(to_us), ..AuditFilter::default() };
        access.audit_log(&filter, 10).await.unwrap()
    };
    assert_eq!(between(oldest, newest + 1).await, all);
    let without_newest = between(oldest, newest).await;
    assert!(!without_newest.is_empty() && without_newest.iter().all(|row| row.at_us < newest));
    assert!(between(newest + 1, i64::MAX).await.is_empty());
}
