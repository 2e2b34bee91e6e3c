//! A three-tier HybridLog.

pub mod io;
mod operation;
mod stop;
mod store;

pub use operation::{ColdReads, KeyRef, LatchMode, Meta, Operation, Piece, Record, Scanned};
pub use stop::Stop;
pub use store::{Namespace, Store, Tier};
