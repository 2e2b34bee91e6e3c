//! Files made of blocks of 4 KiB, each with a CRC of its own, so that a part can be read and trusted without the rest.
//!
//! ```text
//! block    0     payload   4092 bytes, zeroes where there is nothing
//!          4092  CRC32C    u32   over the payload, then the file's number u64 and the block's number u32
//! ```
//!
//! The CRC covers what the block is as well as what it holds: one that was written to the wrong place is noticed. Block 0 is
//! the header, and is written last:
//!
//! ```text
//! 0   magic            8 bytes
//! 8   format version   u32
//! 12  blocks           u32   of the file, this one included
//! 16  file number      u64
//! 24  what the format wants to know of its file
//! ```

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;

use crate::damage::Damage;
use crate::disk::{Disk, DiskFile};
use crate::fields::Fields;

/// Size of a block.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// What a block holds beside its CRC.
pub(crate) const PAYLOAD_BYTES: usize = BLOCK_BYTES - 4;
/// What the header has room for.
pub(crate) const HEADER_ROOM_BYTES: usize = PAYLOAD_BYTES - HEADER_BYTES;

const HEADER_BYTES: usize = 24;
/// So much is gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// What tells the files of one format from those of others.
pub(crate) struct Format {
    /// What a file of it is called in errors, with its article.
    pub(crate) what: &'static str,
    pub(crate) magic: &'static [u8; 8],
    pub(crate) version: u32,
    /// The end of the names of its files, which begin with their number.
    pub(crate) extension: &'static str,
}

impl Format {
    /// The name of file `number`.
    /// The number in the name of such a file; `None` for other names.
    pub(crate) fn number_of(&self, name: &str) -> Option<u64> {
        let digits = name.strip_suffix(self.extension)?.strip_suffix('.')?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        (self.file_name(number) == name).then_some(number)
    }

    pub(crate) fn file_name(&self, number: u64) -> String {
        format!("{number:016x}.{}", self.extension)
    }
}

/// A file being written, block by block. Takes 68 KiB of memory.
pub(crate) struct BlockWriter {
    file: Box<dyn DiskFile>,
    format: &'static Format,
    number: u64,
    /// Complete blocks that are not written yet.
    buffer: Vec<u8>,
    /// Blocks up to the end of `buffer`.
    blocks: u32,
}

impl BlockWriter {
    /// Begins file `number`, in the place of one that an earlier try may have left.
    pub(crate) fn create(
        disk: &dyn Disk,
        format: &'static Format,
        number: u64,
    ) -> io::Result<BlockWriter> {
        let name = format.file_name(number);
        match disk.remove(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(BlockWriter {
            file: disk.create(&name)?,
            format,
            number,
            buffer: Vec::with_capacity(WRITE_BYTES),
            blocks: 1,
        })
    }

    /// The number of the block that is added next.
    pub(crate) fn next_block(&self) -> u32 {
        self.blocks
    }

    /// Adds a block.
    pub(crate) fn push(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.buffer.len() == WRITE_BYTES {
            self.flush()?;
        }
        let number = self.blocks;
        self.blocks = number
            .checked_add(1)
            .ok_or_else(|| io::Error::new(ErrorKind::FileTooLarge, "too many blocks"))?;
        seal_block(&mut self.buffer, payload, self.number, number);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let first = self.blocks as usize - self.buffer.len() / BLOCK_BYTES;
        let offset = first as u64 * BLOCK_BYTES as u64;
        self.file.write_all_at(&self.buffer, offset)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left, and the header. The file is complete then, but not synced.
    pub(crate) fn finish(mut self, header: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        assert!(header.len() <= HEADER_ROOM_BYTES);
        self.flush()?;
        let mut payload = self.format.magic.to_vec();
        payload.extend(self.format.version.to_le_bytes());
        payload.extend(self.blocks.to_le_bytes());
        payload.extend(self.number.to_le_bytes());
        payload.extend(header);
        seal_block(&mut self.buffer, &payload, self.number, 0);
        self.file.write_all_at(&self.buffer, 0)?;
        Ok(self.file)
    }
}

/// Appends block `block` of file `number` to `bytes`.
fn seal_block(bytes: &mut Vec<u8>, payload: &[u8], number: u64, block: u32) {
    assert!(payload.len() <= PAYLOAD_BYTES);
    let start = bytes.len();
    bytes.extend(payload);
    bytes.resize(start + PAYLOAD_BYTES, 0);
    let crc = crc_of(&bytes[start..], number, block);
    bytes.extend(crc.to_le_bytes());
}

fn crc_of(payload: &[u8], number: u64, block: u32) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(payload), &number.to_le_bytes());
    crc32c::crc32c_append(crc, &block.to_le_bytes())
}

