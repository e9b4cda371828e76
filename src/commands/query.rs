//! `karat query`: read-only SQL over the published versions of every table.

use std::{process::ExitCode, sync::Arc};

use karat_lake::{
    arrow::{json::ArrayWriter, util::pretty::pretty_format_batches},
    datafusion::{
        catalog::MemorySchemaProvider,
        execution::context::SQLOptions,
        prelude::{SessionConfig, SessionContext},
    },
};

use super::table::{open_or_say, versions};
use crate::{
    cli::{Format, InstanceArgs},
    failure::{Failure, Result},
    instance::Instance,
};

pub async fn run(sql: &str, arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    let lake = instance.lake()?;
    let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    karat_transform::functions::register(&context);
    let catalog = context.catalog("datafusion").ok_or_else(|| Failure::usage("no catalog"))?;
    for layer in ["bronze", "silver", "gold", "quarantine", "_karat"] {
        catalog.register_schema(layer, Arc::new(MemorySchemaProvider::new()))?;
    }
    for (name, version) in versions(&instance, &lake).await? {
        let Some(table) = open_or_say(&lake, &name, version).await else { continue };
        context.register_table(name.as_str(), table.provider().await?)?;
    }
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let rows = context.sql_with_options(sql, read_only).await.map_err(Failure::usage)?.collect().await?;
    if format == Format::Json {
        let mut writer = ArrayWriter::new(Vec::new());
        rows.iter().try_for_each(|batch| writer.write(batch))?;
        writer.finish()?;
        super::print(&String::from_utf8_lossy(&writer.into_inner()));
    } else {
        super::print(&pretty_format_batches(&rows)?.to_string());
    }
    Ok(ExitCode::SUCCESS)
}
