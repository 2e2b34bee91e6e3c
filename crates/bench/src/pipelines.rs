//! Connections that keep one server busy with commands of any kind, as fast as it answers.
//!
//! A closed loop in one thread: each connection sends a batch, waits for all its replies, and sends the next. Replies are counted,
//! and one that is an error ends the run; what they say is not looked at. So batches must be small enough for their replies to fit
//! into the buffers of a socket: the connections block while they send.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

const READ_BYTES: usize = 64 << 10;

/// A server that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The connections.
pub(crate) struct Pipelines {
    connections: Vec<Connection>,
    epoll: OwnedFd,
}

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes of `input` that have been received and not been read as replies.
    unread: std::ops::Range<usize>,
    /// Replies still to come.
    due: u64,
}

impl Pipelines {
    /// Connects to a port of the loopback interface.
    pub(crate) fn open(port: u16, connections: usize) -> Result<Self, String> {
        let connections = (0..connections).map(|_| Connection::open(port));
        let connections = connections.collect::<Result<Vec<_>, _>>()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(epoll_error)?;
        for (at, connection) in connections.iter().enumerate() {
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&epoll, &connection.stream, data, epoll::EventFlags::IN)
                .map_err(epoll_error)?;
        }
        Ok(Pipelines { connections, epoll })
    }

    /// Sends `commands` commands, up to `pipeline` of them at once on each connection; returns how long it took until the last
    /// reply. `append` appends the next command to the buffer.
    pub(crate) fn run(
        &mut self,
        commands: u64,
        pipeline: u64,
        mut append: impl FnMut(&mut Vec<u8>),
    ) -> Result<Duration, String> {
        let begun = Instant::now();
        let (mut unsent, mut unanswered) = (commands, commands);
        for connection in &mut self.connections {
            unsent -= connection.send(unsent.min(pipeline), &mut append)?;
        }
        let mut events = Vec::with_capacity(self.connections.len());
        while unanswered > 0 {
            events.clear();
            self.wait(&mut events)?;
            for event in &events {
                let data = event.data;
                let connection = &mut self.connections[data.u64() as usize];
                unanswered -= connection.receive()?;
                if connection.due == 0 {
                    unsent -= connection.send(unsent.min(pipeline), &mut append)?;
                }
            }
        }
        Ok(begun.elapsed())
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<(), String> {
        let patience = Timespec {
            tv_sec: PATIENCE.as_secs() as i64,
            tv_nsec: 0,
        };
        let spare = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, spare, Some(&patience)) {
            Ok(0) => Err(format!(
                "the server has not answered for {} s",
                PATIENCE.as_secs()
            )),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(epoll_error(error)),
        }
    }
}

impl Connection {
    fn open(port: u16) -> Result<Self, String> {
        let failed = |error| format!("cannot connect to port {port}: {error}");
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Connection {
            stream,
            output: Vec::new(),
            input: vec![0; READ_BYTES],
            unread: 0..0,
            due: 0,
        })
    }

    /// Sends `commands` more commands; returns their number.
    fn send(
        &mut self,
        commands: u64,
        append: &mut impl FnMut(&mut Vec<u8>),
    ) -> Result<u64, String> {
        self.output.clear();
        for _ in 0..commands {
            append(&mut self.output);
        }
        let sent = self.stream.write_all(&self.output);
        sent.map_err(|error| format!("cannot write to the server: {error}"))?;
        self.due += commands;
        Ok(commands)
    }

    /// Receives what has come; returns the number of whole replies.
    fn receive(&mut self) -> Result<u64, String> {
        let room = self.input.len() - self.unread.end;
        if room == 0 {
            self.make_room();
        }
        match self.stream.read(&mut self.input[self.unread.end..]) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(bytes) => self.unread.end += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot read from the server: {error}")),
        }
        let mut replies = 0;
        loop {
            let unread = &self.input[self.unread.clone()];
            let skipped = resp::skip_reply(unread).map_err(|error| error.to_string())?;
            let Some(bytes) = skipped else { break };
            if unread[0] == b'-' {
                let line = unread[..bytes].escape_ascii();
                return Err(format!("the server answered {line}"));
            }
            self.unread.start += bytes;
            replies += 1;
        }
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        self.due = self
            .due
            .checked_sub(replies)
            .ok_or("more replies than commands")?;
        Ok(replies)
    }

    /// Moves the incomplete reply to the front, or doubles the buffer when it fills all of it.
    fn make_room(&mut self) {
        if self.unread.start > 0 {
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        } else {
            self.input.resize(self.input.len() * 2, 0);
        }
    }
}

fn epoll_error(error: rustix::io::Errno) -> String {
    format!("epoll failed: {error}")
}
