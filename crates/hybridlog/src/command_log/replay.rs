//! Reading the logs back at the start, trusting nothing in them.
//!
//! What a power cut tears is the end of the last log, behind everything that was synced. So a block that is not sound is the
//! *torn tail* if nothing says that it was durable, and *damage* if something does: a later block that says how far the file
//! was synced when it was written, or the next generation's log, which is made only when this one is complete and synced.
//! Zeroes up to the end of the file are neither: a log may be filled ahead with them.
//! Nothing is changed here: the torn tail is cut when the log is started anew
//! ([`CommandLog::start`](super::CommandLog::start)).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use smallvec::SmallVec;

use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockHeader, BlockKind, FILE_HEADER_BYTES, FileHeader,
    HeaderError, PIECE_HEADER_BYTES, VERSION, generation_of_log, log_name, u64_at,
};
use super::{BlobId, LogEnd, varint};
use crate::damage::Damage;
use crate::disk::{Disk, DiskFile};

/// So much of a file is read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// What a replay has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) frames: u64,
    /// Bytes of log files, without the torn tail.
    pub(crate) bytes: u64,
    /// Bytes of the torn tail.
    pub(crate) cut_bytes: u64,
    /// Where the last log ends: for [`CommandLog::start`](super::CommandLog::start).
    pub(crate) last: Option<LogEnd>,
    /// From this generation on there are logs that nothing leads to: they follow a generation that was not logged and whose
    /// checkpoint was not finished. They have not been replayed.
    pub(crate) unreachable_from: Option<u64>,
}

/// Frames that are given away at once, so that what they need can be on its way before the first of them is done.
const FRAMES_AT_ONCE: usize = 64;

/// A frame as it was appended.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'b> {
    pub(crate) generation: u64,
    /// Where it begins in the file.
    pub(crate) at: u64,
    pub(crate) effects: &'b [u8],
}

/// A frame is refused: where it begins, and why.
pub(crate) type Refused = (u64, String);

/// What a frame is given to: its generation, its effects as they were appended, and the blobs they may name.
pub(crate) type Each<'a> = dyn FnMut(u64, &[u8], &mut Blobs<'_>) -> Result<(), String> + 'a;

/// What frames that follow each other are given to, together.
pub(crate) type EachBatch<'a> = dyn FnMut(&[Frame<'_>], &mut Blobs<'_>) -> Result<(), Refused> + 'a;

/// Which logs are to be replayed: those of the generations after a checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Logs {
    /// The checkpoint's generation; 0 if there is none.
    pub(crate) checkpoint: u64,
    /// The logs of all generations up to this one must be there. Later ones may.
    pub(crate) last: u64,
}

/// Gives all frames of the logs to `each`, in order. Takes memory for one block at a time.
///
/// # Errors
///
/// [`Damage`]: something is not as it was when it was durable, or `each` refuses a frame. Those of the disk. Frames before
/// that have been given to `each`.
pub(crate) fn replay(disk: &dyn Disk, logs: Logs, each: &mut Each<'_>) -> io::Result<Replayed> {
    replay_batches(disk, logs, &mut |frames, blobs| {
        frames.iter().try_for_each(|frame| {
            let refused = |what| (frame.at, what);
            each(frame.generation, frame.effects, blobs).map_err(refused)
        })
    })
}

/// As [`replay`], some frames at a time: what the later ones need can be on its way while the first are done. Several threads
/// may replay the same logs; they are given the same batches.
///
/// # Errors
///
/// As there.
pub(crate) fn replay_batches(
    disk: &dyn Disk,
    logs: Logs,
    each: &mut EachBatch<'_>,
) -> io::Result<Replayed> {
    let (logs, unreachable_from) = logs_there(disk, logs)?;
    let mut replayed = Replayed {
        unreachable_from,
        ..Replayed::default()
    };
    for (at, log) in logs.iter().enumerate() {
        let next = logs.get(at + 1);
        let end = match &log.header {
            Ok(header) => {
                let synced_end = log.synced_end(next)?;
                log.replay(header, synced_end, &mut replayed, each)?
            }
            Err(why) => log.without_header(why, next)?,
        };
        replayed.bytes += end;
        replayed.cut_bytes += log.torn_bytes(end)?;
        replayed.last = Some(LogEnd {
            generation: log.generation,
            bytes: end,
        });
    }
    Ok(replayed)
}

