//! A real server to compare with.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Connection, eventually};

/// A real server on a UNIX socket.
pub(crate) struct Redis {
    child: Child,
    dir: TempDir,
}

impl Redis {
    /// Starts the program with this name: a variable of that name (`VALKEY_SERVER`) says where it is, else the PATH.
    pub(crate) fn start(program: &str) -> Option<Redis> {
        let variable = program.to_ascii_uppercase().replace('-', "_");
        let binary = std::env::var_os(variable).unwrap_or(program.into());
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let child = Command::new(binary)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(dir.path())
            // Strings are ordered by their bytes.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("skipped: no {program}");
            return None;
        };
        let redis = Redis { child, dir };
        eventually(|| UnixStream::connect(&socket).ok());
        Some(redis)
    }

    pub(crate) fn connect(&self) -> Connection<UnixStream> {
        Connection::new(UnixStream::connect(self.dir.path().join("redis.sock")).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
