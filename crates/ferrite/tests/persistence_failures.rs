//! When nothing can be written, or what was written is damaged: clear errors, nothing lost.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{Server, eventually};
use tempfile::TempDir;

const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const MISCONF_LOG: &str = "-MISCONF Errors writing to the AOF file: File too large";
const CANNOT_SAVE: &str = "-ERR Errors saving the data: File too large\r\n";
const MISCONF_SAVE: &str = "-MISCONF Redis is configured to save RDB snapshots";

/// The files of a data directory whose names end so, in order.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// The one line that a server on this directory ends with.
fn refusal(dir: &TempDir) -> String {
    let output = Server::refused_in(dir, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

/// A directory with a checkpoint and a command log, left by a kill.
fn killed() -> Arc<TempDir> {
    let server = Server::start(&ALWAYS);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "saved", "1"]), "+OK\r\n");
    assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
    for i in 0..100 {
        assert_eq!(
            client.command(&["SET", &format!("logged:{i}"), "2"]),
            "+OK\r\n"
        );
    }
    server.kill()
}

/// Limits the size of files that the server may write, or lifts the limit.
fn limit_files(server: &Server, limit: &str) {
    let limited = Command::new("prlimit")
        .args([
            "--pid",
            &server.pid().to_string(),
            &format!("--fsize={limit}:unlimited"),
        ])
        .status();
    assert!(limited.expect("prlimit is part of util-linux").success());
}

/// What a write is answered once that begins so. Each is sent on a connection of its own, since one that is refused after
/// it has begun ends its connection.
fn write_until(server: &Server, wanted: &str) -> String {
    eventually(|| {
        let reply = server.connect().command(&["SET", "try", &"x".repeat(1000)]);
        reply.starts_with(wanted).then_some(reply)
    })
}

#[test]
fn two_servers_on_one_directory_are_refused() {
    let server = Server::start(&ALWAYS);
    let line = refusal(&server.dir);
    assert!(line.contains("is in use by another process"), "{line}");
    assert_eq!(
        server.connect().command(&["SET", "key", "value"]),
        "+OK\r\n"
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    // Nobody can make files there, not even root.
    let output = Server::refused_in(&tempfile::tempdir().unwrap(), &["--dir", "/sys/kernel"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    assert!(line.contains("/sys/kernel"), "{line}");
}

#[test]
fn without_space_for_the_command_log_changes_are_refused_until_there_is_some() {
    let server = Server::start(&ALWAYS);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "before", "1"]), "+OK\r\n");
    limit_files(&server, "65536");
    let refused = write_until(&server, "-MISCONF");
    assert_eq!(refused, format!("{MISCONF_LOG}\r\n"));
    assert_eq!(client.command(&["GET", "before"]), "$1\r\n1\r\n");
    assert_eq!(client.command(&["DEL", "before"]), refused);
    assert_eq!(client.command(&["PING"]), refused);
    assert!(
        client
            .command(&["INFO"])
            .contains("aof_last_write_status:err\r\n")
    );
    limit_files(&server, "unlimited");
    assert_eq!(write_until(&server, "+OK"), "+OK\r\n");
    assert!(
        client
            .command(&["INFO"])
            .contains("aof_last_write_status:ok\r\n")
    );
    assert_eq!(client.command(&["SET", "after", "2"]), "+OK\r\n");
    let server = Server::start_in(server.kill(), &ALWAYS);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["MGET", "before", "after"]),
        "*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
    );
}

#[test]
fn a_checkpoint_without_space_fails_and_the_one_before_stays() {
    let directives = ["--appendonly", "no", "--save", "3600 1"];
    let server = Server::start(&directives);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "saved", "1"]), "+OK\r\n");
    assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
    let lastsave = client.command(&["LASTSAVE"]);
    assert_eq!(client.command(&["SET", "unsaved", "2"]), "+OK\r\n");
    limit_files(&server, "512");
    assert_eq!(client.command(&["SAVE"]), CANNOT_SAVE);
    let refused = write_until(&server, "-MISCONF");
    assert!(refused.starts_with(MISCONF_SAVE), "{refused}");
    assert!(
        client
            .command(&["INFO"])
            .contains("rdb_last_bgsave_status:err\r\n")
    );
    assert_eq!(client.command(&["GET", "unsaved"]), "$1\r\n2\r\n");
    assert_eq!(
        client.command(&["SHUTDOWN"]),
        "-ERR Errors trying to SHUTDOWN. Check logs.\r\n"
    );
    assert_eq!(client.command(&["LASTSAVE"]), lastsave);
    let ignoring = ["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"];
    assert_eq!(client.command(&ignoring), "+OK\r\n");
    assert_eq!(write_until(&server, "+OK"), "+OK\r\n");
    let server = Server::start_in(server.kill(), &directives);
    let mut client = server.connect();
    assert_eq!(
        client.command(&["MGET", "saved", "unsaved"]),
        "*2\r\n$1\r\n1\r\n$-1\r\n"
    );
}

#[test]
fn a_checkpoint_succeeds_once_there_is_space_again() {
    let server = Server::start(&ALWAYS);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "key", "value"]), "+OK\r\n");
    limit_files(&server, "512");
    assert_eq!(client.command(&["SAVE"]), CANNOT_SAVE);
    limit_files(&server, "unlimited");
    assert_eq!(client.command(&["SAVE"]), "+OK\r\n");
    assert_eq!(write_until(&server, "+OK"), "+OK\r\n");
    let server = Server::start_in(server.shut_down(&[]), &ALWAYS);
    assert_eq!(server.connect().command(&["EXISTS", "try"]), ":1\r\n");
}

