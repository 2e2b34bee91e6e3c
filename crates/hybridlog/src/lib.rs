//! Ferrite's storage engine: a key-value store whose data may be a hundred times larger than the memory it is given, and
//! that serves what is hot at the speed of memory.
//!
//! Everything lies in one log of segments, in three tiers:
//!
//! * **hot**: the newest segments, in huge pages; values are changed in place;
//! * **warm**: sealed segments, mapped read-only from their files and read without a copy;
//! * **cold**: on the device only, read with direct I/O through io_uring (or threads, where that is refused).
//!
//! A hash index in memory, 8 bytes a slot, says where each record lies; keys are not kept in memory. Segments move down
//! the tiers as memory fills; records that are read stay, and cold ones come back on their second read.
//!
//! ```
//! use hybridlog::{BucketIndex, Options, Store};
//!
//! let directory = tempfile::tempdir()?;
//! let options = Options::new(directory.path()).memory_bytes(64 << 20);
//! let store = Store::<BucketIndex>::open(options)?;
//!
//! store.set(b"user:1", b"Ada")?;
//! store.update(b"visits", |old| {
//!     let visits = old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap_or_default()));
//!     Some((visits + 1).to_le_bytes().to_vec())
//! })?;
//!
//! store.force_cold()?; // from here on both are on the device only
//! assert_eq!(store.get(b"user:1")?.as_deref(), Some(&b"Ada"[..]));
//! assert!(store.delete(b"visits")?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In a tokio task the same calls wait without blocking the thread:
//!
//! ```
//! use std::sync::Arc;
//! use hybridlog::io::{ColdReader, ReaderOptions};
//! use hybridlog::{BucketIndex, Options, Store};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let directory = tempfile::tempdir()?;
//! let store = Store::<BucketIndex>::open(Options::new(directory.path()).memory_bytes(64 << 20))?;
//! let (reader, _notice) = ColdReader::new(&ReaderOptions::default(), Arc::default())?;
//! let tasks = store.with_reader(&reader);
//! tasks.set(b"key", b"value").await?;
//! store.force_cold()?;
//! assert_eq!(tasks.get(b"key").await?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Programs that need more than one key at a time, types, expiry or namespaces start an [`Operation`]: see
//! [`Store::blocking`].
//!
//! **What survives.** Every change goes to a command log, which is written at once and synced as [`Options::sync`] says;
//! [`Store::checkpoint`] makes everything up to now durable without it, and is made by itself when the log gets long. A store
//! that is opened again holds all of it; what is damaged is refused with the file and the place, never silently.

/// Tests that are the crate's own and those of its users at the same time name it as these do.
#[cfg(test)]
extern crate self as hybridlog;

mod address;
mod average_ttl;
mod block;
mod check;
mod checkpoint;
mod cold_keys;
mod command_log;
mod compaction;
mod damage;
mod deaths;
pub mod disk;
mod disk_limit;
mod durability;
mod effects;
mod epoch;
mod expiry;
mod fields;
mod flush;
#[cfg(fuzzing)]
pub mod fuzzing;
mod generation;
mod graveyard;
mod index;
#[cfg(all(test, shuttle))]
mod interleavings;
pub mod io;
mod key_cache;
mod key_file;
mod key_window;
mod large;
mod latch;
mod latching;
mod log;
mod manifest;
#[cfg(any(test, fuzzing))]
mod memory_disk;
mod open;
mod open_files;
mod operation;
mod piece;
#[cfg(test)]
mod random;
mod read_damage;
mod readable;
mod reads;
mod record;
mod recount;
mod recovery;
mod redo;
mod repair;
mod residence;
mod room;
mod run;
mod scan;
mod segment;
mod shadows;
mod shared;
mod simple;
mod stats;
mod stop;
mod store;
mod survey;
mod suspended;
mod sync;
mod sys;
mod tiering;
mod tree;
mod unlatched;
mod watch;
mod write;

pub use check::{Checked, Report, check};
pub use checkpoint::{CheckpointStatus, Checkpointed};
pub use command_log::{Health, LogStats, Position, SyncPolicy};
pub use compaction::Space;
pub use damage::Damage;
pub use disk_limit::Eviction;
pub use expiry::ExpiredSome;
pub use flush::Retired;
pub use index::{BucketIndex, DashIndex, Index};
pub use latch::LatchMode;
pub use latching::Latching;
pub use open::{OpenError, Options};
pub use operation::{KeptLatches, KeyRef, Lookups, Meta, Operation, Record, Tier};
pub use piece::Piece;
pub use reads::ColdReads;
pub use recovery::RecoveryStats;
pub use repair::{Repaired, repair, repair_on};
pub use room::NoRoomReason;
pub use scan::Scanned;
pub use simple::AsyncStore;
pub use stats::Stats;
pub use stop::Stop;
pub use store::{Pin, Store};
pub use suspended::Suspended;
pub use tree::{
    Collection, Direction, Element, ElementInfo, INSERTED_BESIDE_BYTES, INSERTED_TOGETHER_BYTES,
    Layout, Needed, NewCollection, Order, Put, ScannedElements, TREES_MAX, TreeLayout, WalkFrom,
};
pub use watch::{MovedWatches, Watch};

/// Separates key spaces that share one log and one index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Namespace(pub u16);
