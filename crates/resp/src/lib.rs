//! The RESP protocol codec: bytes to commands, and replies to bytes. It performs no I/O.
//!
//! * [`Encoder`] writes replies in RESP2 or RESP3 into a buffer it owns.
//! * [`append_integer`] and [`append_double`] write numbers the way Redis prints them.
//!
//! Nothing in this crate panics on bytes that came from a peer, and no length a peer announces is
//! allocated before it has been checked against a limit.

mod encode;
mod number;

pub use encode::{Encoder, Protocol};
pub use number::{append_double, append_integer};
