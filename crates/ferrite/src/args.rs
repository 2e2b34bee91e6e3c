//! The arguments of one command, as ranges into the buffer they were read into.

use std::ops::Index;

/// One argument: where it starts in the buffer, and its length, both in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArgRange {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// The arguments of a command; argument 0 is its name as the client wrote it.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    buffer: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    pub(crate) fn new(buffer: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Args { buffer, ranges }
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Argument `i`, or `None` past the end. (`args[i]` panics there: only for positions the arity guarantees.)
    pub(crate) fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.ranges.get(i).map(|range| slice(self.buffer, *range))
    }

    /// Arguments from `from` on.
    pub(crate) fn from(&self, from: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let buffer = self.buffer;
        self.ranges[from.min(self.ranges.len())..].iter().map(move |range| slice(buffer, *range))
    }

    /// Whether argument `i` exists and equals `word`, letter case aside.
    pub(crate) fn is(&self, i: usize, word: &str) -> bool {
        self.get(i).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }
}

fn slice(buffer: &[u8], range: ArgRange) -> &[u8] {
    let start = range.start as usize;
    &buffer[start..start + range.len as usize]
}

impl<'a> Index<usize> for Args<'a> {
    type Output = [u8];
    fn index(&self, i: usize) -> &[u8] {
        slice(self.buffer, self.ranges[i])
    }
}
