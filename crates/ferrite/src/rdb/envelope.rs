//! What stands around the value in a payload: behind it the version of the format, two bytes, and a checksum of all before
//! it, eight bytes, both with the lowest byte first.

use crc::{CRC_64_REDIS, Crc, Digest, Table};

/// The version that is written, but for what it has no type for.
pub(crate) const VERSION: u16 = 10;
/// The version that hashes with fields that expire are written in.
pub(crate) const FIELD_EXPIRY_VERSION: u16 = 12;
/// Bytes behind the value.
pub(crate) const FOOTER_BYTES: usize = 10;

/// The greatest version of Redis that is read. Types that are not known are refused by their numbers, whatever it is.
const REDIS_VERSION_MAX: u16 = 16;
/// Versions of Valkey, which counts from 80 on since it has types of its own.
const VALKEY_VERSIONS: std::ops::RangeInclusive<u16> = 80..=89;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// A payload whose checksum is right.
pub(crate) struct Payload<'p> {
    /// The number of the type, and the value.
    pub(crate) value: &'p [u8],
    pub(crate) version: u16,
}

impl<'p> Payload<'p> {
    /// Takes a payload apart; `None` if its version is not known or its checksum wrong.
    pub(crate) fn open(bytes: &'p [u8]) -> Option<Payload<'p>> {
        let (rest, checksum) = bytes.split_last_chunk()?;
        let (value, version) = rest.split_last_chunk()?;
        let version = u16::from_le_bytes(*version);
        let is_known = version <= REDIS_VERSION_MAX || VALKEY_VERSIONS.contains(&version);
        let is_right = CRC.checksum(rest) == u64::from_le_bytes(*checksum);
        (is_known && is_right).then_some(Payload { value, version })
    }
}

/// Whether Valkey has written this version.
pub(super) fn is_of_valkey(version: u16) -> bool {
    VALKEY_VERSIONS.contains(&version)
}

/// The footer of a payload that is being written.
pub(crate) struct Footer {
    digest: Digest<'static, u64, Table<16>>,
}

impl Footer {
    pub(crate) fn new() -> Footer {
        Footer {
            digest: CRC.digest(),
        }
    }

    /// Takes note of bytes of the payload, in their order.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// What follows them.
    pub(crate) fn finish(mut self, version: u16) -> [u8; FOOTER_BYTES] {
        let mut footer = [0; FOOTER_BYTES];
        footer[..2].copy_from_slice(&version.to_le_bytes());
        self.digest.update(&version.to_le_bytes());
        footer[2..].copy_from_slice(&self.digest.finalize().to_le_bytes());
        footer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_redis() {
        assert_eq!(CRC.checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        // What redis-server 7.0 dumps for the string 12.
        let payload = b"\x00\xc0\x0c\n\x00<*\xf8Q\\\x04\xbc\xd5";
        let opened = Payload::open(payload).map(|payload| (payload.value, payload.version));
        assert_eq!(opened, Some((&b"\x00\xc0\x0c"[..], 10)));
        let mut footer = Footer::new();
        footer.update(b"\x00\xc0");
        footer.update(b"\x0c");
        assert_eq!(footer.finish(VERSION), payload[3..]);
    }

    #[test]
    fn what_is_too_short_or_of_another_version_is_not_opened() {
        for version in [0, 10, 12, 16, 80] {
            assert!(Payload::open(&Footer::new().finish(version)).is_some());
        }
        for version in [17, 79, 90, u16::MAX] {
            assert!(Payload::open(&Footer::new().finish(version)).is_none());
        }
        let whole = Footer::new().finish(VERSION);
        for len in 0..whole.len() {
            assert!(Payload::open(&whole[..len]).is_none(), "{len} bytes");
        }
    }
}
