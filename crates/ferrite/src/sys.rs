//! The system calls that the standard library does not have: local time, access, descriptor limits, daemons, syslog.
#![allow(unsafe_code)] // Each of them is a call into the C library.

use std::ffi::CString;
use std::fmt::Display;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::config::LogLevel;

/// A point in local time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LocalTime {
    pub(crate) year: i32,
    /// 0 is January.
    pub(crate) month: usize,
    pub(crate) day: i32,
    pub(crate) hour: i32,
    pub(crate) minute: i32,
    pub(crate) second: i32,
}

/// Local time of `unix_seconds`.
pub(crate) fn local_time(unix_seconds: u64) -> LocalTime {
    let seconds = unix_seconds as libc::time_t;
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to locals that live through the call; all-zero bytes are a valid `tm`, so it is
    // initialised even if the call fails.
    let time = unsafe {
        libc::localtime_r(&raw const seconds, time.as_mut_ptr());
        time.assume_init()
    };
    LocalTime {
        year: time.tm_year + 1900,
        month: time.tm_mon as usize,
        day: time.tm_mday,
        hour: time.tm_hour,
        minute: time.tm_min,
        second: time.tm_sec,
    }
}

/// What may be done to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Write,
    /// To a directory: its files may be listed, found, created and removed.
    ReadWriteAndSearch,
}

/// Whether this process may do that; the error is the system's.
pub(crate) fn check_access(path: &Path, access: Access) -> io::Result<()> {
    let mode = match access {
        Access::Write => libc::W_OK,
        Access::ReadWriteAndSearch => libc::R_OK | libc::W_OK | libc::X_OK,
    };
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that lives through the call.
    check(unsafe { libc::access(path.as_ptr(), mode) }).map(drop)
}

/// How many descriptors the process may open (soft limit).
pub(crate) fn open_files_limit() -> io::Result<u64> {
    Ok(read_open_files_limit()?.rlim_cur)
}

fn read_open_files_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local that lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

/// Raises the soft limit of open descriptors to `wanted`, and the hard limit with it where that is allowed; else as
/// far as the hard limit goes. Returns the soft limit that is in force then.
pub(crate) fn raise_open_files_limit(wanted: u64) -> io::Result<u64> {
    let limit = read_open_files_limit()?;
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    let set = |soft: u64, hard: u64| {
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: the pointer is to a local that lives through the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
    };
    if set(wanted, limit.rlim_max.max(wanted)).is_err() {
        set(wanted.min(limit.rlim_max), limit.rlim_max)?;
    }
    open_files_limit()
}

/// Goes on as a background process of its own session, without a terminal; the parent exits with status 0. Must be
/// called while the process has one thread.
pub(crate) fn daemonize() -> io::Result<()> {
    // SAFETY: the process has one thread, so the child is as whole as the parent.
    match check(unsafe { libc::fork() })? {
        0 => {}
        _ => std::process::exit(0),
    }
    // SAFETY: no pointers; the child of a fork is no group leader, so this cannot harm.
    check(unsafe { libc::setsid() })?;
    // SAFETY: the path is a C string; the descriptors are plain numbers. Standard input, output and error are open or
    // closed, either is fine for dup2.
    unsafe {
        let null = check(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR))?;
        for standard in 0..=2 {
            check(libc::dup2(null, standard))?;
        }
        if null > 2 {
            libc::close(null);
        }
    }
    Ok(())
}

/// Ends the process at once, without running anything on the way out; for a second SIGINT.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Opens the system log. `facility` is `user` or `local0` to `local7`.
pub(crate) fn open_syslog(ident: &[u8], facility: &str) {
    let facility = match facility
        .strip_prefix("local")
        .and_then(|digit| digit.parse::<i32>().ok())
    {
        Some(number) => libc::LOG_LOCAL0 + (number << 3),
        None => libc::LOG_USER,
    };
    let ident = CString::new(ident.to_vec()).unwrap_or_else(|_| c"ferrite".to_owned());
    // SAFETY: syslog keeps the pointer, so the string is leaked; this happens once in a process.
    unsafe {
        libc::openlog(
            ident.into_raw(),
            libc::LOG_PID | libc::LOG_NDELAY | libc::LOG_NOWAIT,
            facility,
        );
    }
}

/// Writes a line to the system log.
pub(crate) fn syslog(level: LogLevel, text: &str) {
    let priority = match level {
        LogLevel::Debug => libc::LOG_DEBUG,
        LogLevel::Verbose => libc::LOG_INFO,
        LogLevel::Notice => libc::LOG_NOTICE,
        LogLevel::Warning => libc::LOG_WARNING,
    };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the format takes one C string, and gets one that lives through the call.
    unsafe { libc::syslog(priority, c"%s".as_ptr(), text.as_ptr()) }
}

/// The text of an error without Rust's "(os error 98)".
pub(crate) fn error_text(error: &impl Display) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
