//! A blocking connection to the server: sends commands and reads replies.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use resp::Reply;

/// A server that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

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
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Connection {
            stream,
            input: Vec::new(),
            read: 0,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.stream.write_all(bytes);
        sent.map_err(|error| format!("cannot send: {error}"))
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

    /// Chooses a database.
    pub(crate) fn select(&mut self, database: usize) -> Result<(), String> {
        match self.call(&[b"SELECT", database.to_string().as_bytes()])? {
            Reply::Simple(_) => Ok(()),
            other => Err(format!("SELECT {database} was answered {other:?}")),
        }
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
