//! The server under test: started from a command line, killed, started again on what it left.

#![allow(unsafe_code)] // A server ends with the process that started it, which the child itself has to arrange.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use resp::Reply;
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use tempfile::TempDir;

use crate::connection::Connection;

/// A server that does not answer for so long after its start does not start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two questions whether it is there yet.
const PAUSE: Duration = Duration::from_millis(1);

/// As much of the end of the server's log is shown when it fails, in bytes.
const SHOWN_LOG_BYTES: u64 = 4096;

/// How a server is started.
pub(crate) struct Launch {
    command_line: String,
    data: PathBuf,
    socket: PathBuf,
    port: u16,
    log: PathBuf,
    /// The control group that its processes join.
    group: Option<PathBuf>,
}

/// A running server. Killed when dropped, and by the kernel when the thread that has started it ends: that is the first of the
/// process, so no signal that ends the process leaves a server behind.
pub(crate) struct Server {
    process: Child,
}

impl Launch {
    /// Prepares to start servers from this command line, a shell's, with everything they write
    /// under `scratch`.
    pub(crate) fn new(command_line: &str, scratch: &Path) -> io::Result<Self> {
        let data = scratch.join("data");
        std::fs::create_dir(&data)?;
        Ok(Launch {
            command_line: command_line.to_owned(),
            data,
            socket: scratch.join("socket"),
            port: 0,
            log: scratch.join("log"),
            group: None,
        })
    }

    /// Lets them listen on this TCP port of the loopback interface, too.
    pub(crate) fn on_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Lets the servers run in this control group.
    pub(crate) fn in_group(mut self, group: Option<&Path>) -> Self {
        self.group = group.map(Path::to_owned);
        self
    }

    /// The directory of the server's data.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The UNIX socket it listens on.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Starts the process, without waiting until it answers.
    pub(crate) fn spawn(&self) -> Result<Server, String> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("{}: {error}", self.log.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        // Nobody but us is to connect to what the last one has left.
        let _ = std::fs::remove_file(&self.socket);
        // The shell joins the group and becomes the server, so its process id is the server's.
        let group = self
            .group
            .as_deref()
            .map(|group| group.join("cgroup.procs"));
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!(
                "[ -z \"$1\" ] || echo $$ >\"$1\"; shift; exec {} \"$@\"",
                self.command_line
            ))
            .arg("sh")
            .arg(group.unwrap_or_default())
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--unixsocket"])
            .arg(&self.socket)
            .arg("--dir")
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let parent = getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            match getppid() == Some(parent) {
                true => Ok(()),
                // It has ended before the kernel was told.
                false => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        // SAFETY: between fork and exec only what is safe in a signal handler may run: two system calls, and errors that hold a
        // number. Nothing is allocated, and no lock is taken.
        let command = unsafe { command.pre_exec(die_with_parent) };
        let process = command.spawn();
        let process = process.map_err(|error| format!("cannot start a shell: {error}"))?;
        Ok(Server { process })
    }

    /// Starts the server and waits until it has loaded its data; returns how long that took.
    pub(crate) fn start(&self) -> Result<(Server, Duration), String> {
        let started = Instant::now();
        let mut server = self.spawn()?;
        while !self.answers() {
            let ended = server
                .process
                .try_wait()
                .map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                return Err(format!(
                    "the server ended with {status}\n{}",
                    self.log_end()
                ));
            }
            if started.elapsed() > PATIENCE {
                return Err(format!(
                    "the server does not answer after {} s\n{}",
                    PATIENCE.as_secs(),
                    self.log_end()
                ));
            }
            thread::sleep(PAUSE);
        }
        Ok((server, started.elapsed()))
    }

    /// Whether the server is there and has loaded its data.
    fn answers(&self) -> bool {
        let answer = Connection::open(&self.socket)
            .and_then(|mut connection| connection.call(&[b"EXISTS", b"ready?"]));
        matches!(answer, Ok(Reply::Integer(_)))
    }

    /// The end of what the server has logged.
    pub(crate) fn log_end(&self) -> String {
        let mut end = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(SHOWN_LOG_BYTES)))?;
            file.read_to_end(&mut end)
        });
        match read {
            Ok(_) => format!("the end of its log:\n{}", String::from_utf8_lossy(&end)),
            Err(error) => format!("no log: {error}"),
        }
    }
}

impl Server {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        killed.map_err(|error| format!("cannot kill the server: {error}"))?;
        Ok(())
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end with SIGTERM, and waits until it has.
    pub(crate) fn terminate(mut self) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot end the server: {error}");
        let id = Pid::from_child(&self.process);
        kill_process(id, Signal::TERM).map_err(|error| failed(error.into()))?;
        let status = self.process.wait().map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        Err(format!("the server ended with {status}"))
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }
}

/// A directory for one run, under `parent` or where such are made; removed when dropped.
pub(crate) fn scratch(parent: Option<&Path>) -> Result<TempDir, String> {
    let scratch = match parent {
        Some(parent) => TempDir::with_prefix_in("bench-", parent),
        None => TempDir::with_prefix("bench-"),
    };
    scratch.map_err(|error| format!("cannot make a directory: {error}"))
}

/// A port of the loopback interface that nobody listens on.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr());
    let address = listener.map_err(|error| format!("cannot find a free port: {error}"))?;
    Ok(address.port())
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
