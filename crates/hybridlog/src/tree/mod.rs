//! Collections: a root record for a key, and trees of elements in it, small or larger than memory.
//!
//! A *collection* has up to [`TREES_MAX`] *trees* of *elements*, and a header of the embedding program's own. While it is
//! small all of it lies in the root record. When that would outgrow a page, its largest top node moves out into page records
//! and leaves an inner node behind, and so on: ordinary growth of a B+tree whose top node lives in the root. So there is one
//! format and one code path for a set of three members and for one of a billion, and a part of it can be cold while another is
//! hot: an element of a cold collection of a million takes three reads of the device.
//!
//! What must hold:
//!
//! * An operation reads all it needs (and stops with [`Stop::Cold`](crate::Stop::Cold) if that is cold), plans the change of
//!   all pages, appends what has to be appended, and only then changes what can be seen. So nothing is half done behind an
//!   error.
//! * Pages belong to the latch of the collection's key. The root names their object id, and a root that goes buries it
//!   (`graveyard.rs`): to remove a collection is O(1).
//! * A page lists how many elements are under each child, so places are found by position as well as by key.
//! * What comes from the device is not trusted: levels fall by one from a node to its child, and every length is checked.
//!
//! ```
//! use hybridlog::{BucketIndex, KeyRef, LatchMode, Layout, Namespace, Options, Order, Put, Store, TreeLayout};
//!
//! static HASH: Layout = Layout {
//!     kind: 1,
//!     trees: &[TreeLayout { order: Order::Hash, has_values: true }],
//! };
//!
//! let directory = tempfile::tempdir()?;
//! let store = Store::<BucketIndex>::open(Options::new(directory.path()).memory_bytes(64 << 20))?;
//! let namespace = Namespace(0);
//! let latched = |mode| [KeyRef { namespace, key: b"user:1", mode }];
//! let put = store.blocking(&latched(LatchMode::Exclusive), 0, |op| {
//!     op.put_element(namespace, b"user:1", &HASH, 0, b"name", b"Ada", None)
//! })?;
//! assert_eq!(put, Put::Added);
//!
//! store.force_cold()?;
//! let name = store.blocking(&latched(LatchMode::Shared), 0, |op| {
//!     let Some(record) = op.read(namespace, b"user:1")? else { return Ok(None) };
//!     let collection = op.open_collection(&record)?;
//!     assert_eq!(collection.len(0), 1);
//!     Ok(collection.get(0, b"name")?.map(|element| element.value.into_owned()))
//! })?;
//! assert_eq!(name.as_deref(), Some(&b"Ada"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
mod change;
mod copy;
mod cut;
mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grow;
mod inner;
mod leaf;
mod node;
mod numbers;
mod overflow;
mod plan;
mod root;
mod walk;

#[cfg(test)]
mod hostile;
#[cfg(test)]
#[path = "../../tests/collections.rs"]
mod model;

use std::borrow::Cow;

pub(crate) use root::{TreePages, due_at_ms, look_at_ms};

pub use build::NewCollection;
pub use change::{INSERTED_BESIDE_BYTES, INSERTED_TOGETHER_BYTES};
pub use find::{Collection, Needed};
pub use walk::ScannedElements;

/// A collection has so many trees at most.
pub const TREES_MAX: usize = 4;

/// Content of a page at most, so that its record fits in 4 KiB. The crate's own tests have small pages, and so deep trees.
pub(crate) const PAGE_BYTES: usize = if cfg!(test) { 512 } else { 4096 - 40 };

/// How the elements of a tree are ordered, and so what they are found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// By the hash of their keys. While they fit in one node they are in the order in which they were put.
    Hash,
    /// By their keys, byte by byte.
    Key,
    /// By position only: they have values, but no keys.
    Position,
}

/// What the elements of a tree are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeLayout {
    /// How they are ordered.
    pub order: Order,
    /// Whether they have values beside their keys; in a tree by [`Order::Position`] they always have.
    pub has_values: bool,
}

/// What a collection is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The type of its record, see [`Meta::kind`](crate::Meta::kind).
    pub kind: u8,
    /// Its trees, [`TREES_MAX`] at most.
    pub trees: &'static [TreeLayout],
}

/// An element of a tree; borrowed where it lies in one piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element<'a> {
    /// Its key; empty in a tree by [`Order::Position`].
    pub key: Cow<'a, [u8]>,
    /// Its value; empty if the tree has no values.
    pub value: Cow<'a, [u8]>,
    /// Unix time in milliseconds that was stored with it. The engine never removes an element by itself.
    pub expires_at_ms: Option<u64>,
}

/// What the leaf of an element says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElementInfo {
    /// Bytes of its value.
    pub value_len: u64,
    /// Unix time in milliseconds that was stored with it.
    pub expires_at_ms: Option<u64>,
}

/// What became of an element that was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// There was none with its key.
    Added,
    /// It has taken the place of the one with its key.
    Replaced,
}

/// Where a walk begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkFrom<'k> {
    /// With the first element.
    Start,
    /// With the last element.
    End,
    /// With the element at this position, counted from 0. Behind the end there is none.
    Position(u64),
    /// In a tree by [`Order::Key`]: forward with the first element whose key is not less than this, backward with the last one
    /// whose key is not greater.
    Key(&'k [u8]),
}

/// Where a walk goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Towards the end.
    Forward,
    /// Towards the start.
    Backward,
}
