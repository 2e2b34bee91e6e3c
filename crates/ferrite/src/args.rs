//! The arguments of one command, as ranges into the buffer they were read into.

use std::ops::{Index, Range};

pub(crate) use resp::ArgRange;

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
        self.ranges.get(i).map(|range| range.of(self.buffer))
    }

    /// Arguments from `from` on.
    pub(crate) fn from(
        &self,
        from: usize,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let buffer = self.buffer;
        self.ranges[from.min(self.ranges.len())..]
            .iter()
            .map(move |range| range.of(buffer))
    }

    /// The arguments from `from` on as arguments of their own: a command quoted in another.
    pub(crate) fn tail(self, from: usize) -> Args<'a> {
        Args {
            buffer: self.buffer,
            ranges: &self.ranges[from.min(self.ranges.len())..],
        }
    }

    /// Some of the arguments, as arguments of their own.
    pub(crate) fn range(self, range: Range<usize>) -> Args<'a> {
        Args {
            buffer: self.buffer,
            ranges: &self.ranges[range],
        }
    }

    /// Whether argument `i` exists and equals `word`, letter case aside.
    pub(crate) fn is(&self, i: usize, word: &str) -> bool {
        self.get(i)
            .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Bytes of all arguments together.
    pub(crate) fn total_bytes(&self) -> usize {
        self.ranges.iter().map(|range| range.len).sum()
    }

    /// A copy that owns its bytes, for a command that leaves the connection's buffer.
    pub(crate) fn to_owned(self) -> OwnedArgs {
        let mut owned = OwnedArgs {
            buffer: Vec::with_capacity(self.total_bytes()),
            ranges: Vec::with_capacity(self.len()),
        };
        self.from(0).for_each(|arg| owned.push(arg));
        owned
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];
    fn index(&self, i: usize) -> &[u8] {
        self.ranges[i].of(self.buffer)
    }
}

/// Arguments with a buffer of their own.
#[derive(Default)]
pub(crate) struct OwnedArgs {
    buffer: Vec<u8>,
    ranges: Vec<ArgRange>,
}

impl OwnedArgs {
    /// Adds an argument behind the others.
    pub(crate) fn push(&mut self, arg: &[u8]) {
        self.ranges.push(ArgRange {
            start: self.buffer.len(),
            len: arg.len(),
        });
        self.buffer.extend_from_slice(arg);
    }

    pub(crate) fn as_args(&self) -> Args<'_> {
        Args::new(&self.buffer, &self.ranges)
    }
}
