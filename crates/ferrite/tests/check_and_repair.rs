//! `ferrite --check` and `ferrite --repair`, on directories that servers have made.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::Server;

fn run(option: &str, directory: &Path) -> (i32, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_ferrite"))
        .arg(option)
        .arg(directory)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

fn file(directory: &Path, extension: &str) -> PathBuf {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let is_such = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    paths.find(is_such).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_directory_is_checked_damaged_repaired_and_served_again() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for number in 0..1000 {
        client.command(&["SET", &format!("k{number}"), &"v".repeat(400)]);
    }
    let (status, text) = run("--check", server.dir.path());
    assert_eq!(status, 2, "{text}");
    assert!(text.contains("is in use by another process"), "{text}");
    let (status, text) = run("--repair", server.dir.path());
    assert_eq!(status, 2, "{text}");
    let dir = server.shut_down(&[]);

    let (status, text) = run("--check", dir.path());
    assert_eq!(status, 0, "{text}");
    assert!(
        text.contains("sound: 1 segments, 1000 sound records, 0 unsound"),
        "{text}"
    );

    let segment = file(dir.path(), "seg");
    flip(&segment, 100_000);
    let (status, text) = run("--check", dir.path());
    assert_eq!(status, 1, "{text}");
    let line = format!("damage: {} at offset ", segment.display());
    assert!(
        text.contains(&line) && text.contains("damages: 1"),
        "{text}"
    );

    let (status, text) = run("--repair", dir.path());
    assert_eq!(status, 0, "{text}");
    assert!(
        text.contains("dropped: ") && text.contains("key \"k"),
        "{text}"
    );
    assert!(text.contains("repaired: 999 live keys"), "{text}");
    let (status, text) = run("--check", dir.path());
    assert_eq!(status, 0, "{text}");
    let (status, text) = run("--repair", dir.path());
    assert_eq!(
        (status, text.contains("nothing to repair")),
        (0, true),
        "{text}"
    );

    let server = Server::start_in(dir, &[]);
    let mut client = server.connect();
    assert_eq!(client.command(&["DBSIZE"]), ":999\r\n");
}

#[test]
fn a_directory_that_is_not_there_cannot_be_checked() {
    let dir = tempfile::tempdir().unwrap();
    for option in ["--check", "--repair"] {
        let (status, text) = run(option, &dir.path().join("missing"));
        assert_eq!(status, 2, "{text}");
        assert!(text.contains("missing"), "{text}");
    }
}
