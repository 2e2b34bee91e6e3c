//! Deaths files: which of the records that key files list are not live.
//!
//! A checkpoint writes the deaths of its generation into one file, and now and then several files into one. Recovery takes
//! every record that is listed in a key file and not dead here. A *shadowed* record is still listed, since nobody has looked
//! whether it is of the same key as the one that was written in front of it; it goes behind all others of its hash.
//!
//! The name is `<generation, 16 hex digits>.deaths`. The file is made of blocks (`block.rs`):
//!
//! ```text
//! header, from 24     deaths u64, blocks of runs u32, number of runs u32
//! blocks of runs      from block 1: runs one after the other, each beginning with a new block
//! blocks of starts    where each run begins: block number u32, 1023 to a block
//!
//! block of a run      groups, until there is no room for another or the count is 0:
//!     file id         u64
//!     count           u16
//!     deaths          count times u32: offset of the record in its segment, in units of 8 bytes, times 2, plus 1 if shadowed
//! ```
//!
//! A run is sorted by file id. So deaths are written as they come, sorted by the 64 K, in little memory, and read file by
//! file, merged. A death takes 4 bytes and a share of its group's 10.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::ops::Range;

use crate::address::RECORD_ALIGN;
use crate::block::{BLOCK_BYTES, BlockFile, BlockWriter, Format, PAYLOAD_BYTES};
use crate::disk::{Disk, DiskFile};
use crate::fields::Fields;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::store::SEGMENT_BYTES;

pub(crate) static FORMAT: Format = Format {
    what: "a deaths file",
    magic: b"FRTDEATH",
    version: 1,
    extension: "deaths",
};

const GROUP_HEADER_BYTES: usize = 10;
const STARTS_PER_BLOCK: usize = PAYLOAD_BYTES / 4;
/// Blocks of a run that are read at once.
const BLOCKS_PER_READ: u32 = 4;

/// The generation in the name of a deaths file; `None` for other names.
pub(crate) fn generation_of(name: &str) -> Option<u64> {
    FORMAT.number_of(name)
}

/// What became of a record that a key file lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mark {
    /// It was replaced, removed or moved.
    Dead = 0,
    /// A blind write went in front of it, perhaps of another key.
    Shadowed = 1,
}

/// One record that died or was shadowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct DeathEntry {
    pub(crate) file_id: u64,
    /// In bytes from the start of the segment.
    pub(crate) offset: u32,
    pub(crate) mark: Mark,
}

/// A deaths file being written. Takes 68 KiB of memory.
pub(crate) struct DeathsWriter {
    blocks: BlockWriter,
    payload: Vec<u8>,
    /// Where in `payload` the last group begins, and whose it is.
    group: Option<(usize, u64)>,
    starts: Vec<u32>,
    deaths: u64,
}

