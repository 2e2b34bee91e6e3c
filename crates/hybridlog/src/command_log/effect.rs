//! What a frame is made of: the effects of one operation, each as it is to be done again.
//!
//! ```text
//! effect      tag u8, fields in the order of the variant's
//! tag         1 Set, 2 SetBlob, 3 WriteRange, 4 WriteRangeBlob, 5 SetExpiry, 6 Remove, 7 Rename, 8 RetireEverything,
//!             9 Clear, 10 State, 11 Collection, 12 CopyCollection; plus 0x80: an expiry follows
//! numbers     LEB128
//! keys, bytes length, bytes
//! expiry      u64, little-endian, Unix milliseconds; last of all fields
//! kind        u8
//! ```
//!
//! Effects say what has become of a key, not what was asked for: doing one again needs no clock, no choice, and nothing but
//! the keys that it names.

use super::tree_effect::TreeEffect;
use super::{BlobId, varint};
use crate::{Meta, Namespace};

/// A change to what is stored. Keys and bytes are borrowed from whoever encodes, or from the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect<'a> {
    /// The key holds this value, whatever it held before.
    Set {
        namespace: Namespace,
        key: &'a [u8],
        meta: Meta,
        value: &'a [u8],
    },
    /// As [`Effect::Set`], with a value that has gone ahead of the frame.
    SetBlob {
        namespace: Namespace,
        key: &'a [u8],
        meta: Meta,
        blob: BlobId,
    },
    /// The value has been overwritten from `offset` on; `kind` counts if there was no such key.
    WriteRange {
        namespace: Namespace,
        key: &'a [u8],
        offset: u64,
        bytes: &'a [u8],
        kind: u8,
    },
    /// As [`Effect::WriteRange`], with bytes that have gone ahead of the frame.
    WriteRangeBlob {
        namespace: Namespace,
        key: &'a [u8],
        offset: u64,
        blob: BlobId,
        kind: u8,
    },
    /// The key now expires then, or never.
    SetExpiry {
        namespace: Namespace,
        key: &'a [u8],
        expires_at_ms: Option<u64>,
    },
    /// The key is gone.
    Remove { namespace: Namespace, key: &'a [u8] },
    /// The value and expiry of one key are another's now.
    Rename {
        from: (Namespace, &'a [u8]),
        to: (Namespace, &'a [u8]),
    },
    /// The collection of a key has changed.
    Collection {
        namespace: Namespace,
        key: &'a [u8],
        effect: TreeEffect<'a>,
    },
    /// The second key holds what the first one, a collection, holds.
    CopyCollection {
        from: (Namespace, &'a [u8]),
        to: (Namespace, &'a [u8]),
    },
    /// All keys of all namespaces are gone.
    RetireEverything,
    /// All keys of a namespace are gone.
    Clear { namespace: Namespace },
    /// What the embedding program wants to find again at the next start.
    State { bytes: &'a [u8] },
}

mod tag {
    pub(super) const SET: u8 = 1;
    pub(super) const SET_BLOB: u8 = 2;
    pub(super) const WRITE_RANGE: u8 = 3;
    pub(super) const WRITE_RANGE_BLOB: u8 = 4;
    pub(super) const SET_EXPIRY: u8 = 5;
    pub(super) const REMOVE: u8 = 6;
    pub(super) const RENAME: u8 = 7;
    pub(super) const RETIRE_EVERYTHING: u8 = 8;
    pub(super) const CLEAR: u8 = 9;
    pub(super) const STATE: u8 = 10;
    pub(super) const COLLECTION: u8 = 11;
    pub(super) const COPY_COLLECTION: u8 = 12;
    /// An expiry follows.
    pub(super) const EXPIRY: u8 = 0x80;
}

impl Effect<'_> {
    /// Whether it only prepares others: a collection without elements, or a header.
    pub(crate) fn is_preparation(&self) -> bool {
        use TreeEffect::{Create, Header};
        let Effect::Collection { effect, .. } = self else {
            return false;
        };
        matches!(effect, Create { .. } | Header { .. })
    }

    /// The keys that have changed, one by one; none of those that everything and namespaces are emptied of.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Namespace, &[u8])> {
        let (one, other) = match *self {
            Effect::Set { namespace, key, .. }
            | Effect::SetBlob { namespace, key, .. }
            | Effect::WriteRange { namespace, key, .. }
            | Effect::WriteRangeBlob { namespace, key, .. }
            | Effect::SetExpiry { namespace, key, .. }
            | Effect::Collection { namespace, key, .. }
            | Effect::Remove { namespace, key } => (Some((namespace, key)), None),
            Effect::Rename { from, to } | Effect::CopyCollection { from, to } => {
                (Some(from), Some(to))
            }
            Effect::RetireEverything | Effect::Clear { .. } | Effect::State { .. } => (None, None),
        };
        one.into_iter().chain(other)
    }

    /// The blob that the effect names.
    pub(crate) fn blob(&self) -> Option<BlobId> {
        match *self {
            Effect::SetBlob { blob, .. } | Effect::WriteRangeBlob { blob, .. } => Some(blob),
            Effect::Collection { effect, .. } => effect.blob(),
            _ => None,
        }
    }

    /// Appends the effect to `frame`.
    pub(crate) fn encode(&self, frame: &mut Vec<u8>) {
        match *self {
            Effect::Set {
                namespace,
                key,
                meta,
                value,
            } => {
                put_head(tag::SET, meta.expires_at_ms, namespace, key, frame);
                frame.push(meta.kind);
                put_bytes(value, frame);
                put_expiry(meta.expires_at_ms, frame);
            }
            Effect::SetBlob {
                namespace,
                key,
                meta,
                blob,
            } => {
                put_head(tag::SET_BLOB, meta.expires_at_ms, namespace, key, frame);
                frame.push(meta.kind);
                varint::put(blob.0, frame);
                put_expiry(meta.expires_at_ms, frame);
            }
            Effect::WriteRange {
                namespace,
                key,
                offset,
                bytes,
                kind,
            } => {
                put_head(tag::WRITE_RANGE, None, namespace, key, frame);
                varint::put(offset, frame);
                put_bytes(bytes, frame);
                frame.push(kind);
            }
            Effect::WriteRangeBlob {
                namespace,
                key,
                offset,
                blob,
                kind,
            } => {
                put_head(tag::WRITE_RANGE_BLOB, None, namespace, key, frame);
                varint::put(offset, frame);
                varint::put(blob.0, frame);
                frame.push(kind);
            }
            Effect::SetExpiry {
                namespace,
                key,
                expires_at_ms,
            } => {
                put_head(tag::SET_EXPIRY, expires_at_ms, namespace, key, frame);
                put_expiry(expires_at_ms, frame);
            }
            Effect::Remove { namespace, key } => put_head(tag::REMOVE, None, namespace, key, frame),
            Effect::Collection {
                namespace,
                key,
                effect,
            } => {
                put_head(
                    tag::COLLECTION,
                    effect.expires_at_ms(),
                    namespace,
                    key,
                    frame,
                );
                effect.encode(frame);
                put_expiry(effect.expires_at_ms(), frame);
            }
            Effect::Rename { from, to } => put_two(tag::RENAME, from, to, frame),
            Effect::CopyCollection { from, to } => put_two(tag::COPY_COLLECTION, from, to, frame),
            Effect::RetireEverything => frame.push(tag::RETIRE_EVERYTHING),
            Effect::Clear { namespace } => {
                frame.push(tag::CLEAR);
                varint::put(u64::from(namespace.0), frame);
            }
            Effect::State { bytes } => {
                frame.push(tag::STATE);
                put_bytes(bytes, frame);
            }
        }
    }
}

fn put_head(
    tag: u8,
    expires_at_ms: Option<u64>,
    namespace: Namespace,
    key: &[u8],
    frame: &mut Vec<u8>,
) {
    let expiry = if expires_at_ms.is_some() {
        tag::EXPIRY
    } else {
        0
    };
    frame.push(tag | expiry);
    varint::put(u64::from(namespace.0), frame);
    put_bytes(key, frame);
}

fn put_two(tag: u8, from: (Namespace, &[u8]), to: (Namespace, &[u8]), frame: &mut Vec<u8>) {
    put_head(tag, None, from.0, from.1, frame);
    varint::put(u64::from(to.0.0), frame);
    put_bytes(to.1, frame);
}

pub(super) fn put_bytes(bytes: &[u8], frame: &mut Vec<u8>) {
    varint::put(bytes.len() as u64, frame);
    frame.extend_from_slice(bytes);
}

fn put_expiry(expires_at_ms: Option<u64>, frame: &mut Vec<u8>) {
    if let Some(at) = expires_at_ms {
        frame.extend_from_slice(&at.to_le_bytes());
    }
}

/// The effects of a frame, in order. Trusts nothing: bytes that are no effects end it with an error that says why.
#[derive(Clone, Debug)]
pub(crate) struct Effects<'a> {
    rest: &'a [u8],
}

impl<'a> Effects<'a> {
    pub(crate) fn new(frame: &'a [u8]) -> Effects<'a> {
        Effects { rest: frame }
    }
}

impl<'a> Iterator for Effects<'a> {
    type Item = Result<Effect<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let effect = decode(&mut Fields { rest: self.rest });
        let (effect, rest) = match effect {
            Ok((effect, rest)) => (Ok(effect), rest),
            Err(why) => (Err(why), &[][..]),
        };
        self.rest = rest;
        Some(effect)
    }
}

fn decode<'a>(fields: &mut Fields<'a>) -> Result<(Effect<'a>, &'a [u8]), &'static str> {
    let tag = fields.byte()?;
    let has_expiry = tag & tag::EXPIRY != 0;
    let effect = match tag & !tag::EXPIRY {
        tag::RETIRE_EVERYTHING if !has_expiry => Effect::RetireEverything,
        tag::CLEAR if !has_expiry => Effect::Clear {
            namespace: fields.namespace()?,
        },
        tag::STATE if !has_expiry => Effect::State {
            bytes: fields.bytes()?,
        },
        tag::RENAME if !has_expiry => Effect::Rename {
            from: (fields.namespace()?, fields.bytes()?),
            to: (fields.namespace()?, fields.bytes()?),
        },
        tag::COPY_COLLECTION if !has_expiry => Effect::CopyCollection {
            from: (fields.namespace()?, fields.bytes()?),
            to: (fields.namespace()?, fields.bytes()?),
        },
        kind => {
            let (namespace, key) = (fields.namespace()?, fields.bytes()?);
            decode_of_key(kind, has_expiry, namespace, key, fields)?
        }
    };
    Ok((effect, fields.rest))
}

