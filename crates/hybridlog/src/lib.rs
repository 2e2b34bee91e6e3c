//! A three-tier HybridLog.

mod address;
mod epoch;
mod index;
pub mod io;
mod large;
mod latch;
mod log;
mod operation;
mod piece;
mod reads;
mod record;
mod residence;
mod room;
mod scan;
mod segment;
mod shared;
mod simple;
mod stats;
mod stop;
mod store;
mod sys;
mod tiering;
mod write;

pub use index::{BucketIndex, DashIndex, Index};
pub use latch::LatchMode;
pub use operation::{Held, KeyRef, Meta, Operation, Record, Tier};
pub use piece::Piece;
pub use reads::ColdReads;
pub use room::NoRoomReason;
pub use scan::Scanned;
pub use stats::Stats;
pub use stop::Stop;
pub use store::{OpenError, Options, Pin, Store};

/// Separates key spaces that share one log and one index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Namespace(pub u16);