impl DeathsWriter {
    /// Begins the deaths file of `generation`, in the place of one that an earlier try may have left.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn create(disk: &dyn Disk, generation: u64) -> io::Result<DeathsWriter> {
        Ok(DeathsWriter {
            blocks: BlockWriter::create(disk, &FORMAT, generation)?,
            payload: Vec::with_capacity(PAYLOAD_BYTES),
            group: None,
            starts: Vec::new(),
            deaths: 0,
        })
    }

    /// Writes some deaths, sorting them: some ten thousands at a time, since reading takes 16 KiB of memory a run.
    ///
    /// # Errors
    ///
    /// Those of the disk. The file is of no use then; drop the writer and remove the file, or write it anew.
    pub(crate) fn write_run(&mut self, deaths: &mut [DeathEntry]) -> io::Result<()> {
        deaths.sort_unstable_by_key(|death| death.file_id);
        self.begin_run();
        deaths.iter().try_for_each(|&death| self.put(death))?;
        self.end_block()
    }

    /// Writes what the deaths files of `generations`, which stay as they are, have of the segments that `is_kept` accepts.
    ///
    /// # Errors
    ///
    /// [`Damage`](crate::Damage), those of the disk; as [`Self::write_run`].
    pub(crate) fn merge(
        &mut self,
        disk: &dyn Disk,
        generations: &[u64],
        is_kept: impl Fn(u64) -> bool,
    ) -> io::Result<()> {
        let mut reader = DeathsReader::open(disk, generations)?;
        // All of it is one run, however long.
        self.begin_run();
        while let Some(deaths) = reader.next_file()? {
            let FileDeaths {
                file_id,
                dead,
                shadowed,
            } = deaths;
            if !is_kept(file_id) {
                continue;
            }
            for (offsets, mark) in [(dead, Mark::Dead), (shadowed, Mark::Shadowed)] {
                for offset in offsets {
                    self.put(DeathEntry {
                        file_id,
                        offset,
                        mark,
                    })?;
                }
            }
        }
        self.end_block()
    }

    fn begin_run(&mut self) {
        self.starts.push(self.blocks.next_block());
    }

    fn put(&mut self, death: DeathEntry) -> io::Result<()> {
        let DeathEntry {
            file_id,
            offset,
            mark,
        } = death;
        debug_assert!((offset as usize).is_multiple_of(RECORD_ALIGN));
        let same_group = self.group.is_some_and(|(_, of)| of == file_id);
        let need = if same_group {
            4
        } else {
            GROUP_HEADER_BYTES + 4
        };
        if self.payload.len() + need > PAYLOAD_BYTES {
            self.end_block()?;
        }
        let at = match self.group {
            Some((at, of)) if of == file_id => at,
            _ => {
                let at = self.payload.len();
                self.payload.extend(file_id.to_le_bytes());
                self.payload.extend(0u16.to_le_bytes());
                self.group = Some((at, file_id));
                at
            }
        };
        let word = offset / RECORD_ALIGN as u32 * 2 + mark as u32;
        self.payload.extend(word.to_le_bytes());
        let count = ((self.payload.len() - at - GROUP_HEADER_BYTES) / 4) as u16;
        self.payload[at + 8..at + GROUP_HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        self.deaths += 1;
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if !self.payload.is_empty() {
            self.blocks.push(&self.payload)?;
        }
        self.payload.clear();
        self.group = None;
        Ok(())
    }

    /// Completes the file, which is not synced yet.
    ///
    /// # Errors
    ///
    /// As [`Self::write_run`].
    pub(crate) fn finish(mut self) -> io::Result<Box<dyn DiskFile>> {
        let run_blocks = self.blocks.next_block() - 1;
        for starts in self.starts.chunks(STARTS_PER_BLOCK) {
            let payload: Vec<u8> = starts
                .iter()
                .flat_map(|start| start.to_le_bytes())
                .collect();
            self.blocks.push(&payload)?;
        }
        let mut header = self.deaths.to_le_bytes().to_vec();
        header.extend(run_blocks.to_le_bytes());
        header.extend((self.starts.len() as u32).to_le_bytes());
        self.blocks.finish(&header)
    }
}

/// What died of one segment. Offsets are in bytes from its start, ascending, and in one list only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileDeaths {
    pub(crate) file_id: u64,
    pub(crate) dead: Vec<u32>,
    pub(crate) shadowed: Vec<u32>,
}

/// The deaths of several files, segment by segment.
pub(crate) struct DeathsReader {
    files: Vec<BlockFile>,
    runs: Vec<Run>,
    /// The runs that are not at their end, by the file id of their next group.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

impl DeathsReader {
    /// Opens the deaths files of `generations`. Takes 16 KiB of memory a run of them.
    ///
    /// # Errors
    ///
    /// [`Damage`](crate::Damage), those of the disk.
    pub(crate) fn open(disk: &dyn Disk, generations: &[u64]) -> io::Result<DeathsReader> {
        let mut reader = DeathsReader {
            files: Vec::new(),
            runs: Vec::new(),
            next: BinaryHeap::new(),
        };
        for (of, &generation) in generations.iter().enumerate() {
            let (file, header) = BlockFile::open(disk, &FORMAT, generation)?;
            let runs = runs_of(&file, &header)?;
            reader.files.push(file);
            for blocks in runs {
                reader.runs.push(Run::new(of, blocks));
                reader.advance(reader.runs.len() - 1)?;
            }
        }
        Ok(reader)
    }

    /// The deaths of the segment with the next higher file id; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`Damage`](crate::Damage), those of the disk.
    pub(crate) fn next_file(&mut self) -> io::Result<Option<FileDeaths>> {
        let Some(&Reverse((file_id, _))) = self.next.peek() else {
            return Ok(None);
        };
        let mut words = Vec::new();
        while let Some(&Reverse((of, run))) = self.next.peek() {
            if of != file_id {
                break;
            }
            self.next.pop();
            self.runs[run].take_group(&mut words);
            self.advance(run)?;
        }
        // Of two words for one record the one that says dead comes first.
        words.sort_unstable();
        words.dedup_by_key(|word| *word / 2);
        let mut deaths = FileDeaths {
            file_id,
            ..FileDeaths::default()
        };
        for word in words {
            let offset = word / 2 * RECORD_ALIGN as u32;
            if word % 2 == Mark::Dead as u32 {
                deaths.dead.push(offset);
            } else {
                deaths.shadowed.push(offset);
            }
        }
        Ok(Some(deaths))
    }