/// The logs to replay, ascending and without a gap, and from where on there are more that nothing leads to. All that must be
/// there are, and the last of them has its header, which is synced before anything leads to it; the others are told by those
/// that follow them how long they must be.
fn logs_there(disk: &dyn Disk, logs: Logs) -> io::Result<(Vec<Log>, Option<u64>)> {
    let (there, unreachable_from) = logs_after(disk, logs.checkpoint)?;
    for (generation, at) in (logs.checkpoint + 1..=logs.last).zip(0..) {
        let Some(log) = there.get(at) else {
            let file = disk.path(&log_name(generation));
            let what = "the manifest says that there is this log, but it is missing".to_owned();
            let offset = 0;
            return Err(Damage { file, offset, what }.into());
        };
        if let (true, Err(why)) = (generation == logs.last, log.header) {
            return Err(log.damage(0, why));
        }
    }
    Ok((there, unreachable_from))
}

/// The logs after a checkpoint, ascending and without a gap, and from where on there are more that nothing leads to.
fn logs_after(disk: &dyn Disk, checkpoint: u64) -> io::Result<(Vec<Log>, Option<u64>)> {
    let mut generations: Vec<u64> = disk
        .names()?
        .iter()
        .filter_map(|name| generation_of_log(name))
        .filter(|&generation| generation > checkpoint)
        .collect();
    generations.sort_unstable();
    let mut logs: Vec<Log> = Vec::new();
    for generation in generations {
        let log = Log::open(disk, generation)?;
        let expected = checkpoint + 1 + logs.len() as u64;
        if generation == expected {
            logs.push(log);
            continue;
        }
        return match log.header {
            Ok(header) if header.previous_end.is_none() => Ok((logs, Some(generation))),
            // Nothing has ever been written to it.
            Err(_) if log.len <= FILE_HEADER_BYTES as u64 => Ok((logs, Some(generation))),
            _ => Err(log.damage(
                0,
                format!(
                    "the log before it, {}, is missing",
                    log_name(generation - 1)
                ),
            )),
        };
    }
    Ok((logs, None))
}

/// The last generation whose log [`replay`] would replay; `None` if there is none.
pub(crate) fn last_generation(disk: &dyn Disk, logs: Logs) -> io::Result<Option<u64>> {
    let (logs, _) = logs_there(disk, logs)?;
    Ok(logs.last().map(|log| log.generation))
}

