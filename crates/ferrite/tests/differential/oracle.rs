//! A real server to compare with: `redis-server`, or `valkey-server` for what is newer.

use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::wire::{Address, Connection};

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server on a UNIX socket of its own; ends when it is dropped.
pub(crate) struct Oracle {
    process: Child,
    pub(crate) address: Address,
    _dir: TempDir,
}

impl Oracle {
    /// Starts the server called `program`: the environment variable of that name in upper case
    /// (`VALKEY_SERVER`) says where it is, else the PATH. `None` if there is none.
    pub(crate) fn start(program: &str) -> Option<Oracle> {
        let binary = find(program)?;
        let dir = tempfile::tempdir().expect("a directory for the server");
        let socket = dir.path().join("socket");
        let process = Command::new(binary)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--enable-debug-command",
                "yes",
                "--unixsocket",
            ])
            .arg(&socket)
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server that was found starts");
        let mut oracle = Oracle {
            process,
            address: Address::Unix(socket),
            _dir: dir,
        };
        oracle.wait_until_it_listens();
        Some(oracle)
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while Connection::open(&self.address).is_err() {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("the server to compare with ended at once: {status}");
            }
            assert!(
                Instant::now() < deadline,
                "the server to compare with does not listen"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let variable = program.to_ascii_uppercase().replace('-', "_");
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
