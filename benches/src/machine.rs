//! Processor time and memory of this process, and the machine it runs on, from `/proc`.
//!
//! On a system without `/proc` the figures are missing, not wrong: measuring goes on.

use serde::Serialize;

/// The kernel's unit of processor time in `/proc`: `USER_HZ`, 100 on every Linux that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine, for the line above a table of results.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_gib: f64,
    /// Average number of runnable tasks over the last minute: how busy the machine was with other things.
    pub load: f64,
}

impl Machine {
    pub fn read() -> Self {
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal").and_then(number).unwrap_or(0.0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (memory_kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            load: read("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// Processor time of another process so far, in seconds; none when there is no such process.
pub fn cpu_seconds_of(process: u32) -> Option<f64> {
    cpu_of(&read(&format!("/proc/{process}/stat")))
}

/// Processor time of this process so far, all threads, user and system, in seconds.
pub fn cpu_seconds() -> f64 {
    cpu_of(&read("/proc/self/stat")).unwrap_or(0.0)
}

/// The most memory that this process held since its start or the last [`forget_peak_memory`], in MiB.
pub fn peak_memory_mib() -> f64 {
    field(&read("/proc/self/status"), "VmHWM").and_then(number).map_or(0.0, |kib| kib / 1024.0)
}

/// Starts [`peak_memory_mib`] anew, so that preparation does not count. Without the right to do so, it counts.
pub fn forget_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name: value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn number(text: String) -> Option<f64> {
    text.split(' ').next()?.parse().ok()
}

/// Fields 14 and 15 of a stat line, counted behind the program's name, which may hold blanks and brackets.
fn cpu_of(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = rest.split_ascii_whitespace().skip(11).take(2).map(|text| text.parse::<f64>().ok());
    Some(ticks.sum::<Option<f64>>()? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_program_name() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_of(stat), Some(3.0));
        assert_eq!(cpu_of(""), None);
    }

    #[test]
    fn fields_of_status_files_are_read_with_their_unit() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\n";
        assert_eq!(field(status, "VmHWM").and_then(number), Some(2048.0));
        assert_eq!(field(status, "VmRSS"), None);
    }
}
