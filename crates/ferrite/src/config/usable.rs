//! What of the configuration can be found to be unusable without starting: directories, files and addresses that the
//! directives name.
//!
//! Nothing is created, so what is found usable may not be any more when the server starts; then the start ends with the
//! system's own error.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError};
use crate::listener;
use crate::sys::{self, Access, error_text};

/// The longest path of a UNIX socket that the system takes, in bytes.
const UNIX_PATH_MAX_BYTES: usize = 107;

/// Why the configuration cannot be used on this machine: the first reason, with the place of the directive.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let settings = config.settings();
    let fail = |directive: &str, value: &dyn std::fmt::Display, reason: String, allowed: &str| {
        let place = config.place(directive).unwrap_or("default");
        ConfigError::new(format!(
            "{place}: {directive} '{value}': {reason} (allowed: {allowed})"
        ))
    };
    let directory = &settings.dir;
    check_directory(directory).map_err(|error| {
        let allowed = "a directory that can be read and written";
        fail("dir", &directory.display(), error_text(&error), allowed)
    })?;
    // Other paths are relative to it.
    let in_directory = |path: &Path| directory.join(path);
    if let Some(path) = &settings.logfile {
        check_log_file(&in_directory(path)).map_err(|error| {
            let allowed = "a file that can be appended to, or created";
            fail("logfile", &path.display(), error_text(&error), allowed)
        })?;
    }
    if let Some(path) = &settings.unixsocket {
        check_unix_socket(path, &in_directory(path)).map_err(|error| {
            let allowed = "the path of a socket that can be created, of at most 107 bytes";
            fail("unixsocket", &path.display(), error_text(&error), allowed)
        })?;
    }
    if settings.port != 0 || settings.unixsocket.is_none() {
        for bind in &settings.bind {
            match check_address(&bind.address) {
                Err(error) if !bind.may_be_missing(&error) => {
                    let allowed =
                        "addresses of this machine; one that begins with - may be missing";
                    return Err(fail("bind", &bind.address, error_text(&error), allowed));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_directory(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    sys::check_access(path, Access::ReadWriteAndSearch)
}

fn check_log_file(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        Ok(_) => sys::check_access(path, Access::Write),
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_parent(path),
        Err(error) => Err(error),
    }
}

fn check_unix_socket(given: &Path, path: &Path) -> io::Result<()> {
    if given.as_os_str().as_bytes().len() > UNIX_PATH_MAX_BYTES {
        return Err(io::Error::other("the path is too long"));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => check_parent(path),
        Ok(_) => Err(io::Error::other("there is something that is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_parent(path),
        Err(error) => Err(error),
    }
}

/// Whether something can be created in the directory of `path`.
fn check_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    check_directory(&parent)
}

/// Whether the address is one of this machine: a free port of it can be had.
fn check_address(address: &str) -> io::Result<()> {
    let address: SocketAddr = listener::resolve(address, 0)?;
    TcpListener::bind(address).map(drop)
}
