//! One non-blocking connection: the bytes not yet sent, the bytes not yet read as replies, and the
//! replies still to come.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::options::Options;
use super::reply::{self, Reply};
use super::requests::{KeySpace, Operation, Request, RequestSource};
use crate::values;

const READ_BYTES: usize = 64 << 10;

/// The longest reply waited for: the longest value there is, with room for what is around it.
const MAX_REPLY_BYTES: usize = 1 << 30;

/// What one reply answers.
#[derive(Clone, Copy)]
pub(crate) enum Answers {
    Get,
    Set,
    Delete,
}

/// A reply still to come.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) answers: Answers,
    pub(crate) request: Request,
    /// The operation that is finished when this reply has come, if any is.
    pub(crate) finishes: Option<Operation>,
    /// When the operation began, or was due to, in nanoseconds of the phase.
    pub(crate) began_nanos: u64,
}

/// A connection to the server.
pub(crate) struct Connection {
    stream: Stream,
    output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// The bytes of `input` that are received and not yet read as replies.
    unread: std::ops::Range<usize>,
    pub(crate) expected: VecDeque<Expected>,
    /// The number of this connection among all of the run.
    pub(crate) number: usize,
    /// Where its requests come from in the current phase.
    pub(crate) source: Option<RequestSource>,
    /// The operations it has started in the current phase.
    pub(crate) started: u64,
    /// Whether epoll reports when it can be written to.
    pub(crate) watches_writes: bool,
}

impl Connection {
    pub(crate) fn open(options: &Options, number: usize) -> Result<Self, String> {
        let stream = Stream::connect(options)
            .map_err(|error| format!("cannot connect to {}: {error}", options.target()))?;
        Ok(Connection {
            stream,
            output: Vec::new(),
            sent: 0,
            input: vec![0; READ_BYTES],
            unread: 0..0,
            expected: VecDeque::new(),
            number,
            source: None,
            started: 0,
            watches_writes: false,
        })
    }

    /// Queues the commands of `request`.
    pub(crate) fn push(&mut self, request: Request, keys: &KeySpace, began_nanos: u64) {
        let Request {
            operation,
            key,
            version,
            ..
        } = request;
        let expect = |answers, finishes| Expected {
            answers,
            request,
            finishes,
            began_nanos,
        };
        match operation {
            Operation::Get => {
                self.append_key_command("GET", keys, key);
                self.expected
                    .push_back(expect(Answers::Get, Some(operation)));
            }
            Operation::Delete => {
                self.append_key_command("DEL", keys, key);
                self.expected
                    .push_back(expect(Answers::Delete, Some(operation)));
            }
            Operation::Set | Operation::Insert => {
                self.append_set(keys, key, version);
                self.expected
                    .push_back(expect(Answers::Set, Some(operation)));
            }
            Operation::ReadModifyWrite => {
                self.append_key_command("GET", keys, key);
                self.expected.push_back(expect(Answers::Get, None));
                self.append_set(keys, key, version);
                self.expected
                    .push_back(expect(Answers::Set, Some(operation)));
            }
        }
    }

    fn append_key_command(&mut self, command: &str, keys: &KeySpace, key: u64) {
        append_head(&mut self.output, 2, command, keys.format.bytes());
        keys.format.append(&mut self.output, key);
        self.output.extend_from_slice(b"\r\n");
    }

    fn append_set(&mut self, keys: &KeySpace, key: u64, version: u32) {
        let value_bytes = keys.sizes.of(key, version);
        append_head(&mut self.output, 3, "SET", keys.format.bytes());
        keys.format.append(&mut self.output, key);
        self.output.extend_from_slice(b"\r\n$");
        append_number(&mut self.output, value_bytes);
        self.output.extend_from_slice(b"\r\n");
        values::append(&mut self.output, key, version, value_bytes);
        self.output.extend_from_slice(b"\r\n");
    }

    /// Sends what the socket takes now.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// Whether some queued bytes are not sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.output.is_empty()
    }

    /// Receives once what has come, if anything has.
    pub(crate) fn receive(&mut self) -> io::Result<()> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == self.input.len() {
            self.make_room()?;
        }
        match self.stream.read(&mut self.input[self.unread.end..]) {
            Ok(0) => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the server closed the connection",
            )),
            Ok(bytes) => {
                self.unread.end += bytes;
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Moves the incomplete reply to the front, or doubles the buffer when it fills all of it.
    fn make_room(&mut self) -> io::Result<()> {
        if self.unread.start > 0 {
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        } else if self.input.len() < MAX_REPLY_BYTES {
            self.input.resize(self.input.len() * 2, 0);
        } else {
            return Err(io::Error::other(format!(
                "a reply is over {MAX_REPLY_BYTES} bytes long"
            )));
        }
        Ok(())
    }

    /// The next whole reply that has come, with what it answers.
    #[inline]
    pub(crate) fn next_reply(&mut self) -> Result<Option<(Expected, Reply<'_>)>, String> {
        let Some((reply, bytes)) = reply::parse(&self.input[self.unread.clone()])? else {
            return Ok(None);
        };
        self.unread.start += bytes;
        match self.expected.pop_front() {
            Some(expected) => Ok(Some((expected, reply))),
            None => Err("the server sent more replies than it got commands".into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Appends the head of a command of `arguments` arguments up to the length of its key.
fn append_head(out: &mut Vec<u8>, arguments: usize, command: &str, key_bytes: usize) {
    out.push(b'*');
    append_number(out, arguments);
    out.extend_from_slice(b"\r\n$3\r\n");
    out.extend_from_slice(command.as_bytes());
    out.extend_from_slice(b"\r\n$");
    append_number(out, key_bytes);
    out.extend_from_slice(b"\r\n");
}

fn append_number(out: &mut Vec<u8>, number: usize) {
    let mut divisor = 1;
    while number / divisor >= 10 {
        divisor *= 10;
    }
    while divisor > 0 {
        out.push(b'0' + (number / divisor % 10) as u8);
        divisor /= 10;
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(options: &Options) -> io::Result<Self> {
        if let Some(path) = &options.unix {
            let stream = UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            return Ok(Stream::Unix(stream));
        }
        let stream = TcpStream::connect((options.host.as_str(), options.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Stream::Tcp(stream))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
