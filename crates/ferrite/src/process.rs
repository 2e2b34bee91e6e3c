//! What the server does to its own process: descriptor limit, pid file, out-of-memory score, panics.

use std::fs;
use std::io::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::OomScore;
use crate::{log, sys};

/// Descriptors kept for files, listeners and rings; the rest is for clients.
const RESERVED_FDS: u64 = 128;

/// Raises the limit of open files so that `clients` can connect; returns how many can.
pub(crate) fn raise_client_limit(clients: usize) -> usize {
    let wanted = (clients as u64).saturating_add(RESERVED_FDS);
    let limit = match sys::raise_open_files_limit(wanted) {
        Ok(limit) => limit,
        Err(error) => {
            log::warning(format_args!(
                "Can't raise the maximum number of open files to {wanted}: {}",
                sys::error_text(&error)
            ));
            sys::open_files_limit().unwrap_or(1024)
        }
    };
    usize::try_from(limit.saturating_sub(RESERVED_FDS))
        .unwrap_or(usize::MAX)
        .clamp(1, clients)
}

/// Sets the process's score for the kernel's out-of-memory killer.
pub(crate) fn set_oom_score(score: OomScore) -> Result<(), String> {
    const PATH: &str = "/proc/self/oom_score_adj";
    static INHERITED: OnceLock<i32> = OnceLock::new();
    let read = || {
        fs::read_to_string(PATH)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    let inherited = *INHERITED.get_or_init(read);
    let value = match score {
        OomScore::Inherited => inherited,
        OomScore::Relative(score) => inherited + score,
        OomScore::Absolute(score) => score,
    };
    if read() == value {
        return Ok(());
    }
    fs::write(PATH, value.clamp(-1000, 1000).to_string())
        .map_err(|error| format!("{PATH}: {}", sys::error_text(&error)))
}

/// A file that holds the process id while the process runs.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it; as in Redis, going on without it is only worth a warning.
    pub(crate) fn create(path: &Path) -> Option<Self> {
        let written =
            fs::File::create(path).and_then(|mut file| writeln!(file, "{}", std::process::id()));
        match written {
            Ok(()) => Some(PidFile(path.to_owned())),
            Err(error) => {
                log::warning(format_args!(
                    "Can't write the pid file {}: {}",
                    path.display(),
                    sys::error_text(&error)
                ));
                None
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody removed it already: just as well.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a panic end the process with one line in the log: nothing half-done goes on.
pub(crate) fn abort_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        log::warning(format_args!(
            "Ferrite crashed in thread {}: {panic}",
            thread.name().unwrap_or("?")
        ));
        std::process::abort();
    }));
}
