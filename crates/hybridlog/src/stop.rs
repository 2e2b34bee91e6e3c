//! Why an operation on the engine ended without a result.

use std::fmt;
use std::io;

/// Why an operation stopped. Nothing has been changed by the call that returned it.
#[derive(Debug)]
pub enum Stop {
    /// A record that is needed lies in a cold segment; the wanted reads are noted in the operation's
    /// [`ColdReads`](crate::ColdReads). Fetch them and run the operation again.
    Cold,
    /// The log has no room for `bytes` more just now. Wait for room and run the operation again.
    NoRoom {
        /// How much room the write needs.
        bytes: u64,
    },
    /// The value (or key) is larger than this store can serve.
    TooLarge {
        /// Its length in bytes.
        len: u64,
        /// The longest that is allowed.
        limit: u64,
    },
    /// The device failed to deliver a cold record, or delivered a damaged one.
    Io(io::Error),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Cold => write!(f, "the record is cold"),
            Stop::NoRoom { bytes } => write!(f, "no room for {bytes} bytes in the log"),
            Stop::TooLarge { len, limit } => {
                write!(f, "length {len} is over the limit of {limit} bytes")
            }
            Stop::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Stop {}