    /// Lets a run go on to its next group.
    fn advance(&mut self, run: usize) -> io::Result<()> {
        let at = &mut self.runs[run];
        if at.next_group(&self.files[at.file])? {
            self.next.push(Reverse((at.file_id, run)));
        }
        Ok(())
    }
}

/// The blocks of each run of a file.
fn runs_of(file: &BlockFile, header: &[u8]) -> io::Result<Vec<Range<u32>>> {
    let mut fields = Fields::new(header);
    let mut read = || {
        let _deaths = fields.u64()?;
        Ok((fields.u32()?, fields.u32()?))
    };
    let (run_blocks, runs) = read().map_err(|what: &str| file.damage(0, 0, what))?;
    let starts_blocks = runs.div_ceil(STARTS_PER_BLOCK as u32);
    if u64::from(run_blocks) + u64::from(starts_blocks) + 1 != u64::from(file.blocks()) {
        let what = format!("{run_blocks} blocks of {runs} runs do not fill the file");
        return Err(file.damage(0, 32, what));
    }
    let first = run_blocks + 1;
    let mut buffer = Vec::new();
    let mut starts = Vec::new();
    for block in first..file.blocks() {
        file.read(block..block + 1, &mut buffer)?;
        starts.extend(words_of(&buffer[..PAYLOAD_BYTES]));
    }
    starts.truncate(runs as usize);
    starts.push(first);
    if starts[0] != 1 || !starts.is_sorted() {
        return Err(file.damage(first, 0, "starts of runs are not in order"));
    }
    let ranges = starts.windows(2).map(|pair| pair[0]..pair[1]);
    Ok(ranges.collect())
}

/// A run being read.
struct Run {
    /// Which file it is in.
    file: usize,
    /// Blocks yet to be read.
    blocks: Range<u32>,
    /// The blocks read last, of which the first has this number.
    buffer: Vec<u8>,
    buffer_block: u32,
    /// Where in `buffer` the next group begins.
    at: usize,
    file_id: u64,
    /// Where the words of the current group lie in `buffer`.
    group: Range<usize>,
}

impl Run {
    fn new(file: usize, blocks: Range<u32>) -> Run {
        Run {
            file,
            buffer_block: blocks.start,
            blocks,
            buffer: Vec::new(),
            at: 0,
            file_id: 0,
            group: 0..0,
        }
    }

    /// Goes to the next group; `false` at the end of the run.
    fn next_group(&mut self, file: &BlockFile) -> io::Result<bool> {
        loop {
            if self.at == self.buffer.len() && !self.read(file)? {
                return Ok(false);
            }
            let (block, in_block) = (self.at / BLOCK_BYTES, self.at % BLOCK_BYTES);
            let payload = &self.buffer[block * BLOCK_BYTES..][..PAYLOAD_BYTES];
            let mut fields = Fields::new(&payload[in_block..]);
            let head = (fields.u64(), fields.u16());
            let (Ok(file_id), Ok(count @ 1..)) = head else {
                // No other group in this block.
                self.at = (block + 1) * BLOCK_BYTES;
                continue;
            };
            let damaged = |what| Err(file.damage(self.buffer_block + block as u32, in_block, what));
            let Ok(words) = fields.bytes(usize::from(count) * 4) else {
                return damaged(format!("a group of {count} passes the end of its block"));
            };
            if file_id < self.file_id {
                return damaged(format!("file id {file_id} follows {}", self.file_id));
            }
            if let Some(word) = words_of(words).find(|word| !is_valid(*word)) {
                return damaged(format!("{word} is not the place of a record"));
            }
            self.file_id = file_id;
            let start = self.at + GROUP_HEADER_BYTES;
            self.group = start..start + words.len();
            self.at = self.group.end;
            return Ok(true);
        }
    }

    /// Reads the next blocks; `false` if there are none.
    fn read(&mut self, file: &BlockFile) -> io::Result<bool> {
        let first = self.blocks.start;
        let end = self.blocks.end.min(first + BLOCKS_PER_READ);
        if first == end {
            self.buffer = Vec::new();
            self.at = 0;
            return Ok(false);
        }
        file.read(first..end, &mut self.buffer)?;
        self.buffer_block = first;
        self.blocks.start = end;
        self.at = 0;
        Ok(true)
    }

    fn take_group(&self, words: &mut Vec<u32>) {
        words.extend(words_of(&self.buffer[self.group.clone()]));
    }
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// Whether there can be a record where `word` says.
fn is_valid(word: u32) -> bool {
    let offset = word as usize / 2 * RECORD_ALIGN;
    (SEGMENT_HEADER_BYTES..*SEGMENT_BYTES.end()).contains(&offset)
}

#[cfg(test)]
mod tests;
