//! What has become of a collection.
//!
//! ```text
//! effect      tag u8, fields in the order of the variant's
//! tag         1 Create, 2 Put, 3 Take, 4 InsertAt, 5 ReplaceAt, 6 RemoveRange, 7 Header
//! tree        u8
//! ```
//!
//! They are of elements, not of pages: where an element lies is for the store that does them again to say.

use super::effect::{Fields, put_bytes};
use super::varint;

/// A change of a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TreeEffect<'a> {
    /// The key holds an empty collection, whatever it held before.
    Create {
        kind: u8,
        /// A byte for each tree, as in the root.
        trees: &'a [u8],
        header: &'a [u8],
    },
    /// The tree holds this element, whatever it held under its key before.
    Put {
        tree: u8,
        key: &'a [u8],
        value: &'a [u8],
        expires_at_ms: Option<u64>,
    },
    /// The tree holds no such element any more.
    Take { tree: u8, key: &'a [u8] },
    /// There is an element more at the position.
    InsertAt {
        tree: u8,
        position: u64,
        value: &'a [u8],
    },
    /// The element at the position is another.
    ReplaceAt {
        tree: u8,
        position: u64,
        value: &'a [u8],
    },
    /// These elements are gone.
    RemoveRange { tree: u8, position: u64, count: u64 },
    /// The collection has this header.
    Header { bytes: &'a [u8] },
}

mod tag {
    pub(super) const CREATE: u8 = 1;
    pub(super) const PUT: u8 = 2;
    pub(super) const TAKE: u8 = 3;
    pub(super) const INSERT_AT: u8 = 4;
    pub(super) const REPLACE_AT: u8 = 5;
    pub(super) const REMOVE_RANGE: u8 = 6;
    pub(super) const HEADER: u8 = 7;
}

impl<'a> TreeEffect<'a> {
    /// The expiry that stands behind all other fields.
    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        match *self {
            TreeEffect::Put { expires_at_ms, .. } => expires_at_ms,
            _ => None,
        }
    }

    /// Appends all fields but the expiry.
    pub(super) fn encode(&self, frame: &mut Vec<u8>) {
        match *self {
            TreeEffect::Create {
                kind,
                trees,
                header,
            } => {
                frame.extend_from_slice(&[tag::CREATE, kind]);
                put_bytes(trees, frame);
                put_bytes(header, frame);
            }
            TreeEffect::Put {
                tree, key, value, ..
            } => {
                frame.extend_from_slice(&[tag::PUT, tree]);
                put_bytes(key, frame);
                put_bytes(value, frame);
            }
            TreeEffect::Take { tree, key } => {
                frame.extend_from_slice(&[tag::TAKE, tree]);
                put_bytes(key, frame);
            }
            TreeEffect::InsertAt {
                tree,
                position,
                value,
            } => put_at(tag::INSERT_AT, tree, position, value, frame),
            TreeEffect::ReplaceAt {
                tree,
                position,
                value,
            } => put_at(tag::REPLACE_AT, tree, position, value, frame),
            TreeEffect::RemoveRange {
                tree,
                position,
                count,
            } => {
                frame.extend_from_slice(&[tag::REMOVE_RANGE, tree]);
                varint::put(position, frame);
                varint::put(count, frame);
            }
            TreeEffect::Header { bytes } => {
                frame.push(tag::HEADER);
                put_bytes(bytes, frame);
            }
        }
    }

    pub(super) fn decode(
        fields: &mut Fields<'a>,
        has_expiry: bool,
    ) -> Result<TreeEffect<'a>, &'static str> {
        Ok(match fields.byte()? {
            tag::PUT => TreeEffect::Put {
                tree: fields.byte()?,
                key: fields.bytes()?,
                value: fields.bytes()?,
                expires_at_ms: fields.expiry(has_expiry)?,
            },
            _ if has_expiry => return Err("no such effect has an expiry"),
            tag::CREATE => TreeEffect::Create {
                kind: fields.byte()?,
                trees: fields.bytes()?,
                header: fields.bytes()?,
            },
            tag::TAKE => TreeEffect::Take {
                tree: fields.byte()?,
                key: fields.bytes()?,
            },
            tag::INSERT_AT => TreeEffect::InsertAt {
                tree: fields.byte()?,
                position: fields.number()?,
                value: fields.bytes()?,
            },
            tag::REPLACE_AT => TreeEffect::ReplaceAt {
                tree: fields.byte()?,
                position: fields.number()?,
                value: fields.bytes()?,
            },
            tag::REMOVE_RANGE => TreeEffect::RemoveRange {
                tree: fields.byte()?,
                position: fields.number()?,
                count: fields.number()?,
            },
            tag::HEADER => TreeEffect::Header {
                bytes: fields.bytes()?,
            },
            _ => return Err("no effect on a collection begins with this byte"),
        })
    }

    #[cfg(test)]
    pub(super) fn one_of_each(bytes: &'a [u8]) -> impl Iterator<Item = TreeEffect<'a>> {
        let (tree, position, count) = (3, 1 << 40, u64::MAX);
        let (key, value) = (&bytes[..2], bytes);
        let put = |expires_at_ms| TreeEffect::Put {
            tree,
            key,
            value,
            expires_at_ms,
        };
        [
            TreeEffect::Create {
                kind: 9,
                trees: key,
                header: bytes,
            },
            put(None),
            put(Some(7)),
            TreeEffect::Take { tree, key },
            TreeEffect::InsertAt {
                tree,
                position,
                value,
            },
            TreeEffect::ReplaceAt {
                tree,
                position,
                value,
            },
            TreeEffect::RemoveRange {
                tree,
                position,
                count,
            },
            TreeEffect::Header { bytes },
        ]
        .into_iter()
    }
}

fn put_at(tag: u8, tree: u8, position: u64, value: &[u8], frame: &mut Vec<u8>) {
    frame.extend_from_slice(&[tag, tree]);
    varint::put(position, frame);
    put_bytes(value, frame);
}
