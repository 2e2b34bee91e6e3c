//! Who stays in memory, as far as it is decided on a cold read.
//!
//! A cold record comes back into memory on its second read within a window, so that a scan, which reads everything once,
//! does not push out the hot set. The window is one array of fingerprints: reading a record leaves its fingerprint at
//! the place its hash names, and finding it there means that fewer other cold reads than the array has places have
//! happened since, about. (Records in memory are kept by their read marks, see `tiering`.)

use std::sync::atomic::{AtomicU16, Ordering};

pub(crate) struct RecentColdReads {
    fingerprints: Box<[AtomicU16]>,
}

impl RecentColdReads {
    /// A window of about `places` cold reads, two bytes each.
    pub(crate) fn new(places: usize) -> RecentColdReads {
        let places = places.next_power_of_two();
        RecentColdReads {
            fingerprints: (0..places).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    /// Notes a cold read of the record with this hash; `true` if it is the second within the window.
    pub(crate) fn second_read(&self, hash: u64) -> bool {
        let place = &self.fingerprints[hash as usize & (self.fingerprints.len() - 1)];
        let fingerprint = (hash >> 48) as u16 | 1;
        if place.load(Ordering::Relaxed) == fingerprint {
            place.store(0, Ordering::Relaxed);
            return true;
        }
        place.store(fingerprint, Ordering::Relaxed);
        false
    }

    pub(crate) fn bytes(&self) -> usize {
        self.fingerprints.len() * size_of::<AtomicU16>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_read_counts_and_the_first_does_not() {
        let recent = RecentColdReads::new(1000);
        let hashes: Vec<u64> = (0..500u64)
            .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        assert!(!hashes.iter().any(|&hash| recent.second_read(hash)));
        let again = hashes
            .iter()
            .filter(|&&hash| recent.second_read(hash))
            .count();
        assert!(again > 250, "{again} of 500 recognised");
        assert_eq!(recent.bytes(), 2048);
    }
}
