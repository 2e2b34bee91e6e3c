//! The request parser of the server: from the bytes of a connection to commands and arguments.
//!
//! Arguments are ranges into the caller's read buffer, so one read of a pipeline becomes a batch
//! of commands without a copy and without an allocation of its own. Inline arguments that need
//! unescaping are unescaped in place: they never grow.
//!
//! The parser remembers how far it got in an incomplete command, so whatever the sizes of the
//! reads, every byte is looked at once (the bytes of bulk strings, never). It accepts and refuses
//! what Redis 7.0 does, in the same words, with two deliberate differences, both about requests
//! no client sends: a line is too long by its length alone, not by how it was split into reads,
//! and a NUL byte in a line is a byte like any other, where Redis would wait for more input
//! forever.

use std::fmt;
use std::ops::Range;

use crate::encode::Encoder;
use crate::inline::split_inline;
use crate::number::parse_integer;

/// The longest inline command, and the longest line announcing a length, in bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The most arguments, and the longest argument in bytes, before a client has authenticated.
const MAX_UNAUTHENTICATED_ARGS: i64 = 10;
const MAX_UNAUTHENTICATED_BULK_BYTES: i64 = 16 * 1024;

/// The bounds a request must keep to. A length beyond them is refused when it is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest argument in bytes; Redis's `proto-max-bulk-len`, 512 MiB by default.
    pub max_bulk_bytes: usize,
    /// The most arguments in one command; `i32::MAX` by default, as in Redis.
    pub max_args: usize,
    /// Whether the client still has to authenticate, which takes much tighter bounds: 10
    /// arguments of 16 KiB.
    pub authentication: Authentication,
}

/// Whether a client may use the server yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Authentication {
    /// A password is required and has not been given.
    Pending,
    /// The client is authenticated, or no password is required.
    Done,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bulk_bytes: 512 * 1024 * 1024,
            max_args: i32::MAX as usize,
            authentication: Authentication::Done,
        }
    }
}

/// Where one argument lies in the buffer given to [`RequestParser::parse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArgRange {
    /// Offset of its first byte.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
}

impl ArgRange {
    /// The argument's bytes.
    ///
    /// # Panics
    ///
    /// If the range is not within `buf`: the buffer is not the one that was parsed, or has since
    /// been moved.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start..self.start + self.len]
    }
}

/// What [`RequestParser::parse`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// One whole command.
    Complete {
        /// Where in the buffer the next command starts.
        end: usize,
        /// Which of the caller's argument ranges are this command's; at least one.
        args: Range<usize>,
    },
    /// The buffer ends before the command does.
    Incomplete {
        /// Where in the buffer the unfinished command starts: bytes before it are done with.
        keep_from: usize,
        /// How many more bytes, at least, must come before there is progress. The peer's claim:
        /// within [`Limits`], but no reason to take that much memory at once.
        need: usize,
    },
}

/// The parser of one connection.
///
/// ```
/// use resp::{Parsed, RequestParser};
///
/// let mut buf = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\nPING\r\n*1\r\n$4\r\nPI".to_vec();
/// let mut parser = RequestParser::default();
/// let mut args = Vec::new();
///
/// let mut start = 0;
/// let mut commands = Vec::new();
/// while let Parsed::Complete { end, args } = parser.parse(&mut buf, start, &mut args)? {
///     start = end;
///     commands.push(args);
/// }
/// assert_eq!(commands, [0..2, 2..3]);
/// assert_eq!(args[1].of(&buf), b"key");
/// assert_eq!(args[2].of(&buf), b"PING");
///
/// // The batch is done. What is left of the buffer is the start of a command.
/// args.clear();
/// buf.drain(..start);
/// buf.extend_from_slice(b"NG\r\n");
/// assert_eq!(parser.parse(&mut buf, 0, &mut args)?, Parsed::Complete { end: 14, args: 0..1 });
/// # Ok::<(), resp::ProtocolError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RequestParser {
    limits: Limits,
    progress: Progress,
    /// The arguments of an unfinished command, relative to its start.
    partial: Vec<ArgRange>,
}

