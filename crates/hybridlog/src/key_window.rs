//! The keys of cold records that an iteration is about to come by: what the key files of all segments list in one range of its
//! cursor, in the order of the cursor.
//!
//! Of every segment that holds keys of the range one read brings them all. So a device read serves as many keys as fit into the
//! memory there is for windows, divided by the segments, and not the one key that a step meets in a segment; and a step goes
//! through the window as it goes through the index, from one end to the other.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::ops::{Range, RangeInclusive};

use crate::key_file::KeyEntry;
use crate::reads::IdHasher;
use crate::sys::prefetch;
use crate::{Meta, Namespace};

/// Bytes of a key's head in [`KeyWindow::bytes`]: namespace, kind, whether it expires, length of the key.
const HEAD_BYTES: usize = 6;

/// Keys of cold records whose hashes, their bits reversed, are in one range.
#[derive(Clone)]
pub(crate) struct KeyWindow {
    reversed_hashes: RangeInclusive<u64>,
    /// File ids of the segments whose keys are in here.
    segments: Vec<u64>,
    covered: HashSet<u64, BuildHasherDefault<IdHasher>>,
    /// Whether those are all that were cold.
    is_complete: bool,
    /// In ascending order of the hashes.
    listed: Vec<Listed>,
    /// Of every key the head, its time of expiry if it has one, and the key.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Listed {
    /// The high half of the reversed hash.
    reversed_hash: u32,
    /// Place in [`KeyWindow::segments`].
    segment: u32,
    /// Of the record, in bytes from the start of the segment.
    offset: u32,
    /// Where in [`KeyWindow::bytes`] the head is.
    at: u32,
}

/// A key in a window.
pub(crate) struct WindowKey<'w> {
    pub(crate) namespace: Namespace,
    pub(crate) meta: Meta,
    pub(crate) key: &'w [u8],
}

