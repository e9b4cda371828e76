//! The packed form of a row: the numbers that are not zero, then durations, then, in a roll-up, its jobs.
//!
//! Whole numbers are varints (LEB128, signed ones in zigzag form). A set of bits in front says which numbers follow, so
//! that the many zeros cost a bit each. The form lives in memory only and may change with any version. Equal rows have
//! equal bytes.

use super::{Counts, Numbers};

const NUM_COUNTS: usize = 11;
const REVISION: u16 = 1 << NUM_COUNTS;
const REVISED: u16 = 1 << (NUM_COUNTS + 1);

/// Writes the head of a row.
pub(crate) fn write_numbers(out: &mut Vec<u8>, numbers: &Numbers) {
    let counts = to_array(&numbers.counts);
    let mut present = 0u16;
    for (at, count) in counts.iter().enumerate() {
        present |= u16::from(*count != 0) << at;
    }
    if numbers.revision != 0 {
        present |= REVISION;
    }
    if numbers.revised_at_us.is_some() {
        present |= REVISED;
    }
    out.extend_from_slice(&present.to_le_bytes());
    counts.iter().filter(|count| **count != 0).for_each(|count| write_signed(out, *count));
    if numbers.revision != 0 {
        write_signed(out, numbers.revision);
    }
    if let Some(at) = numbers.revised_at_us {
        write_signed(out, at);
    }
}

/// Reads what [`write_numbers`] wrote and moves `bytes` behind it.
pub(crate) fn read_numbers(bytes: &mut &[u8]) -> Numbers {
    let present = read_present(bytes);
    let mut counts = [0; NUM_COUNTS];
    for (at, count) in counts.iter_mut().enumerate() {
        if present & (1 << at) != 0 {
            *count = read_signed(bytes);
        }
    }
    let revision = if present & REVISION != 0 { read_signed(bytes) } else { 0 };
    let revised_at_us = (present & REVISED != 0).then(|| read_signed(bytes));
    Numbers { counts: from_array(counts), revision, revised_at_us }
}

/// The number of runs in a row, which stands first.
pub(crate) fn runs(mut bytes: &[u8]) -> i64 {
    if read_present(&mut bytes) & 1 == 0 { 0 } else { read_signed(&mut bytes) }
}

fn read_present(bytes: &mut &[u8]) -> u16 {
    u16::from(take(bytes)) | u16::from(take(bytes)) << 8
}

fn to_array(counts: &Counts) -> [i64; NUM_COUNTS] {
    [
        counts.runs,
        counts.completed,
        counts.failed,
        counts.aborted,
        counts.running,
        counts.records_read,
        counts.records_written,
        counts.records_failed,
        counts.bytes_written,
        counts.durations,
        counts.duration_sum_us,
    ]
}

fn from_array(numbers: [i64; NUM_COUNTS]) -> Counts {
    let [runs, completed, failed, aborted, running, read, written, records_failed, bytes, durations, sum] = numbers;
    Counts {
        runs,
        completed,
        failed,
        aborted,
        running,
        records_read: read,
        records_written: written,
        records_failed,
        bytes_written: bytes,
        durations,
        duration_sum_us: sum,
    }
}

/// The next byte; 0 behind the end, which what this module wrote never reaches.
pub(super) fn take(bytes: &mut &[u8]) -> u8 {
    match bytes.split_first() {
        Some((first, rest)) => {
            *bytes = rest;
            *first
        }
        None => 0,
    }
}

pub(super) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn read(bytes: &mut &[u8]) -> u64 {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes);
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

pub(super) fn write_signed(out: &mut Vec<u8>, value: i64) {
    write(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(super) fn read_signed(bytes: &mut &[u8]) -> i64 {
    let value = read(bytes);
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were() {
        for value in [0, 1, -1, 63, 64, -65, 1 << 40, i64::MAX, i64::MIN] {
            for at in 0..NUM_COUNTS {
                let mut counts = [1; NUM_COUNTS];
                counts[at] = value;
                let numbers = Numbers {
                    counts: from_array(counts),
                    revision: value,
                    revised_at_us: (at % 2 == 0).then_some(value),
                };
                let mut out = Vec::new();
                write_numbers(&mut out, &numbers);
                out.push(77);
                let mut rest = &out[..];
                assert_eq!(read_numbers(&mut rest), numbers);
                assert_eq!(rest, [77]);
                assert_eq!(runs(&out), numbers.counts.runs);
            }
        }
    }

    #[test]
    fn a_row_of_one_short_run_takes_few_bytes() {
        let counts = Counts {
            runs: 1,
            completed: 1,
            records_read: 900,
            durations: 1,
            duration_sum_us: 60_000_000,
            ..Counts::default()
        };
        let mut out = Vec::new();
        write_numbers(&mut out, &Numbers { counts, ..Numbers::default() });
        assert_eq!(out.len(), 11);
    }
}