/// The fields behind tag, namespace and key.
fn decode_of_key<'a>(
    tag: u8,
    has_expiry: bool,
    namespace: Namespace,
    key: &'a [u8],
    fields: &mut Fields<'a>,
) -> Result<Effect<'a>, &'static str> {
    Ok(match tag {
        tag::SET => {
            let (kind, value) = (fields.byte()?, fields.bytes()?);
            let expires_at_ms = fields.expiry(has_expiry)?;
            let meta = Meta {
                kind,
                expires_at_ms,
            };
            Effect::Set {
                namespace,
                key,
                meta,
                value,
            }
        }
        tag::SET_BLOB => {
            let (kind, blob) = (fields.byte()?, BlobId(fields.number()?));
            let expires_at_ms = fields.expiry(has_expiry)?;
            let meta = Meta {
                kind,
                expires_at_ms,
            };
            Effect::SetBlob {
                namespace,
                key,
                meta,
                blob,
            }
        }
        tag::SET_EXPIRY => Effect::SetExpiry {
            namespace,
            key,
            expires_at_ms: fields.expiry(has_expiry)?,
        },
        tag::WRITE_RANGE if !has_expiry => Effect::WriteRange {
            namespace,
            key,
            offset: fields.number()?,
            bytes: fields.bytes()?,
            kind: fields.byte()?,
        },
        tag::WRITE_RANGE_BLOB if !has_expiry => Effect::WriteRangeBlob {
            namespace,
            key,
            offset: fields.number()?,
            blob: BlobId(fields.number()?),
            kind: fields.byte()?,
        },
        tag::REMOVE if !has_expiry => Effect::Remove { namespace, key },
        tag::COLLECTION => Effect::Collection {
            namespace,
            key,
            effect: TreeEffect::decode(fields, has_expiry)?,
        },
        _ => return Err("no effect begins with this byte"),
    })
}

pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, &'static str> {
        let (&byte, rest) = self.rest.split_first().ok_or("the effect is cut short")?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, &'static str> {
        varint::take(&mut self.rest).ok_or("the effect has a number that is cut short or too big")
    }

    fn namespace(&mut self) -> Result<Namespace, &'static str> {
        let number = self.number()?;
        let number = u16::try_from(number).map_err(|_| "the effect has a namespace above 65535")?;
        Ok(Namespace(number))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], &'static str> {
        let len = self.number()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or("the effect is longer than its frame")?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn expiry(&mut self, is_there: bool) -> Result<Option<u64>, &'static str> {
        if !is_there {
            return Ok(None);
        }
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or("the effect is cut short")?;
        self.rest = rest;
        Ok(Some(u64::from_le_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each(bytes: &[u8]) -> Vec<Effect<'_>> {
        let (namespace, key) = (Namespace(300), &bytes[..3]);
        let meta = |expires_at_ms| Meta {
            kind: 9,
            expires_at_ms,
        };
        let blob = BlobId(u64::MAX);
        let (offset, kind, value) = (1 << 40, 255, bytes);
        [
            Effect::Set {
                namespace,
                key,
                meta: meta(None),
                value,
            },
            Effect::Set {
                namespace,
                key: b"",
                meta: meta(Some(u64::MAX)),
                value: b"",
            },
            Effect::SetBlob {
                namespace,
                key,
                meta: meta(Some(1)),
                blob,
            },
            Effect::WriteRange {
                namespace,
                key,
                offset,
                bytes,
                kind,
            },
            Effect::WriteRangeBlob {
                namespace,
                key,
                offset,
                blob,
                kind,
            },
            Effect::SetExpiry {
                namespace,
                key,
                expires_at_ms: None,
            },
            Effect::SetExpiry {
                namespace,
                key,
                expires_at_ms: Some(7),
            },
            Effect::Remove { namespace, key },
            Effect::Rename {
                from: (namespace, key),
                to: (Namespace(0), bytes),
            },
            Effect::RetireEverything,
            Effect::Clear { namespace },
            Effect::State { bytes },
            Effect::CopyCollection {
                from: (namespace, key),
                to: (Namespace(0), bytes),
            },
        ]
        .into_iter()
        .chain(
            TreeEffect::one_of_each(bytes).map(|effect| Effect::Collection {
                namespace,
                key,
                effect,
            }),
        )
        .collect()
    }

    #[test]
    fn effects_come_back_in_order() {
        let bytes = [5; 1000];
        let effects = one_of_each(&bytes);
        let mut frame = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut frame));
        let decoded: Result<Vec<_>, _> = Effects::new(&frame).collect();
        assert_eq!(decoded.as_deref(), Ok(&effects[..]));
    }

    #[test]
    fn a_part_of_an_effect_is_an_error() {
        for effect in one_of_each(b"some bytes") {
            let mut frame = Vec::new();
            effect.encode(&mut frame);
            for len in 1..frame.len() {
                let decoded: Vec<_> = Effects::new(&frame[..len]).collect();
                assert!(matches!(decoded[..], [Err(_)]), "{effect:?} cut to {len}");
            }
        }
        for tag in [0, 13, 0x80, 0x80 | tag::REMOVE, 0x80 | tag::CLEAR, 0xff] {
            let frame = [&[tag][..], &[0; 20]].concat();
            assert!(matches!(Effects::new(&frame).next(), Some(Err(_))), "{tag}");
        }
    }
}
