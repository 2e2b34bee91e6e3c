//! The server's log, in Redis's format: `PID:M 23 Nov 2026 03:11:24.123 * message`.
//!
//! Goes to standard output, or to a file that is opened anew for each line, so that log rotation needs no signal; and
//! to syslog if asked for. One line is one write, so lines of several threads never mix.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use crate::config::{LogLevel, Settings, Syslog};
use crate::sys;

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Notice as u8);
static SYSLOG: AtomicBool = AtomicBool::new(false);
static FILE: RwLock<Option<PathBuf>> = RwLock::new(None);

/// Sends the log where the settings say. An error says why the log file cannot be written.
pub(crate) fn open(settings: &Settings) -> Result<(), String> {
    set_level(settings.loglevel);
    if let Some(path) = &settings.logfile {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.map_err(|error| {
            format!(
                "Can't open the log file {}: {}",
                path.display(),
                sys::error_text(&error)
            )
        })?;
        *FILE.write() = Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    }
    if let Some(Syslog { ident, facility }) = &settings.syslog {
        sys::open_syslog(ident, facility);
        SYSLOG.store(true, Relaxed);
    }
    Ok(())
}

/// Drops messages less important than `level` from now on.
pub(crate) fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Relaxed);
}

pub(crate) fn verbose(message: impl Display) {
    write(LogLevel::Verbose, message);
}

pub(crate) fn notice(message: impl Display) {
    write(LogLevel::Notice, message);
}

pub(crate) fn warning(message: impl Display) {
    write(LogLevel::Warning, message);
}

fn write(level: LogLevel, message: impl Display) {
    if (level as u8) < LEVEL.load(Relaxed) {
        return;
    }
    let mark = match level {
        LogLevel::Debug => '.',
        LogLevel::Verbose => '-',
        LogLevel::Notice => '*',
        LogLevel::Warning => '#',
    };
    let text = message.to_string().replace(['\r', '\n'], " ");
    let line = format!("{}:M {} {mark} {text}\n", std::process::id(), timestamp());
    let append = |path| OpenOptions::new().append(true).create(true).open(path);
    // A log that cannot be written must not stop the server, and there is nowhere else to say it.
    let _ = match &*FILE.read() {
        Some(path) => append(path).and_then(|mut file| file.write_all(line.as_bytes())),
        None => io::stdout().lock().write_all(line.as_bytes()),
    };
    if SYSLOG.load(Relaxed) {
        sys::syslog(level, &text);
    }
}

/// Local time as `23 Nov 2026 03:11:24.123`.
fn timestamp() -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let time = sys::local_time(now.as_secs());
    let month = MONTHS.get(time.month).unwrap_or(&"???");
    format!(
        "{:02} {month} {:04} {:02}:{:02}:{:02}.{:03}",
        time.day,
        time.year,
        time.hour,
        time.minute,
        time.second,
        now.subsec_millis()
    )
}
