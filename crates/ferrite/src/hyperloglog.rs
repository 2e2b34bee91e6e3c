//! HyperLogLog: how many different elements there have been, to within 0.81% (one standard error), in 12 KiB at most.
//!
//! An element is hashed; 14 bits of the hash choose one of 16,384 registers, and the register keeps the largest number of zeroes
//! (and one more) that the other bits of a hash have ended with. (Flajolet, Fusy, Gandouet, Meunier 2007; with 64 bits of hash, and
//! sparse while small, as in Heule, Nunkesser, Hall 2013; the estimate is Ertl's of 2017.)
//!
//! The bytes are Redis's, to the bit, for values travel between servers:
//!
//! * 16 bytes of header: `HYLL`, the encoding (0 dense, 1 sparse), three bytes of nothing, and the count that was last
//!   estimated, 64 bits little-endian; its highest bit says that it is out of date.
//! * Dense: the registers, of 6 bits each, the lower bits of a byte first.
//! * Sparse: runs of equal registers (`sparse.rs`), of which small sketches have few.
//!
//! What a value claims is believed only as far as it has been checked: any bytes may have been stored under the key.

mod estimate;
mod hash;
mod sparse;

use std::borrow::Cow;
use std::ops::Range;

pub(crate) use sparse::Run;

/// Bits of a hash that choose a register.
const INDEX_BITS: u32 = 14;
pub(crate) const REGISTERS: usize = 1 << INDEX_BITS;
/// The most that a register gets: one more than there are other bits.
const RANK_MAX: usize = 64 - INDEX_BITS as usize + 1;
const REGISTER_BITS: usize = 6;
/// So many values fit in a register.
const REGISTER_VALUES: usize = 1 << REGISTER_BITS;

const MAGIC: &[u8] = b"HYLL";
const ENCODING_AT: usize = 4;
const COUNT: Range<usize> = 8..16;
/// The byte of the count that has the bit which says that it is out of date.
const STALE_AT: usize = COUNT.end - 1;
const STALE: u8 = 1 << 7;
pub(crate) const HEADER_BYTES: usize = COUNT.end;
const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * REGISTER_BITS / 8;
/// No sketch is longer: each run has a register at least, and two bytes at most.
pub(crate) const MAX_BYTES: usize = HEADER_BYTES + 2 * REGISTERS;

/// The bytes are not what their header claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Corrupted;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    Dense,
    Sparse,
}

/// The registers, one in each byte.
pub(crate) struct Registers(Box<[u8; REGISTERS]>);

impl Registers {
    pub(crate) fn new() -> Registers {
        Registers(Box::new([0; REGISTERS]))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u8> {
        self.0.iter().copied()
    }

    /// How many different elements have set them, as far as can be told.
    pub(crate) fn count(&self) -> u64 {
        let mut histogram = [0; REGISTER_VALUES];
        for &value in self.0.iter() {
            histogram[usize::from(value)] += 1;
        }
        estimate::count(&histogram)
    }
}

/// A stored HyperLogLog, whose header has been looked at; copied when it is first changed.
pub(crate) struct Sketch<'a> {
    bytes: Cow<'a, [u8]>,
    encoding: Encoding,
    /// What of a dense one has changed: the bytes in between may have, too.
    changed: Range<usize>,
}

impl Sketch<'static> {
    /// One that has seen nothing.
    pub(crate) fn new() -> Sketch<'static> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + Run::MAX_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.resize(HEADER_BYTES, 0);
        bytes[ENCODING_AT] = 1;
        Run::Zeroes(REGISTERS).encode(&mut bytes);
        Sketch {
            bytes: Cow::Owned(bytes),
            encoding: Encoding::Sparse,
            changed: 0..0,
        }
    }
}

