//! Cold reads, of records and of parts of key files: wanted by operations, fetched in one submission, kept until the batch is
//! done.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::address::{Address, Geometry, Slot};
use crate::io::{BlockingReader, ColdReader, ReadBuffer, ReadRequest};
use crate::open_files::{FileKind, OpenFiles};
use crate::record::{Decoded, RecordRef, decode};
use crate::segment::Segment;

/// Cold reads wanted by, and fetched for, one batch of operations.
///
/// An operation that meets a cold record notes the read here and ends with [`Stop::Cold`](crate::Stop::Cold). The caller
/// drops the operation, fetches all that was noted in one submission, and runs the operation again: it finds the records
/// here. Records stay until [`Self::clear`].
#[derive(Default)]
pub struct ColdReads {
    wants: RefCell<Vec<Want>>,
    /// The records among them, once they are more than a few.
    wanted_records: RefCell<HashSet<Address, BuildHasherDefault<IdHasher>>>,
    wanted_bytes: Cell<u64>,
    /// Of the store whose records are wanted.
    files: OnceCell<Arc<OpenFiles>>,
    fetched: HashMap<Address, Fetched, BuildHasherDefault<IdHasher>>,
    fetched_bytes: u64,
    /// Parts of key files; `None` while they are wanted.
    parts: RefCell<HashMap<PartPlace, Option<FetchResult>>>,
}

/// Among so many wants one is looked for one by one.
const FEW_WANTS: usize = 16;

/// File id, and where the part of the key file begins, and how long it is.
type PartPlace = (u64, u64, usize);

/// For addresses and file ids: they are the engine's own, so nobody can choose them to collide: one multiplication spreads them (Knuth, "The Art of
/// Computer Programming", vol. 3, 6.4).
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }
    fn write_u64(&mut self, address: u64) {
        // The map takes its place from the low bits and its tag from the high ones.
        self.0 = address.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

struct Want {
    what: What,
    segment: Arc<Segment>,
    offset: u64,
    len: usize,
    /// Bytes that the read will take, as far as is known before the file is open.
    read_bytes: u64,
}

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Record(Address),
    PartOfKeys,
}

impl What {
    fn record(self) -> Option<Address> {
        match self {
            What::Record(address) => Some(address),
            What::PartOfKeys => None,
        }
    }
}

/// A read under way.
struct Asked {
    what: What,
    file_id: u64,
    offset: u64,
    len: usize,
    /// Bytes of the result before what was wanted begins.
    skip: usize,
}

struct Fetched {
    /// Compared with the segment's, so that a segment number that has been given to another segment is noticed.
    file_id: u64,
    result: FetchResult,
    /// Whether an operation has used it: a record read twice by one command has still been read once.
    used: Cell<bool>,
}

/// A buffer, and where in it what was wanted begins.
type FetchResult = Result<(Arc<ReadBuffer>, usize), Arc<io::Error>>;

/// What is known about a cold slot.
pub(crate) enum Known<'a> {
    Record(RecordRef<'a>),
    /// It has been noted as wanted.
    Wanted,
    Failed(io::Error),
}

/// What is known about a part of a key file.
pub(crate) enum KnownPart {
    /// It lies in the buffer, from this place on.
    Bytes(Arc<ReadBuffer>, usize),
    /// It has been noted as wanted.
    Wanted,
    Failed(io::Error),
}

impl ColdReads {
    /// Whether there is something to fetch.
    pub fn is_wanting(&self) -> bool {
        !self.wants.borrow().is_empty()
    }

