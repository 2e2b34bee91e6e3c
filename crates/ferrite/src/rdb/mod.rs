//! Values in Redis's RDB format, as DUMP makes and RESTORE takes them.
//!
//! A payload is a type number, the value, two bytes of format version and a checksum (`envelope.rs`). The value is made of
//! lengths and strings (`read.rs`, `write.rs`), which may be compressed (`lzf.rs`), and some strings hold many elements one
//! behind the other (`listpack.rs`, and of older versions `packed.rs`). `value.rs` and `stream.rs` read the types.
//!
//! What is read comes from anybody. So no length in it is believed beyond what the payload has left, nothing is taken for
//! the right order or for unique without a look, and before memory is taken it is asked for. What is written is of version
//! 10, that of Redis 7.0, so that everybody from there on reads it; but hashes with fields that expire, which need version 12.

pub(crate) mod envelope;
pub(crate) mod listpack;
mod lzf;
mod packed;
mod read;
pub(crate) mod stream;
mod strings;
mod value;
pub(crate) mod write;

use crate::command::Stop;
pub(crate) use strings::Strings;
pub(crate) use value::{HashValue, ListValue, Packing, SetValue, Value, ZsetValue};

/// Numbers of types. Some types have several, for what lies in one piece or another has its own.
pub(crate) mod kind {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    /// With scores as text.
    pub(crate) const ZSET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    /// With scores of eight bytes.
    pub(crate) const ZSET_2: u8 = 5;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const ZSET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    /// Of ziplists.
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM_LISTPACKS: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const ZSET_LISTPACK: u8 = 17;
    /// Of listpacks and single elements.
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const STREAM_LISTPACKS_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    pub(crate) const STREAM_LISTPACKS_3: u8 = 21;
    /// With fields that expire: of release candidates of Redis 7.4, and of Valkey 9, which means something else by it.
    pub(crate) const HASH_METADATA_OLD: u8 = 22;
    pub(crate) const HASH_LISTPACK_EX_OLD: u8 = 23;
    /// With fields that expire, of Redis 7.4.
    pub(crate) const HASH_METADATA: u8 = 24;
    pub(crate) const HASH_LISTPACK_EX: u8 = 25;
}

/// Why a value could not be read.
#[derive(Debug)]
pub(crate) enum Error {
    /// It is not a value in this format.
    Malformed,
    /// There was no memory for it now.
    Stop(Stop),
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        Error::Stop(stop)
    }
}

/// Asked before so many bytes of memory are taken; what was asked for before has been taken by then.
pub(crate) type Ask<'a> = dyn FnMut(u64) -> Result<(), Stop> + 'a;

/// Appends to a vector, whose growth is asked for.
fn push_within<T>(to: &mut Vec<T>, item: T, ask: &mut Ask<'_>) -> Result<(), Stop> {
    if to.len() == to.capacity() {
        ask((to.len().max(4) * 2 * size_of::<T>()) as u64)?;
    }
    to.push(item);
    Ok(())
}