impl<'a> Sketch<'a> {
    /// `None` if there is no such header, or the length is not what it must be.
    pub(crate) fn parse(bytes: Cow<'a, [u8]>) -> Option<Sketch<'a>> {
        let is_long_enough = bytes.len() >= HEADER_BYTES;
        if !is_long_enough || !bytes.starts_with(MAGIC) {
            return None;
        }
        let encoding = match bytes[ENCODING_AT] {
            0 if bytes.len() == DENSE_BYTES => Encoding::Dense,
            1 => Encoding::Sparse,
            _ => return None,
        };
        Some(Sketch {
            bytes,
            encoding,
            changed: 0..0,
        })
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_owned()
    }

    /// From the first to the last byte that has changed, if it had the encoding that it has now.
    pub(crate) fn changed_bytes(&self) -> Range<usize> {
        self.changed.clone()
    }

    /// Counts an element; says whether that has changed a register. One that would make a sparse sketch longer than
    /// `sparse_max_bytes` makes it dense.
    pub(crate) fn add(&mut self, element: &[u8], sparse_max_bytes: u64) -> Result<bool, Corrupted> {
        let (register, rank) = hash::register_and_rank(element);
        self.raise(register, rank, sparse_max_bytes)
    }

    /// Gives a register this value unless it has as much; says whether it had less.
    pub(crate) fn raise(
        &mut self,
        register: usize,
        value: u8,
        sparse_max_bytes: u64,
    ) -> Result<bool, Corrupted> {
        if self.encoding == Encoding::Sparse {
            match sparse::raise(&mut self.bytes, register, value, sparse_max_bytes)? {
                sparse::Raised::Yes => return Ok(true),
                sparse::Raised::No => return Ok(false),
                sparse::Raised::TooLong => self.make_dense()?,
            };
        }
        if dense_register(&self.bytes, register) >= value {
            return Ok(false);
        }
        set_dense_register(self.bytes.to_mut(), register, value);
        let (at, shift) = dense_place(register);
        let is_in_two = shift + REGISTER_BITS > 8;
        self.note_change(at..at + 1 + usize::from(is_in_two));
        Ok(true)
    }

    fn note_change(&mut self, bytes: Range<usize>) {
        let before = &self.changed;
        self.changed = match before.is_empty() {
            true => bytes,
            false => bytes.start.min(before.start)..bytes.end.max(before.end),
        };
    }

    /// Makes it dense; says whether it was not.
    pub(crate) fn make_dense(&mut self) -> Result<bool, Corrupted> {
        if self.encoding == Encoding::Dense {
            return Ok(false);
        }
        let mut registers = Registers::new();
        self.merge_into(&mut registers)?;
        let mut dense = self.bytes[..HEADER_BYTES].to_vec();
        dense[ENCODING_AT] = 0;
        dense.resize(DENSE_BYTES, 0);
        for (register, value) in registers.iter().enumerate() {
            set_dense_register(&mut dense, register, value);
        }
        self.bytes = Cow::Owned(dense);
        self.encoding = Encoding::Dense;
        Ok(true)
    }

    /// Gives each register the value that it has here, unless it has as much.
    pub(crate) fn merge_into(&self, registers: &mut Registers) -> Result<(), Corrupted> {
        match self.encoding {
            Encoding::Dense => {
                for (register, value) in registers.0.iter_mut().enumerate() {
                    *value = (*value).max(dense_register(&self.bytes, register));
                }
                Ok(())
            }
            Encoding::Sparse => self.for_each_run(|range, value| {
                let raised = &mut registers.0[range];
                raised.iter_mut().for_each(|old| *old = value.max(*old));
            }),
        }
    }

    /// The count that was estimated last, if nothing has changed since.
    pub(crate) fn known_count(&self) -> Option<u64> {
        let count = self.bytes[COUNT].try_into().map(u64::from_le_bytes);
        count.ok().filter(|_| self.bytes[STALE_AT] & STALE == 0)
    }

    /// Notes the count, for as long as nothing changes.
    pub(crate) fn note_count(&mut self, count: u64) {
        self.bytes.to_mut()[COUNT].copy_from_slice(&count.to_le_bytes());
        self.note_change(COUNT);
    }

    /// Something has changed since the count was estimated.
    pub(crate) fn forget_count(&mut self) {
        if self.bytes[STALE_AT] & STALE == 0 {
            self.bytes.to_mut()[STALE_AT] |= STALE;
            self.note_change(STALE_AT..STALE_AT + 1);
        }
    }

    /// How many different elements it has seen, as far as can be told.
    pub(crate) fn count(&self) -> Result<u64, Corrupted> {
        let mut histogram = [0; REGISTER_VALUES];
        match self.encoding {
            Encoding::Dense => {
                for register in 0..REGISTERS {
                    histogram[usize::from(dense_register(&self.bytes, register))] += 1;
                }
            }
            Encoding::Sparse => self.for_each_run(|range, value| {
                histogram[usize::from(value)] += range.len();
            })?,
        }
        Ok(estimate::count(&histogram))
    }

    /// The runs of a sparse sketch, and how many bytes each takes.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Result<(Run, usize), Corrupted>> {
        let mut rest = &self.bytes[HEADER_BYTES..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let run = Run::decode(rest);
            rest = run.map_or(&[], |(_, bytes)| &rest[bytes..]);
            Some(run.ok_or(Corrupted))
        })
    }

    /// Hands the runs of a sparse sketch, with the value of their registers, to `each`. They must be those of all registers.
    fn for_each_run(&self, mut each: impl FnMut(Range<usize>, u8)) -> Result<(), Corrupted> {
        let mut start = 0;
        for run in self.runs() {
            let (run, _) = run?;
            let end = start + run.len();
            if end > REGISTERS {
                return Err(Corrupted);
            }
            each(start..end, run.value());
            start = end;
        }
        if start != REGISTERS {
            return Err(Corrupted);
        }
        Ok(())
    }
}

