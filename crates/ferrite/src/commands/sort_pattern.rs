//! SORT: what its patterns name: a key, or a field of a hash, whose name has an element in the place of the `*`.
//!
//! Such a key is not known before the element is, so the command has not latched it. It is latched for as long as it takes to
//! read it; so each value is the one of some moment at which the command runs, and not all are of the same moment. In a
//! transaction everything is latched.

use super::hash::Hash;
use super::{KIND_HASH, KIND_STRING};
use crate::command::Stop;
use crate::ctx::Ctx;

/// Cold values that are asked for together.
const WANTED_TOGETHER: usize = 256;
/// Values that are looked for at a stretch.
const TURN: usize = 4 * 1024;

/// What BY or GET names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pattern<'a> {
    /// `#`: the element itself.
    Element,
    /// Without a `*`: nothing.
    Nothing,
    /// A key, or a field of the hash under it.
    Key {
        before: &'a [u8],
        behind: &'a [u8],
        field: Option<&'a [u8]>,
    },
}

impl<'a> Pattern<'a> {
    /// As in Redis, `*` and `->` are looked for in front of the first NUL byte only.
    pub(super) fn parse(text: &'a [u8]) -> Pattern<'a> {
        let shown = text.split(|byte| *byte == 0).next().unwrap_or_default();
        if shown == b"#" {
            return Pattern::Element;
        }
        let Some(star) = shown.iter().position(|byte| *byte == b'*') else {
            return Pattern::Nothing;
        };
        let (before, behind) = (&text[..star], &text[star + 1..]);
        let arrow = shown[star + 1..].windows(2).position(|two| two == b"->");
        // Nothing behind the arrow is no field, and the arrow a part of the key.
        let arrow = arrow.filter(|arrow| star + 1 + arrow + 2 < shown.len());
        match arrow {
            Some(arrow) => Pattern::Key {
                before,
                behind: &behind[..arrow],
                field: Some(&behind[arrow + 2..]),
            },
            None => Pattern::Key {
                before,
                behind,
                field: None,
            },
        }
    }

    /// What it names for `element`.
    pub(super) fn value(self, cx: &mut Ctx<'_>, element: &[u8]) -> Result<Option<Vec<u8>>, Stop> {
        let (before, behind, field) = match self {
            Pattern::Element => return Ok(Some(element.to_vec())),
            Pattern::Nothing => return Ok(None),
            Pattern::Key {
                before,
                behind,
                field,
            } => (before, behind, field),
        };
        let key = [before, element, behind].concat();
        let (namespace, memory) = (cx.namespace, &mut cx.client.allowance);
        let read = cx.op.read_beside(namespace, &key, |op| {
            let Some(record) = op.read(namespace, &key)? else {
                return Ok(None);
            };
            match (record.meta().kind, field) {
                (KIND_STRING, None) => {
                    memory.ask(record.len())?;
                    Ok(Some(op.value(&record)?.into_owned()))
                }
                (KIND_HASH, Some(field)) => {
                    let hash = Hash::of(op.open_collection(&record)?, op);
                    let Some(info) = hash.info(field)? else {
                        return Ok(None);
                    };
                    memory.ask(info.value_len)?;
                    let found = hash.get(field)?;
                    Ok(found.map(|element| element.value.into_owned()))
                }
                _ => Ok(None),
            }
        });
        read.unwrap_or(Err(Stop::Latched))
    }
}

/// Values that are read one after the other, in one run of the command. What is cold does not end that: the next ones are
/// asked for too, so that one fetch gets them all, but what they are is of no use before those in front of them are there.
#[derive(Default)]
pub(super) struct Round {
    looked: usize,
    cold: usize,
    stop: Option<Stop>,
}

impl Round {
    /// Takes what has been read; none if it has to be read again.
    pub(super) fn take<T>(&mut self, read: Result<T, Stop>) -> Result<Option<T>, Stop> {
        self.looked += 1;
        match read {
            Ok(value) if self.stop.is_none() => return Ok(Some(value)),
            Ok(_) => {}
            Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) => {
                self.cold += 1;
                self.stop.get_or_insert(stop);
            }
            Err(stop) if self.stop.is_some() => drop(stop),
            Err(Stop::Latched) => self.stop = Some(Stop::Latched),
            Err(stop) => return Err(stop),
        }
        Ok(None)
    }

    /// Whether nothing more should be read in it.
    pub(super) fn is_over(&self) -> bool {
        let waits = matches!(self.stop, Some(Stop::Latched));
        waits || self.cold >= WANTED_TOGETHER || self.looked >= TURN
    }

    /// Ends it: whether `all` has been taken, or what is to be waited for.
    pub(super) fn end(self, taken: usize, all: usize) -> Result<(), Stop> {
        match self.stop {
            Some(stop) => Err(stop),
            None if taken < all => Err(Stop::Turn),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_in_redis() {
        let key = |before: &'static str, behind: &'static str, field: Option<&'static str>| {
            let (before, behind) = (before.as_bytes(), behind.as_bytes());
            let field = field.map(str::as_bytes);
            Pattern::Key {
                before,
                behind,
                field,
            }
        };
        for (text, expected) in [
            ("#", Pattern::Element),
            ("##", Pattern::Nothing),
            ("", Pattern::Nothing),
            ("fixed->field", Pattern::Nothing),
            ("a\0*", Pattern::Nothing),
            ("*", key("", "", None)),
            ("w_*_x*", key("w_", "_x*", None)),
            ("w_*->f", key("w_", "", Some("f"))),
            ("w_*y->f->g", key("w_", "y", Some("f->g"))),
            ("w_*->", key("w_", "->", None)),
            ("w->*", key("w->", "", None)),
            ("w_*\0->f", key("w_", "\0->f", None)),
            ("w_*->f\0g", key("w_", "", Some("f\0g"))),
        ] {
            assert_eq!(Pattern::parse(text.as_bytes()), expected, "{text:?}");
        }
    }
}
