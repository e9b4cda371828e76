//! One step of a pipeline: computed, committed to the tables, named by an epoch, and then kept in the state.

use std::{collections::BTreeMap, time::Instant};

use karat_schemas::epoch::Epoch;
use karat_telemetry::metrics;

use super::{AS_OF, BRONZE_HASH, FINGERPRINT, POSITION, Runner, SWAP};
use crate::{
    Error, Result,
    bronze::writer::now_us,
    figures::StepFigures,
    journal::{StepEnd, StepNote},
    shape::Shaped,
    step::{self, StepCounts},
    traces::Part,
};

/// Manifests kept for readers that hold on to an epoch with a cursor.
const KEPT_EPOCHS: u64 = 10_000;

impl Runner {
    /// Takes shaped rows up to `version` through the tables, the epoch and the state. Tables that are `done` with it already take
    /// none.
    pub(super) async fn step_to(
        &mut self,
        version: u64,
        shaped: Shaped,
        positions: BTreeMap<u32, i64>,
        done: &BTreeMap<String, u64>,
    ) -> Result<()> {
        let began = Instant::now();
        let mut step = self.store.begin();
        let has = |table: &str| done.get(table).is_some_and(|reached| *reached >= version);
        let mut appending = self.tables.appending(has);
        let output = step::run(&mut self.plan, &mut step, shaped, &mut appending).await?;
        let counts = output.counts.clone();
        let figures = StepFigures::of(&output)?;
        let paused = output.paused_by.clone();
        self.as_of_us = self.as_of_us.max(output.as_of_us);
        let journal = self.settings.journal.clone();
        let note = journal.is_on().then(|| StepNote::new(&self.plan.name, &output, self.tables.versions()));
        let computed = Instant::now();
        let position = self.position_at(version).await?;
        self.point("step.computed").await;
        let commits = self.tables.commit(&mut step, &mut self.plan, output, appending, position, has).await?;
        step.put_meta(POSITION, &version)?;
        step.put_meta(AS_OF, &self.as_of_us)?;
        step.put_meta(FINGERPRINT, &self.plan.fingerprint)?;
        step.put_meta(BRONZE_HASH, &position.hash)?;
        step.put_meta(SWAP, &self.swap.unwrap_or_default())?;
        let writes = step.into_writes();
        let committed = Instant::now();
        self.covered.extend(positions);
        self.point("step.committed").await;
        if self.settings.writes_epochs {
            let is_new = self.write_epoch(version, paused).await?;
            let written = Part { name: "epoch", began: committed, took: committed.elapsed() };
            if is_new {
                figures.count(&self.plan.name, &counts);
                figures.trace(&self.plan.name, self.last.epoch, began, &commits, written);
            }
        }
        let announced = Instant::now();
        self.point("step.published").await;
        self.store.apply(&writes)?;
        self.point("step.applied").await;
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.take(version, writes).await;
        }
        let bronze_from = std::mem::replace(&mut self.position, version);
        if let Some(note) = note {
            journal.note_all(note.entries(&StepEnd {
                pipeline: &self.plan.name,
                epoch: self.last.epoch,
                generation: self.settings.generation,
                bronze_from,
                bronze_to: version,
                is_again: !done.is_empty(),
                counts: &counts,
                versions: self.tables.versions(),
                whole: began.elapsed(),
                compute: computed - began,
                commit: committed - computed,
            }));
        }
        tracing::debug!(
            pipeline = self.plan.name,
            version,
            events = counts.events,
            compute = ?(computed - began),
            tables = ?(committed - computed),
            epoch = ?(announced - committed),
            state = ?announced.elapsed(),
            "step"
        );
        add_counts(&mut self.totals, &counts);
        Ok(())
    }

    /// False when it was there before.
    async fn write_epoch(&mut self, version: u64, paused: Option<String>) -> Result<bool> {
        if self.last.bronze_version >= version && self.last.generation == self.settings.generation {
            return Ok(false);
        }
        let epoch = Epoch {
            pipeline: self.plan.name.clone(),
            epoch: self.last.epoch + 1,
            tables: self.tables.versions(),
            as_of_us: self.as_of_us,
            bronze_version: version,
            positions: self.covered.clone(),
            written_at_us: now_us(),
            generation: self.settings.generation,
            paused: paused.map(|rule| format!("rule `{rule}` was broken")),
            moved: self.last.moved_after(version),
        };
        self.put_epoch(epoch).await.map(|()| true)
    }

    pub(super) async fn put_epoch(&mut self, epoch: Epoch) -> Result<()> {
        let began = Instant::now();
        if !self.epochs.put(&epoch).await? {
            return Err(Error::EpochTaken { pipeline: epoch.pipeline, epoch: epoch.epoch });
        }
        metrics().committed("epoch", began.elapsed());
        if epoch.epoch.is_multiple_of(256) {
            self.epochs.remove_before(epoch.epoch.saturating_sub(KEPT_EPOCHS)).await;
        }
        self.last = epoch;
        Ok(())
    }
}

fn add_counts(totals: &mut StepCounts, counts: &StepCounts) {
    totals.events += counts.events;
    totals.silver += counts.silver;
    totals.duplicates += counts.duplicates;
    totals.quarantined += counts.quarantined;
    totals.dropped += counts.dropped;
    for (rule, count) in &counts.rules {
        *totals.rules.entry(rule.clone()).or_default() += count;
    }
}