/// Gives every block of file `number` the CRC that the rest of it asks for, for tests of what else may be wrong.
#[cfg(any(test, fuzzing))]
pub(crate) fn reseal(blocks: &mut [u8], number: u64) {
    for (block, bytes) in (0..).zip(blocks.chunks_exact_mut(BLOCK_BYTES)) {
        let crc = crc_of(&bytes[..PAYLOAD_BYTES], number, block);
        bytes[PAYLOAD_BYTES..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Something that is wrong in a file of blocks.
pub(crate) struct Fault {
    block: u32,
    /// Byte of the block.
    at: usize,
    what: String,
}

impl Fault {
    #[cold]
    pub(crate) fn new(block: u32, at: usize, what: impl Into<String>) -> Fault {
        Fault {
            block,
            at,
            what: what.into(),
        }
    }

    /// As an error that names the file.
    #[cold]
    pub(crate) fn in_file(self, path: PathBuf) -> io::Error {
        let damage = Damage {
            file: path,
            offset: u64::from(self.block) * BLOCK_BYTES as u64 + self.at as u64,
            what: self.what,
        };
        damage.into()
    }
}

/// Checks `blocks` of file `number`, of which the first is block `first`.
pub(crate) fn check_blocks(number: u64, first: u32, blocks: &[u8]) -> Result<(), Fault> {
    for (block, bytes) in (first..).zip(blocks.chunks_exact(BLOCK_BYTES)) {
        let (payload, crc) = bytes.split_at(PAYLOAD_BYTES);
        if crc_of(payload, number, block).to_le_bytes() != crc {
            return Err(Fault::new(block, 0, "block CRC mismatch"));
        }
    }
    Ok(())
}

/// Checks `header`, block 0 of file `number`, and returns how many blocks the file has and what the header says beside that.
pub(crate) fn check_header<'h>(
    format: &Format,
    number: u64,
    header: &'h [u8],
) -> Result<(u32, &'h [u8]), Fault> {
    // Magic and version come before the CRC, which another version may have somewhere else.
    let mut fields = Fields::new(header);
    let blocks = check_identity(&mut fields, format, number)
        .map_err(|what| Fault::new(0, fields.last(), what))?;
    check_blocks(number, 0, &header[..BLOCK_BYTES])?;
    Ok((blocks, &header[HEADER_BYTES..PAYLOAD_BYTES]))
}

/// Returns how many blocks the file has.
fn check_identity(fields: &mut Fields<'_>, format: &Format, number: u64) -> Result<u32, String> {
    if fields.bytes(8)? != format.magic {
        return Err(format!("is not {}", format.what));
    }
    let version = fields.u32()?;
    if version != format.version {
        let known = format.version;
        return Err(format!(
            "has format version {version}: this program reads version {known}"
        ));
    }
    let blocks = fields.u32()?;
    let found = fields.u64()?;
    if found != number {
        return Err(format!("is number {found:016x}"));
    }
    Ok(blocks)
}

/// A complete file, open for reading.
pub(crate) struct BlockFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    number: u64,
    blocks: u32,
}

impl BlockFile {
    /// Opens file `number` and returns what its header says beside the common part, 4 KiB less 28 bytes of it.
    ///
    /// # Errors
    ///
    /// [`Damage`], those of the disk.
    pub(crate) fn open(
        disk: &dyn Disk,
        format: &Format,
        number: u64,
    ) -> io::Result<(BlockFile, Vec<u8>)> {
        let name = format.file_name(number);
        let mut file = BlockFile {
            file: disk.open(&name)?,
            path: disk.path(&name),
            number,
            blocks: 1,
        };
        let len = file.file.len()?;
        if len < BLOCK_BYTES as u64 {
            let what = format!("is {len} bytes long: too short for {}", format.what);
            return Err(file.damage(0, 0, what));
        }
        let mut header = vec![0; BLOCK_BYTES];
        file.file.read_exact_at(&mut header, 0)?;
        let checked = check_header(format, number, &header);
        let (blocks, rest) = checked.map_err(|fault| fault.in_file(file.path.clone()))?;
        let written_bytes = u64::from(blocks) * BLOCK_BYTES as u64;
        if written_bytes != len {
            let what = format!("was {written_bytes} bytes long and is {len}");
            return Err(file.damage(0, 12, what));
        }
        file.blocks = blocks;
        Ok((file, rest.to_vec()))
    }

    /// Blocks of the file, the header included.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Reads blocks of the file into `buffer`, which then holds them and nothing else, each of [`BLOCK_BYTES`].
    ///
    /// # Errors
    ///
    /// [`Damage`], those of the disk.
    pub(crate) fn read(&self, blocks: Range<u32>, buffer: &mut Vec<u8>) -> io::Result<()> {
        assert!(blocks.end <= self.blocks);
        buffer.resize(blocks.len() * BLOCK_BYTES, 0);
        let offset = u64::from(blocks.start) * BLOCK_BYTES as u64;
        self.file.read_exact_at(buffer, offset)?;
        check_blocks(self.number, blocks.start, buffer)
            .map_err(|fault| fault.in_file(self.path.clone()))
    }

    /// That something is wrong at byte `offset` of the file.
    pub(crate) fn damage_at(&self, offset: u64, what: String) -> Damage {
        let file = self.path.clone();
        Damage { file, offset, what }
    }

    /// That something is wrong at byte `at` of a block.
    #[cold]
    pub(crate) fn damage(&self, block: u32, at: usize, what: impl Into<String>) -> io::Error {
        Fault::new(block, at, what).in_file(self.path.clone())
    }

    /// Drops what the page cache holds of the file.
    pub(crate) fn drop_cached(&self) {
        self.file.drop_cached();
    }
}
