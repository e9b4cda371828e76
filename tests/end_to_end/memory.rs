//! Out of memory: the kernel ends the process, in a control group with a limit of its own. What was acknowledged is there.
//!
//! Where no control group can be made (it needs root, and the memory controller) the test says so and ends.

use std::{fs, os::unix::process::ExitStatusExt, path::PathBuf};

use karat_oracle::Outcome;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    client::{Client, run_event},
    judged::{Judged, answer_of},
};

/// What a process may take beyond what it has when it listens.
const ROOM_BYTES: u64 = 24 << 20;

/// Events of a request, and requests at the same time.
const EVENTS: u64 = 2_000;
const TOGETHER: u64 = 8;

/// Requests of each publisher, at most: many times of what there is room for.
const MOST_REQUESTS: usize = 100;

/// A control group with a limit of memory; removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Of version 1 or 2, whichever the machine has.
    fn new(limit: u64) -> Option<Self> {
        let name = format!("karat-test-{}", std::process::id());
        for (parent, setting) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let folder = PathBuf::from(parent).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self(folder);
            if fs::write(group.0.join(setting), limit.to_string()).is_ok() {
                // Nothing may go elsewhere instead, where version 2 has that.
                let _ = fs::write(group.0.join("memory.swap.max"), "0");
                return Some(group);
            }
        }
        None
    }

    /// What the process takes from now on counts.
    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Publishes one request behind the other until there is no answer; every `TOGETHER`th is this task's.
async fn publish_until_gone(client: Client, first: u64) -> Vec<(u64, Outcome)> {
    let mut told = Vec::new();
    for begin in (first..).step_by((EVENTS * TOGETHER) as usize).take(MOST_REQUESTS) {
        let numbers = begin..begin + EVENTS;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        let answer = answer_of(&client, &events, "").await;
        let outcome = match &answer {
            Some((status, answer)) if *status == 202 && answer["data"]["accepted"] == EVENTS => Outcome::Acknowledged,
            _ => Outcome::Unknown,
        };
        told.extend(numbers.map(|number| (number, outcome)));
        if answer.is_none() {
            break;
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_the_kernel_ends_for_its_memory_loses_nothing_and_counts_nothing_twice() {
    let Some(group) = Group::new(ROOM_BYTES) else {
        eprintln!("left out: a control group for memory needs root and the controller");
        return;
    };
    let mut judged = Judged::new().await;
    let mut karat = judged.folder.start("tight", &["up", "--listen", "127.0.0.1:0"]);
    let client = Client::new(&karat.url().await, &judged.key);
    group.take(karat.pid());
    let mut publishing = JoinSet::new();
    for task in 0..TOGETHER {
        publishing.spawn(publish_until_gone(client.clone(), judged.next + task * EVENTS));
    }
    let mut told: Vec<(u64, Outcome)> = publishing.join_all().await.into_iter().flatten().collect();
    assert_eq!(karat.ended().await.signal(), Some(9), "the kernel ends it");
    // Numbers that no request had are not sent for the first time only at the end.
    told.sort_unstable_by_key(|(number, _)| *number);
    judged.note_all(told);
    judged.end().await;
}