/// Where the last block ends of those of a log that are sound, and end at `up_to` or before; 0 if it has no sound header.
///
/// # Errors
///
/// Those of the disk.
pub(crate) fn sound_end(disk: &dyn Disk, generation: u64, up_to: u64) -> io::Result<u64> {
    let log = match Log::open(disk, generation) {
        Ok(log) => log,
        Err(error) if Damage::of(&error).is_some() => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut at = FILE_HEADER_BYTES as u64;
    let Some(header) = log.header.ok().filter(|_| at <= up_to) else {
        return Ok(0);
    };
    let mut window = Window::new(&*log.file, log.len);
    while at < log.len {
        let end = match window.block(header.log_id, at)? {
            Found::Block(block, _) => at + BLOCK_HEADER_BYTES as u64 + block.payload_bytes,
            Found::Unsound(_) => break,
        };
        if end > up_to {
            break;
        }
        at = end;
    }
    Ok(at)
}

struct Log {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    generation: u64,
    len: u64,
    /// Or why there is none: the file was being made when the power went, or it is damaged.
    header: Result<FileHeader, &'static str>,
}

impl Log {
    fn open(disk: &dyn Disk, generation: u64) -> io::Result<Log> {
        let name = log_name(generation);
        let path = disk.path(&name);
        let file = disk.open(&name)?;
        let len = file.len()?;
        let damage = |offset, what| {
            let file = path.clone();
            Err(Damage { file, offset, what }.into())
        };
        let mut bytes = [0; FILE_HEADER_BYTES];
        let header = if len < FILE_HEADER_BYTES as u64 {
            Err("the file ends within its header")
        } else {
            file.read_exact_at(&mut bytes, 0)?;
            match FileHeader::decode(&bytes) {
                Ok(header) if header.generation != generation => {
                    let what = format!("this is the log of generation {}", header.generation);
                    return damage(16, what);
                }
                Ok(header) => Ok(header),
                Err(HeaderError::Unsound(why)) => Err(why),
                Err(HeaderError::Version(version)) => {
                    let what = format!("format version {version}, this program knows {VERSION}");
                    return damage(8, what);
                }
            }
        };
        Ok(Log {
            file,
            path,
            generation,
            len,
            header,
        })
    }

    fn damage(&self, offset: u64, what: impl Into<String>) -> io::Error {
        let damage = Damage {
            file: self.path.clone(),
            offset,
            what: what.into(),
        };
        damage.into()
    }

    /// Up to where this log is known to be synced, because there is a `next` one: that is all of it.
    fn synced_end(&self, next: Option<&Log>) -> io::Result<Option<u64>> {
        let Some(next) = next else { return Ok(None) };
        match next.header.map(|header| header.previous_end) {
            Ok(Some(end)) => Ok(Some(end)),
            Ok(None) => {
                let what = "says that the generation before it was not logged, but its log is here";
                Err(next.damage(32, what))
            }
            Err(_) => Ok(Some(self.len)),
        }
    }

    /// Where a log without a header ends: at 0, if it was never begun.
    fn without_header(&self, why: &str, next: Option<&Log>) -> io::Result<u64> {
        let never_begun = match next {
            // The header is synced before anything else is written.
            None => self.len <= FILE_HEADER_BYTES as u64,
            Some(_) => self.len == 0 && self.synced_end(next)? == Some(0),
        };
        if never_begun {
            Ok(0)
        } else {
            Err(self.damage(0, why))
        }
    }

    /// Gives all frames to `each`; returns where the log ends.
    fn replay(
        &self,
        header: &FileHeader,
        synced_end: Option<u64>,
        replayed: &mut Replayed,
        each: &mut EachBatch<'_>,
    ) -> io::Result<u64> {
        let mut window = Window::new(&*self.file, self.len);
        let mut blobs = Blobs {
            file: &*self.file,
            pieces: HashMap::new(),
        };
        let mut at = FILE_HEADER_BYTES as u64;
        while at < self.len {
            let (block, payload) = match window.block(header.log_id, at)? {
                Found::Block(block, payload) => (block, payload),
                Found::Unsound(why) => {
                    self.check_torn(header.log_id, at, why, synced_end)?;
                    break;
                }
            };
            match block.kind {
                BlockKind::Piece => blobs.note(BlobId(u64_at(payload, 0)), &block),
                BlockKind::Frames => {
                    let begin = at + BLOCK_HEADER_BYTES as u64;
                    replayed.frames += self.replay_frames(payload, begin, &mut blobs, each)?;
                }
            }
            at += BLOCK_HEADER_BYTES as u64 + block.payload_bytes;
        }
        match synced_end {
            Some(end) if end != at => {
                let what =
                    format!("the log ends here, but the next one says that it has {end} bytes");
                Err(self.damage(at.min(end), what))
            }
            _ => Ok(at),
        }
    }

    /// Gives the frames of a block, whose payload begins at `begin`, to `each`; returns how many they are.
    fn replay_frames(
        &self,
        payload: &[u8],
        begin: u64,
        blobs: &mut Blobs<'_>,
        each: &mut EachBatch<'_>,
    ) -> io::Result<u64> {
        let (mut rest, mut frames) = (payload, 0);
        let mut batch: SmallVec<[Frame<'_>; FRAMES_AT_ONCE]> = SmallVec::new();
        let mut give = |batch: &mut SmallVec<_>| {
            let given = each(batch, blobs);
            batch.clear();
            given.map_err(|(at, what)| self.damage(at, what))
        };
        while !rest.is_empty() {
            let at = begin + (payload.len() - rest.len()) as u64;
            let frame = varint::take(&mut rest)
                .and_then(|len| rest.split_at_checked(usize::try_from(len).ok()?));
            let Some((effects, others)) = frame else {
                give(&mut batch)?;
                return Err(self.damage(at, "a frame is longer than its block"));
            };
            if effects.is_empty() {
                if others.iter().any(|&byte| byte != 0) {
                    give(&mut batch)?;
                    return Err(self.damage(at, "the padding of the block is not zeroes"));
                }
                break;
            }
            batch.push(Frame {
                generation: self.generation,
                at,
                effects,
            });
            if batch.len() == FRAMES_AT_ONCE {
                give(&mut batch)?;
            }
            (rest, frames) = (others, frames + 1);
        }
        give(&mut batch)?;
        Ok(frames)
    }

    /// Bytes of what follows `end`, without the zeroes that the file was filled with ahead.
    fn torn_bytes(&self, end: u64) -> io::Result<u64> {
        if end < FILE_HEADER_BYTES as u64 {
            return Ok(self.len - end);
        }
        let mut window = Window::new(&*self.file, self.len);
        let (mut at, mut torn_end) = (end, end);
        while at < self.len {
            let bytes = (self.len - at).min(WINDOW_BYTES as u64) as usize;
            let found = window.get(at, bytes)?;
            if let Some(last) = found.iter().rposition(|&byte| byte != 0) {
                torn_end = at + last as u64 + 1;
            }
            at += bytes as u64;
        }
        Ok(torn_end - end)
    }

    /// The block at `at` is not sound: an error unless it is a torn tail.
    fn check_torn(
        &self,
        log_id: u64,
        at: u64,
        why: &str,
        synced_end: Option<u64>,
    ) -> io::Result<()> {
        if synced_end.is_some() {
            return Err(self.damage(at, why));
        }
        let witness = Window::new(&*self.file, self.len).witness(log_id, at);
        match witness? {
            None => Ok(()),
            Some(witness) => {
                let what =
                    format!("{why}, but the block at offset {witness} says that it was synced");
                Err(self.damage(at, what))
            }
        }
    }
}

/// What lies at an offset.
enum Found<'a> {
    /// A sound block, and its payload.
    Block(BlockHeader, &'a [u8]),
    /// Something else, for this reason.
    Unsound(&'static str),
}

/// A part of a file, in memory.
struct Window<'f> {
    file: &'f dyn DiskFile,
    /// Of the file.
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'f> Window<'f> {
    fn new(file: &'f dyn DiskFile, len: u64) -> Window<'f> {
        Window {
            file,
            len,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `bytes` bytes at `at`, which the file has.
    fn get(&mut self, at: u64, bytes: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + bytes as u64 > end {
            let read = (self.len - at).min(bytes.max(WINDOW_BYTES) as u64) as usize;
            self.start = at;
            // Nothing of it counts if the read fails.
            self.bytes.clear();
            let mut buffer = std::mem::take(&mut self.bytes);
            buffer.resize(read, 0);
            self.file.read_exact_at(&mut buffer, at)?;
            self.bytes = buffer;
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from..from + bytes])
    }

    fn block(&mut self, log_id: u64, at: u64) -> io::Result<Found<'_>> {
        let rest = self.len - at;
        if rest < BLOCK_HEADER_BYTES as u64 {
            return Ok(Found::Unsound("the file ends within a block's header"));
        }
        let header = match header_in(self.get(at, BLOCK_HEADER_BYTES)?, log_id, at) {
            Ok(header) => header,
            Err(why) => return Ok(Found::Unsound(why)),
        };
        if header.payload_bytes > rest - BLOCK_HEADER_BYTES as u64 {
            return Ok(Found::Unsound("the file ends within a block"));
        }
        let begin = at + BLOCK_HEADER_BYTES as u64;
        let payload = self.get(begin, header.payload_bytes as usize)?;
        if crc32c::crc32c(payload) != header.payload_crc {
            return Ok(Found::Unsound("the CRC of the block does not match"));
        }
        if header.kind == BlockKind::Piece && payload.len() < PIECE_HEADER_BYTES {
            return Ok(Found::Unsound(
                "the block is too short for a piece of a blob",
            ));
        }
        Ok(Found::Block(header, payload))
    }

    /// A block behind `at` that was written when the file was synced beyond `at`.
    fn witness(&mut self, log_id: u64, at: u64) -> io::Result<Option<u64>> {
        let mut from = at + 1;
        while from + BLOCK_HEADER_BYTES as u64 <= self.len {
            let bytes = (self.len - from).min(WINDOW_BYTES as u64) as usize;
            let found = self.get(from, bytes)?;
            for (i, candidate) in found.windows(BLOCK_HEADER_BYTES).enumerate() {
                let offset = from + i as u64;
                if candidate.starts_with(&BLOCK_MAGIC)
                    && header_in(candidate, log_id, offset).is_ok_and(|header| header.durable > at)
                {
                    return Ok(Some(offset));
                }
            }
            from += (bytes - BLOCK_HEADER_BYTES + 1) as u64;
        }
        Ok(None)
    }
}

fn header_in(bytes: &[u8], log_id: u64, at: u64) -> Result<BlockHeader, &'static str> {
    let bytes = bytes
        .first_chunk()
        .ok_or("the block's header is cut short")?;
    BlockHeader::decode(bytes, log_id, at)
}

/// The blobs of a log that no frame has asked for yet. Only where they lie is in memory.
pub(crate) struct Blobs<'f> {
    file: &'f dyn DiskFile,
    pieces: HashMap<BlobId, Vec<Piece>>,
}

/// The bytes of a piece, in the file.
struct Piece {
    offset: u64,
    len: usize,
    /// Over the blob's number and the bytes.
    crc: u32,
}

impl Blobs<'_> {
    fn note(&mut self, blob: BlobId, block: &BlockHeader) {
        let head = (BLOCK_HEADER_BYTES + PIECE_HEADER_BYTES) as u64;
        self.pieces.entry(blob).or_default().push(Piece {
            offset: block.offset + head,
            len: block.payload_bytes as usize - PIECE_HEADER_BYTES,
            crc: block.payload_crc,
        });
    }

    /// Forgets a blob that is not to be read.
    pub(crate) fn forget(&mut self, blob: BlobId) {
        self.pieces.remove(&blob);
    }

    /// Reads a blob, which is then forgotten: one effect names it.
    ///
    /// # Errors
    ///
    /// One line that says why it is not there.
    pub(crate) fn read(&mut self, blob: BlobId) -> Result<Vec<u8>, String> {
        let pieces = self.pieces.remove(&blob).ok_or_else(|| {
            format!(
                "there is no blob {:#x} before the frame that names it",
                blob.0
            )
        })?;
        let mut bytes = vec![0; pieces.iter().map(|piece| piece.len).sum()];
        let mut rest = &mut bytes[..];
        for piece in pieces {
            let (part, others) = rest.split_at_mut(piece.len);
            let read = self.file.read_exact_at(part, piece.offset);
            read.map_err(|error| error.to_string())?;
            let number = crc32c::crc32c(&blob.0.to_le_bytes());
            if crc32c::crc32c_append(number, part) != piece.crc {
                return Err(format!("the blob at offset {} has changed", piece.offset));
            }
            rest = others;
        }
        Ok(bytes)
    }
}
