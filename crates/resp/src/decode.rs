//! The reply decoder of clients: load generators, tests and tools.
//!
//! [`decode`] builds a [`Reply`]; [`skip_reply`] only finds where a reply ends. Both are made of
//! one step, reading a frame: a value without children, or the header of an aggregate. They hold
//! no state: given a reply that is not complete they say so, and start over when called with more
//! bytes. The streamed types of RESP3 (`$?`, `*?`), which no Redis sends, are refused.

use std::fmt;

use crate::number::parse_integer;

/// How deeply the aggregates of a reply may be nested.
const MAX_DEPTH: usize = 128;

/// The most elements an aggregate may announce.
const MAX_ELEMENTS: i64 = i32::MAX as i64;

/// Elements that memory is reserved for before they have come.
const MAX_RESERVED_ELEMENTS: usize = 1024;

/// A reply, in RESP2 or RESP3.
#[derive(Clone, PartialEq)]
pub enum Reply {
    /// A status such as `OK`.
    Simple(Vec<u8>),
    /// An error, its code first, without the dash.
    Error(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// No value: `$-1` or `_`.
    Null,
    /// No array: RESP2's `*-1`.
    NullArray,
    /// An ordered collection.
    Array(Vec<Reply>),
    /// Keys with their values, in the order they came.
    Map(Vec<(Reply, Reply)>),
    /// A collection without order, in the order it came.
    Set(Vec<Reply>),
    /// A message that is not the reply to a command.
    Push(Vec<Reply>),
    /// A reply with additional keys and values.
    Attributed {
        /// What is said about the reply.
        attributes: Vec<(Reply, Reply)>,
        /// The reply proper.
        reply: Box<Reply>,
    },
    /// A floating-point number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// An integer of any size, in decimal.
    BigNumber(String),
    /// Text and its kind, such as `txt`.
    Verbatim {
        /// The three characters that name the kind.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
}

/// Decodes the reply at the start of `bytes`. Returns it with its size in bytes, or none if it is
/// not complete. Linear in the size of the reply; a reply that
/// announces more than has come takes little memory.
///
/// # Errors
///
/// The bytes are no reply, or one nested deeper than 128 aggregates.
///
/// ```
/// use resp::{Reply, decode};
///
/// let bytes = b"*2\r\n$3\r\nkey\r\n:7\r\n+OK\r\n";
/// let (reply, size) = decode(bytes)?.expect("complete");
/// assert_eq!(reply, Reply::Array(vec![Reply::Bulk(b"key".to_vec()), Reply::Integer(7)]));
/// assert_eq!(decode(&bytes[size..])?, Some((Reply::Simple(b"OK".to_vec()), 5)));
/// assert_eq!(decode(b"$100\r\nabc")?, None);
/// # Ok::<(), resp::DecodeError>(())
/// ```
pub fn decode(bytes: &[u8]) -> Result<Option<(Reply, usize)>, DecodeError> {
    let mut reader = Reader { bytes, position: 0 };
    match reader.reply(MAX_DEPTH)? {
        Some(reply) => Ok(Some((reply, reader.position))),
        None => Ok(None),
    }
}

/// Finds the size in bytes of the reply at the start of `bytes`, or none if it is not complete.
/// Takes no memory, looks at no string's bytes, and follows any nesting.
///
/// # Errors
///
/// The bytes are no reply.
///
/// ```
/// assert_eq!(resp::skip_reply(b"$5\r\nhello\r\n+OK\r\n")?, Some(11));
/// assert_eq!(resp::skip_reply(b"$5\r\nhel")?, None);
/// # Ok::<(), resp::DecodeError>(())
/// ```
pub fn skip_reply(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let mut reader = Reader { bytes, position: 0 };
    let mut pending: usize = 1;
    while pending > 0 {
        let children = match reader.frame()? {
            None => return Ok(None),
            Some(Frame::Array(len) | Frame::Set(len) | Frame::Push(len)) => len,
            Some(Frame::Map(pairs)) => pairs * 2,
            Some(Frame::Attribute(pairs)) => pairs * 2 + 1,
            Some(_) => 0,
        };
        pending = (pending - 1).saturating_add(children);
    }
    Ok(Some(reader.position))
}

/// A value without children, or the header of an aggregate with the number of its elements or
/// pairs.
enum Frame<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Bulk(&'a [u8]),
    Null,
    NullArray,
    Double(f64),
    Boolean(bool),
    BigNumber(&'a str),
    Verbatim { format: [u8; 3], text: &'a [u8] },
    Array(usize),
    Set(usize),
    Push(usize),
    Map(usize),
    Attribute(usize),
}

/// Reads frames one after the other. None means that the bytes end before the frame does.
struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Reads a reply that may hold `depth` levels of aggregates.
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, DecodeError> {
        let Some(frame) = self.frame()? else {
            return Ok(None);
        };
        let reply = match frame {
            Frame::Simple(text) => Reply::Simple(text.to_vec()),
            Frame::Error(text) => Reply::Error(text.to_vec()),
            Frame::Integer(value) => Reply::Integer(value),
            Frame::Bulk(bytes) => Reply::Bulk(bytes.to_vec()),
            Frame::Null => Reply::Null,
            Frame::NullArray => Reply::NullArray,
            Frame::Double(value) => Reply::Double(value),
            Frame::Boolean(value) => Reply::Boolean(value),
            Frame::BigNumber(digits) => Reply::BigNumber(digits.to_owned()),
            Frame::Verbatim { format, text } => Reply::Verbatim {
                format,
                text: text.to_vec(),
            },
            Frame::Array(len) => return Ok(self.elements(len, depth)?.map(Reply::Array)),
            Frame::Set(len) => return Ok(self.elements(len, depth)?.map(Reply::Set)),
            Frame::Push(len) => return Ok(self.elements(len, depth)?.map(Reply::Push)),
            Frame::Map(pairs) => return Ok(self.pairs(pairs, depth)?.map(Reply::Map)),
            Frame::Attribute(pairs) => {
                let Some(attributes) = self.pairs(pairs, depth)? else {
                    return Ok(None);
                };
                let Some(reply) = self.reply(depth - 1)? else {
                    return Ok(None);
                };
                Reply::Attributed {
                    attributes,
                    reply: Box::new(reply),
                }
            }
        };
        Ok(Some(reply))
    }

    fn elements(&mut self, len: usize, depth: usize) -> Result<Option<Vec<Reply>>, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        let mut elements = Vec::with_capacity(len.min(MAX_RESERVED_ELEMENTS));
        for _ in 0..len {
            let Some(element) = self.reply(depth)? else {
                return Ok(None);
            };
            elements.push(element);
        }
        Ok(Some(elements))
    }

    fn pairs(
        &mut self,
        len: usize,
        depth: usize,
    ) -> Result<Option<Vec<(Reply, Reply)>>, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        let mut pairs = Vec::with_capacity(len.min(MAX_RESERVED_ELEMENTS));
        for _ in 0..len {
            let Some(key) = self.reply(depth)? else {
                return Ok(None);
            };
            let Some(value) = self.reply(depth)? else {
                return Ok(None);
            };
            pairs.push((key, value));
        }
        Ok(Some(pairs))
    }

    /// Reads one frame.
    #[inline]
    fn frame(&mut self) -> Result<Option<Frame<'a>>, DecodeError> {
        let Some(&mark) = self.bytes.get(self.position) else {
            return Ok(None);
        };
        let is_known = matches!(
            mark,
            b'+' | b'-'
                | b':'
                | b'$'
                | b'*'
                | b'_'
                | b'#'
                | b','
                | b'('
                | b'!'
                | b'='
                | b'%'
                | b'~'
                | b'>'
                | b'|'
        );
        if !is_known {
            return Err(DecodeError::UnknownType(mark));
        }
        let Some(line) = self.line(mark)? else {
            return Ok(None);
        };
        let invalid = DecodeError::InvalidValue(mark);
        Ok(Some(match mark {
            b'+' => Frame::Simple(line),
            b'-' => Frame::Error(line),
            b':' => Frame::Integer(parse_integer(line).ok_or(invalid)?),
            b'$' if line == b"-1" => Frame::Null,
            b'$' | b'!' | b'=' => return self.blob(mark, line),
            b'_' if line.is_empty() => Frame::Null,
            b'#' if line == b"t" => Frame::Boolean(true),
            b'#' if line == b"f" => Frame::Boolean(false),
            b',' => Frame::Double(parse_double(line).ok_or(invalid)?),
            b'(' => Frame::BigNumber(parse_big_number(line).ok_or(invalid)?),
            b'*' if line == b"-1" => Frame::NullArray,
            b'*' => Frame::Array(parse_count(mark, line)?),
            b'~' => Frame::Set(parse_count(mark, line)?),
            b'>' => Frame::Push(parse_count(mark, line)?),
            b'%' => Frame::Map(parse_count(mark, line)?),
            b'|' => Frame::Attribute(parse_count(mark, line)?),
            _ => return Err(invalid),
        }))
    }

