//! What the command tells: a progress bar on a terminal, rejected records on standard error, a summary at the end.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::item::Refusal;

/// Rejections in the JSON summary; standard error has all of them.
const MAX_LISTED: usize = 1_000;

/// Counts as they come and shows them.
pub(super) struct Report {
    bar: ProgressBar,
    read_bytes: Arc<AtomicU64>,
    started: Instant,
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    listed: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    file: String,
    line: u64,
    #[serde(flatten)]
    reason: Reason,
}

#[derive(Serialize)]
struct Reason {
    code: String,
    path: String,
    message: String,
}

#[derive(Serialize)]
struct Summary<'a> {
    records: u64,
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    errors: &'a [Listed],
    seconds: f64,
}

impl Report {
    /// `total_bytes` is the size of all files together, when it is known.
    pub fn new(total_bytes: Option<u64>, read_bytes: Arc<AtomicU64>) -> Self {
        let bar = match total_bytes {
            Some(total) if io::stderr().is_terminal() => {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
                let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {msg} {eta}");
                bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            }
            _ => ProgressBar::hidden(),
        };
        let (accepted, duplicates, rejected) = (0, 0, 0);
        Self { bar, read_bytes, started: Instant::now(), accepted, duplicates, rejected, listed: Vec::new() }
    }

    pub fn add(&mut self, accepted: u64, duplicates: u64) {
        self.accepted += accepted;
        self.duplicates += duplicates;
        self.bar.set_position(self.read_bytes.load(Ordering::Relaxed));
        self.bar.set_message(format!("{} sent", self.accepted + self.duplicates));
    }

    pub fn reject(&mut self, file: &Path, line: u64, refusal: Refusal) {
        self.rejected += 1;
        let Refusal { code, path, message } = refusal;
        let file = file.display().to_string();
        let place = if path.is_empty() { String::new() } else { format!(" at `{path}`") };
        let text = format!("{file}:{line}: `{code}`{place}: {message}");
        // Parts of it come from files and servers, which must not steer the terminal.
        let text = text.replace(char::is_control, " ");
        // Nothing can be done when standard error is gone.
        self.bar.suspend(|| writeln!(io::stderr(), "{text}").ok());
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Listed { file, line, reason: Reason { code, path, message } });
        }
    }

    pub fn has_rejected(&self) -> bool {
        self.rejected > 0
    }

    /// Prints the summary: JSON on standard output, text on standard error.
    pub fn finish(&self, as_json: bool) {
        self.bar.finish_and_clear();
        let elapsed = self.started.elapsed().max(Duration::from_millis(1));
        let (accepted, duplicates, rejected) = (self.accepted, self.duplicates, self.rejected);
        let (records, seconds) = (accepted + duplicates + rejected, elapsed.as_secs_f64());
        if as_json {
            let summary = Summary { records, accepted, duplicates, rejected, errors: &self.listed, seconds };
            let text = serde_json::to_string_pretty(&summary).unwrap_or_default();
            let _ = writeln!(io::stdout(), "{text}");
        } else {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = records as f64 / seconds;
            let _ = writeln!(
                io::stderr(),
                "{records} records: {accepted} accepted, {duplicates} duplicates, {rejected} rejected in {seconds:.1} s ({rate:.0}/s)"
            );
        }
    }
}
