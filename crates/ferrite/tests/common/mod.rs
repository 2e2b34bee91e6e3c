//! A server of its own for each test: started on a free port and a fresh directory, stopped when it is dropped.
#![allow(dead_code)] // Every test binary compiles this file and uses its own part of it.

pub(crate) mod redis;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything a test waits for takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Server {
    child: Child,
    is_killed: bool,
    /// Kept open: a server that cannot write its log would still run, but say nothing.
    log: BufReader<ChildStdout>,
    /// What it has logged up to being ready.
    pub(crate) start_log: String,
    pub(crate) port: u16,
    /// Removed when nobody uses it any more.
    pub(crate) dir: Arc<TempDir>,
}

impl Server {
    /// Starts a server with these directives, such as `["--maxclients", "2"]`.
    pub(crate) fn start(directives: &[&str]) -> Server {
        Server::start_in(Arc::new(tempfile::tempdir().unwrap()), directives)
    }

    /// As [`Server::start`], on a directory that earlier servers have used.
    pub(crate) fn start_in(dir: Arc<TempDir>, directives: &[&str]) -> Server {
        let command = command(&dir, directives);
        Server::start_command(dir, command)
    }

    /// Starts a server by a command made of [`command`].
    pub(crate) fn start_command(dir: Arc<TempDir>, mut command: Command) -> Server {
        let mut child = command.spawn().expect("the ferrite binary starts");
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut start_log = String::new();
        let port = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "the server ended early: {start_log}"
            );
            start_log.push_str(&line);
            if let Some((_, port)) = line
                .trim_end()
                .split_once("Ready to accept connections on port ")
            {
                break port.parse().unwrap();
            }
        };
        Server {
            child,
            is_killed: false,
            log,
            start_log,
            port,
            dir,
        }
    }

    /// Tries to start a server that must refuse to; returns its status and output.
    pub(crate) fn refused(directives: &[&str]) -> Output {
        Server::refused_in(&tempfile::tempdir().unwrap(), directives)
    }

    /// As [`Server::refused`], on this directory.
    pub(crate) fn refused_in(dir: &TempDir, directives: &[&str]) -> Output {
        Server::refused_command(command(dir, directives))
    }

    /// As [`Server::refused`], by a command made of [`command`].
    pub(crate) fn refused_command(mut command: Command) -> Output {
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            !output.status.success(),
            "it should have been refused: {output:?}"
        );
        output
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as "TERM".
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Kills the process, which has no chance to save anything; returns its directory.
    pub(crate) fn kill(mut self) -> Arc<TempDir> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // So that dropping it finds nothing odd about how it ended.
        self.is_killed = true;
        Arc::clone(&self.dir)
    }

    /// Waits for a crash that is meant to happen; returns the status and the rest of the log.
    pub(crate) fn crash(mut self) -> (ExitStatus, String) {
        let ended = self.wait();
        self.is_killed = true;
        ended
    }

    /// Ends the server with SHUTDOWN and these options; returns its directory.
    pub(crate) fn shut_down(mut self, options: &[&str]) -> Arc<TempDir> {
        let mut client = self.connect();
        client.send(encode(&[&["SHUTDOWN"], options].concat()));
        assert_eq!(client.read_to_end(), "");
        let (status, log) = self.wait();
        assert!(status.success(), "{status}: {log}");
        Arc::clone(&self.dir)
    }

    /// Waits for the process to end; returns its status and the rest of its log.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = eventually(|| self.child.try_wait().unwrap());
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

impl Server {
    /// Prints what an ended server has logged since it was ready, if the test fails.
    fn print_log_of_failure(&mut self) {
        if std::thread::panicking() {
            let mut log = String::new();
            let _ = self.log.read_to_string(&mut log);
            eprintln!("the log of the server:\n{log}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            // A test that lets the server crash must not pass.
            assert!(
                status.signal().is_none() || self.is_killed || std::thread::panicking(),
                "the server crashed: {status}"
            );
            self.print_log_of_failure();
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.print_log_of_failure();
    }
}

/// What starts a server on a directory.
pub(crate) fn command(dir: &TempDir, directives: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command
        .args([
            "--port",
            "0",
            "--bind",
            "127.0.0.1",
            "--io-threads",
            "2",
            "--dir",
        ])
        .arg(dir.path());
    command
        .args(directives)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// The ways to read cold records that this kernel allows, as `io-backend` names them.
pub(crate) fn backends() -> &'static [&'static str] {
    static BACKENDS: OnceLock<&[&str]> = OnceLock::new();
    BACKENDS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut probe = command(&dir, &["--io-backend", "uring"]);
        let mut probe = probe.stderr(Stdio::null()).spawn().unwrap();
        let mut log = BufReader::new(probe.stdout.take().unwrap()).lines();
        let is_ready = log.any(|line| line.unwrap().contains("Ready to accept connections"));
        let _ = probe.kill();
        probe.wait().unwrap();
        if is_ready {
            &["uring", "tokio"]
        } else {
            println!("skipped on io_uring: the kernel refuses it");
            &["tokio"]
        }
    })
}

