//! A kernel that forbids io_uring, as containers often have it forbidden.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // A filter of system calls is installed between fork and exec.

mod common;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use common::{Server, encode};

#[test]
fn auto_reads_with_threads_and_says_so() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut command = common::command(&dir, &["--enable-debug-command", "yes"]);
    forbid_io_uring(&mut command);
    let server = Server::start_command(dir, command);
    let notice =
        "io_uring is not available (Operation not permitted (os error 1)), reading with threads";
    assert!(server.start_log.contains(notice), "{}", server.start_log);
    let mut client = server.connect();
    let keys: Vec<String> = (0..100).map(|key| format!("key:{key}")).collect();
    for key in &keys {
        assert_eq!(client.command(&["SET", key, &key.repeat(50)]), "+OK\r\n");
    }
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    client.send(
        keys.iter()
            .flat_map(|key| encode(&["GET", key]))
            .collect::<Vec<u8>>(),
    );
    for key in &keys {
        let value = key.repeat(50);
        assert_eq!(client.reply(), format!("${}\r\n{value}\r\n", value.len()));
    }
}

#[test]
fn io_uring_by_name_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = common::command(&dir, &["--io-backend", "uring"]);
    forbid_io_uring(&mut command);
    let output = Server::refused_command(command);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.contains("io_uring is not available: Operation not permitted"),
        "{message}"
    );
}

/// Has the kernel answer `io_uring_setup` of the command with EPERM.
fn forbid_io_uring(command: &mut Command) {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        // The number of the call is the first word of what is looked at.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_io_uring_setup as u32,
            )
        },
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: the program points at the filter, which outlives the calls; the kernel copies it.
        let status = unsafe {
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 {
                libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                )
            } else {
                -1
            }
        };
        if status == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: what runs between fork and exec makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}
