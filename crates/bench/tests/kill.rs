//! `bench kill` against a real `redis-server`, and against one whose append-only file is cut
//! before it starts: what that loses must be found.
//!
//! Where `redis-server` is not installed, the tests say so and pass.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

/// Runs six short cycles against this server; None where none is installed.
fn kill(dir: &TempDir, server: &str) -> Option<Output> {
    if Command::new("redis-server")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: no redis-server");
        return None;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args([
            "kill", "--cycles", "6", "--run-ms", "300", "--server", server, "--dir",
        ])
        .arg(dir.path())
        .output()
        .unwrap();
    Some(output)
}

/// The command line of a script that does `damage` to the last append-only file, `$log`,
/// before every start, of which it is the `$start`th, and then becomes the server. `$kept` is how long the file was at
/// the start before.
fn server_that_does(damage: &str, dir: &Path) -> String {
    let script = dir.join("server");
    let text = format!(
        r#"for data; do :; done
           echo >>"$data/starts"
           start=$(wc -l <"$data/starts")
           log=$(ls -v "$data"/appendonlydir/*.incr.aof 2>/dev/null | tail -n 1)
           kept=$(cat "$data/kept" 2>/dev/null || echo 0)
           [ -z "$log" ] || {damage}
           [ -z "$log" ] || stat -c %s "$log" >"$data/kept"
           exec redis-server "$@""#
    );
    std::fs::write(&script, text).unwrap();
    format!("sh {}", script.display())
}

/// Killed while it writes a transaction or rewrites its file, Redis 7.0 sometimes reads half of it
/// back, or does not start. So here it does neither.
const REDIS: &str = "--appendonly yes --save '' --auto-aof-rewrite-percentage 0 \
    --user default on nopass '~*' '&*' +@all -multi -bgrewriteaof";
const ALWAYS: &str = "--appendfsync always";
const EVERYSEC: &str = "--appendfsync everysec";

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[test]
fn a_server_that_keeps_its_promise_passes() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [ALWAYS, EVERYSEC] {
        let Some(output) = kill(&dir, &format!("redis-server {REDIS} {mode}")) else {
            return;
        };
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("6 cycles: "), "{}", text(&output));
    }
    let left = dir.path().read_dir().unwrap().count();
    assert_eq!(left, 0, "it removes what it made");
}

#[test]
fn a_lost_write_is_found_where_none_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    // More than what may be in the file without having been acknowledged.
    let server = server_that_does(r#"truncate -s -20000 "$log""#, dir.path());
    let Some(output) = kill(&dir, &format!("{server} {REDIS} {ALWAYS}")) else {
        return;
    };
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("acknowledged writes are lost"), "{text}");
    assert!(text.contains("seed "), "{text}");
}

#[test]
fn everysec_may_lose_the_end_but_no_more() {
    let dir = tempfile::tempdir().unwrap();
    // Of what was there at the last start nothing is lost.
    let server = server_that_does(
        r#"[ $(stat -c %s "$log") -lt $((kept + 500)) ] || truncate -s -500 "$log""#,
        dir.path(),
    );
    let Some(output) = kill(&dir, &format!("{server} {REDIS} {EVERYSEC}")) else {
        return;
    };
    assert!(output.status.success(), "{}", text(&output));
    // What an earlier restart has shown to be there is older than a second.
    let server = server_that_does(
        r#"[ $start -lt 5 ] || rm "$data"/appendonlydir/*"#,
        dir.path(),
    );
    let output = kill(&dir, &format!("{server} {REDIS} {EVERYSEC}")).unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no number of steps explains"), "{text}");
}

#[test]
fn a_server_that_promises_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(output) = kill(&dir, "redis-server --appendonly no --save ''") else {
        return;
    };
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output);
    assert!(message.contains("bench: with appendonly no"), "{message}");
    let Some(output) = kill(&dir, "redis-server --no-such-directive 1") else {
        return;
    };
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("the server ended with"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_signal_that_ends_it_ends_its_server() {
    let dir = tempfile::tempdir().unwrap();
    if Command::new("redis-server")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: no redis-server");
        return;
    }
    let id = dir.path().join("id");
    let script = dir.path().join("server");
    let text = format!("echo $$ >{}\nexec redis-server \"$@\"", id.display());
    std::fs::write(&script, text).unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["kill", "--run-ms", "60000", "--dir"])
        .arg(dir.path())
        .args([
            "--server",
            &format!("sh {} {REDIS} {ALWAYS}", script.display()),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(bench.stdout.take().unwrap()).lines();
    let answers = lines.find(|line| line.as_ref().unwrap() == "appendfsync always");
    assert!(answers.is_some(), "the server runs");
    let id: i32 = std::fs::read_to_string(id).unwrap().trim().parse().unwrap();
    let server = pidfd_open(Pid::from_raw(id).unwrap(), PidfdFlags::empty()).unwrap();

    kill_process(Pid::from_child(&bench), Signal::TERM).unwrap();
    bench.wait().unwrap();
    let patience = Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    let ended = poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&patience));
    assert_eq!(ended, Ok(1), "the server has ended, too");
}
