//! A blocking connection to the server: sends commands and reads replies.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use resp::Reply;

use super::oracle::Found;
use super::unix_us;
use super::work::append_command;

/// A server that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const READ_BYTES: usize = 64 << 10;

/// Keys that are read back at once.
const FIND_KEYS: usize = 16;

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

    /// What the server holds under these keys.
    pub(crate) fn find(&mut self, keys: &[&[u8]]) -> Result<Vec<Found>, String> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(FIND_KEYS) {
            let mut bytes = Vec::new();
            for key in keys {
                append_command(&mut bytes, &[b"GET", key]);
                append_command(&mut bytes, &[b"PTTL", key]);
            }
            let asked_us = unix_us();
            self.send(&bytes)?;
            for key in keys {
                let (value, pttl) = (self.reply()?, self.reply()?);
                let key = key.escape_ascii();
                let bytes = match value {
                    Reply::Bulk(bytes) => Some(bytes),
                    Reply::Null => None,
                    other => return Err(format!("GET {key} was answered {other:?}")),
                };
                let Reply::Integer(pttl) = pttl else {
                    return Err(format!("PTTL {key} was answered {pttl:?}"));
                };
                found.push(Found {
                    bytes,
                    pttl,
                    asked_us: (asked_us, unix_us()),
                });
            }
        }
        Ok(found)
    }
}
