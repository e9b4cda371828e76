//! `karat topic accept`: goes on with a topic that is not as the tables know it.

use std::process::ExitCode;

use karat_transform::bronze::{source::accept, table_name};

use super::{note, print_json, print_table};
use crate::{
    cli::{Format, InstanceArgs, TopicCommand},
    failure::{Failure, Result},
    instance::Instance,
};

pub async fn run(command: TopicCommand) -> Result<ExitCode> {
    let TopicCommand::Accept { topic, instance, format } = command;
    accept_topic(&topic, &instance, format).await
}

async fn accept_topic(topic: &str, arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    if !instance.pipelines.topics.iter().any(|declared| declared.name == topic) {
        return Err(Failure::usage(format!("no topic is named `{topic}` in the pipelines")));
    }
    // Nobody else works on this folder meanwhile.
    let _lock = instance.lock()?;
    let (log, lake) = (instance.log().await?, instance.lake()?);
    let accepted = accept(log.as_ref(), &lake, &instance.pipelines, topic).await?;
    if format == Format::Json {
        print_json(&accepted)?;
        return Ok(ExitCode::SUCCESS);
    }
    if accepted.is_empty() {
        note(&format!("every position of `{}` is in the topic: nothing was moved", table_name(topic)));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = accepted
        .iter()
        .map(|moved| {
            [i64::from(moved.partition), moved.wanted, moved.next, moved.missing].map(|n| n.to_string()).to_vec()
        })
        .collect();
    print_table(&["partition", "wanted", "next", "missing"], &rows);
    note("start the transform processes, and restart the doors: they remember the old positions");
    Ok(ExitCode::SUCCESS)
}
