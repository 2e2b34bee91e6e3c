//! The format of a log file, to the byte. Everything is little-endian.
//!
//! ```text
//! file header                                            block header
//! 0   magic            8 bytes, "HYBRLOG\n"              0   magic           4 bytes, "\xF5BLK"
//! 8   version          u32                               4   kind            u32   1 frames, 2 piece of a blob
//! 12  CRC32C           u32   over 0..12 and 16..64       8   log id          u64   the file's
//! 16  generation       u64                               16  offset          u64   where this header lies
//! 24  log id           u64   random                      24  payload length  u64   bytes after this header
//! 32  previous end     u64   length of the previous      32  durable         u64   up to where the file was synced when this
//!                            generation's log; all ones:                           was written
//!                            it was not logged           40  payload CRC32C  u32
//! 40  zeroes                                             44  CRC32C          u32   over 0..44
//! 64  blocks                                             48  payload
//!
//! payload of frames:  for each frame: length (LEB128), effects; no frame is empty: zeroes up to the end are padding
//! payload of a piece: blob number u64, bytes; the pieces of a blob follow each other, with other blocks between them
//! ```
//!
//! Behind the last block a file ends, or is zeroes up to its end.
//!
//! Padding lets a long block end with a page of the file, so that the next can be written past the page cache.
//!
//! A block is written at once, so it is there as a whole or is not sound. Its log id and offset make sure that a header that
//! is found by looking for its magic is not a copy that somebody has stored as a value.

pub(super) const FILE_HEADER_BYTES: usize = 64;
pub(super) const BLOCK_HEADER_BYTES: usize = 48;

/// What a piece of a blob has before its bytes.
pub(super) const PIECE_HEADER_BYTES: usize = 8;

pub(super) const BLOCK_MAGIC: [u8; 4] = *b"\xF5BLK";

const FILE_MAGIC: [u8; 8] = *b"HYBRLOG\n";
pub(super) const VERSION: u32 = 1;
const NOT_LOGGED: u64 = u64::MAX;

/// The name of a generation's log.
pub(crate) fn log_name(generation: u64) -> String {
    format!("{generation:016x}.log")
}

/// The generation whose log has this name.
pub(crate) fn generation_of_log(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let generation = u64::from_str_radix(digits, 16).ok()?;
    (log_name(generation) == name).then_some(generation)
}

/// What the first bytes of a log file say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileHeader {
    pub(super) generation: u64,
    pub(super) log_id: u64,
    /// How long the previous generation's log is; `None` if that generation was not logged.
    pub(super) previous_end: Option<u64>,
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_end.unwrap_or(NOT_LOGGED).to_le_bytes());
        let crc = file_header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<FileHeader, HeaderError> {
        if bytes[..8] != FILE_MAGIC {
            return Err(HeaderError::Unsound("the file is no command log"));
        }
        if u32_at(bytes, 12) != file_header_crc(bytes) {
            return Err(HeaderError::Unsound(
                "the CRC of the file header does not match",
            ));
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        Ok(FileHeader {
            generation: u64_at(bytes, 16),
            log_id: u64_at(bytes, 24),
            previous_end: Some(u64_at(bytes, 32)).filter(|&end| end != NOT_LOGGED),
        })
    }
}

/// Why the first bytes of a file are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderError {
    /// They are not what was written.
    Unsound(&'static str),
    /// They are sound, and of another version of the format.
    Version(u32),
}

fn file_header_crc(bytes: &[u8; FILE_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BlockKind {
    Frames = 1,
    Piece = 2,
}

/// What stands before each block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockHeader {
    pub(super) kind: BlockKind,
    pub(super) log_id: u64,
    /// Where in the file this header lies.
    pub(super) offset: u64,
    pub(super) payload_bytes: u64,
    /// Up to here the file was known to be synced when the block was written.
    pub(super) durable: u64,
    pub(super) payload_crc: u32,
}

impl BlockHeader {
    pub(super) fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `offset` of the log `log_id`, if that is what `bytes` are.
    pub(super) fn decode(
        bytes: &[u8; BLOCK_HEADER_BYTES],
        log_id: u64,
        offset: u64,
    ) -> Result<BlockHeader, &'static str> {
        if bytes[..4] != BLOCK_MAGIC {
            return Err("no block begins here");
        }
        if u32_at(bytes, 44) != crc32c::crc32c(&bytes[..44]) {
            return Err("the CRC of the block's header does not match");
        }
        let kind = match u32_at(bytes, 4) {
            1 => BlockKind::Frames,
            2 => BlockKind::Piece,
            _ => return Err("the block is of no known kind"),
        };
        let header = BlockHeader {
            kind,
            log_id: u64_at(bytes, 8),
            offset: u64_at(bytes, 16),
            payload_bytes: u64_at(bytes, 24),
            durable: u64_at(bytes, 32),
            payload_crc: u32_at(bytes, 40),
        };
        if (header.log_id, header.offset) != (log_id, offset) {
            return Err("the block belongs to another place");
        }
        Ok(header)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_this_to_the_byte_and_come_back() {
        let header = FileHeader {
            generation: 0x0102,
            log_id: 0x0304,
            previous_end: Some(0x0506),
        };
        let bytes = header.encode();
        assert_eq!(&bytes[..12], b"HYBRLOG\n\x01\0\0\0");
        assert_eq!(
            bytes[16..40],
            [
                2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 6, 5, 0, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        let first = FileHeader {
            previous_end: None,
            ..header
        };
        assert_eq!(FileHeader::decode(&first.encode()), Ok(first));

        let block = BlockHeader {
            kind: BlockKind::Piece,
            log_id: 7,
            offset: 64,
            payload_bytes: 0x0809,
            durable: 0x0a0b,
            payload_crc: 0x0c0d,
        };
        let bytes = block.encode();
        assert_eq!(&bytes[..8], b"\xF5BLK\x02\0\0\0");
        assert_eq!((bytes[24], bytes[32], bytes[40]), (9, 0x0b, 0x0d));
        assert_eq!(BlockHeader::decode(&bytes, 7, 64), Ok(block));
        assert!(BlockHeader::decode(&bytes, 8, 64).is_err());
        assert!(BlockHeader::decode(&bytes, 7, 65).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let header = FileHeader {
            generation: 1,
            log_id: 2,
            previous_end: None,
        };
        let block = BlockHeader {
            kind: BlockKind::Frames,
            log_id: 2,
            offset: 64,
            payload_bytes: 1,
            durable: 64,
            payload_crc: 3,
        };
        for bit in 0..FILE_HEADER_BYTES * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bytes).is_err(), "bit {bit}");
        }
        for bit in 0..BLOCK_HEADER_BYTES * 8 {
            let mut bytes = block.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::decode(&bytes, 2, 64).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn only_names_of_logs_are_taken_for_such() {
        assert_eq!(generation_of_log(&log_name(0xabc)), Some(0xabc));
        for name in [
            "LOCK",
            "0000000000000abc.seg",
            "abc.log",
            "0000000000000ABC.log",
            "+000000000000abc.log",
            ".log",
        ] {
            assert_eq!(generation_of_log(name), None, "{name}");
        }
    }
}
