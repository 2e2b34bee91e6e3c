//! Readers of big values that take their time: what the server has ready for them waits in its memory.
//!
//! Where others wait for that memory the server may close such a connection, and is right to. Its client connects anew, and
//! how often that was is told.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use resp::Reply;

use super::Shared;
use super::client::{Data, Kind, shown};
use crate::connection::append_command;
use crate::random::Random;
use crate::values;

/// It takes so many bytes, and then pauses.
const SIP_BYTES: usize = 10 << 10;
const SIP_PAUSE: Duration = Duration::from_millis(100);

/// Values asked for at once.
const PIPELINE: usize = 4;

/// What all slow readers have met with.
#[derive(Default)]
pub(super) struct SlowReads {
    values: AtomicU64,
    disconnected: AtomicU64,
}

impl SlowReads {
    /// For people.
    pub(super) fn describe(&self) -> String {
        let (values, disconnected) = (&self.values, &self.disconnected);
        format!(
            "{} values read, {} times disconnected",
            values.load(Relaxed),
            disconnected.load(Relaxed)
        )
    }
}

/// Asks for big values and reads them slowly until the load is over. If something is wrong the load is over for all.
pub(super) fn read_slowly(shared: &Shared, data: &Data, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    while !shared.stop.load(Relaxed) {
        let ended = SlowReader::connect(shared).and_then(|reader| reader.run(data, &mut random));
        match ended {
            Ok(Ended::Stopped) => {}
            Ok(Ended::Disconnected) => {
                shared.slow_reads.disconnected.fetch_add(1, Relaxed);
            }
            Err(what) => {
                shared.stop.store(true, Relaxed);
                return Err(format!("a slow reader: {what}"));
            }
        }
    }
    Ok(())
}

enum Ended {
    Stopped,
    Disconnected,
}

/// One connection.
struct SlowReader<'a> {
    shared: &'a Shared,
    stream: UnixStream,
    input: Vec<u8>,
    /// The big keys whose values are yet to come.
    asked: VecDeque<u64>,
}

impl<'a> SlowReader<'a> {
    fn connect(shared: &'a Shared) -> Result<SlowReader<'a>, String> {
        let stream = UnixStream::connect(shared.launch.socket())
            .and_then(|stream| stream.set_nonblocking(true).map(|()| stream));
        Ok(SlowReader {
            shared,
            stream: stream.map_err(|error| error.to_string())?,
            input: Vec::new(),
            asked: VecDeque::new(),
        })
    }

    fn run(mut self, data: &Data, random: &mut Random) -> Result<Ended, String> {
        while !self.shared.stop.load(Relaxed) {
            if self.asked.is_empty() {
                let asked = self.ask(data.big_keys.max(1), random);
                if let Some(ended) = ended(asked)? {
                    return Ok(ended);
                }
            }
            thread::sleep(SIP_PAUSE);
            let sipped = self.sip();
            if let Some(ended) = ended(sipped)? {
                return Ok(ended);
            }
            self.check()?;
        }
        Ok(Ended::Stopped)
    }

    /// The requests are short, and there is always room for them in the socket: all before them have been answered.
    fn ask(&mut self, keys: u64, random: &mut Random) -> std::io::Result<()> {
        self.asked = (0..PIPELINE).map(|_| random.below(keys)).collect();
        let mut requests = Vec::new();
        for &number in &self.asked {
            append_command(&mut requests, &[b"GET", &Kind::Big.name(number)]);
        }
        self.stream.write_all(&requests)
    }

    /// Takes a few of the bytes that have come.
    fn sip(&mut self) -> std::io::Result<()> {
        let mut sip = [0; SIP_BYTES];
        match self.stream.read(&mut sip) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                self.input.extend_from_slice(&sip[..bytes]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks what is complete. Others write to the keys: any of their versions is right.
    fn check(&mut self) -> Result<(), String> {
        while let Some(&number) = self.asked.front() {
            let decoded = resp::decode(&self.input).map_err(|error| error.to_string())?;
            let Some((reply, bytes)) = decoded else { break };
            let seed = Kind::Big.seed(number);
            if !matches!(&reply, Reply::Bulk(value) if values::check(value, seed).is_some()) {
                return Err(format!("GET b:{number} was answered {}", shown(&reply)));
            }
            self.input.drain(..bytes);
            self.asked.pop_front();
            self.shared.slow_reads.values.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

/// Whether the server has ended the connection; any other error is one.
fn ended(outcome: std::io::Result<()>) -> Result<Option<Ended>, String> {
    match outcome {
        Ok(()) => Ok(None),
        Err(error) => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Ok(Some(Ended::Disconnected))
            }
            _ => Err(error.to_string()),
        },
    }
}