    /// Reads a line, and returns it without its mark and its end.
    fn line(&mut self, mark: u8) -> Result<Option<&'a [u8]>, DecodeError> {
        let rest = &self.bytes[self.position + 1..];
        let Some(cr) = rest.iter().position(|&byte| byte == b'\r') else {
            return Ok(None);
        };
        match rest.get(cr + 1) {
            None => Ok(None),
            Some(b'\n') => {
                self.position += 1 + cr + 2;
                Ok(Some(&rest[..cr]))
            }
            Some(_) => Err(DecodeError::MissingLineEnd(mark)),
        }
    }

    /// Reads the bytes of a string whose line announced its length.
    fn blob(&mut self, mark: u8, len: &[u8]) -> Result<Option<Frame<'a>>, DecodeError> {
        let len = parse_integer(len).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or(DecodeError::InvalidLength(mark))?;
        let rest = &self.bytes[self.position..];
        let Some(end) = rest.get(len..).and_then(|after| after.get(..2)) else {
            return Ok(None);
        };
        if end != b"\r\n" {
            return Err(DecodeError::MissingLineEnd(mark));
        }
        self.position += len + 2;
        let bytes = &rest[..len];
        Ok(Some(match (mark, bytes) {
            (b'$', _) => Frame::Bulk(bytes),
            (b'!', _) => Frame::Error(bytes),
            (_, [a, b, c, b':', text @ ..]) => Frame::Verbatim {
                format: [*a, *b, *c],
                text,
            },
            _ => return Err(DecodeError::InvalidValue(mark)),
        }))
    }
}

