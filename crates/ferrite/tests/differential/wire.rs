//! A blocking connection that speaks RESP2 and RESP3 and shows replies as they came, type by type.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long a reply may take before the test gives up on the server.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(u16),
    Unix(PathBuf),
}

/// A reply, with its type on the wire.
#[derive(Clone, PartialEq)]
pub(crate) enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`: the mark, which is part of what is compared.
    Null(u8),
    Double(Vec<u8>),
    BigNumber(Vec<u8>),
    Boolean(bool),
    Verbatim(Vec<u8>),
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    /// Keys and values in turn.
    Map(Vec<Reply>),
    /// Keys and values in turn, and the reply they belong to.
    Attributed(Vec<Reply>, Box<Reply>),
}

impl Reply {
    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// The elements of an array, set, push or map.
    pub(crate) fn elements(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) | Reply::Map(items) => {
                Some(items)
            }
            _ => None,
        }
    }

    /// The bytes of a simple, bulk or verbatim string.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Simple(bytes) | Reply::Bulk(bytes) | Reply::Verbatim(bytes) => Some(bytes),
            _ => None,
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

impl Connection {
    pub(crate) fn open(address: &Address) -> io::Result<Connection> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
                Box::new(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
                Box::new(stream)
            }
        };
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    /// Sends commands in one piece, without waiting for replies.
    pub(crate) fn send<'c, A: AsRef<[u8]> + 'c>(
        &mut self,
        commands: impl IntoIterator<Item = &'c [A]>,
    ) -> io::Result<()> {
        let mut request = Vec::new();
        for args in commands {
            request.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
            for arg in args {
                let arg = arg.as_ref();
                request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                request.extend_from_slice(arg);
                request.extend_from_slice(b"\r\n");
            }
        }
        self.stream.get_mut().write_all(&request)
    }

    /// Sends a command and reads its reply.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        self.send([args])?;
        self.reply()
    }

    /// Reads the reply to one command.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let reply = self.read()?;
        if let Reply::Push(_) = reply {
            // Nobody subscribes here: what is pushed belongs to the command.
            return Ok(Reply::Array(vec![reply, self.read()?]));
        }
        Ok(reply)
    }

    /// Waits until the server has closed the connection.
    pub(crate) fn expect_end(&mut self) -> io::Result<()> {
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("the server sent more instead of closing")),
        }
    }

    fn read(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let Some((&mark, text)) = line.split_first() else {
            return Err(invalid(&line));
        };
        Ok(match mark {
            b'+' => Reply::Simple(text.to_vec()),
            b'-' => Reply::Error(text.to_vec()),
            b':' => Reply::Integer(number(text)?),
            b'$' | b'*' if text == b"-1" => Reply::Null(mark),
            b'_' => Reply::Null(mark),
            b'$' => Reply::Bulk(self.body(text)?),
            b'=' => Reply::Verbatim(self.body(text)?),
            b',' => Reply::Double(text.to_vec()),
            b'(' => Reply::BigNumber(text.to_vec()),
            b'#' => Reply::Boolean(text == b"t"),
            b'*' => Reply::Array(self.items(number(text)?)?),
            b'~' => Reply::Set(self.items(number(text)?)?),
            b'>' => Reply::Push(self.items(number(text)?)?),
            b'%' => Reply::Map(self.items(2 * number(text)?)?),
            b'|' => {
                let attributes = self.items(2 * number(text)?)?;
                Reply::Attributed(attributes, Box::new(self.read()?))
            }
            _ => return Err(invalid(&line)),
        })
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed",
            ));
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }

    fn body(&mut self, len: &[u8]) -> io::Result<Vec<u8>> {
        let len = number(len)? as usize;
        let mut body = vec![0; len + 2];
        self.stream.read_exact(&mut body)?;
        body.truncate(len);
        Ok(body)
    }

    fn items(&mut self, count: i64) -> io::Result<Vec<Reply>> {
        (0..count).map(|_| self.read()).collect()
    }
}

fn number(text: &[u8]) -> io::Result<i64> {
    let parsed = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| invalid(text))
}

fn invalid(line: &[u8]) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("no reply: {}", line.escape_ascii()),
    )
}

/// Bytes as a failed test shows them: escaped, and long ones cut.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    match bytes.get(..SHOWN_BYTES) {
        Some(start) => format!("{}...({} bytes)", start.escape_ascii(), bytes.len()),
        None => bytes.escape_ascii().to_string(),
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(bytes) => write!(f, "+{}", shown(bytes)),
            Reply::Error(bytes) => write!(f, "-{}", shown(bytes)),
            Reply::Integer(number) => write!(f, ":{number}"),
            Reply::Bulk(bytes) => write!(f, "${}", shown(bytes)),
            Reply::Null(mark) => write!(f, "{}null", *mark as char),
            Reply::Double(bytes) => write!(f, ",{}", shown(bytes)),
            Reply::BigNumber(bytes) => write!(f, "({}", shown(bytes)),
            Reply::Boolean(value) => write!(f, "#{value}"),
            Reply::Verbatim(bytes) => write!(f, "={}", shown(bytes)),
            Reply::Array(items) => write!(f, "*{items:?}"),
            Reply::Set(items) => write!(f, "~{items:?}"),
            Reply::Push(items) => write!(f, ">{items:?}"),
            Reply::Map(items) => write!(f, "%{items:?}"),
            Reply::Attributed(attributes, reply) => write!(f, "|{attributes:?} {reply:?}"),
        }
    }
}
