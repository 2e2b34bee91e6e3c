//! When the device fails to deliver a page of a mapped file, the kernel ends the process with SIGBUS. Nothing can be done about it
//! at that point, where any thread may be in the middle of anything; but the log says which file it was.
//!
//! The handler runs where even allocating is forbidden: it reads `/proc/self/maps` with a buffer of its own, writes one line,
//! and lets the signal do what it does without a handler.
#![allow(unsafe_code)] // A signal handler, and the system calls that it may make.

use std::ffi::{CStr, CString};
use std::fmt::{self, Write};
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use libc::{c_int, c_void, siginfo_t};

/// The longest line that is read or written: a path, and a little more.
const LINE_BYTES: usize = 4096 + 256;

/// Where the log goes; `None`: standard output.
static LOG_FILE: OnceLock<Option<CString>> = OnceLock::new();

/// From now on the log, which goes to `log_file` or to standard output, tells of a page that cannot be read.
pub(crate) fn watch(log_file: Option<&Path>) -> io::Result<()> {
    let path = log_file.map(|path| CString::new(path.as_os_str().as_bytes()));
    LOG_FILE.get_or_init(|| path.and_then(Result::ok));
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = report;
    // SAFETY: all-zero bytes are a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    // SAFETY: the action is a local that lives through the call, and its handler is of the kind that SA_SIGINFO asks for.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The handler. When it returns, the thread meets the page again, and the signal ends the process.
extern "C" fn report(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid pointer, and SIGBUS comes with an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let mut path = Line::default();
    find_mapped_file(address, &mut path);
    let mut line = Line::default();
    // Cut off where the line is full.
    let _ = writeln!(
        line,
        "{}:M # A page of {} could not be read from the device (SIGBUS). The server ends; what the command log has is replayed \
         by the next start.",
        std::process::id(),
        std::str::from_utf8(path.bytes()).unwrap_or("a mapped file"),
    );
    match LOG_FILE.get() {
        Some(Some(log)) => {
            if let Some(log) = Descriptor::open(log, libc::O_WRONLY | libc::O_APPEND) {
                log.write(line.bytes());
            }
        }
        _ => Descriptor(libc::STDOUT_FILENO).write(line.bytes()),
    }
}

/// Finds the path of the file that is mapped at `address`, as `/proc/self/maps` has it.
fn find_mapped_file(address: usize, path: &mut Line) {
    let Some(maps) = Descriptor::open(c"/proc/self/maps", libc::O_RDONLY) else {
        return;
    };
    let (mut line, mut some) = (Line::default(), [0; 1024]);
    loop {
        let count = maps.read(&mut some);
        if count == 0 {
            return;
        }
        for &byte in &some[..count] {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            if let Some(found) = path_in(line.bytes(), address) {
                found.iter().for_each(|&byte| path.push(byte));
                return;
            }
            line = Line::default();
        }
    }
}

/// The path in a line of `/proc/self/maps`, `start-end mode offset device inode path`, if the mapping has `address`.
fn path_in(line: &[u8], address: usize) -> Option<&[u8]> {
    let line = std::str::from_utf8(line).ok()?;
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let is_there = (number(start)?..number(end)?).contains(&address);
    let path = &line[line.find('/')?..];
    is_there.then_some(path.as_bytes())
}

/// Text in a buffer of its own; what does not fit is left out.
struct Line {
    buffer: [u8; LINE_BYTES],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line {
            buffer: [0; LINE_BYTES],
            len: 0,
        }
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.buffer.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

/// A descriptor that the handler uses, which nobody closes any more.
struct Descriptor(c_int);

impl Descriptor {
    fn open(path: &CStr, flags: c_int) -> Option<Descriptor> {
        // SAFETY: the path is a C string that lives through the call.
        let descriptor = unsafe { libc::open(path.as_ptr(), flags) };
        (descriptor >= 0).then_some(Descriptor(descriptor))
    }

    /// How many bytes were read; 0 at the end, and after an error.
    fn read(&self, bytes: &mut [u8]) -> usize {
        // SAFETY: the buffer is as long as is said, and lives through the call.
        let count = unsafe { libc::read(self.0, bytes.as_mut_ptr().cast(), bytes.len()) };
        usize::try_from(count).unwrap_or(0)
    }

    fn write(&self, bytes: &[u8]) {
        // A log that cannot be written changes nothing.
        // SAFETY: the bytes live through the call.
        let _ = unsafe { libc::write(self.0, bytes.as_ptr().cast(), bytes.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_with_the_address_names_its_file() {
        let line =
            b"7f00aa000000-7f00aa100000 r--s 00000000 fe:00 12345   /data/0000000000000001.seg";
        let path = b"/data/0000000000000001.seg".as_slice();
        assert_eq!(path_in(line, 0x7f00_aa00_0000), Some(path));
        assert_eq!(path_in(line, 0x7f00_aa0f_ffff), Some(path));
        assert_eq!(path_in(line, 0x7f00_aa10_0000), None);
        let anonymous = b"7f00aa000000-7f00aa100000 rw-p 00000000 00:00 0 ";
        assert_eq!(path_in(anonymous, 0x7f00_aa00_0000), None);
    }
}