/// A client connection that speaks bytes.
pub(crate) struct Connection<S = TcpStream> {
    stream: BufReader<S>,
}

/// A stream with a read timeout.
pub(crate) trait Stream: Read + Write {
    fn limit_reads(&self, limit: Duration);
}

impl Stream for TcpStream {
    fn limit_reads(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
        self.set_nodelay(true).unwrap();
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn limit_reads(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }
}

impl<S: Stream> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        stream.limit_reads(PATIENCE);
        Connection {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// As [`Connection::send`], to a server that may close the connection.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<&mut Self> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        Ok(self)
    }

    /// The next byte and whatever came with it; none if the server has closed the connection.
    pub(crate) fn try_reply(&mut self) -> Option<usize> {
        self.stream
            .fill_buf()
            .ok()
            .map(<[u8]>::len)
            .filter(|len| *len > 0)
    }

    /// Sends a command and returns its reply as [`Connection::reply`] does.
    pub(crate) fn command(&mut self, words: &[&str]) -> String {
        self.send(encode(words));
        self.reply()
    }

    /// Reads one whole reply and returns it as it came, line ends written as `\r\n`.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = Vec::new();
        self.read_reply(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Reads as many bytes as `bytes` takes, of a reply too long for [`Connection::reply`].
    pub(crate) fn read_exact(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).unwrap();
    }

    fn read_reply(&mut self, reply: &mut Vec<u8>) {
        let start = reply.len();
        let len = self
            .stream
            .read_until(b'\n', reply)
            .expect("a reply in time");
        assert!(
            len > 0,
            "the server closed the connection; got {:?}",
            String::from_utf8_lossy(reply)
        );
        let line = std::str::from_utf8(&reply[start..])
            .unwrap()
            .trim_end()
            .to_owned();
        let count = line[1..].parse::<i64>();
        match line.as_bytes()[0] {
            b'$' | b'=' | b'!' => {
                if let Ok(len @ 0..) = count {
                    let body = reply.len();
                    reply.resize(body + len as usize + 2, 0);
                    self.stream.read_exact(&mut reply[body..]).unwrap();
                }
            }
            b'*' | b'~' | b'>' => (0..count.unwrap().max(0)).for_each(|_| self.read_reply(reply)),
            b'%' => (0..count.unwrap() * 2).for_each(|_| self.read_reply(reply)),
            _ => {}
        }
    }

    /// Reads until the server closes the connection; returns what came before.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // Closed with requests unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the server does not close the connection: {error}"),
        }
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// What `attempt` returns once it returns something.
pub(crate) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command as an array of bulk strings.
pub(crate) fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Sends `command`, words separated by spaces, and compares the reply, its lines separated by spaces.
pub(crate) fn check(client: &mut Connection, command: &str, expected: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let reply = client.command(&words);
    assert_eq!(reply.trim_end().replace("\r\n", " "), expected, "{command}");
}

/// Peak resident memory must not have passed `maxmemory` by more than a tenth.
pub(crate) fn check_peak_memory(server: &Server, maxmemory_bytes: u64) {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", server.pid())) else {
        println!("skipped: no /proc to tell peak memory");
        return;
    };
    let peak_kib: u64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .expect("a line VmHWM");
    let limit_kib = maxmemory_bytes / 1024 * 11 / 10;
    println!("peak resident memory: {peak_kib} KiB of {limit_kib}");
    assert!(
        peak_kib <= limit_kib,
        "peak resident memory is {peak_kib} KiB, over {limit_kib}"
    );
}
