//! What is on the device of one file, and what of it is only on its way there.
//!
//! A file is its *durable* bytes, and the changes since its last sync. The device writes whole sectors of 512 bytes, each of
//! them when it likes. So after a power cut a sector holds what it held after some change, or what was durable, whatever its
//! neighbours hold; and the length is one that the file has had since the last sync. A sector inside the length that has not
//! been written reads as zeroes.

use std::collections::BTreeMap;

use crate::random::Random;

pub(crate) const SECTOR_BYTES: u64 = 512;

#[derive(Default)]
pub(crate) struct Image {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

/// A change of the file.
struct Change {
    /// Where in the file `bytes` are: the start of a sector.
    start: u64,
    /// The content, after the change, of all sectors that it touches; the last one may be cut short by the end of the file.
    bytes: Vec<u8>,
    /// The length of the file after it.
    len: u64,
}

/// How much of what is not synced has reached the device when the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Survival {
    /// Nothing.
    Nothing,
    /// All of it, as after the end of the process alone.
    Everything,
    /// The changes before this one, in order, and sectors of this one.
    TornAt(usize),
    /// Each sector of each change this many times in a hundred.
    Scattered { percent: u64 },
}

impl Survival {
    /// One for a file, or a directory, with so many changes.
    pub(crate) fn pick(random: &mut Random, changes: usize) -> Survival {
        match random.below(8) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2..=4 => Survival::TornAt(random.below(changes as u64 + 1) as usize),
            _ => Survival::Scattered {
                percent: [10, 50, 90][random.below(3) as usize],
            },
        }
    }

    /// Whether a part of change number `at` survives.
    pub(crate) fn keeps(self, at: usize, random: &mut Random) -> bool {
        match self {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::TornAt(torn) => at < torn || at == torn && random.percent(50),
            Survival::Scattered { percent } => random.percent(percent),
        }
    }
}

impl Image {
    pub(crate) fn of_durable(bytes: Vec<u8>) -> Image {
        Image {
            durable: bytes,
            unsynced: Vec::new(),
        }
    }

    /// Notes that the sectors from `start` on now hold `bytes`, and the file is `len` long.
    pub(crate) fn written(&mut self, start: u64, bytes: Vec<u8>, len: u64) {
        assert!(start.is_multiple_of(SECTOR_BYTES));
        self.unsynced.push(Change { start, bytes, len });
    }

    /// Notes that the file, whose length was `old_len`, is `len` long, and its last sector holds `last`.
    pub(crate) fn truncated(&mut self, old_len: u64, len: u64, mut last: Vec<u8>) {
        let start = len / SECTOR_BYTES * SECTOR_BYTES;
        // What is cut off reads as zeroes when the file grows again.
        last.resize(
            old_len.max(len).next_multiple_of(SECTOR_BYTES) as usize - start as usize,
            0,
        );
        self.unsynced.push(Change {
            start,
            bytes: last,
            len,
        });
    }

    /// Everything up to now is on the device.
    pub(crate) fn synced(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            let end = change.start as usize + change.bytes.len();
            self.durable.resize(self.durable.len().max(end), 0);
            self.durable[change.start as usize..end].copy_from_slice(&change.bytes);
            self.durable.resize(change.len as usize, 0);
        }
    }

    /// A sync has failed: some of it is on the device, and the rest counts as written and never will be.
    pub(crate) fn sync_failed(&mut self, random: &mut Random) {
        let survival = Survival::pick(random, self.unsynced.len());
        self.durable = self.survivor(survival, random);
        self.unsynced.clear();
    }

    pub(crate) fn flip_bit(&mut self, bit: u64) {
        self.durable[(bit / 8) as usize] ^= 1 << (bit % 8);
    }

    pub(crate) fn changes(&self) -> usize {
        self.unsynced.len()
    }

    /// What is found in the file after a power cut.
    pub(crate) fn survivor(&self, survival: Survival, random: &mut Random) -> Vec<u8> {
        let mut len = self.durable.len() as u64;
        // Of each sector the last version that has reached the device.
        let mut reached = BTreeMap::new();
        for (at, change) in self.unsynced.iter().enumerate() {
            if survival.keeps(at, random) {
                len = change.len;
            }
            for (n, content) in change.bytes.chunks(SECTOR_BYTES as usize).enumerate() {
                if survival.keeps(at, random) {
                    reached.insert(change.start as usize + n * SECTOR_BYTES as usize, content);
                }
            }
        }
        let mut bytes = self.durable.clone();
        bytes.resize(len as usize, 0);
        for (start, content) in reached {
            let rest = bytes.get_mut(start..).unwrap_or_default();
            let kept = content.len().min(rest.len());
            rest[..kept].copy_from_slice(&content[..kept]);
        }
        bytes
    }
}
