//! Reads back what the server holds.

use resp::Reply;

use super::oracle::Found;
use super::unix_us;
use crate::connection::{Connection, append_command};

/// Keys that are read back at once.
const FIND_KEYS: usize = 16;

/// What the server holds under these keys.
pub(crate) fn find(connection: &mut Connection, keys: &[&[u8]]) -> Result<Vec<Found>, String> {
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(FIND_KEYS) {
        let mut bytes = Vec::new();
        for key in keys {
            append_command(&mut bytes, &[b"GET", key]);
            append_command(&mut bytes, &[b"PTTL", key]);
        }
        let asked_us = unix_us();
        connection.send(&bytes)?;
        for key in keys {
            let (value, pttl) = (connection.reply()?, connection.reply()?);
            let key = key.escape_ascii();
            let bytes = match value {
                Reply::Bulk(bytes) => Some(bytes),
                Reply::Null => None,
                other => return Err(format!("GET {key} was answered {other:?}")),
            };
            let Reply::Integer(pttl) = pttl else {
                return Err(format!("PTTL {key} was answered {pttl:?}"));
            };
            found.push(Found {
                bytes,
                pttl,
                asked_us: (asked_us, unix_us()),
            });
        }
    }
    Ok(found)
}