/// How far the current command has been parsed. Offsets are relative to the command's start, so
/// the caller may move the bytes within its buffer between calls.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The first byte not parsed yet: the start of a line, or of a bulk string if `bulk_len` is
    /// set. Zero until the number of arguments is known.
    cursor: usize,
    /// This many bytes from `cursor` hold no end of line.
    searched: usize,
    /// Arguments still to come.
    args_left: usize,
    /// The announced length of the argument being received.
    bulk_len: Option<usize>,
}

/// The outcome of one attempt at one command.
enum Step {
    /// The command took this many bytes.
    Done(usize),
    /// At least this many more bytes are missing.
    Need(usize),
}

impl RequestParser {
    /// Makes a parser for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Changes the limits for the lengths that are read from now on. While authentication is
    /// pending, a server must run each command before it parses the next: the command may be the
    /// one that authenticates.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Parses one command, which starts at `buf[start]`, and appends its arguments, as ranges of
    /// `buf`, to `args`. Empty commands (an empty line, `*0`, `*-1`) are passed over.
    ///
    /// After [`Parsed::Incomplete`], the next call must be given the same bytes from `keep_from`
    /// on, at `start`, with more behind them. They may have moved to another place or buffer;
    /// nothing stays in `args` for an unfinished command.
    ///
    /// # Errors
    ///
    /// The request breaks the protocol or the limits. Nothing after it can be understood: send
    /// [the error](ProtocolError::encode), then close the connection; the parser is of no more
    /// use, and `args` may hold some arguments of the broken request.
    ///
    /// # Panics
    ///
    /// If the bytes that must be given again are missing.
    pub fn parse(
        &mut self,
        buf: &mut [u8],
        start: usize,
        args: &mut Vec<ArgRange>,
    ) -> Result<Parsed, ProtocolError> {
        let first_arg = args.len();
        let mut keep_from = start;
        loop {
            let step = match buf.get(keep_from).copied() {
                None => Step::Need(1),
                Some(b'*') => self.parse_multibulk(&buf[keep_from..], keep_from, args)?,
                Some(_) => self.parse_inline(buf, keep_from, args)?,
            };
            match step {
                Step::Need(need) => {
                    let unfinished = args.drain(first_arg..);
                    self.partial.extend(unfinished.map(|arg| ArgRange {
                        start: arg.start - keep_from,
                        ..arg
                    }));
                    return Ok(Parsed::Incomplete { keep_from, need });
                }
                Step::Done(len) => {
                    if !self.partial.is_empty() {
                        let partial = std::mem::take(&mut self.partial);
                        args.extend(partial.into_iter().map(|arg| ArgRange {
                            start: arg.start + keep_from,
                            ..arg
                        }));
                    }
                    self.progress = Progress::default();
                    keep_from += len;
                    if args.len() > first_arg {
                        return Ok(Parsed::Complete {
                            end: keep_from,
                            args: first_arg..args.len(),
                        });
                    }
                }
            }
        }
    }

    /// Parses an array of bulk strings from `command`, which lies `offset` bytes into the buffer.
    fn parse_multibulk(
        &mut self,
        command: &[u8],
        offset: usize,
        args: &mut Vec<ArgRange>,
    ) -> Result<Step, ProtocolError> {
        // What was parsed by earlier calls would have to move with every call if it went to
        // `args`. It stays here until the command is complete.
        let (args, offset) = if self.partial.is_empty() {
            (args, offset)
        } else {
            (&mut self.partial, 0)
        };
        let mut progress = self.progress;
        if progress.cursor == 0 {
            let Some((count, line_len)) = read_length(command, &mut progress.searched, &MULTIBULK)?
            else {
                self.progress = progress;
                return Ok(Step::Need(1));
            };
            progress.args_left = self.limits.check_count(count)?;
            progress.advance(line_len);
        }
        while progress.args_left > 0 {
            let bulk_len = match progress.bulk_len {
                Some(len) => len,
                None => {
                    let line = &command[progress.cursor..];
                    let Some((len, line_len)) = read_length(line, &mut progress.searched, &BULK)?
                    else {
                        self.progress = progress;
                        return Ok(Step::Need(1));
                    };
                    let len = self.limits.check_bulk(len)?;
                    progress.advance(line_len);
                    len
                }
            };
            // Two bytes end the string; as in Redis, they may be any.
            let end = progress.cursor.saturating_add(bulk_len).saturating_add(2);
            if end > command.len() {
                progress.bulk_len = Some(bulk_len);
                self.progress = progress;
                return Ok(Step::Need(end - command.len()));
            }
            args.push(ArgRange {
                start: offset + progress.cursor,
                len: bulk_len,
            });
            progress.advance(end - progress.cursor);
            progress.bulk_len = None;
            progress.args_left -= 1;
        }
        Ok(Step::Done(progress.cursor))
    }

