//! Servers that are measured side by side on equal terms: Ferrite, and every rival that is found on the machine.
//!
//! Each runs on one core and the client on another, so that neither takes time from the other, and no server has more of the
//! machine than the next. Where there is only one core, all share it.

use std::env;
use std::path::Path;

use clap::Args;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use crate::connection::Connection;
use crate::server::{self, Launch, Server};

/// Which servers.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Ferrite's command line, as for a shell; what a measurement needs is added to it
    #[arg(long, value_name = "COMMAND")]
    server: String,

    /// Another server to measure beside it; redis-server, and valkey-server or what VALKEY_SERVER names, are when they are found
    #[arg(long = "rival", value_name = "NAME=COMMAND", value_parser = rival)]
    rivals: Vec<(String, String)>,
}

fn rival(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => Err("a rival is given as name=command".into()),
    }
}

/// A server that can be started.
pub(crate) struct Contender {
    pub(crate) name: String,
    command_line: String,
}

/// One that runs on an empty directory.
pub(crate) struct Running {
    server: Server,
    launch: Launch,
    pub(crate) port: u16,
    /// Removed with all that is in it.
    _scratch: TempDir,
}

/// Which core is whose.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    server: usize,
    client: usize,
}

impl Options {
    /// Ferrite first, then its rivals. None of them keeps a log or makes snapshots.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let quiet = "--appendonly no --save ''";
        let mut found = vec![Contender {
            name: "ferrite".into(),
            command_line: format!("{} {quiet}", self.server),
        }];
        let valkey = env::var("VALKEY_SERVER").unwrap_or_else(|_| "valkey-server".into());
        for (name, program) in [("redis", "redis-server"), ("valkey", &valkey)] {
            if is_there(program) {
                found.push(Contender {
                    name: name.into(),
                    command_line: format!("{program} {quiet}"),
                });
            }
        }
        for (name, command) in &self.rivals {
            found.push(Contender {
                name: name.clone(),
                command_line: command.clone(),
            });
        }
        found
    }
}

/// Whether the shell would find the program.
fn is_there(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

impl Cores {
    /// Two of those that this process may use.
    pub(crate) fn find() -> Result<Cores, String> {
        let failed = |error| format!("cannot find out which cores may be used: {error}");
        let allowed = sched_getaffinity(None).map_err(failed)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let server = cores.next().ok_or("no core may be used")?;
        Ok(Cores {
            server,
            client: cores.next().unwrap_or(server),
        })
    }

    /// Keeps this thread, and those it starts from now on, on the client's core.
    pub(crate) fn pin_client(self) -> Result<(), String> {
        let mut set = CpuSet::new();
        set.set(self.client);
        sched_setaffinity(None, &set).map_err(|error| format!("cannot choose a core: {error}"))
    }
}

impl Contender {
    /// Starts it on its core, with these arguments beside its own, on a new directory under `parent` or where such are made.
    pub(crate) fn start(
        &self,
        cores: Cores,
        arguments: &str,
        parent: Option<&Path>,
    ) -> Result<Running, String> {
        let scratch = server::scratch(parent)?;
        let port = server::free_port()?;
        let command_line = format!(
            "taskset -c {} {} {arguments}",
            cores.server, self.command_line
        );
        let launch = Launch::new(&command_line, scratch.path());
        let launch = launch.map_err(|error| error.to_string())?.on_port(port);
        let (server, _) = launch
            .start()
            .map_err(|error| format!("{}: {error}", self.name))?;
        Ok(Running {
            server,
            launch,
            port,
            _scratch: scratch,
        })
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(crate) fn connect(&self) -> Result<Connection, String> {
        Connection::open(self.launch.socket())
    }
}
