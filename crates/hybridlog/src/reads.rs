//! Cold reads: wanted by operations, fetched in one submission, kept until the batch is done.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::sync::Arc;

use crate::address::{Address, Geometry, Slot};
use crate::io::{BlockingReader, ColdReader, DataFile, ReadBuffer, ReadRequest};
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
    wanted_bytes: RefCell<u64>,
    fetched: HashMap<Address, Fetched, BuildHasherDefault<AddressHasher>>,
}

/// Addresses are the engine's own, so nobody can choose them to collide: one multiplication spreads them (Knuth, "The Art of
/// Computer Programming", vol. 3, 6.4).
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
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
    address: Address,
    request: ReadRequest,
    /// Bytes of the request before the record begins.
    skip: usize,
}

struct Fetched {
    /// Held, and compared with the segment's, so that a segment number that has been given to another segment is noticed.
    file: Arc<DataFile>,
    result: Result<(Arc<ReadBuffer>, usize), Arc<io::Error>>,
    /// Whether an operation has used it: a record read twice by one command has still been read once.
    used: Cell<bool>,
}

/// What is known about a cold slot.
pub(crate) enum Known<'a> {
    Record(RecordRef<'a>),
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
        *self.wanted_bytes.borrow()
    }

    /// Number of reads wanted.
    pub fn wanted(&self) -> usize {
        self.wants.borrow().len()
    }

    /// Forgets what was fetched and what was wanted.
    pub fn clear(&mut self) {
        self.take_requests();
        self.fetched.clear();
    }

    /// Fetches all that is wanted in one submission. Failures are kept too: the operation that needs the record gets them.
    pub async fn fetch(&mut self, reader: &ColdReader) {
        let (wants, requests) = self.take_requests();
        let results = reader.read_batch(requests).await;
        self.keep(wants, results);
    }

    /// As [`Self::fetch`], blocking the calling thread.
    pub fn fetch_blocking(&mut self, reader: &BlockingReader) {
        let (wants, requests) = self.take_requests();
        let results = reader.read_batch(&requests);
        self.keep(wants, results);
    }

    fn take_requests(&mut self) -> (Vec<Want>, Vec<ReadRequest>) {
        *self.wanted_bytes.get_mut() = 0;
        let wants = std::mem::take(self.wants.get_mut());
        let requests = wants.iter().map(|want| want.request.clone()).collect();
        (wants, requests)
    }

    fn keep(&mut self, wants: Vec<Want>, results: Vec<io::Result<ReadBuffer>>) {
        for (want, result) in wants.into_iter().zip(results) {
            let result = result
                .map(|buffer| (Arc::new(buffer), want.skip))
                .map_err(Arc::new);
            self.fetched.insert(
                want.address,
                Fetched {
                    file: want.request.file,
                    result,
                    used: Cell::new(false),
                },
            );
        }
    }

    /// The record of a cold slot if it has been fetched; else notes that it is wanted.
    pub(crate) fn record(&self, slot: Slot, segment: &Segment, geometry: Geometry) -> Known<'_> {
        let Some(file) = segment.data_file() else {
            return Known::Failed(io::Error::other(format!(
                "segment {} has no file",
                segment.file_id
            )));
        };
        let offset = geometry.offset(slot.address());
        let rest = geometry.segment_bytes() - offset;
        let fetched = self
            .fetched
            .get(&slot.address())
            .filter(|fetched| Arc::ptr_eq(&fetched.file, &file));
        let need = match fetched.map(|fetched| &fetched.result) {
            None => slot.read_bytes(),
            Some(Err(error)) => {
                return Known::Failed(io::Error::new(error.kind(), error.to_string()));
            }
            Some(Ok((buffer, skip))) => match decode(&buffer[*skip..], rest) {
                Decoded::Record(record) => return Known::Record(record),
                Decoded::Longer(bytes) if bytes <= rest => bytes,
                Decoded::Longer(_) => {
                    return Known::Failed(damaged(
                        &file,
                        offset,
                        "record passes the segment's end",
                    ));
                }
                Decoded::Damaged(why) => return Known::Failed(damaged(&file, offset, why)),
            },
        };
        self.want(slot.address(), file, offset, need.min(rest));
        Known::Wanted
    }

    /// Whether this is the first use of a fetched record.
    pub(crate) fn first_use(&self, address: Address) -> bool {
        self.fetched
            .get(&address)
            .is_some_and(|fetched| !fetched.used.replace(true))
    }

    /// Whether the slot's record has been fetched or is wanted already.
    pub(crate) fn knows(&self, address: Address) -> bool {
        self.fetched.contains_key(&address)
            || self
                .wants
                .borrow()
                .iter()
                .any(|want| want.address == address)
    }

    fn want(&self, address: Address, file: Arc<DataFile>, offset: usize, len: usize) {
        let mut wants = self.wants.borrow_mut();
        if wants
            .iter()
            .rev()
            .take(64)
            .any(|want| want.address == address)
        {
            return;
        }
        let (request, skip) = ReadRequest::covering(file, offset as u64, len as u32);
        *self.wanted_bytes.borrow_mut() += u64::from(request.len);
        wants.push(Want {
            address,
            request,
            skip,
        });
    }

    /// The buffer a fetched record lies in, and where the record begins in it.
    pub(crate) fn buffer(&self, address: Address) -> Option<(Arc<ReadBuffer>, usize)> {
        self.fetched.get(&address)?.result.as_ref().ok().cloned()
    }
}

fn damaged(file: &DataFile, offset: usize, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} at offset {offset}: {why}", file.path().display()),
    )
}