    /// Parses one line of words, which starts at `buf[start]`.
    fn parse_inline(
        &mut self,
        buf: &mut [u8],
        start: usize,
        args: &mut Vec<ArgRange>,
    ) -> Result<Step, ProtocolError> {
        let command = &buf[start..];
        let searched = self.progress.searched;
        let Some(newline) = find_within_line(command, b'\n', searched) else {
            if command.len() > MAX_LINE_BYTES {
                return Err(ProtocolError::TooBigInlineRequest);
            }
            self.progress.searched = command.len();
            return Ok(Step::Need(1));
        };
        let has_cr = newline > 0 && command[newline - 1] == b'\r';
        let line = start..start + newline - usize::from(has_cr);
        if !split_inline(buf, line, args) {
            return Err(ProtocolError::UnbalancedQuotes);
        }
        Ok(Step::Done(newline + 1))
    }
}

impl Progress {
    #[inline]
    fn advance(&mut self, bytes: usize) {
        self.cursor += bytes;
        self.searched = 0;
    }
}

impl Limits {
    /// The number of arguments that an announced array of `count` elements has.
    #[inline]
    fn check_count(&self, count: i64) -> Result<usize, ProtocolError> {
        if count > 0 && count as u64 > self.max_args as u64 {
            Err(ProtocolError::InvalidMultibulkLength)
        } else if count > MAX_UNAUTHENTICATED_ARGS && self.authentication == Authentication::Pending
        {
            Err(ProtocolError::UnauthenticatedMultibulkLength)
        } else {
            Ok(count.max(0) as usize)
        }
    }

    #[inline]
    fn check_bulk(&self, len: i64) -> Result<usize, ProtocolError> {
        if len < 0 || len as u64 > self.max_bulk_bytes as u64 {
            Err(ProtocolError::InvalidBulkLength)
        } else if len > MAX_UNAUTHENTICATED_BULK_BYTES
            && self.authentication == Authentication::Pending
        {
            Err(ProtocolError::UnauthenticatedBulkLength)
        } else {
            Ok(len as usize)
        }
    }
}

/// A line that announces a length: the mark it starts with, and the errors it can have.
struct LengthLine {
    mark: u8,
    too_big: ProtocolError,
    invalid: ProtocolError,
}

const MULTIBULK: LengthLine = LengthLine {
    mark: b'*',
    too_big: ProtocolError::TooBigMultibulkCount,
    invalid: ProtocolError::InvalidMultibulkLength,
};

const BULK: LengthLine = LengthLine {
    mark: b'$',
    too_big: ProtocolError::TooBigBulkCount,
    invalid: ProtocolError::InvalidBulkLength,
};

/// Reads the line at the start of `bytes`: the length it announces and the line's own size; none
/// if the line is not complete. `searched` says, and is told, how many bytes hold no CR.
///
/// Always inlined, with the usual case: a result returned through memory triples the time.
#[inline(always)]
fn read_length(
    bytes: &[u8],
    searched: &mut usize,
    kind: &LengthLine,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    match read_plain_length(bytes, kind.mark) {
        Some(read) => Ok(Some(read)),
        None => read_any_length(bytes, searched, kind),
    }
}

