//! Addresses and slots: how an index entry names a record.
//!
//! An address is 40 bits: a segment number and an offset in units of 8 bytes. How many bits are the offset follows
//! from the segment size, so 1 MiB segments leave 23 bits for the number and 32 MiB segments 18; either way 40 bits
//! span 8 TiB of log. A [`Slot`] adds what a reader must know before it has seen the record: whether it is a page of a
//! large value, and a size class that tells how much to read from the device.
//!
//! ```text
//! slot   63 ........ 44 | 43   | 42 .. 40   | 39 ............................ 0
//!        tag (index)    | page | size class | segment number | offset / 8
//! ```

use crate::record::flag;

/// Records start at multiples of this many bytes.
pub(crate) const RECORD_ALIGN: usize = 8;

const ADDRESS_BITS: u32 = 40;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
const CLASS_SHIFT: u32 = ADDRESS_BITS;
const PAGE_BIT: u64 = 1 << 43;

/// Bits of a [`Slot`] that the engine uses; the index keeps its tag above them.
pub(crate) const SLOT_BITS: u32 = 44;
pub(crate) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Bytes to read for a record of each size class. The first is that of roots of large values, so that a slot tells that
/// pages belong to its record; the others follow what is stored: small strings, then the 4 KiB and 32 KiB pages with their
/// headers, then anything up to the longest value kept in one record. A record longer than its class (a very long key) takes
/// a second read.
pub(crate) const CLASS_BYTES: [u32; 8] = [
    512,
    512,
    1024,
    2048,
    4096 + 512,
    16 * 1024,
    33 * 1024,
    72 * 1024,
];

const LARGE_ROOT_CLASS: u8 = 0;

/// The size class of a record with these flags that takes `record_bytes` in the log.
pub(crate) fn size_class(flags: u8, record_bytes: usize) -> u8 {
    if flags & flag::CHUNKED != 0 {
        return LARGE_ROOT_CLASS;
    }
    let classes = LARGE_ROOT_CLASS + 1..CLASS_BYTES.len() as u8 - 1;
    let fits = |class: &u8| record_bytes <= CLASS_BYTES[usize::from(*class)] as usize;
    classes.clone().find(fits).unwrap_or(classes.end)
}

/// How an address splits into segment number and offset; fixed per data directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    offset_bits: u32,
}

impl Geometry {
    /// `segment_bytes` is a power of two.
    pub(crate) fn new(segment_bytes: usize) -> Geometry {
        assert!(segment_bytes.is_power_of_two());
        Geometry {
            offset_bits: (segment_bytes / RECORD_ALIGN).trailing_zeros(),
        }
    }

    pub(crate) fn segment_bytes(self) -> usize {
        RECORD_ALIGN << self.offset_bits
    }

    /// One more than the highest segment number.
    pub(crate) fn segments_max(self) -> usize {
        1 << (ADDRESS_BITS - self.offset_bits)
    }

    pub(crate) fn address(self, segment: u32, offset: usize) -> Address {
        debug_assert!(offset < self.segment_bytes() && offset.is_multiple_of(RECORD_ALIGN));
        Address(u64::from(segment) << self.offset_bits | (offset / RECORD_ALIGN) as u64)
    }

    #[inline]
    pub(crate) fn segment(self, address: Address) -> u32 {
        (address.0 >> self.offset_bits) as u32
    }

    #[inline]
    pub(crate) fn offset(self, address: Address) -> usize {
        (address.0 & ((1 << self.offset_bits) - 1)) as usize * RECORD_ALIGN
    }
}

/// Where a record lies: 40 bits. Never 0, since every segment begins with a header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Address(u64);

impl Address {
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Address {
        Address(bits & ADDRESS_MASK)
    }
}

/// Whether a slot names the record of a key or a page of a large value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SlotKind {
    /// The record of a key.
    Root,
    /// A page of a large value.
    Page,
}

/// An index entry without its tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(u64);

impl Slot {
    /// A slot for a record with these flags that takes `record_bytes` in the log.
    pub(crate) fn new(address: Address, flags: u8, record_bytes: usize) -> Slot {
        let kind = match flags & flag::PAGE {
            0 => SlotKind::Root,
            _ => SlotKind::Page,
        };
        Slot::of_class(address, kind, size_class(flags, record_bytes))
    }

    /// A slot for a record whose [`size_class`] is known.
    pub(crate) fn of_class(address: Address, kind: SlotKind, class: u8) -> Slot {
        let page = if kind == SlotKind::Page { PAGE_BIT } else { 0 };
        Slot(address.0 | u64::from(class & 7) << CLASS_SHIFT | page)
    }

    /// The size class: an index into the bytes to read.
    pub(crate) fn class(self) -> u8 {
        (self.0 >> CLASS_SHIFT & 7) as u8
    }

    /// How long the record is at least, going by its size class.
    fn least_bytes(self) -> usize {
        match usize::from(self.class()) {
            0 | 1 => 32,
            class => CLASS_BYTES[class - 1] as usize,
        }
    }

    /// How long the record probably is, if those around it have `mean_bytes`.
    pub(crate) fn likely_bytes(self, mean_bytes: usize) -> usize {
        mean_bytes.clamp(self.least_bytes(), self.read_bytes())
    }

    /// From the low bits of an index word.
    pub(crate) fn from_bits(bits: u64) -> Slot {
        Slot(bits & SLOT_MASK)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn address(self) -> Address {
        Address(self.0 & ADDRESS_MASK)
    }

    pub(crate) fn kind(self) -> SlotKind {
        if self.0 & PAGE_BIT == 0 {
            SlotKind::Root
        } else {
            SlotKind::Page
        }
    }

    /// Whether the record is the root of a large value, whose pages are records of their own.
    pub(crate) fn is_large_root(self) -> bool {
        self.kind() == SlotKind::Root && self.class() == LARGE_ROOT_CLASS
    }

    /// How many bytes to read from the device to get the whole record, in all but rare cases.
    pub(crate) fn read_bytes(self) -> usize {
        CLASS_BYTES[usize::from(self.class())] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gives_back_segment_and_offset() {
        for shift in 20..=25 {
            let geometry = Geometry::new(1 << shift);
            let last = geometry.segments_max() as u32 - 1;
            for (segment, offset) in [(0, 64), (1, 8), (last, (1 << shift) - 8)] {
                let slot = Slot::new(geometry.address(segment, offset), flag::PAGE, 5000);
                assert_eq!(
                    (
                        geometry.segment(slot.address()),
                        geometry.offset(slot.address())
                    ),
                    (segment, offset)
                );
                assert_eq!(
                    (slot.kind(), slot.read_bytes()),
                    (SlotKind::Page, 16 * 1024)
                );
                assert_eq!(Slot::from_bits(slot.bits() | 0xabcde << SLOT_BITS), slot);
            }
        }
    }
}