#[test]
fn a_failed_background_save_is_tried_again_by_itself() {
    let server = Server::start(&["--appendonly", "no", "--save", "3600 1"]);
    let mut client = server.connect();
    assert_eq!(client.command(&["SET", "key", "value"]), "+OK\r\n");
    limit_files(&server, "512");
    assert_eq!(
        client.command(&["BGSAVE"]),
        "+Background saving started\r\n"
    );
    let refused = write_until(&server, "-MISCONF");
    assert!(refused.starts_with(MISCONF_SAVE), "{refused}");
    limit_files(&server, "unlimited");
    assert_eq!(write_until(&server, "+OK"), "+OK\r\n");
    assert!(
        client
            .command(&["INFO"])
            .contains("rdb_last_bgsave_status:ok\r\n")
    );
}

#[test]
fn debug_populate_without_space_ends_with_an_error() {
    for log in ["yes", "no"] {
        let server = Server::start(&[
            "--appendonly",
            log,
            "--maxmemory",
            "40mb",
            "--enable-debug-command",
            "yes",
        ]);
        let mut client = server.connect();
        limit_files(&server, "65536");
        let refused = client.command(&["DEBUG", "POPULATE", "1000000", "key", "1000"]);
        assert!(
            refused.starts_with("-MISCONF") && refused.ends_with(": File too large\r\n"),
            "{log}: {refused}"
        );
        assert!(write_until(&server, "-MISCONF").ends_with(": File too large\r\n"));
    }
}

#[test]
fn a_torn_end_of_the_command_log_is_cut_and_reported() {
    let dir = killed();
    let log = files(dir.path(), "log").pop().expect("a command log");
    let bytes = std::fs::read(&log).unwrap();
    // Behind the last change there may be zeroes.
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    std::fs::write(&log, &bytes[..last - 2]).unwrap();
    let server = Server::start_in(dir, &ALWAYS);
    assert!(
        server.start_log.contains("A crash has torn off the end"),
        "{}",
        server.start_log
    );
    let mut client = server.connect();
    assert_eq!(
        client.command(&["MGET", "saved", "logged:98"]),
        "*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
    );
    assert_eq!(client.command(&["EXISTS", "logged:99"]), ":0\r\n");
    assert_eq!(client.command(&["SET", "more", "3"]), "+OK\r\n");
    // The next start finds a whole log.
    let server = Server::start_in(server.kill(), &ALWAYS);
    assert!(
        !server.start_log.contains("torn off"),
        "{}",
        server.start_log
    );
    assert_eq!(
        server.connect().command(&["EXISTS", "logged:98", "more"]),
        ":2\r\n"
    );
}

#[test]
fn damaged_files_refuse_the_start_and_are_left_as_they_are() {
    for extension in ["log", "keys", "MANIFEST"] {
        let dir = killed();
        let path = match extension {
            "MANIFEST" => dir.path().join("MANIFEST"),
            _ => files(dir.path(), extension).remove(0),
        };
        let mut bytes = std::fs::read(&path).unwrap();
        // The middle of the used part: not the end of a log, which a crash may have torn.
        let at = bytes.len().min(2000) / 2;
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let line = refusal(&dir);
        assert!(line.contains(path.to_str().unwrap()), "{extension}: {line}");
        assert!(line.contains("at offset "), "{extension}: {line}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{extension}");
    }
}

#[test]
fn missing_files_refuse_the_start() {
    for extension in ["log", "seg", "keys", "MANIFEST"] {
        let dir = killed();
        let path = match extension {
            "MANIFEST" => dir.path().join("MANIFEST"),
            _ => files(dir.path(), extension).remove(0),
        };
        std::fs::remove_file(&path).unwrap();
        let line = refusal(&dir);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(line.contains(name), "{extension}: {line}");
    }
}

#[test]
fn a_full_disk_refuses_changes_and_recovers() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        println!("skipped: a small file system can be mounted by root only");
        return;
    };
    let server = Server::start_in(Arc::clone(&dir), &ALWAYS);
    let mut client = server.connect();
    let filler = disk.fill();
    let refused = write_until(&server, "-MISCONF");
    assert!(refused.contains("No space left on device"), "{refused}");
    assert_eq!(client.command(&["DBSIZE"]).as_bytes()[0], b':');
    std::fs::remove_file(filler).unwrap();
    assert_eq!(write_until(&server, "+OK"), "+OK\r\n");
    drop(client);
    server.kill();
    let server = Server::start_in(Arc::clone(&dir), &ALWAYS);
    assert_eq!(server.connect().command(&["EXISTS", "try"]), ":1\r\n");
    // Before the file system goes.
    drop(server);
}

/// A file system of 48 MiB in memory.
struct SmallDisk<'d> {
    path: &'d Path,
}

impl<'d> SmallDisk<'d> {
    fn mount(path: &'d Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m", "none"])
            .arg(path)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk { path })
    }

    /// Takes all its space with a file.
    fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        // It ends where there is no space any more.
        let _ = std::fs::write(&filler, vec![1; 64 << 20]);
        filler
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path).status();
    }
}
