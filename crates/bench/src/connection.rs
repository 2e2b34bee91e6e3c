//! A connection to the server whose calls block: sends commands and reads replies.
//!
//! It reads on while it sends. A server that has many replies to give may take no more commands until some have been taken,
//! and two that wait for each other wait for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use resp::Reply;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A server that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// As `poll` wants it.
const PATIENCE_TIMESPEC: Timespec = Timespec {
    tv_sec: PATIENCE.as_secs() as i64,
    tv_nsec: 0,
};

const READ_BYTES: usize = 64 << 10;

/// A connection. Its errors are one line.
pub(crate) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    /// Bytes of `input` that have been read as replies.
    read: usize,
}

impl Connection {
    pub(crate) fn open(socket: &Path) -> Result<Self, String> {
        let failed = |error| format!("cannot connect to {}: {error}", socket.display());
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Connection {
            stream,
            input: Vec::new(),
            read: 0,
        })
    }

    /// Sends all the bytes; replies that come meanwhile are kept.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot send: {error}");
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let ready = self.wait(PollFlags::IN | PollFlags::OUT).map_err(failed)?;
                    if ready.contains(PollFlags::IN) {
                        self.receive()?;
                    }
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Waits until it can do one of these; returns which.
    fn wait(&self, for_flags: PollFlags) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(&self.stream, for_flags)];
        match poll(&mut fds, Some(&PATIENCE_TIMESPEC)) {
            Ok(0) => Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("nothing has happened for {} s", PATIENCE.as_secs()),
            )),
            Err(error) if error != rustix::io::Errno::INTR => Err(error.into()),
            _ => Ok(fds[0].revents()),
        }
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Result<Reply, String> {
        loop {
            let decoded = resp::decode(&self.input[self.read..]);
            if let Some((reply, bytes)) = decoded.map_err(|error| error.to_string())? {
                self.read += bytes;
                return Ok(reply);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<(), String> {
        self.input.drain(..std::mem::take(&mut self.read));
        // A large reply is decoded again and again until it is complete: ever larger reads keep
        // that linear.
        let len = self.input.len();
        self.input.resize(len + len.max(READ_BYTES), 0);
        loop {
            match self.stream.read(&mut self.input[len..]) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(bytes) => {
                    self.input.truncate(len + bytes);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let waited = self.wait(PollFlags::IN);
                    waited.map_err(|error| format!("cannot receive: {error}"))?;
                }
                Err(error) => return Err(format!("cannot receive: {error}")),
            }
        }
    }

    /// Sends a command and returns its reply.
    pub(crate) fn call(&mut self, arguments: &[&[u8]]) -> Result<Reply, String> {
        let mut bytes = Vec::new();
        append_command(&mut bytes, arguments);
        self.send(&bytes)?;
        self.reply()
    }

    /// As [`Self::call`], but returns the reply as it came, to be looked at when time does not count.
    pub(crate) fn call_undecoded(&mut self, arguments: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        append_command(&mut bytes, arguments);
        self.send(&bytes)?;
        loop {
            let skipped = resp::skip_reply(&self.input[self.read..]);
            if let Some(bytes) = skipped.map_err(|error| error.to_string())? {
                let reply = self.input[self.read..][..bytes].to_vec();
                self.read += bytes;
                return Ok(reply);
            }
            self.receive()?;
        }
    }

    /// Sends a command whose reply must be a status, such as `OK`.
    pub(crate) fn order(&mut self, arguments: &[&[u8]]) -> Result<(), String> {
        match self.call(arguments)? {
            Reply::Simple(_) => Ok(()),
            other => {
                let command = arguments.join(&b' ');
                Err(format!("{} was answered {other:?}", command.escape_ascii()))
            }
        }
    }

    /// Chooses a database.
    pub(crate) fn select(&mut self, database: usize) -> Result<(), String> {
        self.order(&[b"SELECT", database.to_string().as_bytes()])
    }
}

/// Appends a command as an array of bulk strings.
pub(crate) fn append_command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn it_takes_replies_while_the_server_takes_no_requests() {
        const BYTES: usize = 4 << 20;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // More than sockets hold: this ends only when the client reads before it has sent all.
            let mut reply = format!("${BYTES}\r\n").into_bytes();
            reply.resize(reply.len() + BYTES, b'r');
            reply.extend_from_slice(b"\r\n");
            stream.write_all(&reply).unwrap();
            let mut request = vec![0; BYTES];
            stream.read_exact(&mut request).unwrap();
            request
        });
        let mut connection = Connection::open(&socket).unwrap();
        connection.send(&vec![b'q'; BYTES]).unwrap();
        assert_eq!(server.join().unwrap(), vec![b'q'; BYTES]);
        let reply = connection.reply().unwrap();
        assert_eq!(reply, Reply::Bulk(vec![b'r'; BYTES]));
    }
}
