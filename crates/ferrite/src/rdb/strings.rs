//! Very many strings, one behind the other: what the elements of a value are until they are stored.

use std::collections::HashSet;

use super::{Ask, push_within};
use crate::command::Stop;

/// What the set takes for each string that is looked for twice, bytes.
const LOOKED_FOR_BYTES: u64 = 40;

/// Strings in the order in which they were added.
#[derive(Default)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Strings {
    /// With room for `count` strings that have so many bytes together: what has to grow takes more on the way.
    pub(crate) fn with_room(
        count: usize,
        bytes: usize,
        ask: &mut Ask<'_>,
    ) -> Result<Strings, Stop> {
        ask((count * size_of::<usize>() + bytes) as u64)?;
        Ok(Strings {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(count),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all strings together.
    pub(crate) fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Bytes of the longest; 0 if there are none.
    pub(crate) fn longest_bytes(&self) -> usize {
        self.iter().map(<[u8]>::len).max().unwrap_or_default()
    }

    pub(crate) fn push(&mut self, string: &[u8], ask: &mut Ask<'_>) -> Result<(), Stop> {
        let bytes = self.bytes.len() + string.len();
        if bytes > self.bytes.capacity() {
            ask(bytes.max(2 * self.bytes.capacity()) as u64)?;
        }
        self.bytes.extend_from_slice(string);
        push_within(&mut self.ends, bytes, ask)
    }

    /// Whether two of the strings are the same, of those at every `step`th position.
    pub(crate) fn repeat(&self, step: usize, ask: &mut Ask<'_>) -> Result<bool, Stop> {
        let strings = self.iter().step_by(step);
        ask(strings.len() as u64 * LOOKED_FOR_BYTES)?;
        let mut met = HashSet::with_capacity(strings.len());
        Ok(!strings.into_iter().all(|string| met.insert(string)))
    }
}
