//! What is said about a file that does not hold what was written to it.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A file is not as it was written, or not one that this version can read: where, and what is wrong.
///
/// It travels as an [`io::Error`] of the kind `InvalidData` ([`From`]), so that whoever reads files has one kind of error
/// and can still tell damage from a device that does not answer ([`Self::of`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Path of the file.
    pub file: PathBuf,
    /// Byte of the file at which it was noticed.
    pub offset: u64,
    /// What is wrong there, in a few words.
    pub what: String,
}

impl Damage {
    /// The damage that an error speaks of, if it is one.
    pub fn of(error: &io::Error) -> Option<&Damage> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, offset, what } = self;
        write!(f, "{} at offset {offset}: {what}", file.display())
    }
}

impl Error for Damage {}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }
}