/// Reads a line in one pass if it is complete and its length is of the usual form: one to nine
/// digits, no sign, no leading zero.
#[inline(always)]
fn read_plain_length(bytes: &[u8], mark: u8) -> Option<(i64, usize)> {
    let [first, digit @ b'1'..=b'9', ..] = bytes else {
        return None;
    };
    if *first != mark {
        return None;
    }
    let mut length = i64::from(digit - b'0');
    let mut position = 2;
    while position < 11 && position + 1 < bytes.len() {
        match bytes[position] {
            byte @ b'0'..=b'9' => length = length * 10 + i64::from(byte - b'0'),
            b'\r' => return Some((length, position + 2)),
            _ => return None,
        }
        position += 1;
    }
    None
}

/// Reads a line of any form, or finds out what is wrong with it. A line ends with CR and, as in
/// Redis, any byte.
#[cold]
fn read_any_length(
    bytes: &[u8],
    searched: &mut usize,
    kind: &LengthLine,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let Some(cr) = find_within_line(bytes, b'\r', *searched) else {
        if bytes.len() > MAX_LINE_BYTES {
            return Err(kind.too_big);
        }
        *searched = bytes.len();
        return Ok(None);
    };
    if cr + 1 == bytes.len() {
        return Ok(None);
    }
    if bytes[0] != kind.mark {
        return Err(ProtocolError::ExpectedBulk(bytes[0]));
    }
    let length = parse_integer(&bytes[1..cr]).ok_or(kind.invalid)?;
    Ok(Some((length, cr + 2)))
}

/// Where `end` first stands in a line that may be `MAX_LINE_BYTES` long, `searched` bytes of
/// which are known not to hold it.
fn find_within_line(bytes: &[u8], end: u8, searched: usize) -> Option<usize> {
    let window = &bytes[..bytes.len().min(MAX_LINE_BYTES + 1)];
    let unsearched = window.get(searched..)?;
    unsearched
        .iter()
        .position(|&byte| byte == end)
        .map(|position| searched + position)
}

/// A request that breaks the protocol or the limits; shown in the words of Redis.
///
/// ```
/// assert_eq!(
///     resp::ProtocolError::ExpectedBulk(b'x').to_string(),
///     "Protocol error: expected '$', got 'x'"
/// );
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// An inline command over 64 KiB.
    TooBigInlineRequest,
    /// An inline command with a quote that is not closed, or not followed by a space.
    UnbalancedQuotes,
    /// The line announcing the number of arguments is over 64 KiB.
    TooBigMultibulkCount,
    /// The number of arguments is no number or over the limit.
    InvalidMultibulkLength,
    /// The number of arguments is over the limit of clients that have not authenticated.
    UnauthenticatedMultibulkLength,
    /// The line announcing the length of an argument is over 64 KiB.
    TooBigBulkCount,
    /// An argument starts with this byte instead of `$`.
    ExpectedBulk(u8),
    /// The length of an argument is no number, negative or over the limit.
    InvalidBulkLength,
    /// The length of an argument is over the limit of clients that have not authenticated.
    UnauthenticatedBulkLength,
}

impl ProtocolError {
    /// Writes the error as the reply Redis sends before it closes the connection.
    ///
    /// ```
    /// let mut encoder = resp::Encoder::default();
    /// resp::ProtocolError::InvalidBulkLength.encode(&mut encoder);
    /// assert_eq!(encoder.as_bytes(), b"-ERR Protocol error: invalid bulk length\r\n");
    /// ```
    pub fn encode(self, encoder: &mut Encoder) {
        // The byte of `ExpectedBulk` goes out as it came in, which text cannot promise.
        let mut reply = b"ERR Protocol error: ".to_vec();
        reply.extend_from_slice(self.reason().as_bytes());
        if let Self::ExpectedBulk(byte) = self {
            reply.extend_from_slice(&[b'\'', byte, b'\'']);
        }
        encoder.error_bytes(&reply);
    }

    fn reason(self) -> &'static str {
        match self {
            Self::TooBigInlineRequest => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::TooBigMultibulkCount => "too big mbulk count string",
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::TooBigBulkCount => "too big bulk count string",
            Self::ExpectedBulk(_) => "expected '$', got ",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Protocol error: {}", self.reason())?;
        match self {
            Self::ExpectedBulk(byte) => write!(formatter, "'{}'", byte.escape_ascii()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ProtocolError {}