impl KeyWindow {
    /// A window of no segment yet.
    pub(crate) fn new(reversed_hashes: RangeInclusive<u64>) -> KeyWindow {
        KeyWindow {
            reversed_hashes,
            segments: Vec::new(),
            covered: HashSet::default(),
            is_complete: false,
            listed: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(crate) fn reversed_hashes(&self) -> &RangeInclusive<u64> {
        &self.reversed_hashes
    }

    /// Whether the range ends where `position` begins.
    pub(crate) fn is_before(&self, position: u64) -> bool {
        self.reversed_hashes.end().checked_add(1) == Some(position)
    }

    /// Whether the keys of a segment are in here.
    pub(crate) fn covers(&self, file_id: u64) -> bool {
        self.covered.contains(&file_id)
    }

    /// Whether all segments that were cold have been added.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// No other segment will be added.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// The keys of the segment will be added next.
    pub(crate) fn begin_segment(&mut self, file_id: u64) {
        self.segments.push(file_id);
        self.covered.insert(file_id);
    }

    /// Adds a key of the segment that was begun last, if its hash is in the range.
    pub(crate) fn push(&mut self, hash: u64, entry: &KeyEntry<'_>) {
        let reversed_hash = hash.reverse_bits();
        let at = u32::try_from(self.bytes.len());
        // A key that is not in here is read from its key file: those for whom there is no place are.
        let (Ok(at), Ok(key_len)) = (at, u16::try_from(entry.key.len())) else {
            return;
        };
        if !self.reversed_hashes.contains(&reversed_hash) {
            return;
        }
        let expires = entry.meta.expires_at_ms.is_some();
        self.bytes
            .extend_from_slice(&entry.namespace.0.to_le_bytes());
        self.bytes.push(entry.meta.kind);
        self.bytes.push(u8::from(expires));
        self.bytes.extend_from_slice(&key_len.to_le_bytes());
        if let Some(expires_at_ms) = entry.meta.expires_at_ms {
            self.bytes.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        self.bytes.extend_from_slice(entry.key);
        self.listed.push(Listed {
            reversed_hash: (reversed_hash >> 32) as u32,
            segment: self.segments.len() as u32 - 1,
            offset: entry.offset,
            at,
        });
    }

    /// Keys can be found again, after some were added. O(n log s) for n keys of s segments.
    pub(crate) fn sort(&mut self) {
        // Those of one segment come in order: a sort that merges what is sorted already.
        self.listed.sort_by_key(|listed| listed.reversed_hash);
        self.listed.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// Where the keys with these reversed hashes are, and perhaps some with others; O(1) if `near` is where those shortly before
    /// them end, else O(log n).
    pub(crate) fn places(
        &self,
        reversed_hashes: &RangeInclusive<u64>,
        near: usize,
    ) -> Range<usize> {
        let high = |hash: &u64| (hash >> 32) as u32;
        let (first, last) = (high(reversed_hashes.start()), high(reversed_hashes.end()));
        let hash_at = |at: usize| self.listed.get(at).map(|listed| listed.reversed_hash);
        // One before shows that nothing is missed, unless that is of the same hash.
        let is_near = near > 0
            && hash_at(near - 1).is_some_and(|hash| hash < first)
            && hash_at(near).is_none_or(|hash| hash >= first);
        let start = match is_near {
            true => near,
            false => self
                .listed
                .partition_point(|listed| listed.reversed_hash < first),
        };
        let behind = self.listed[start..].iter();
        let keys = behind.take_while(|listed| listed.reversed_hash <= last);
        start..start + keys.count()
    }

    /// Which of the keys at these places is that of the record at `offset` of a segment. Starts loading it.
    pub(crate) fn find(&self, places: Range<usize>, file_id: u64, offset: u32) -> Option<usize> {
        let mut keys = places.clone().zip(&self.listed[places]);
        let found = keys.find(|(_, listed)| {
            listed.offset == offset && self.segments[listed.segment as usize] == file_id
        });
        found.map(|(place, listed)| {
            prefetch(self.bytes.as_ptr().wrapping_add(listed.at as usize));
            place
        })
    }

    /// The key at a place that [`Self::find`] has found.
    pub(crate) fn key(&self, place: usize) -> WindowKey<'_> {
        let (head, rest) = self.bytes[self.listed[place].at as usize..].split_at(HEAD_BYTES);
        let key_len = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let (expires_at_ms, rest) = match (head[3], rest.split_first_chunk()) {
            (1, Some((at, rest))) => (Some(u64::from_le_bytes(*at)), rest),
            _ => (None, rest),
        };
        WindowKey {
            namespace: Namespace(u16::from_le_bytes([head[0], head[1]])),
            meta: Meta {
                kind: head[2],
                expires_at_ms,
            },
            key: &rest[..key_len],
        }
    }

    /// How many it has.
    pub(crate) fn keys(&self) -> usize {
        self.listed.len()
    }

    /// Memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        // A set has room for an eighth more than it holds, and a byte beside each.
        let segment_bytes = 2 * size_of::<u64>() + 2 * size_of::<u64>();
        size_of::<Self>()
            + self.segments.capacity() * segment_bytes
            + self.listed.capacity() * size_of::<Listed>()
            + self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_range_is_found_by_its_record_and_no_other() {
        let hash = |segment: u64, n: u64| (segment << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let range = u64::MAX / 8..=u64::MAX / 4;
        let mut window = KeyWindow::new(range.clone());
        let meta = |n: u64| Meta {
            kind: n as u8 % 3,
            expires_at_ms: n.is_multiple_of(2).then_some(n),
        };
        let key = |segment: u64, n: u64| vec![b'k'; (segment + n) as usize % 300];
        for segment in 10..20 {
            window.begin_segment(segment);
            for n in 0..1000 {
                let entry = KeyEntry {
                    offset: n as u32 * 8,
                    namespace: Namespace(segment as u16),
                    meta: meta(n),
                    large: false,
                    key: &key(segment, n),
                };
                window.push(hash(segment, n), &entry);
            }
            // Segments may be added after others were looked up.
            window.sort();
        }
        assert!(window.covers(15) && !window.covers(20));
        let (mut found, mut near) = (0, 0);
        let mut hashes: Vec<(u64, u64, u64)> = (10..20)
            .flat_map(|segment| (0..1000).map(move |n| (segment, n)))
            .map(|(segment, n)| (hash(segment, n).reverse_bits(), segment, n))
            .collect();
        hashes.sort_unstable();
        for (reversed_hash, segment, n) in hashes {
            let places = window.places(&(reversed_hash..=reversed_hash), near);
            near = places.end;
            let place = window.find(places.clone(), segment, n as u32 * 8);
            assert_eq!(place.is_some(), range.contains(&reversed_hash));
            assert_eq!(window.find(places, segment + 10, n as u32 * 8), None);
            let Some(place) = place else { continue };
            let listed = window.key(place);
            assert_eq!(listed.namespace, Namespace(segment as u16));
            assert_eq!(listed.meta, meta(n));
            assert_eq!(listed.key, key(segment, n));
            found += 1;
        }
        assert!(found > 500 && found == window.keys());
    }
}
