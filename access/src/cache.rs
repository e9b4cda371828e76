//! A bounded cache in two generations.
//!
//! New and used entries live in the young generation; when it is full it becomes the old one and the former old one
//! is dropped. Every operation is constant time, and at most `capacity` entries are held.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

pub(crate) struct GenerationCache<K, V> {
    half: usize,
    generations: Mutex<Generations<K, V>>,
}

struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> GenerationCache<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { half: (capacity / 2).max(1), generations: Mutex::new(generations) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.generations.lock();
        if let Some(value) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = generations.old.remove_entry(key)?;
        self.insert_into(&mut generations, key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        self.insert_into(&mut self.generations.lock(), key, value);
    }

    pub(crate) fn remove(&self, key: &K) {
        let mut generations = self.generations.lock();
        generations.young.remove(key);
        generations.old.remove(key);
    }

    /// Sets a value if there is none, or one that is due to be replaced; says whether it did. Of several at a time, one.
    pub(crate) fn replace_if(&self, key: K, value: V, is_due: impl FnOnce(&V) -> bool) -> bool {
        let mut generations = self.generations.lock();
        let held = generations.young.get(&key).or_else(|| generations.old.get(&key));
        let is_replaced = held.is_none_or(is_due);
        if is_replaced {
            self.insert_into(&mut generations, key, value);
        }
        is_replaced
    }

    pub(crate) fn retain(&self, mut keep: impl FnMut(&V) -> bool) {
        let mut generations = self.generations.lock();
        generations.young.retain(|_, value| keep(value));
        generations.old.retain(|_, value| keep(value));
    }

    fn insert_into(&self, generations: &mut Generations<K, V>, key: K, value: V) {
        if generations.young.len() >= self.half {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_entries_in_use_stay() {
        let cache = GenerationCache::new(20);
        cache.insert(0, 0);
        for n in 1..1000 {
            cache.insert(n, n);
            assert_eq!(cache.get(&0), Some(0));
        }
        let generations = cache.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 20);
    }

    #[test]
    fn a_value_is_replaced_when_it_is_due_in_whichever_generation_it_is() {
        let cache = GenerationCache::new(4);
        assert!(cache.replace_if("a", 1, |_| false));
        assert!(!cache.replace_if("a", 2, |held| *held != 1));
        for other in ["b", "c"] {
            cache.insert(other, 0);
        }
        assert!(!cache.replace_if("a", 2, |held| *held != 1), "it is in the old generation");
        assert!(cache.replace_if("a", 2, |held| *held == 1));
        assert_eq!(cache.get(&"a"), Some(2));
    }

    #[test]
    fn dropped_entries_are_gone_from_both_generations() {
        let cache = GenerationCache::new(4);
        for n in 0..4 {
            cache.insert(n, n);
        }
        cache.retain(|value| *value != 0 && *value != 3);
        assert_eq!((cache.get(&0), cache.get(&3), cache.get(&2)), (None, None, Some(2)));
        cache.remove(&1);
        cache.remove(&2);
        assert_eq!((cache.get(&1), cache.get(&2)), (None, None));
    }
}
