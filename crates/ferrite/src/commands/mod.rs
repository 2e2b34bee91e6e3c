//! The commands. Each file holds the functions of a family and, beside them, their rows.

mod acl;
mod bit;
mod bit_count;
mod bit_field;
mod bit_op;
mod client;
mod client_filter;
mod collection;
mod collection_random;
mod collection_scan;
mod command_docs;
mod command_syntax;
mod compact;
mod config;
pub(crate) mod connection;
mod database;
mod debug;
mod debug_digest;
mod dump;
mod dump_stream;
pub(crate) mod extended_float;
mod generic_expiry;
mod generic_keys;
mod generic_scan;
mod geo;
mod geo_search;
mod hash;
mod hash_expiry;
mod hash_fields;
mod hash_number;
mod hash_read;
mod help;
mod hyperloglog;
mod hyperloglog_debug;
mod info;
mod info_persistence;
mod info_sections;
mod latency;
mod list;
mod list_blocking;
mod list_edit;
mod list_encoding;
mod list_move;
mod list_read;
mod lolwut;
mod memory;
mod misc;
mod object;
pub(crate) mod parse;
mod persistence;
mod restore;
mod restore_stream;
mod set;
mod set_algebra;
mod set_random;
mod slowlog;
mod sort;
mod sort_pattern;
mod stream;
mod stream_add;
mod stream_block;
mod stream_claim;
mod stream_deliver;
mod stream_group;
mod stream_group_admin;
mod stream_id;
mod stream_info;
mod stream_pending;
mod stream_read;
mod stream_trim;
mod string;
mod string_condition;
mod string_edit;
mod string_lcs;
mod string_multi;
mod string_number;
mod string_read;
mod string_write;
mod transaction;
mod zset;
mod zset_algebra;
mod zset_blocking;
mod zset_interval;
mod zset_number;
mod zset_range;
mod zset_read;
mod zset_remove;
mod zset_result;
mod zset_write;

use hybridlog::{Namespace, Operation, Record};

use crate::command::{Row, Stop};
pub(crate) use database::clear as clear_database;
pub(crate) use hash::{Look, Looked};
pub(crate) use persistence::reply_synced;
pub(crate) use set_algebra::StoredSet;
pub(crate) use sort::Sorting;
pub(crate) use stream_claim::Claims;
pub(crate) use zset::ScoreChange;
pub(crate) use zset_result::ScoredMembers;

/// All rows, family by family.
pub(crate) const FAMILIES: &[&[Row]] = &[
    string_read::ROWS,
    string_write::ROWS,
    string_multi::ROWS,
    string_edit::ROWS,
    string_number::ROWS,
    string_condition::ROWS,
    string_lcs::ROWS,
    bit::ROWS,
    bit_count::ROWS,
    bit_op::ROWS,
    bit_field::ROWS,
    hash::ROWS,
    hash_read::ROWS,
    hash_number::ROWS,
    hash_expiry::ROWS,
    hash_fields::ROWS,
    list::ROWS,
    list_read::ROWS,
    list_edit::ROWS,
    list_move::ROWS,
    list_blocking::ROWS,
    set::ROWS,
    set_random::ROWS,
    set_algebra::ROWS,
    stream::ROWS,
    stream_add::ROWS,
    stream_trim::ROWS,
    stream_read::ROWS,
    stream_group_admin::ROWS,
    stream_deliver::ROWS,
    stream_pending::ROWS,
    stream_claim::ROWS,
    stream_info::ROWS,
    zset_write::ROWS,
    zset_read::ROWS,
    zset_range::ROWS,
    zset_remove::ROWS,
    zset_blocking::ROWS,
    zset_algebra::ROWS,
    geo::ROWS,
    geo_search::ROWS,
    hyperloglog::ROWS,
    hyperloglog_debug::ROWS,
    generic_keys::ROWS,
    sort::ROWS,
    generic_expiry::ROWS,
    generic_scan::ROWS,
    dump::ROWS,
    restore::ROWS,
    object::ROWS,
    database::ROWS,
    debug::ROWS,
    connection::ROWS,
    transaction::ROWS,
    client::ROWS,
    command_docs::ROWS,
    info::ROWS,
    config::ROWS,
    compact::ROWS,
    memory::ROWS,
    slowlog::ROWS,
    latency::ROWS,
    misc::ROWS,
    persistence::ROWS,
    lolwut::ROWS,
    acl::ROWS,
];

/// The engine's type numbers.
pub(crate) const KIND_STRING: u8 = 0;
pub(crate) const KIND_HASH: u8 = 1;
pub(crate) const KIND_LIST: u8 = 2;
pub(crate) const KIND_SET: u8 = 3;
pub(crate) const KIND_ZSET: u8 = 4;
pub(crate) const KIND_STREAM: u8 = 5;

/// The error of a command on a key that holds another type.
pub(crate) const WRONG_TYPE: &str =
    "WRONGTYPE Operation against a key holding the wrong kind of value";

/// What `read` returns for each of `keys`. A cold record does not end the run at once: the others are asked for too, so that
/// one fetch gets them all.
pub(crate) fn read_each<K, T>(
    keys: impl Iterator<Item = K>,
    mut read: impl FnMut(K) -> Result<T, Stop>,
) -> Result<Vec<T>, Stop> {
    let mut found = Vec::new();
    let mut cold = None;
    for key in keys {
        match read(key) {
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => cold = Some(stop),
            // What comes before it is to be told first.
            Err(_) if cold.is_some() => {}
            done => found.push(done?),
        }
    }
    cold.map_or(Ok(found), Err)
}

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
