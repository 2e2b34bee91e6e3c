//! Fingerprints of values and of the whole data set, equal to those of Redis: two servers that
//! hold the same data give the same digest, in whatever order they hold it.

use std::fmt;
use std::ops::ControlFlow;

use hybridlog::{
    Collection, Direction, Element, KeyRef, LatchMode, Namespace, Operation, WalkFrom,
};
use sha1::{Digest as _, Sha1};

use crate::commands::collection::ELEMENTS;
use crate::commands::hash::Hash;
use crate::commands::stream::{ENTRIES, Strings};
use crate::commands::stream_id::Id;
use crate::commands::zset::{SCORES, split_score};
use crate::commands::{KIND_HASH, KIND_LIST, KIND_SET, KIND_STREAM, KIND_ZSET};
use crate::ctx::SlowCtx;

/// Index slots one step of a walk over a database visits.
const SCAN_STEP: usize = 1024;
/// Redis's numbers of the types.
const REDIS_STRING: u32 = 0;
const REDIS_LIST: u32 = 1;
const REDIS_SET: u32 = 2;
const REDIS_ZSET: u32 = 3;
const REDIS_HASH: u32 = 4;
const REDIS_STREAM: u32 = 6;

/// 160 bits that accumulate what they are given; shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Digest([u8; 20]);

impl Digest {
    /// Adds `bytes` so that the order of additions does not matter.
    fn add_unordered(&mut self, bytes: &[u8]) {
        for (own, added) in self.0.iter_mut().zip(Sha1::digest(bytes)) {
            *own ^= added;
        }
    }

    /// Adds `bytes` so that the order of additions matters.
    fn add_ordered(&mut self, bytes: &[u8]) {
        self.add_unordered(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// The digest of the value of `key`, all zeros if there is none.
    pub(crate) fn of_value(
        op: &Operation<'_>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<Digest, hybridlog::Stop> {
        let mut digest = Digest::default();
        digest.add_value(op, namespace, key)?;
        Ok(digest)
    }

    /// The digest of everything in all databases.
    pub(crate) fn of_everything(cx: &mut SlowCtx<'_>) -> Result<Digest, hybridlog::Stop> {
        let mut total = Digest::default();
        for database in 0..cx.server.databases.count() {
            let namespace = cx.server.databases.namespace(database);
            let mut empty = true;
            let mut cursor = 0;
            loop {
                let scanned = cx.step(&[], |op| op.scan(namespace, cursor, SCAN_STEP))?;
                for (key, _) in &scanned.keys {
                    let Some(digest) = digest_of_pair(cx, namespace, key)? else {
                        continue;
                    };
                    // The same data in another database has another digest.
                    if std::mem::take(&mut empty) {
                        total.add_ordered(&(database as u32).to_be_bytes());
                    }
                    total.add_unordered(&digest.0);
                }
                cursor = scanned.cursor;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(total)
    }

    /// Whether there was a value to add.
    fn add_value(
        &mut self,
        op: &Operation<'_>,
        namespace: Namespace,
        key: &[u8],
    ) -> Result<bool, hybridlog::Stop> {
        let Some(record) = op.read(namespace, key)? else {
            return Ok(false);
        };
        match record.meta().kind {
            KIND_HASH => self.add_hash(&Hash::of(op.open_collection(&record)?, op))?,
            KIND_LIST => self.add_list(&op.open_collection(&record)?)?,
            KIND_SET => self.add_set(&op.open_collection(&record)?)?,
            KIND_ZSET => self.add_zset(&op.open_collection(&record)?)?,
            KIND_STREAM => self.add_stream(&op.open_collection(&record)?)?,
            _ => {
                let value = op.value(&record)?;
                self.add_ordered(&REDIS_STRING.to_be_bytes());
                self.add_ordered(&value);
            }
        }
        if record.meta().expires_at_ms.is_some() {
            self.add_unordered(b"!!expire!!");
        }
        Ok(true)
    }

    /// Fields that have expired do not count.
    fn add_hash(&mut self, hash: &Hash<'_>) -> Result<(), hybridlog::Stop> {
        self.add_ordered(&REDIS_HASH.to_be_bytes());
        for_each(&hash.collection, ELEMENTS, |element| {
            if !hash.is_live(&element) {
                return Ok(());
            }
            let mut field = Digest::default();
            field.add_ordered(&element.key);
            field.add_ordered(&element.value);
            if element.expires_at_ms.is_some() {
                field.add_unordered(b"!!hexpire!!");
            }
            self.add_unordered(&field.0);
            Ok(())
        })
    }

    fn add_list(&mut self, list: &Collection<'_>) -> Result<(), hybridlog::Stop> {
        self.add_ordered(&REDIS_LIST.to_be_bytes());
        for_each(list, ELEMENTS, |element| {
            self.add_ordered(&element.value);
            Ok(())
        })
    }

    fn add_set(&mut self, set: &Collection<'_>) -> Result<(), hybridlog::Stop> {
        self.add_ordered(&REDIS_SET.to_be_bytes());
        for_each(set, ELEMENTS, |member| {
            self.add_unordered(&member.key);
            Ok(())
        })
    }

    fn add_zset(&mut self, zset: &Collection<'_>) -> Result<(), hybridlog::Stop> {
        self.add_ordered(&REDIS_ZSET.to_be_bytes());
        let mut text = Vec::new();
        for_each(zset, SCORES, |element| {
            let (score, member) = split_score(&element.key)?;
            text.clear();
            resp::append_double(&mut text, score);
            let mut pair = Digest::default();
            pair.add_ordered(member);
            pair.add_ordered(&text);
            self.add_unordered(&pair.0);
            Ok(())
        })
    }

    /// As in Redis, without its consumer groups.
    fn add_stream(&mut self, stream: &Collection<'_>) -> Result<(), hybridlog::Stop> {
        self.add_ordered(&REDIS_STREAM.to_be_bytes());
        for_each(stream, ENTRIES, |entry| {
            self.add_entry(&entry);
            Ok(())
        })
    }

    fn add_entry(&mut self, entry: &Element<'_>) {
        let Id { ms, sequence } = Id::of_end(&entry.key);
        self.add_ordered(format!("{ms}.{sequence}").as_bytes());
        Strings::of(&entry.value).for_each(|string| self.add_ordered(string));
    }
}

fn for_each<'r>(
    collection: &Collection<'r>,
    tree: usize,
    mut each: impl FnMut(Element<'r>) -> Result<(), hybridlog::Stop>,
) -> Result<(), hybridlog::Stop> {
    let mut done = Ok(());
    collection.walk(
        tree,
        WalkFrom::Start,
        Direction::Forward,
        u64::MAX,
        &mut |element| match each(element) {
            Ok(()) => ControlFlow::Continue(()),
            failed => {
                done = failed;
                ControlFlow::Break(())
            }
        },
    )?;
    done
}

/// The digest of a key with its value; `None` if it is gone by now.
fn digest_of_pair(
    cx: &mut SlowCtx<'_>,
    namespace: Namespace,
    key: &[u8],
) -> Result<Option<Digest>, hybridlog::Stop> {
    let latch = KeyRef {
        namespace,
        key,
        mode: LatchMode::Shared,
    };
    cx.step(&[latch], |op| {
        let mut digest = Digest::default();
        digest.add_ordered(key);
        Ok(digest.add_value(op, namespace, key)?.then_some(digest))
    })
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
