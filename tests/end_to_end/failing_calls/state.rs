//! The state store of a pipeline: it has each step whole or not at all, and goes on when it is opened again.

use std::path::Path;

use karat_transform::state::StateStore;

use super::{Shim, child_folder, noise, tell};

/// Steps, each of so many bytes: in the end buffers become files.
const STEPS: u64 = 60;
const BYTES: usize = 1_500_000;

/// Most often that the child opens the store again, as a pipeline does after a pause.
const OPENINGS: usize = 3;

fn open(folder: &Path) -> karat_transform::Result<StateStore> {
    StateStore::open(folder, &["large".to_owned(), "small".to_owned()])
}

/// How far the store is, which everything in it must agree with.
fn position(store: &StateStore) -> u64 {
    let position = store.meta::<u64>("position").unwrap().unwrap_or(0);
    let step = store.begin();
    for number in 1..=position {
        assert_eq!(step.content_of(u128::from(number)).unwrap(), Some(number), "an identity of step {number}");
    }
    assert_eq!(step.content_of(u128::from(position + 1)).unwrap(), None, "an identity of a step to come");
    if position > 0 {
        let large = step.get("large", &(position % 7).to_be_bytes()).unwrap().unwrap();
        assert!(large == noise(position, BYTES), "the large value of step {position}");
        assert_eq!(step.get("small", b"always").unwrap().unwrap(), position.to_be_bytes());
    }
    position
}

fn apply(store: &mut StateStore, number: u64) -> karat_transform::Result<()> {
    let mut step = store.begin();
    step.put("large", (number % 7).to_be_bytes().to_vec(), noise(number, BYTES));
    step.put("small", b"always".to_vec(), number.to_be_bytes().to_vec());
    step.accept(u128::from(number), number);
    step.put_meta("position", &number)?;
    let writes = step.into_writes();
    store.apply(&writes)
}

/// Goes through the steps, and opens the store again after each failure.
#[test]
#[ignore = "run by calls_that_fail_inside_the_state_leave_whole_steps"]
fn child() {
    let Some(folder) = child_folder() else { return };
    for _ in 0..OPENINGS {
        let Ok(mut store) = open(&folder.join("data")) else { continue };
        let mut number = position(&store) + 1;
        while number <= STEPS && apply(&mut store, number).is_ok() {
            number += 1;
        }
        if number > STEPS && store.sync().is_ok() {
            tell(&folder, "synced");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_inside_the_state_leave_whole_steps() {
    let Some(shim) = Shim::compile() else { return };
    let hit = shim
        .each("failing_calls::state::child", async |fault, left| {
            let mut store = open(&left.data).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            let reached = position(&store);
            // A disk that fails once is gone on with by itself, and what was synced is there.
            let must = if left.told.is_empty() { 0 } else { STEPS };
            assert!(reached >= must, "{fault:?}: {reached} of {must}");
            if matches!(fault.error, super::Error::Broken) {
                assert!(!left.told.is_empty(), "{fault:?}: did not go on by itself, from {reached}");
            }
            for number in reached + 1..=reached + 5 {
                apply(&mut store, number).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            }
            assert_eq!(position(&store), reached + 5, "{fault:?}");
        })
        .await;
    assert!(hit > 40, "only {hit} calls failed");
}
