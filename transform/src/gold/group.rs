//! The silver rows of one group of a `keys` table, stored as one value.
//!
//! A touched group is read, changed and written as a whole, which its SQL needs anyway: one lookup a group, and nothing
//! is left behind by rows that go. With `latest` only the newest rows stay; the *floor* is the newest row that was ever
//! let go. What lies below it cannot be judged from the group alone.

use std::collections::BTreeMap;

use super::rows::Row;
use crate::value::{self, Value};

/// Where a row stands in its group: the value that orders it, if any, then its key.
pub(super) type Place = (Value, Vec<u8>);

/// The rows of a group, in the order of their places.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Group {
    rows: BTreeMap<Place, Row>,
    floor: Option<Place>,
}

impl Group {
    /// Reads a stored group of rows with `width` values; none when the bytes are damaged.
    pub(super) fn decode(bytes: &[u8], width: usize) -> Option<Self> {
        let mut values = value::decode_all(bytes, "").ok()?.into_iter();
        let has_floor = values.next()? == Value::Bool(true);
        let floor = if has_floor { Some(place(&mut values)?) } else { None };
        let mut rows = BTreeMap::new();
        while values.len() > 0 {
            let place = place(&mut values)?;
            let row: Row = values.by_ref().take(width).collect();
            if row.len() < width {
                return None;
            }
            rows.insert(place, row);
        }
        Some(Self { rows, floor })
    }

    /// What is stored of the group; none when there is nothing to remember.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        if self.rows.is_empty() && self.floor.is_none() {
            return None;
        }
        let mut bytes = Vec::new();
        Value::Bool(self.floor.is_some()).encode(&mut bytes);
        if let Some(floor) = &self.floor {
            encode_place(floor, &mut bytes);
        }
        for (place, row) in &self.rows {
            encode_place(place, &mut bytes);
            row.iter().for_each(|value| value.encode(&mut bytes));
        }
        Some(bytes)
    }

    pub(super) fn put(&mut self, place: Place, row: Row) {
        self.rows.insert(place, row);
    }

    pub(super) fn remove(&mut self, place: &Place) {
        self.rows.remove(place);
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Lets go of all but the newest `keep` rows; false when rows that were let go before might belong to them now.
    pub(super) fn trim(&mut self, keep: usize) -> bool {
        if let Some(floor) = &self.floor {
            let above = self.rows.keys().rev().take_while(|place| *place > floor).count();
            if above < keep {
                return false;
            }
        }
        while self.rows.len() > keep {
            let Some((place, _)) = self.rows.pop_first() else { break };
            self.floor = self.floor.take().max(Some(place));
        }
        true
    }
}

fn place(values: &mut impl Iterator<Item = Value>) -> Option<Place> {
    let order = values.next()?;
    match values.next()? {
        Value::Bytes(key) => Some((order, key.into())),
        _ => None,
    }
}

fn encode_place((order, key): &Place, bytes: &mut Vec<u8>) {
    order.encode(bytes);
    Value::Bytes(key.as_slice().into()).encode(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(order: i64) -> Place {
        (Value::Int(order), order.to_be_bytes().to_vec())
    }

    fn group(orders: impl IntoIterator<Item = i64>) -> Group {
        let mut group = Group::default();
        orders.into_iter().for_each(|order| group.put(at(order), vec![Value::Int(order), Value::Null]));
        group
    }

    #[test]
    fn a_group_comes_back_from_its_bytes() {
        let mut trimmed = group(1..=5);
        assert!(trimmed.trim(3));
        for group in [group([]), group([7]), trimmed] {
            let back = group.encode().map_or_else(Group::default, |bytes| Group::decode(&bytes, 2).unwrap());
            assert_eq!(back, group);
        }
        assert_eq!(Group::decode(&group([7]).encode().unwrap(), 3), None);
    }

    #[test]
    fn the_newest_rows_stay_and_late_rows_below_the_floor_are_let_go() {
        let mut group = group(1..=5);
        assert!(group.trim(3));
        group.put(at(0), vec![Value::Int(0), Value::Null]);
        assert!(group.trim(3));
        assert_eq!(group.rows().map(|row| row[0].clone()).collect::<Vec<_>>(), [3, 4, 5].map(Value::Int));
    }

    #[test]
    fn a_kept_row_that_goes_away_asks_for_those_that_were_let_go() {
        let mut small = group(1..=3);
        small.remove(&at(2));
        assert!(small.trim(3), "nothing was let go before");
        let mut large = group(1..=5);
        assert!(large.trim(3));
        large.remove(&at(4));
        assert!(!large.trim(3));
    }
}
