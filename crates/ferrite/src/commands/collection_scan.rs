//! HSCAN, SSCAN and their kin: one step of an iteration over the elements of a collection.
//!
//! As in Redis, a collection with a packed encoding is returned whole.

use hybridlog::{Collection, Element};

use super::collection::{ELEMENTS, Encoding, walk};
use super::generic_scan::{COUNT_DEFAULT, COUNT_MAX};
pub(super) use super::generic_scan::{cursor as cursor_of, key_matches};
use super::parse::{SYNTAX_ERROR, integer};
use crate::args::Args;
use crate::command::Stop;

/// Whether NOVALUES is an option of the command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    MayBeLeftOut,
    AreNone,
}

pub(super) struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    count: usize,
    pub(super) no_values: bool,
}

impl<'a> ScanOptions<'a> {
    /// Reads the options from argument `first` on.
    pub(super) fn parse(args: Args<'a>, first: usize, values: Values) -> Result<Self, Stop> {
        let mut options = ScanOptions {
            pattern: None,
            count: COUNT_DEFAULT,
            no_values: false,
        };
        let mut at = first;
        while at < args.len() {
            let value = args.get(at + 1);
            if args.is(at, "count")
                && let Some(value) = value
            {
                options.count = match integer(value)? {
                    ..1 => return Err(SYNTAX_ERROR.into()),
                    wanted => usize::try_from(wanted).map_or(COUNT_MAX, |n| n.min(COUNT_MAX)),
                };
                at += 2;
            } else if args.is(at, "match") && value.is_some() {
                options.pattern = value;
                at += 2;
            } else if args.is(at, "novalues") {
                if values == Values::AreNone {
                    return Err("ERR NOVALUES option can only be used in HSCAN".into());
                }
                options.no_values = true;
                at += 1;
            } else {
                return Err(SYNTAX_ERROR.into());
            }
        }
        Ok(options)
    }

    /// Whether an element with this key is wanted.
    pub(super) fn matches(&self, key: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| key_matches(pattern, key))
    }
}

/// The elements of the step whose keys match, and the cursor that the next step begins with.
pub(super) fn scan<'r>(
    collection: &Collection<'r>,
    cursor: u64,
    options: &ScanOptions<'_>,
) -> Result<(Vec<Element<'r>>, u64), Stop> {
    let matches = |element: &Element<'_>| options.matches(&element.key);
    if Encoding::of(collection).is_packed() {
        let mut elements = Vec::new();
        walk(collection, |element| {
            if matches(&element) {
                elements.push(element);
            }
            Ok(())
        })?;
        return Ok((elements, 0));
    }
    let mut scanned = collection.scan(ELEMENTS, cursor, options.count as u64)?;
    scanned.elements.retain(matches);
    Ok((scanned.elements, scanned.cursor))
}
