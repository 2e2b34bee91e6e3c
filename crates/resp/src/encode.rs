//! The reply encoder: one growing buffer per connection, written in the protocol the client chose.
//!
//! Callers describe a reply in RESP3's terms (map, set, double, boolean, ...); for a RESP2 client
//! the encoder writes what Redis writes for it: maps become flat arrays, doubles become bulk
//! strings, and so on. An aggregate writes its header only; its elements are the replies that
//! follow, and it is the caller who must write as many as the header announced.

use crate::number::{append_double, append_integer, append_unsigned};

/// The protocol version a reply is written in; chosen by the client with `HELLO`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// RESP2, which every connection starts with.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// Appends replies to a buffer it owns.
///
/// ```
/// use resp::{Encoder, Protocol};
///
/// let mut encoder = Encoder::new(Protocol::Resp2);
/// encoder.array(2);
/// encoder.bulk(b"key");
/// encoder.integer(7);
/// assert_eq!(encoder.as_bytes(), b"*2\r\n$3\r\nkey\r\n:7\r\n");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
    protocol: Protocol,
}

impl Encoder {
    /// Makes an encoder with an empty buffer.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            buffer: Vec::new(),
            protocol,
        }
    }

    /// The protocol replies are written in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the protocol of the replies written from now on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the buffer holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Drops what was written after the first `len` bytes; nothing if there are fewer. With
    /// [`len`](Self::len) it takes back a reply that could not be finished.
    ///
    /// ```
    /// let mut encoder = resp::Encoder::default();
    /// let before = encoder.len();
    /// encoder.array(1000);
    /// encoder.truncate(before);
    /// assert!(encoder.is_empty());
    /// ```
    pub fn truncate(&mut self, len: usize) {
        self.buffer.truncate(len);
    }

    /// The bytes written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The buffer itself, for a writer to drain and for appending a streamed value.
    pub fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.buffer.extend_from_slice(b"+OK\r\n");
    }

    /// Writes a simple string. `text` must hold no CR and no LF.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        debug_assert!(
            !text.contains(['\r', '\n']),
            "a simple string is one line: {text:?}"
        );
        self.line(b'+', text.as_bytes());
    }

    /// Writes an error. `text` starts with the error's code, such as `ERR`, without the dash. As
    /// in Redis, CR and LF at its end are dropped and those inside it become spaces.
    ///
    /// ```
    /// let mut encoder = resp::Encoder::default();
    /// encoder.error("ERR no such\nthing");
    /// assert_eq!(encoder.as_bytes(), b"-ERR no such thing\r\n");
    /// ```
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// Writes an error whose text quotes bytes of the client, which need not be UTF-8. Otherwise
    /// as [`error`](Self::error).
    pub fn error_bytes(&mut self, text: &[u8]) {
        let is_line_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let end = text
            .iter()
            .rposition(|byte| !is_line_break(byte))
            .map_or(0, |last| last + 1);
        self.buffer.reserve(end + 3);
        self.buffer.push(b'-');
        let one_line = text[..end]
            .iter()
            .map(|byte| if is_line_break(byte) { b' ' } else { *byte });
        self.buffer.extend(one_line);
        self.end_line();
    }

    /// Writes an integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.buffer.reserve(24);
        self.buffer.push(b':');
        append_integer(&mut self.buffer, value);
        self.end_line();
    }

    /// Writes a bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.buffer.reserve(bytes.len() + 25);
        self.bulk_header(bytes.len());
        self.buffer.extend_from_slice(bytes);
        self.end_line();
    }

    /// Writes the header of a bulk string of `len` bytes. The caller appends exactly that many
    /// bytes through [`buffer_mut`](Self::buffer_mut) or [`raw`](Self::raw), or sends them by
    /// other means, then calls [`bulk_end`](Self::bulk_end).
    ///
    /// ```
    /// let mut encoder = resp::Encoder::default();
    /// encoder.bulk_header(6);
    /// encoder.raw(b"two");
    /// encoder.raw(b"six");
    /// encoder.bulk_end();
    /// assert_eq!(encoder.as_bytes(), b"$6\r\ntwosix\r\n");
    /// ```
    #[inline]
    pub fn bulk_header(&mut self, len: usize) {
        self.header(b'$', len);
    }

    /// Ends a bulk string begun by [`bulk_header`](Self::bulk_header).
    #[inline]
    pub fn bulk_end(&mut self) {
        self.end_line();
    }

    /// Writes null where a single value was asked for: `$-1` in RESP2, `_` in RESP3.
    #[inline]
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.buffer.extend_from_slice(b"$-1\r\n"),
            Protocol::Resp3 => self.buffer.extend_from_slice(b"_\r\n"),
        }
    }

    /// Writes null where an array was asked for: `*-1` in RESP2, `_` in RESP3.
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.buffer.extend_from_slice(b"*-1\r\n"),
            Protocol::Resp3 => self.buffer.extend_from_slice(b"_\r\n"),
        }
    }

    /// Writes the header of an array; `len` elements follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// Writes the header of a map; `pairs` keys, each with its value, follow. In RESP2 an array
    /// of twice as many elements.
    ///
    /// ```
    /// use resp::{Encoder, Protocol};
    ///
    /// for (protocol, header) in [(Protocol::Resp2, b"*4\r\n"), (Protocol::Resp3, b"%2\r\n")] {
    ///     let mut encoder = Encoder::new(protocol);
    ///     encoder.map(2);
    ///     assert_eq!(encoder.as_bytes(), header);
    /// }
    /// ```
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs * 2),
            Protocol::Resp3 => self.header(b'%', pairs),
        }
    }

    /// Writes the header of a set; `len` elements follow. In RESP2 an array.
    pub fn set(&mut self, len: usize) {
        self.resp3_header(b'~', len);
    }

    /// Writes the header of a push message, which is not the reply to a command; `len` elements
    /// follow. In RESP2 an array, as Pub/Sub messages are.
    pub fn push(&mut self, len: usize) {
        self.resp3_header(b'>', len);
    }

    /// Writes the header of an attribute; `pairs` keys, each with its value, follow, then the
    /// reply that the attribute adds to. RESP2 has no attributes: only callers that have seen
    /// [`Protocol::Resp3`] may write one.
    pub fn attribute(&mut self, pairs: usize) {
        debug_assert_eq!(self.protocol, Protocol::Resp3, "RESP2 has no attributes");
        self.header(b'|', pairs);
    }

    /// Writes a double, formatted by [`append_double`](crate::append_double). In RESP2 a bulk
    /// string.
    ///
    /// ```
    /// use resp::{Encoder, Protocol};
    ///
    /// let mut encoder = Encoder::new(Protocol::Resp3);
    /// encoder.double(0.1);
    /// encoder.set_protocol(Protocol::Resp2);
    /// encoder.double(f64::NEG_INFINITY);
    /// assert_eq!(encoder.as_bytes(), b",0.1\r\n$4\r\n-inf\r\n");
    /// ```
    pub fn double(&mut self, value: f64) {
        match self.protocol {
            Protocol::Resp2 => {
                let mut text = Vec::with_capacity(32);
                append_double(&mut text, value);
                self.bulk(&text);
            }
            Protocol::Resp3 => {
                self.buffer.push(b',');
                append_double(&mut self.buffer, value);
                self.end_line();
            }
        }
    }

    /// Writes a double that is given in decimal, with as many digits as it has. In RESP2 a bulk string.
    pub fn decimal(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.buffer.push(b',');
                self.buffer.extend_from_slice(text.as_bytes());
                self.end_line();
            }
        }
    }

    /// Writes a boolean. In RESP2 the integer 1 or 0.
    pub fn boolean(&mut self, value: bool) {
        self.buffer.extend_from_slice(match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
    }

    /// Writes an integer of any size, given in decimal. In RESP2 a bulk string.
    pub fn big_number(&mut self, digits: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// Writes text whose kind the client may want to know. `format` is three characters: `txt`
    /// for plain text, `mkd` for Markdown. In RESP2 a bulk string of the text alone.
    ///
    /// ```
    /// let mut encoder = resp::Encoder::new(resp::Protocol::Resp3);
    /// encoder.verbatim("txt", b"Some string");
    /// assert_eq!(encoder.as_bytes(), b"=15\r\ntxt:Some string\r\n");
    /// ```
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(
            format.len(),
            3,
            "a verbatim format is three characters: {format:?}"
        );
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.header(b'=', format.len() + 1 + text.len());
                self.buffer.extend_from_slice(format.as_bytes());
                self.buffer.push(b':');
                self.buffer.extend_from_slice(text);
                self.end_line();
            }
        }
    }

    /// Appends bytes that are already encoded.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Writes a header that RESP2 does not know and has an array for.
    fn resp3_header(&mut self, resp3_mark: u8, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len),
            Protocol::Resp3 => self.header(resp3_mark, len),
        }
    }

    /// Writes a mark and a length. Nearly all lengths have one or two digits; those are stores of
    /// constant size.
    #[inline]
    fn header(&mut self, mark: u8, len: usize) {
        if len < 10 {
            self.buffer
                .extend_from_slice(&[mark, b'0' + len as u8, b'\r', b'\n']);
        } else if len < 100 {
            let (tens, ones) = (b'0' + (len / 10) as u8, b'0' + (len % 10) as u8);
            self.buffer
                .extend_from_slice(&[mark, tens, ones, b'\r', b'\n']);
        } else {
            self.buffer.push(mark);
            append_unsigned(&mut self.buffer, len as u64);
            self.end_line();
        }
    }

    fn line(&mut self, mark: u8, text: &[u8]) {
        self.buffer.reserve(text.len() + 3);
        self.buffer.push(mark);
        self.buffer.extend_from_slice(text);
        self.end_line();
    }

    #[inline]
    fn end_line(&mut self) {
        self.buffer.extend_from_slice(b"\r\n");
    }
}