fn parse_count(mark: u8, line: &[u8]) -> Result<usize, DecodeError> {
    match parse_integer(line) {
        Some(count @ 0..=MAX_ELEMENTS) => Ok(count as usize),
        _ => Err(DecodeError::InvalidLength(mark)),
    }
}

fn parse_double(line: &[u8]) -> Option<f64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn parse_big_number(line: &[u8]) -> Option<&str> {
    let digits = line
        .strip_prefix(b"-")
        .or_else(|| line.strip_prefix(b"+"))
        .unwrap_or(line);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if is_number {
        std::str::from_utf8(line).ok()
    } else {
        None
    }
}

impl fmt::Debug for Reply {
    /// Shows strings as text with escapes, not as lists of numbers.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(formatter, "Simple(\"{}\")", text.escape_ascii()),
            Self::Error(text) => write!(formatter, "Error(\"{}\")", text.escape_ascii()),
            Self::Integer(value) => write!(formatter, "Integer({value})"),
            Self::Bulk(bytes) => write!(formatter, "Bulk(\"{}\")", bytes.escape_ascii()),
            Self::Null => formatter.write_str("Null"),
            Self::NullArray => formatter.write_str("NullArray"),
            Self::Array(elements) => formatter.debug_tuple("Array").field(elements).finish(),
            Self::Map(pairs) => formatter.debug_tuple("Map").field(pairs).finish(),
            Self::Set(elements) => formatter.debug_tuple("Set").field(elements).finish(),
            Self::Push(elements) => formatter.debug_tuple("Push").field(elements).finish(),
            Self::Attributed { attributes, reply } => formatter
                .debug_struct("Attributed")
                .field("attributes", attributes)
                .field("reply", reply)
                .finish(),
            Self::Double(value) => write!(formatter, "Double({value:?})"),
            Self::Boolean(value) => write!(formatter, "Boolean({value})"),
            Self::BigNumber(digits) => write!(formatter, "BigNumber({digits})"),
            Self::Verbatim { format, text } => {
                let (format, text) = (format.escape_ascii(), text.escape_ascii());
                write!(formatter, "Verbatim({format}, \"{text}\")")
            }
        }
    }
}

/// Bytes that are no reply. The byte in most variants is the mark of the type at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// This byte starts no type of RESP2 or RESP3.
    UnknownType(u8),
    /// A length is no number, negative or too large.
    InvalidLength(u8),
    /// A value is not what its type says.
    InvalidValue(u8),
    /// A line or string does not end with CR LF.
    MissingLineEnd(u8),
    /// Aggregates are nested deeper than 128.
    TooDeep,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (problem, mark) = match self {
            Self::UnknownType(mark) => ("unknown type", mark),
            Self::InvalidLength(mark) => ("invalid length in type", mark),
            Self::InvalidValue(mark) => ("invalid value in type", mark),
            Self::MissingLineEnd(mark) => ("no CR LF at the end of type", mark),
            Self::TooDeep => return write!(formatter, "reply nested deeper than {MAX_DEPTH}"),
        };
        write!(
            formatter,
            "invalid reply: {problem} '{}'",
            mark.escape_ascii()
        )
    }
}

impl std::error::Error for DecodeError {}
