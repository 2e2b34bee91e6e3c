//! What has become of a collection.
//!
//! ```text
//! effect      tag u8, fields in the order of the variant's
//! tag         1 Create, 2 Put, 3 Take, 4 InsertAt, 5 ReplaceAt, 6 RemoveRange, 7 Header; plus 0x80: the value is a blob's number
//! tree        u8
//! ```
//!
//! They are of elements, not of pages: where an element lies is for the store that does them again to say.

use super::effect::{Fields, put_bytes};
use super::{BlobId, varint};

/// The value of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoggedBytes<'a> {
    Here(&'a [u8]),
    /// It has gone ahead of the frame.
    Blob(BlobId),
}

impl<'a> LoggedBytes<'a> {
    /// The bytes, if `blob` are those of the blob.
    pub(crate) fn or(self, blob: &'a [u8]) -> &'a [u8] {
        match self {
            LoggedBytes::Here(bytes) => bytes,
            LoggedBytes::Blob(_) => blob,
        }
    }

    fn blob(self) -> Option<BlobId> {
        match self {
            LoggedBytes::Here(_) => None,
            LoggedBytes::Blob(blob) => Some(blob),
        }
    }

    fn tag(self) -> u8 {
        match self {
            LoggedBytes::Here(_) => 0,
            LoggedBytes::Blob(_) => tag::BLOB,
        }
    }

    fn encode(self, frame: &mut Vec<u8>) {
        match self {
            LoggedBytes::Here(bytes) => put_bytes(bytes, frame),
            LoggedBytes::Blob(blob) => varint::put(blob.0, frame),
        }
    }

    fn decode(fields: &mut Fields<'a>, tag: u8) -> Result<LoggedBytes<'a>, &'static str> {
        match tag & tag::BLOB {
            0 => fields.bytes().map(LoggedBytes::Here),
            _ => Ok(LoggedBytes::Blob(BlobId(fields.number()?))),
        }
    }
}

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
        value: LoggedBytes<'a>,
        expires_at_ms: Option<u64>,
    },
    /// The tree holds no such element any more.
    Take { tree: u8, key: &'a [u8] },
    /// There is an element more at the position.
    InsertAt {
        tree: u8,
        position: u64,
        value: LoggedBytes<'a>,
    },
    /// The element at the position is another.
    ReplaceAt {
        tree: u8,
        position: u64,
        value: LoggedBytes<'a>,
    },
    /// These elements are gone.
    RemoveRange { tree: u8, position: u64, count: u64 },
    /// The collection has this header, and is due at this time, which stands where others have their expiry.
    Header {
        bytes: &'a [u8],
        due_at_ms: Option<u64>,
    },
}

mod tag {
    pub(super) const CREATE: u8 = 1;
    pub(super) const PUT: u8 = 2;
    pub(super) const TAKE: u8 = 3;
    pub(super) const INSERT_AT: u8 = 4;
    pub(super) const REPLACE_AT: u8 = 5;
    pub(super) const REMOVE_RANGE: u8 = 6;
    pub(super) const HEADER: u8 = 7;
    /// The value is a blob.
    pub(super) const BLOB: u8 = 0x80;
}

impl<'a> TreeEffect<'a> {
    /// The expiry that stands behind all other fields.
    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        match *self {
            TreeEffect::Put { expires_at_ms, .. } => expires_at_ms,
            TreeEffect::Header { due_at_ms, .. } => due_at_ms,
            _ => None,
        }
    }

    /// The blob that the effect names.
    pub(super) fn blob(&self) -> Option<BlobId> {
        match *self {
            TreeEffect::Put { value, .. }
            | TreeEffect::InsertAt { value, .. }
            | TreeEffect::ReplaceAt { value, .. } => value.blob(),
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
                frame.extend_from_slice(&[tag::PUT | value.tag(), tree]);
                put_bytes(key, frame);
                value.encode(frame);
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
            TreeEffect::Header { bytes, .. } => {
                frame.push(tag::HEADER);
                put_bytes(bytes, frame);
            }
        }
    }

    pub(super) fn decode(
        fields: &mut Fields<'a>,
        has_expiry: bool,
    ) -> Result<TreeEffect<'a>, &'static str> {
        let tag = fields.byte()?;
        Ok(match tag & !tag::BLOB {
            tag::PUT => TreeEffect::Put {
                tree: fields.byte()?,
                key: fields.bytes()?,
                value: LoggedBytes::decode(fields, tag)?,
                expires_at_ms: fields.expiry(has_expiry)?,
            },
            tag::HEADER if tag & tag::BLOB == 0 => TreeEffect::Header {
                bytes: fields.bytes()?,
                due_at_ms: fields.expiry(has_expiry)?,
            },
            _ if has_expiry => return Err("no such effect has an expiry"),
            tag::INSERT_AT => TreeEffect::InsertAt {
                tree: fields.byte()?,
                position: fields.number()?,
                value: LoggedBytes::decode(fields, tag)?,
            },
            tag::REPLACE_AT => TreeEffect::ReplaceAt {
                tree: fields.byte()?,
                position: fields.number()?,
                value: LoggedBytes::decode(fields, tag)?,
            },
            _ if tag & tag::BLOB != 0 => return Err("no such effect has a blob"),
            tag::CREATE => TreeEffect::Create {
                kind: fields.byte()?,
                trees: fields.bytes()?,
                header: fields.bytes()?,
            },
            tag::TAKE => TreeEffect::Take {
                tree: fields.byte()?,
                key: fields.bytes()?,
            },
            tag::REMOVE_RANGE => TreeEffect::RemoveRange {
                tree: fields.byte()?,
                position: fields.number()?,
                count: fields.number()?,
            },
            _ => return Err("no effect on a collection begins with this byte"),
        })
    }

    #[cfg(test)]
    pub(super) fn one_of_each(bytes: &'a [u8]) -> impl Iterator<Item = TreeEffect<'a>> {
        let (tree, position, count) = (3, 1 << 40, u64::MAX);
        let (key, value) = (&bytes[..2], LoggedBytes::Here(bytes));
        let blob = LoggedBytes::Blob(BlobId(u64::MAX));
        let put = |value, expires_at_ms| TreeEffect::Put {
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
            put(value, None),
            put(value, Some(7)),
            put(blob, Some(8)),
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
            TreeEffect::Header {
                bytes,
                due_at_ms: None,
            },
            TreeEffect::Header {
                bytes,
                due_at_ms: Some(7),
            },
        ]
        .into_iter()
    }
}

fn put_at(tag: u8, tree: u8, position: u64, value: LoggedBytes<'_>, frame: &mut Vec<u8>) {
    frame.extend_from_slice(&[tag | value.tag(), tree]);
    varint::put(position, frame);
    value.encode(frame);
}
