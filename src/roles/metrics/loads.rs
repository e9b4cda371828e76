//! How full queues are and how far pipelines are, asked when somebody reads.

use std::{fmt, sync::Arc};

use karat_access::Access;
use karat_api::serving::ServingCounters;
use karat_eventlog::EventLog;
use karat_ingest::door::Budget;
use karat_schemas::clock;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::roles::notices::{PipelineLag, Watcher};

/// How busy the hashing of passwords is.
pub struct Hashing(pub Access);

/// What bodies of requests in flight have reserved.
pub struct Door(pub Budget);

/// How the data routes answer.
pub struct Serving(pub Arc<ServingCounters>);

/// What waits before the log.
pub struct Log(pub Arc<dyn EventLog>);

/// How far each pipeline is behind the log.
pub struct Pipelines(pub Arc<Watcher>);

macro_rules! named {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(stringify!($name))
            }
        }
    )*};
}

named!(Hashing, Door, Serving, Log, Pipelines);

impl Collector for Hashing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let load = self.0.hash_load();
        let gauges = [
            ("password_hashes_running", "Password hashes that are computed now", load.running as u64),
            ("password_hashes_parallel", "The most password hashes that run at a time", load.parallel as u64),
            ("password_hashes_waiting", "Requests that wait for their password hash", load.waiting as u64),
        ];
        let counters = [
            ("password_hashes", "Password hashes computed", load.done),
            ("password_hashes_refused", "Requests refused because too many waited for a password hash", load.refused),
        ];
        write(&mut encoder, &gauges, &counters)
    }
}

impl Collector for Serving {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let load = self.0.load();
        let gauges = [
            ("answer_cache_answers", "Rendered answers that are kept", load.answers),
            ("answer_cache_bytes", "Memory of the kept answers", load.bytes),
            ("questions_running", "Folds, scans and questions in SQL that run now", load.running),
            ("questions_waiting", "Folds and scans that wait for their turn", load.waiting),
        ];
        let counters = [
            ("answer_cache_hits", "Answers that were kept", load.hits),
            ("answer_cache_misses", "Answers that were rendered", load.misses),
            ("answer_cache_shared", "Requests that waited for the rendering of another one", load.shared),
            ("answer_cache_not_modified", "Requests whose client had the answer", load.not_modified),
            ("answer_cache_evictions", "Answers that made room, or were too large to be kept", load.evictions),
            ("questions_refused", "Folds and scans refused because too many waited", load.refused),
        ];
        write(&mut encoder, &gauges, &counters)
    }
}

impl Collector for Door {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What bodies of publishing requests may take together";
        gauge(&mut encoder, "door_budget_bytes", help, self.0.size_bytes())?;
        let help = "What bodies of publishing requests in flight have reserved";
        gauge(&mut encoder, "door_reserved_bytes", help, self.0.reserved_bytes())
    }
}

impl Collector for Log {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let waiting = self.0.waiting();
        if let Some(bytes) = waiting.bytes {
            gauge(&mut encoder, "log_waiting_bytes", "Appends that the embedded log has not on disk yet", bytes)?;
        }
        if let Some(records) = waiting.records {
            gauge(&mut encoder, "log_waiting_records", "Records that Kafka has not acknowledged yet", records)?;
        }
        Ok(())
    }
}

/// Name, help, and the value of a pipeline that has one.
type Family<'a> = (&'a str, &'a str, &'a dyn Fn(&PipelineLag) -> Option<f64>);

impl Collector for Pipelines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (pipelines, now_us) = (self.0.pipelines(), clock::now_us());
        let families: [Family; 6] = [
            ("pipeline_lag_records", "Records of the log that the newest epoch does not cover", &|of| {
                of.records.map(|records| records as f64)
            }),
            ("pipeline_lag_seconds", "Age of the oldest record that the newest epoch does not cover, else 0", &|of| {
                of.lag_us(now_us).map(seconds)
            }),
            ("pipeline_epoch", "Number of the newest epoch", &|of| Some(of.newest.number as f64)),
            ("pipeline_epoch_written_timestamp_seconds", "When the newest epoch was written", &|of| {
                (of.newest.number > 0).then(|| seconds(of.newest.written_at_us))
            }),
            ("pipeline_as_of_timestamp_seconds", "Newest event time in the newest epoch", &|of| {
                of.newest.as_of_us.map(seconds)
            }),
            ("pipeline_paused", "1 when the newest epoch says that the pipeline waits for somebody", &|of| {
                Some(f64::from(u8::from(of.newest.is_paused)))
            }),
        ];
        for (name, help, value) in families {
            let known: Vec<_> = pipelines.iter().filter_map(|of| Some((of.pipeline.as_str(), value(of)?))).collect();
            if known.is_empty() {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (pipeline, value) in known {
                ConstGauge::new(value).encode(family.encode_family(&[("pipeline", pipeline)])?)?;
            }
        }
        Ok(())
    }
}

/// Name, help, value.
type Figure = (&'static str, &'static str, u64);

fn write(encoder: &mut DescriptorEncoder<'_>, gauges: &[Figure], counters: &[Figure]) -> fmt::Result {
    for (name, help, value) in gauges {
        gauge(encoder, name, help, *value)?;
    }
    for (name, help, value) in counters {
        let counter = ConstCounter::new(*value);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn the_answers_and_the_questions_are_in_the_metrics() {
        let mut registry = Registry::with_prefix("karat");
        registry.register_collector(Box::new(Serving(Arc::default())));
        let mut written = String::new();
        text::encode(&mut written, &registry).unwrap();
        for name in ["answer_cache_hits_total", "answer_cache_bytes", "questions_waiting", "questions_refused_total"] {
            let line = format!("karat_{name} 0");
            assert!(written.lines().any(|found| found == line), "{line}: {written}");
        }
    }
}
