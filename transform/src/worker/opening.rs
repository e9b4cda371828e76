//! How a pipeline of a worker begins: it ends an interrupted swap, rebuilds what another declaration made, and pauses when
//! that does not work.

use std::time::Instant;

use karat_lake::epochs::Epochs;
use karat_schemas::epoch::Epoch;

use super::pipeline::{Order, PipelineTask, build, tell};
use crate::{
    Error, Result,
    bronze::writer::now_us,
    journal::{Entry, Kind, column_changes},
    rebuild,
    runner::{Runner, RunnerSettings},
};

impl PipelineTask {
    /// Opens the runner; ends an interrupted swap, and rebuilds when the declaration changed.
    pub(super) async fn open(&self) -> Result<Runner> {
        if rebuild::finish_pending(&self.pipeline, &self.runner_settings().await?).await? {
            let entry = Entry::of(Kind::Replay, &self.pipeline.name).state("done");
            self.journal.note(entry.message("a swap that was interrupted is finished"));
        }
        match Runner::open(&self.pipeline, self.runner_settings().await?).await {
            Ok(mut runner) => {
                if runner.is_current().await? {
                    return Ok(runner);
                }
                runner.close()?;
            }
            Err(Error::Lake(karat_lake::Error::Schema { table, reason })) => {
                tracing::info!(table, reason, "the columns of a table changed");
            }
            Err(error) => return Err(error),
        }
        tracing::info!(
            pipeline = self.pipeline.name,
            "the declaration changed or the state is gone: silver and gold are rebuilt from bronze"
        );
        self.note_stale().await?;
        self.rebuild_in_place().await
    }

    /// Carries out an order to replay while there is no runner, and opens what came of it. When it fails, what was there
    /// is opened.
    pub(super) async fn open_rebuilt(&self, done: Order) -> Result<Runner> {
        self.journal.note(Entry::of(Kind::Replay, &self.pipeline.name).state("started").message("ordered"));
        match self.rebuild_in_place().await {
            Ok(runner) => {
                tell(Some(done), Ok(()), &self.pipeline.name);
                Ok(runner)
            }
            Err(error) => {
                let entry = Entry::of(Kind::Replay, &self.pipeline.name).state("failed").message(&error);
                self.journal.note(entry);
                tell(Some(done), Err(error), &self.pipeline.name);
                self.open().await
            }
        }
    }

    async fn rebuild_in_place(&self) -> Result<Runner> {
        let (began, settings) = (Instant::now(), self.runner_settings().await?);
        let shadow = build(&self.pipeline, &settings).await?;
        rebuild::swap(&self.pipeline, &settings, shadow).await?;
        let runner = Runner::open(&self.pipeline, self.runner_settings().await?).await?;
        self.announce(&runner).await;
        self.note_replayed(&runner, began, None);
        Ok(runner)
    }

    /// Where the pipeline reads, writes and notes, at its newest epoch.
    pub(super) async fn runner_settings(&self) -> Result<RunnerSettings> {
        let settings = self.settings.runner_settings(&self.pipeline).await?;
        Ok(RunnerSettings { journal: self.journal.clone(), ..settings })
    }

    /// Says once that the pipeline does not go on, and why: in the log, the event log, and an epoch of the same tables.
    pub(super) async fn pause(&mut self, error: &Error) {
        let name = &self.pipeline.name;
        let reason = error.to_string();
        if self.paused_for.as_ref() == Some(&reason) {
            return;
        }
        if error.may_pass() {
            tracing::error!(pipeline = name, %error, "paused; it is tried again");
        } else {
            tracing::error!(pipeline = name, %error, "paused; correct pipelines.toml and restart, or order a replay");
        }
        self.journal.note(Entry::of(Kind::Pause, name).message(&reason));
        match self.write_paused_epoch(error).await {
            Ok(Some(epoch)) => self.announce_epoch(epoch).await,
            Ok(None) => {}
            Err(unwritten) => tracing::warn!(pipeline = name, %unwritten, "the pause is in no epoch"),
        }
        self.paused_for = Some(reason);
    }

    async fn write_paused_epoch(&self, error: &Error) -> Result<Option<u64>> {
        let epochs = Epochs::of(&self.settings.lake, &self.pipeline.name)?;
        let last = epochs.latest().await?.unwrap_or_default();
        let paused = Some(error.for_clients());
        if last.paused == paused {
            return Ok(None);
        }
        let (pipeline, number) = (self.pipeline.name.clone(), last.epoch + 1);
        let epoch = Epoch { pipeline, epoch: number, written_at_us: now_us(), paused, ..last };
        Ok(epochs.put(&epoch).await?.then_some(number))
    }

    /// Notes that the tables are of another declaration, what changes in their columns, and the rebuild that follows.
    async fn note_stale(&self) -> Result<()> {
        let name = &self.pipeline.name;
        let mut entries =
            vec![Entry::of(Kind::Declaration, name).message("the declaration changed or the state is gone")];
        let changes = column_changes(&self.pipeline, &self.settings.lake).await?;
        entries.extend(
            changes
                .into_iter()
                .map(|(table, change)| Entry { table: Some(table), ..Entry::of(Kind::Schema, name).message(change) }),
        );
        entries.push(
            Entry::of(Kind::Replay, name).state("started").message("the declaration changed or the state is gone"),
        );
        self.journal.note_all(entries);
        Ok(())
    }

    pub(super) fn note_replayed(&self, runner: &Runner, began: Instant, failure: Option<&Error>) {
        let entry = Entry {
            epoch: Some(runner.last_epoch().epoch),
            generation: Some(runner.last_epoch().generation),
            bronze_to: Some(runner.position()),
            duration_us: u64::try_from(began.elapsed().as_micros()).ok(),
            ..Entry::of(Kind::Replay, &self.pipeline.name)
        };
        self.journal.note(match failure {
            None => entry.state("done"),
            Some(error) => entry.state("failed").message(error),
        });
    }
}