    /// Bytes that the wanted reads will take.
    pub fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes.get()
    }

    /// Number of reads wanted.
    pub fn wanted(&self) -> usize {
        self.wants.borrow().len()
    }

    /// Bytes of the records that have been fetched, and not been forgotten since.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// Forgets what was fetched; what is wanted stays wanted.
    pub fn clear_fetched(&mut self) {
        self.fetched.clear();
        self.fetched_bytes = 0;
    }

    /// Forgets what was fetched and what was wanted.
    pub fn clear(&mut self) {
        self.wants.get_mut().clear();
        self.wanted_records.get_mut().clear();
        self.wanted_bytes.set(0);
        self.clear_fetched();
        self.parts.get_mut().clear();
    }

    /// Fetches all that is wanted, in one submission unless that would take more files than may be open. Failures are kept
    /// too: the operation that needs the record gets them.
    pub async fn fetch(&mut self, reader: &ColdReader) {
        while let Some((asked, requests)) = self.next_requests() {
            let results = reader.read_batch(requests).await;
            self.keep(asked, results);
        }
    }

    /// As [`Self::fetch`], blocking the calling thread.
    pub fn fetch_blocking(&mut self, reader: &BlockingReader) {
        while let Some((asked, requests)) = self.next_requests() {
            let results = reader.read_batch(&requests);
            self.keep(asked, results);
        }
    }

    /// Takes out of what is wanted as many reads as files may be open at once, and opens their files; `None` when nothing is
    /// wanted any more. A segment may have gone since the read was noted: then nobody will ask for its failure.
    fn next_requests(&mut self) -> Option<(Vec<Asked>, Vec<ReadRequest>)> {
        let files = self.files.get()?.clone();
        loop {
            let wants = self.wants.get_mut();
            let part: Vec<Want> = wants.drain(..wants.len().min(files.limit())).collect();
            if part.is_empty() {
                return None;
            }
            let (mut asked, mut requests) = (Vec::new(), Vec::new());
            for want in part {
                self.wanted_bytes
                    .set(self.wanted_bytes.get() - want.read_bytes);
                let kind = match want.what {
                    What::Record(address) => {
                        self.wanted_records.get_mut().remove(&address);
                        FileKind::Records
                    }
                    What::PartOfKeys => FileKind::Keys,
                };
                let mut read = Asked {
                    what: want.what,
                    file_id: want.segment.file_id,
                    offset: want.offset,
                    len: want.len,
                    skip: 0,
                };
                match files.get(&want.segment, kind) {
                    Ok(file) => {
                        let request;
                        (request, read.skip) =
                            ReadRequest::covering(file, want.offset, want.len as u32);
                        requests.push(request);
                        asked.push(read);
                    }
                    Err(error) => self.keep_one(&read, Err(error)),
                }
            }
            if !requests.is_empty() {
                return Some((asked, requests));
            }
        }
    }

    fn keep(&mut self, asked: Vec<Asked>, results: Vec<io::Result<ReadBuffer>>) {
        for (read, result) in asked.into_iter().zip(results) {
            self.keep_one(&read, result);
        }
    }

    fn keep_one(&mut self, read: &Asked, result: io::Result<ReadBuffer>) {
        let file_id = read.file_id;
        let result = result
            .map(|buffer| (Arc::new(buffer), read.skip))
            .map_err(Arc::new);
        match read.what {
            What::Record(address) => {
                let used = Cell::new(false);
                self.fetched_bytes += result.as_ref().map_or(0, |(buffer, _)| buffer.len() as u64);
                let fetched = Fetched {
                    file_id,
                    result,
                    used,
                };
                self.fetched.insert(address, fetched);
            }
            What::PartOfKeys => {
                let parts = self.parts.get_mut();
                parts.insert((file_id, read.offset, read.len), Some(result));
            }
        }
    }

    /// The record of a cold slot if it has been fetched; else notes that it is wanted.
    pub(crate) fn record(
        &self,
        slot: Slot,
        segment: &Arc<Segment>,
        files: &Arc<OpenFiles>,
        geometry: Geometry,
    ) -> Known<'_> {
        let file_id = segment.file_id;
        let damaged = |offset, why| {
            Known::Failed(damaged(
                &files.path(file_id, FileKind::Records),
                offset,
                why,
            ))
        };
        let offset = geometry.offset(slot.address());
        let rest = geometry.segment_bytes() - offset;
        let fetched = self
            .fetched
            .get(&slot.address())
            .filter(|fetched| fetched.file_id == file_id);
        let need = match fetched.map(|fetched| &fetched.result) {
            None => slot.read_bytes(),
            Some(Err(error)) => {
                return Known::Failed(copy_of(error));
            }
            Some(Ok((buffer, skip))) => match decode(&buffer[*skip..], rest) {
                Decoded::Record(record) => return Known::Record(record),
                Decoded::Longer(bytes) if bytes <= rest => bytes,
                Decoded::Longer(_) => {
                    return damaged(offset, "record passes the segment's end");
                }
                Decoded::Damaged(why) => return damaged(offset, why),
            },
        };
        if self.is_wanted(slot.address()) {
            return Known::Wanted;
        }
        let what = What::Record(slot.address());
        self.want(what, segment, offset as u64, need.min(rest), files);
        Known::Wanted
    }

    /// A part of a segment's key file if it has been fetched; else notes that it is wanted.
    pub(crate) fn part_of_keys(
        &self,
        segment: &Arc<Segment>,
        place: Range<u64>,
        files: &Arc<OpenFiles>,
    ) -> KnownPart {
        let mut parts = self.parts.borrow_mut();
        let len = (place.end - place.start) as usize;
        let part = (segment.file_id, place.start, len);
        match parts.get(&part) {
            Some(Some(Ok((buffer, skip)))) => KnownPart::Bytes(buffer.clone(), *skip),
            Some(Some(Err(error))) => KnownPart::Failed(copy_of(error)),
            Some(None) => KnownPart::Wanted,
            None => {
                parts.insert(part, None);
                self.want(What::PartOfKeys, segment, place.start, len, files);
                KnownPart::Wanted
            }
        }
    }

    fn want(
        &self,
        what: What,
        segment: &Arc<Segment>,
        offset: u64,
        len: usize,
        files: &Arc<OpenFiles>,
    ) {
        let read_bytes = files.read_bytes(offset as usize, len);
        self.files.get_or_init(|| files.clone());
        self.wanted_bytes.set(self.wanted_bytes.get() + read_bytes);
        let mut wants = self.wants.borrow_mut();
        wants.push(Want {
            what,
            segment: segment.clone(),
            offset,
            len,
            read_bytes,
        });
        let mut records = self.wanted_records.borrow_mut();
        match what {
            _ if wants.len() <= FEW_WANTS => {}
            _ if wants.len() == FEW_WANTS + 1 => {
                records.extend(wants.iter().filter_map(|want| want.what.record()));
            }
            What::Record(address) => {
                records.insert(address);
            }
            What::PartOfKeys => {}
        }
    }

    /// Whether this is the first use of a fetched record.
    pub(crate) fn first_use(&self, address: Address) -> bool {
        self.fetched
            .get(&address)
            .is_some_and(|fetched| !fetched.used.replace(true))
    }

    /// Whether the slot's record has been fetched or is wanted already.
    pub(crate) fn knows(&self, address: Address) -> bool {
        self.fetched.contains_key(&address) || self.is_wanted(address)
    }

    fn is_wanted(&self, address: Address) -> bool {
        let wants = self.wants.borrow();
        match wants.len() {
            ..=FEW_WANTS => wants.iter().any(|want| want.what.record() == Some(address)),
            _ => self.wanted_records.borrow().contains(&address),
        }
    }

    /// The buffer a fetched record lies in, and where the record begins in it.
    pub(crate) fn buffer(&self, address: Address) -> Option<(Arc<ReadBuffer>, usize)> {
        self.fetched.get(&address)?.result.as_ref().ok().cloned()
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn damaged(path: &Path, offset: usize, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} at offset {offset}: {why}", path.display()),
    )
}