/// The byte that the lower bits of a register are in, and how many bits of another are in front.
fn dense_place(register: usize) -> (usize, usize) {
    let bit = register * REGISTER_BITS;
    (HEADER_BYTES + bit / 8, bit % 8)
}

fn dense_register(bytes: &[u8], register: usize) -> u8 {
    let (at, shift) = dense_place(register);
    let next = bytes.get(at + 1).copied().unwrap_or(0);
    let both = u16::from_le_bytes([bytes[at], next]);
    (both >> shift) as u8 & (REGISTER_VALUES - 1) as u8
}

fn set_dense_register(bytes: &mut [u8], register: usize, value: u8) {
    let (at, shift) = dense_place(register);
    let mask = ((REGISTER_VALUES - 1) as u16) << shift;
    let [low, high] = mask.to_le_bytes();
    let [value_low, value_high] = (u16::from(value) << shift).to_le_bytes();
    bytes[at] = bytes[at] & !low | value_low;
    if high != 0 {
        bytes[at + 1] = bytes[at + 1] & !high | value_high;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPARSE_MAX_BYTES: u64 = 3000;

    fn sketch_of(elements: Range<u64>, sparse_max_bytes: u64) -> Sketch<'static> {
        let mut sketch = Sketch::new();
        for element in elements {
            let bytes = element.to_le_bytes();
            sketch.add(&bytes, sparse_max_bytes).unwrap();
        }
        sketch
    }

    #[test]
    fn dense_and_sparse_ones_are_the_same_but_for_their_bytes() {
        let (mut sparse, mut dense) = (Sketch::new(), Sketch::new());
        dense.make_dense().unwrap();
        for element in 0..5000u64 {
            let bytes = element.to_be_bytes();
            let changed = sparse.add(&bytes, SPARSE_MAX_BYTES);
            assert_eq!(changed, dense.add(&bytes, 0), "{element}");
            if element % 100 == 0 {
                assert_eq!(sparse.count(), dense.count(), "{element}");
            }
        }
        assert_eq!(sparse.encoding(), Encoding::Dense);
        assert_eq!(sparse.into_bytes(), dense.into_bytes());
    }

    #[test]
    fn counts_are_right_to_within_a_few_standard_errors() {
        for elements in [0, 1, 10, 100, 1000, 10_000, 200_000] {
            let count = sketch_of(0..elements, SPARSE_MAX_BYTES).count().unwrap();
            let error = count.abs_diff(elements) as f64 / elements.max(1) as f64;
            assert!(error < 0.03, "{count} for {elements}");
        }
    }

    #[test]
    fn what_is_merged_counts_as_if_one_had_seen_all() {
        let mut registers = Registers::new();
        let parts = [sketch_of(0..300, SPARSE_MAX_BYTES), sketch_of(200..9000, 0)];
        for part in &parts {
            part.merge_into(&mut registers).unwrap();
        }
        let all = sketch_of(0..9000, SPARSE_MAX_BYTES);
        assert_eq!(Ok(registers.count()), all.count());
    }

    #[test]
    fn a_known_count_lasts_until_it_is_forgotten() {
        let mut sketch = Sketch::new();
        assert_eq!(sketch.known_count(), Some(0));
        sketch.note_count(1 << 40);
        assert_eq!(sketch.known_count(), Some(1 << 40));
        sketch.forget_count();
        assert_eq!(sketch.known_count(), None);
    }

    #[test]
    fn no_bytes_do_harm() {
        let mut random = 1u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for round in 0..3000 {
            let mut bytes = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80".to_vec();
            let len = next() % 400;
            bytes.extend((0..len).map(|_| next() as u8));
            if round % 3 == 0 {
                bytes[ENCODING_AT] = 0;
                bytes.resize(DENSE_BYTES, next() as u8);
            }
            let mut sketch = Sketch::parse(Cow::Owned(bytes)).unwrap();
            let counted = sketch.count();
            let merged = sketch.merge_into(&mut Registers::new());
            let added = sketch.add(&next().to_le_bytes(), SPARSE_MAX_BYTES);
            assert_eq!(counted.is_ok(), merged.is_ok(), "round {round}");
            assert!(added.is_ok() || counted.is_err(), "round {round}");
        }
    }
}
