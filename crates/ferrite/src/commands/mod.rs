//! The commands. Each file holds the functions of a family and, beside them, their rows.

pub(crate) mod parse;

use hybridlog::{Namespace, Operation, Record};

use crate::command::{Row, Stop};

/// All rows, family by family.
pub(crate) const FAMILIES: &[&[Row]] = &[];

/// The engine's type number of a string.
pub(crate) const KIND_STRING: u8 = 0;

/// The error of a command on a key that holds another type.
pub(crate) const WRONG_TYPE: &str =
    "WRONGTYPE Operation against a key holding the wrong kind of value";

/// Finds the string stored under `key`; an error if the key holds something else.
pub(crate) fn read_string<'r>(
    op: &'r Operation<'_>,
    namespace: Namespace,
    key: &[u8],
) -> Result<Option<Record<'r>>, Stop> {
    match op.read(namespace, key)? {
        Some(record) if record.meta().kind != KIND_STRING => Err(WRONG_TYPE.into()),
        found => Ok(found),
    }
}
