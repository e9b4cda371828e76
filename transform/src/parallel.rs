//! Work of one step on several processors.
//!
//! The keys of a step are independent of each other. What is done for each is done in parts, each by whichever thread is
//! free: the other processors are often busy with what else the pipeline does, and parts of one size for each thread would
//! wait for the slowest. The parts depend on the items alone and their results come back in the order of the items, so a step
//! gives the same on every machine.

use std::{
    num::NonZero,
    panic,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::Result;

/// Keys of a part: some milliseconds of work, so that beginning a thread is little beside it.
pub(crate) const PART_KEYS: usize = 2048;

/// Threads of one call: more would wait for the same memory.
const MOST_THREADS: usize = 4;

/// Asked once: the system reads files for it.
static THREADS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS));

/// What `work` makes of each `part` items, in their order. The calling thread works too, and waits for the others.
pub(crate) fn in_parts<T: Sync, R: Send>(
    items: &[T],
    part: usize,
    work: impl Fn(&[T]) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let parts: Vec<&[T]> = items.chunks(part.max(1)).collect();
    run(&parts, *THREADS, &work)
}

fn run<T: Sync, R: Send>(parts: &[&[T]], threads: usize, work: &(impl Fn(&[T]) -> Result<R> + Sync)) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let take = || -> Result<Vec<(usize, R)>> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(number) else { return Ok(done) };
            done.push((number, work(part)?));
        }
    };
    let done = thread::scope(|scope| -> Result<Vec<(usize, R)>> {
        // Where the system gives no thread, those that are there do its part.
        let begin = |_| thread::Builder::new().name("step".to_owned()).spawn_scoped(scope, take).ok();
        let others: Vec<_> = (1..threads.min(parts.len())).filter_map(begin).collect();
        let mut done = take()?;
        for other in others {
            match other.join() {
                Ok(others) => done.extend(others?),
                Err(payload) => panic::resume_unwind(payload),
            }
        }
        Ok(done)
    });
    let mut done = done?;
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Error;

    proptest! {
        #[test]
        fn any_number_of_threads_gives_what_one_gives(
            items in proptest::collection::vec(any::<u32>(), 0..300),
            part in 1_usize..40,
            threads in 1_usize..6,
        ) {
            let parts: Vec<&[u32]> = items.chunks(part).collect();
            let work = |part: &[u32]| Ok(part.iter().map(|item| u64::from(*item) * 3).collect::<Vec<_>>());
            let given = run(&parts, threads, &work).unwrap();
            let expected: Vec<Vec<u64>> = parts.iter().map(|part| work(part).unwrap()).collect();
            prop_assert_eq!(given, expected);
        }
    }

    #[test]
    fn a_part_that_fails_fails_the_whole() {
        let items: Vec<u32> = (0..100).collect();
        let fails = |part: &[u32]| {
            if part.contains(&77) { Err(Error::DamagedState("the part".to_owned())) } else { Ok(part.len()) }
        };
        assert!(matches!(in_parts(&items, 10, fails), Err(Error::DamagedState(what)) if what == "the part"));
        assert_eq!(in_parts(&items[..77], 10, fails).unwrap(), [10, 10, 10, 10, 10, 10, 10, 7]);
    }
}
