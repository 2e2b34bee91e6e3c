//! A server of its own on an empty directory, and the keys that are written to it.

use std::path::PathBuf;

use clap::Args;
use tempfile::TempDir;

use crate::connection::Connection;
use crate::load::{self, PhaseReport};
use crate::server::{self, Launch, Server};

/// Which server, and where what goes. Not a group of arguments: its name would be that of those it is flattened into.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Options {
    /// The server's command line, as for a shell; what a measurement needs is added to it
    #[arg(long, value_name = "COMMAND")]
    server: String,

    /// The directory under which the server's directory is made
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    /// Writes the results, if that is wanted.
    pub(crate) fn write_json(&self, document: &serde_json::Value) -> Result<(), String> {
        match &self.json {
            Some(path) => crate::write_file(path, &format!("{document:#}\n")),
            None => Ok(()),
        }
    }
}

/// Of each key, as `bench load` spells them.
pub(crate) const KEY_BYTES: usize = 16;

/// Keys of [`KEY_BYTES`] bytes, all with values of one length.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    pub(crate) keys: u64,
    pub(crate) value_bytes: u64,
}

/// A directory, and how a server is started on it.
pub(crate) struct Testbed {
    pub(crate) launch: Launch,
    pub(crate) data: Data,
    port: u16,
    /// Removed with all that is in it.
    _scratch: TempDir,
}

impl Testbed {
    /// For servers with these arguments beside those of the options.
    pub(crate) fn new(options: &Options, arguments: &str, data: Data) -> Result<Testbed, String> {
        let scratch = server::scratch(options.dir.as_deref())?;
        let port = server::free_port()?;
        let command_line = format!("{} {arguments}", options.server);
        let launch =
            Launch::new(&command_line, scratch.path()).map_err(|error| error.to_string())?;
        Ok(Testbed {
            launch: launch.on_port(port),
            data,
            port,
            _scratch: scratch,
        })
    }

    /// Starts a server and writes every key.
    pub(crate) fn start_full(&self) -> Result<Server, String> {
        let (server, _) = self.launch.start()?;
        let report = self.drive(&["--preload", "--pipeline", "64"])?;
        eprintln!(
            "{} keys written in {:.1} s",
            self.data.keys,
            report.elapsed.as_secs_f64()
        );
        Ok(server)
    }

    pub(crate) fn connect(&self) -> Result<Connection, String> {
        Connection::open(self.launch.socket())
    }

    /// Runs one phase of `bench load` with these arguments beside the data's; an answer that is wrong is an error.
    pub(crate) fn drive(&self, arguments: &[&str]) -> Result<PhaseReport, String> {
        let numbers = [u64::from(self.port), self.data.keys, self.data.value_bytes]
            .map(|number| number.to_string());
        let [port, keys, value_bytes] = &numbers;
        let common = [
            "--port",
            port,
            "--keys",
            keys,
            "--value-bytes",
            value_bytes,
            "--distribution",
            "uniform",
            "--set",
            "1",
        ];
        let failed = |error: String| format!("{error}\n{}", self.launch.log_end());
        let options = load::Options::parse(&[&common[..], arguments].concat())?;
        let mut reports = load::measure(&options, |_| ()).map_err(failed)?;
        let report = reports.pop().ok_or("no load was asked for")?;
        match report.tally.is_right() {
            true => Ok(report),
            false => Err(failed(format!(
                "the server's answers were wrong: {}",
                report.tally.first_error.as_deref().unwrap_or("no error")
            ))),
        }
    }
}
