//! How the two replies to one command are compared.

use std::collections::BTreeSet;
use std::io;

use crate::source::Command;
use crate::wire::{Connection, Reply};

/// The rule by which replies that are not the same must agree. Errors never may differ but by
/// [`Check::By`].
#[derive(Clone, Copy)]
pub(crate) enum Check {
    /// Byte for byte.
    Exact,
    /// Integers may differ by this much: what depends on the moment at which a server looks.
    Near(i64),
    /// The same elements in any order.
    Unordered,
    /// The same pairs in any order: a map, or a flat array of names and values.
    UnorderedPairs,
    /// The same types and lengths, whatever is in them: what is picked at random.
    Shape,
    /// The same type only: what describes the server and not its data.
    Type,
    /// The same names, whatever their values: in a map, or in a flat array of names and values.
    Names,
    /// Pairs (Ferrite's first) that this function accepts, with its reason.
    By(fn(&Reply, &Reply) -> bool),
    /// A random key: there must be such a key in the other server.
    RandomKey,
    /// A step of an iteration: whole iterations must give the same keys.
    Scan,
    /// Only Ferrite has the command; its reply is one that this function accepts.
    Alone(fn(&Reply) -> bool),
    /// The server closes the connection after its reply.
    Closes,
}

/// The connections to both servers.
pub(crate) struct Pair {
    pub(crate) ferrite: Connection,
    pub(crate) oracle: Connection,
}

impl Check {
    /// Whether the command may be sent together with others: nothing else is asked, and both
    /// servers are and stay connected.
    pub(crate) fn can_be_pipelined(self) -> bool {
        use Check::{Alone, Closes, RandomKey, Scan, Shape};
        !matches!(self, Alone(_) | Closes | RandomKey | Scan | Shape)
    }

    /// Whether the replies agree.
    pub(crate) fn agree(
        self,
        ferrite: &Reply,
        oracle: &Reply,
        command: &Command,
        pair: &mut Pair,
    ) -> io::Result<bool> {
        if ferrite == oracle && (ferrite.is_error() || !matches!(self, Check::Scan)) {
            return Ok(true);
        }
        if let Check::By(accepts) = self {
            return Ok(accepts(ferrite, oracle));
        }
        if ferrite.is_error() || oracle.is_error() {
            return Ok(false);
        }
        Ok(match self {
            Check::Exact | Check::Closes | Check::Alone(_) | Check::By(_) => false,
            Check::Near(tolerance) => near(ferrite, oracle, tolerance),
            Check::Unordered => {
                same_type(ferrite, oracle) && sorted(ferrite, 1) == sorted(oracle, 1)
            }
            Check::UnorderedPairs => {
                same_type(ferrite, oracle) && sorted(ferrite, 2) == sorted(oracle, 2)
            }
            Check::Shape => same_shape(ferrite, oracle),
            Check::Type => same_type(ferrite, oracle),
            Check::Names => names(ferrite) == names(oracle),
            Check::RandomKey => match (ferrite, oracle) {
                (Reply::Bulk(ours), Reply::Bulk(theirs)) => {
                    pair.oracle.call(&[b"EXISTS", ours.as_slice()])? == Reply::Integer(1)
                        && pair.ferrite.call(&[b"EXISTS", theirs.as_slice()])? == Reply::Integer(1)
                }
                _ => false,
            },
            Check::Scan => {
                iterate(&mut pair.ferrite, command)? == iterate(&mut pair.oracle, command)?
            }
        })
    }
}

fn near(ferrite: &Reply, oracle: &Reply, tolerance: i64) -> bool {
    match (ferrite, oracle) {
        // Negative ones (no key, no expiry) are no times.
        (Reply::Integer(a), Reply::Integer(b)) if *a >= 0 && *b >= 0 => {
            a.abs_diff(*b) <= tolerance.unsigned_abs()
        }
        _ => false,
    }
}

fn same_type(one: &Reply, other: &Reply) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn same_shape(one: &Reply, other: &Reply) -> bool {
    let (ours, theirs) = (one.elements(), other.elements());
    let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
    same_type(one, other)
        && ours.len() == theirs.len()
        && ours
            .iter()
            .zip(theirs)
            .all(|(ours, theirs)| same_shape(ours, theirs))
}

/// The elements, so many taken together, in an order of their own.
fn sorted(reply: &Reply, together: usize) -> Option<Vec<String>> {
    let mut shown: Vec<_> = reply
        .elements()?
        .chunks(together)
        .map(|item| format!("{item:?}"))
        .collect();
    shown.sort_unstable();
    Some(shown)
}

fn names(reply: &Reply) -> Option<BTreeSet<Vec<u8>>> {
    let names = reply.elements()?.iter().step_by(2);
    names.map(|name| name.bytes().map(<[u8]>::to_vec)).collect()
}

/// All keys (or elements, of HSCAN and SSCAN) that the SCAN `command` gives from its cursor on, going on with its options.
fn iterate(connection: &mut Connection, command: &Command) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut command = command.clone();
    let cursor_at = if command[0].eq_ignore_ascii_case(b"scan") {
        1
    } else {
        2
    };
    command[cursor_at] = b"0".to_vec();
    let mut keys = BTreeSet::new();
    loop {
        let reply = connection.call(&command)?;
        let Some([Reply::Bulk(cursor), found]) = reply.elements() else {
            return Err(io::Error::other(format!("SCAN replied {reply:?}")));
        };
        let found = found.elements().unwrap_or_default();
        keys.extend(found.iter().filter_map(Reply::bytes).map(<[u8]>::to_vec));
        if cursor == b"0" {
            return Ok(keys);
        }
        command[cursor_at] = cursor.clone();
    }
}
