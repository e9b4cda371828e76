//! The audit log and its chain.

use crate::support::{Instance, tamper};
use karat_access::{AuditFilter, ChainBreak};

/// Some log-ins, of which one fails: five rows.
async fn with_some_rows() -> Instance {
    let instance = Instance::start().await;
    instance.register("maria_77").await;
    instance.register("pedro_12").await;
    assert!(instance.login("maria_77", "wrong").await.is_err());
    let report = instance.access.verify_audit_log().await.unwrap();
    assert_eq!((report.broken, report.rows), (None, 5));
    instance
}

#[tokio::test]
async fn rows_come_newest_first_in_pages_and_by_filter() {
    let instance = with_some_rows().await;
    let access = &instance.access;
    let all = access.audit_log(&AuditFilter::default(), 100).await.unwrap();
    assert_eq!(all.iter().map(|row| row.seq).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    assert_eq!((all[0].action.as_str(), all[0].outcome.as_str()), ("login", "denied"));
    let page = AuditFilter { before: Some(4), ..AuditFilter::default() };
    assert_eq!(access.audit_log(&page, 2).await.unwrap().iter().map(|row| row.seq).collect::<Vec<_>>(), [3, 2]);
    let denied = AuditFilter { outcome: Some("denied".to_owned()), ..AuditFilter::default() };
    assert_eq!(access.audit_log(&denied, 100).await.unwrap().len(), 1);
    let maria = access.find_user_by_name("maria_77").await.unwrap().unwrap().id;
    let whom = AuditFilter { target: Some(maria), ..AuditFilter::default() };
    assert_eq!(access.audit_log(&whom, 100).await.unwrap().len(), 3);
}

#[tokio::test]
async fn security_82_the_audit_log_refuses_changes_and_an_edit_a_gap_or_a_cut_is_found() {
    let mut refused = vec!["UPDATE audit_log SET action = 'x'", "DELETE FROM audit_log"];
    if karat_oracle::databases::server().is_some_and(|server| server.starts_with("postgres")) {
        refused.push("TRUNCATE audit_log");
    }
    for sql in refused {
        let instance = with_some_rows().await;
        assert!(tamper(&instance.folder, sql).await.is_err(), "{sql}");
    }
    let cases = [
        ("UPDATE audit_log SET outcome = 'success' WHERE seq = 5", ChainBreak::Changed { seq: 5 }),
        ("UPDATE audit_log SET at = at + 1 WHERE seq = 2", ChainBreak::Changed { seq: 2 }),
        ("DELETE FROM audit_log WHERE seq = 3", ChainBreak::Missing { seq: 3 }),
        ("DELETE FROM audit_log WHERE seq = 5", ChainBreak::Head { expected: 5, found: 4 }),
    ];
    for (sql, expected) in cases {
        let instance = with_some_rows().await;
        drop_triggers(&instance).await;
        tamper(&instance.folder, sql).await.unwrap();
        assert_eq!(instance.access.verify_audit_log().await.unwrap().broken, Some(expected), "{sql}");
    }
}

#[tokio::test]
async fn rows_written_by_many_at_once_make_one_chain() {
    let instance = Instance::start().await;
    let other = instance.second_process().await;
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let access = if n % 2 == 0 { instance.access.clone() } else { other.clone() };
            let account = crate::support::account(&format!("person_{n}"));
            tokio::spawn(async move { access.register(account, &Default::default()).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let report = instance.access.verify_audit_log().await.unwrap();
    assert_eq!((report.broken, report.rows), (None, 80));
}

async fn drop_triggers(instance: &Instance) {
    for name in ["audit_log_is_never_updated", "audit_log_is_never_deleted"] {
        let on_table = karat_oracle::databases::server().is_some_and(|server| server.starts_with("postgres"));
        let sql = format!("DROP TRIGGER {name}{}", if on_table { " ON audit_log" } else { "" });
        tamper(&instance.folder, Box::leak(sql.into_boxed_str())).await.unwrap();
    }
}
