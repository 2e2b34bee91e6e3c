//! The RESP protocol codec: bytes to commands, and replies to bytes. It performs no I/O.
//!
//! * [`Encoder`] writes replies in RESP2 or RESP3 into a buffer it owns.
//! * [`RequestParser`] finds commands and their arguments in a server's read buffer, without a
//!   copy.
//! * [`decode`] reads replies, for clients; [`skip_reply`] only finds where one ends.
//! * [`append_integer`], [`append_double`] and [`parse_integer`] print and read numbers as Redis
//!   does.
//!
//! Nothing in this crate panics on bytes that came from a peer, and no length a peer announces is
//! allocated before it has been checked against a limit.

mod decode;
mod encode;
mod inline;
mod number;
mod parse;

pub use decode::{DecodeError, Reply, decode, skip_reply};
pub use encode::{Encoder, Protocol};
pub use number::{append_double, append_integer, parse_integer};
pub use parse::{ArgRange, Authentication, Limits, Parsed, ProtocolError, RequestParser};
