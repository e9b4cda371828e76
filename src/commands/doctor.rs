//! `karat migrate` and `karat doctor`: the accounts database, its schema and its audit log.

use std::process::ExitCode;

use karat_access::{ChainBreak, ChainReport};
use serde_json::json;

use crate::{
    cli::{Format, InstanceArgs},
    failure::{FAILED, Failure, Result},
    instance::Instance,
};

/// Opening the database is what brings it up to date.
pub async fn migrate(arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let address = Instance::new(arguments)?.access()?.database.address.to_string();
    let schema = super::accounts::open(arguments).await?.schema().await?;
    if format == Format::Json {
        super::print_json(&json!({"address": address, "engine": schema.engine, "migrations": schema.migrations}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let newest = schema.migrations.last().copied().unwrap_or_default();
    super::print(&format!("{address}: {}, schema {newest}, up to date", schema.engine));
    Ok(ExitCode::SUCCESS)
}

pub async fn run(arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let access = super::accounts::open(arguments).await?;
    let schema = access.schema().await?;
    let report = access.verify_audit_log().await?;
    let broken = report.broken.as_ref().map(describe);
    if format == Format::Json {
        let audit = json!({"rows": report.rows, "unchained": report.unchained, "head": report.head, "broken": broken});
        super::print_json(&json!({"engine": schema.engine, "migrations": schema.migrations, "audit_log": audit}))?;
    } else {
        super::print(&format!("accounts database: {}, schema {:?}", schema.engine, schema.migrations));
        super::print(&summary(&report));
    }
    match broken {
        None => Ok(ExitCode::SUCCESS),
        Some(what) => Err(Failure::new(
            FAILED,
            format!(
                "the audit log was changed behind karat's back: {what}; compare it with a backup and with the hash that \
                 an earlier `karat doctor` printed"
            ),
        )),
    }
}

fn summary(report: &ChainReport) -> String {
    let head = if report.head.is_empty() { "no rows yet" } else { &report.head };
    let older = match report.unchained {
        0 => String::new(),
        rows => format!(", {rows} older rows from before the chain"),
    };
    format!("audit log: {} rows in the chain{older}, head {head}", report.rows)
}

fn describe(broken: &ChainBreak) -> String {
    match broken {
        ChainBreak::Changed { seq } => format!("row {seq} is not what was written"),
        ChainBreak::Missing { seq } => format!("row {seq} is missing"),
        ChainBreak::Head { expected, found } => format!("the last row should be {expected}, found {found}"),
    }
}
