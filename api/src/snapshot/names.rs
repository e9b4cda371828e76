//! Names as small numbers.
//!
//! Sources, jobs and users are given an id when a file is read, once for the life of the process, so that a fold
//! compares numbers and a new epoch need not touch the rows that stay.

use std::{collections::HashMap, sync::Arc};

/// What the ids in the rows of a snapshot stand for.
#[derive(Debug, Clone, Default)]
pub struct Names {
    sources: Interned,
    users: Interned,
    /// A job is its source and its name.
    jobs: Vec<(u32, Arc<str>)>,
    /// By job: its number among the jobs of its source.
    numbers_in_source: Vec<u32>,
    /// By source: its jobs, by their number.
    jobs_of: Vec<Vec<u32>>,
    /// By source.
    job_ids: Vec<HashMap<Arc<str>, u32>>,
}

#[derive(Debug, Clone, Default)]
struct Interned {
    values: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, u32>,
}

impl Interned {
    fn add(&mut self, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        // Four billion names do not fit in memory, so the number always fits.
        let (id, name) = (self.values.len() as u32, Arc::<str>::from(name));
        self.values.push(name.clone());
        self.ids.insert(name, id);
        id
    }
}

impl Names {
    pub(crate) fn add_source(&mut self, name: &str) -> u32 {
        self.sources.add(name)
    }

    pub(crate) fn add_user(&mut self, name: &str) -> u32 {
        self.users.add(name)
    }

    pub(crate) fn add_job(&mut self, source: u32, name: &str) -> u32 {
        let slot = source as usize;
        if self.job_ids.len() <= slot {
            self.job_ids.resize_with(slot + 1, HashMap::new);
            self.jobs_of.resize_with(slot + 1, Vec::new);
        }
        if let Some(id) = self.job_ids[slot].get(name) {
            return *id;
        }
        let (id, name) = (self.jobs.len() as u32, Arc::<str>::from(name));
        self.jobs.push((source, name.clone()));
        self.numbers_in_source.push(self.jobs_of[slot].len() as u32);
        self.jobs_of[slot].push(id);
        self.job_ids[slot].insert(name, id);
        id
    }

    /// The id of a source that has been seen.
    pub fn find_source(&self, name: &str) -> Option<u32> {
        self.sources.ids.get(name).copied()
    }

    /// The id of a user that has been seen.
    pub fn find_user(&self, name: &str) -> Option<u32> {
        self.users.ids.get(name).copied()
    }

    /// The id of a job that has been seen.
    pub fn find_job(&self, source: u32, name: &str) -> Option<u32> {
        self.job_ids.get(source as usize)?.get(name).copied()
    }

    /// The name of a source.
    pub fn source(&self, id: u32) -> &Arc<str> {
        &self.sources.values[id as usize]
    }

    /// The source and the name of a job.
    pub fn job(&self, id: u32) -> (&Arc<str>, &Arc<str>) {
        let (source, name) = &self.jobs[id as usize];
        (self.source(*source), name)
    }

    /// The number of a job among those of its source, from 0 on and without holes.
    pub(crate) fn number_in_source(&self, job: u32) -> u32 {
        self.numbers_in_source[job as usize]
    }

    /// The ids of the jobs of a source, by their number in it.
    pub(crate) fn jobs_of(&self, source: u32) -> &[u32] {
        self.jobs_of.get(source as usize).map_or(&[], Vec::as_slice)
    }

    /// Jobs have the ids from 0 to one below this.
    pub fn num_jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Grows with every name.
    pub(crate) fn num_names(&self) -> usize {
        self.sources.values.len() + self.jobs.len() + self.users.values.len()
    }
}
