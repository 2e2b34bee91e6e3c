//! `bench load` against a real `redis-server`, through the command line.
//!
//! Where `redis-server` is not installed, the tests say so and pass.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A redis-server of our own; killed when dropped.
struct Server {
    process: Child,
    port: u16,
    dir: TempDir,
}

impl Server {
    /// Starts a server on a free port; None where none is installed.
    fn start() -> Option<Server> {
        // Another process can take the port between the probe and the server's start; try again.
        for _ in 0..10 {
            let probe = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = probe.local_addr().unwrap().port();
            drop(probe);
            let dir = tempfile::tempdir().unwrap();
            let spawned = Command::new("redis-server")
                .args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                ])
                .args([
                    "--unixsocket".as_ref(),
                    dir.path().join("socket").as_os_str(),
                ])
                .arg("--dir")
                .arg(dir.path())
                .stdout(Stdio::piped())
                .spawn();
            let Ok(mut process) = spawned else {
                println!("skipped: no redis-server");
                return None;
            };
            // Its log says when it listens; the end of the log, that it could not.
            let log = BufReader::new(process.stdout.take().unwrap());
            let mut lines = log.lines().map_while(Result::ok);
            if lines.any(|line| line.contains("Ready to accept connections")) {
                std::thread::spawn(move || lines.for_each(drop));
                return Some(Server { process, port, dir });
            }
            process.wait().unwrap();
        }
        panic!("redis-server did not start on ten ports");
    }

    /// Runs `bench load` on the server.
    fn load(&self, arguments: &str) -> (Output, Value) {
        let json = self.dir.path().join("result.json");
        let output = Command::new(env!("CARGO_BIN_EXE_bench"))
            .args(["load", "--port", &self.port.to_string(), "--json"])
            .arg(&json)
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        let text = std::fs::read_to_string(&json).unwrap_or_default();
        (output, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Sends one inline command and returns the first line of its reply.
    fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "{command}\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn what_is_preloaded_is_read_back_right() {
    let Some(server) = Server::start() else {
        return;
    };
    let (output, result) = server.load(
        "--preload --verify --keys 5000 --value-bytes 16-3000 --pipeline 7 --connections 5 \
         --requests 20000 --workload a --theta 0.7 --threads 2",
    );
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(server.command("DBSIZE"), ":5000");
    let phases = result["phases"].as_array().unwrap();
    let operations: Vec<u64> = phases
        .iter()
        .map(|phase| phase["operations"].as_u64().unwrap())
        .collect();
    assert_eq!(operations, [5_000, 20_000, 5_000]);
    assert_eq!(phases[2]["latency"]["get"]["count"], 5_000);
    assert!(phases[0]["value_mib_written_per_second"].as_f64().unwrap() > 0.0);
    assert!(phases[2]["value_mib_read_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn wrong_stale_and_missing_values_are_told_apart() {
    let Some(server) = Server::start() else {
        return;
    };
    let keys = "--keys 1000 --value-bytes 64 --connections 3 --pipeline 16";
    let (output, _) = server.load(&format!("{keys} --preload"));
    assert!(output.status.success(), "{}", said(&output));
    server.command("SET k000000000000005 nonsense");
    server.command("DEL k000000000000006 k000000000000007");
    server.command("COPY k000000000000009 k000000000000008 REPLACE");
    let (output, result) = server.load(&format!("{keys} --verify"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let found = &result["phases"][0];
    assert_eq!(
        (&found["wrong"], &found["missing"]),
        (&Value::from(2), &Value::from(2))
    );
    assert_eq!(
        (&found["stale"], &found["errors"]),
        (&Value::from(0), &Value::from(0))
    );

    let (_, _) = server.load(&format!("{keys} --preload"));
    let (output, result) = server.load(&format!("{keys} --verify --value-version 2"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(
        result["phases"][0]["stale"], 1_000,
        "every value is older than asked for"
    );
}

#[test]
fn an_error_reply_fails_the_run_and_is_shown() {
    let Some(server) = Server::start() else {
        return;
    };
    server.command("CONFIG SET maxmemory 1");
    let (output, result) = server.load("--preload --keys 100");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(result["phases"][0]["errors"], 100);
    assert!(
        said(&output).contains("first error: OOM"),
        "{}",
        said(&output)
    );
}

#[test]
fn every_workload_runs_and_stays_right() {
    let Some(server) = Server::start() else {
        return;
    };
    let keys = "--keys 2000 --value-bytes 32 --connections 4 --pipeline 8 --requests 5000 --verify";
    let (output, _) = server.load("--keys 2000 --value-bytes 32 --preload");
    assert!(output.status.success(), "{}", said(&output));
    for workload in ["a", "b", "c", "d", "f"] {
        let (output, result) = server.load(&format!("{keys} --workload {workload}"));
        assert!(
            output.status.success(),
            "workload {workload}: {}",
            said(&output)
        );
        assert_eq!(result["phases"][0]["operations"], 5_000);
        if workload == "d" {
            let inserted = result["phases"][0]["latency"]["insert"]["count"]
                .as_u64()
                .unwrap();
            assert_eq!(server.command("DBSIZE"), format!(":{}", 2_000 + inserted));
        }
    }
    let shares = "--keys 2000 --requests 3000 --get 1 --set 1 --delete 1 --distribution uniform";
    let (output, result) = server.load(shares);
    assert!(output.status.success(), "{}", said(&output));
    let deleted = result["phases"][0]["latency"]["delete"]["count"]
        .as_u64()
        .unwrap();
    assert!(
        (800..1_200).contains(&deleted),
        "a third of 3000 are deletes, not {deleted}"
    );
}

#[test]
fn values_larger_than_any_buffer_pass_through() {
    let Some(server) = Server::start() else {
        return;
    };
    let (output, _) = server.load(
        "--preload --verify --keys 6 --value-bytes 2000000-9000000 --connections 2 --pipeline 2",
    );
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn an_open_loop_keeps_its_rate_and_counts_from_the_time_due() {
    let Some(server) = Server::start() else {
        return;
    };
    let run = "--keys 100 --requests 500 --rate 1000 --connections 2 --workload c";
    let (output, result) = server.load(run);
    assert!(output.status.success(), "{}", said(&output));
    let phase = &result["phases"][0];
    assert!(phase["seconds"].as_f64().unwrap() > 0.49, "{phase}");
    assert_eq!(phase["operations"], 500);

    // The server takes commands again after 600 ms. A closed loop would see two slow operations;
    // here all that were due meanwhile are late.
    server.command("CLIENT PAUSE 600 ALL");
    let (output, result) = server.load(run);
    assert!(output.status.success(), "{}", said(&output));
    let p50 = result["phases"][0]["latency"]["get"]["p50_us"]
        .as_f64()
        .unwrap();
    assert!(
        p50 > 10_000.0,
        "more than half were due while the server paused; p50 is {p50} us"
    );
}

#[test]
fn a_unix_socket_the_servers_cost_and_a_chart() {
    let Some(server) = Server::start() else {
        return;
    };
    let chart = server.dir.path().join("chart.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["load", "--preload", "--keys", "2000", "--unix"])
        .arg(server.dir.path().join("socket"))
        .args(["--server-pid", &server.process.id().to_string(), "--chart"])
        .arg(&chart)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("of processor time an operation, peak"),
        "{}",
        said(&output)
    );
    assert!(
        std::fs::read_to_string(chart)
            .unwrap()
            .contains("preload set")
    );
}

#[test]
fn contradictory_options_are_refused_with_a_reason() {
    for (arguments, reason) in [
        ("--keys 10", "nothing to do"),
        ("--preload --rate 5", "--rate"),
        ("--verify --value-bytes 15", "at least 16"),
        ("--verify --requests 5 --delete 1", "--delete"),
        ("--preload --keys 100000 --key-bytes 5", "at least 6"),
        ("--preload --threads 9 --connections 2", "--threads 9"),
        ("--preload --theta 1", "above 0 and below 1"),
        ("--requests 5 --seconds 5", "cannot be used with"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_bench"))
            .arg("load")
            .args(["--port", "1"])
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(
            said(&output).contains(reason),
            "{arguments}: {}",
            said(&output)
        );
    }
}

#[test]
fn a_raw_read_loop_reads_the_files_of_a_directory() {
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    std::fs::write(dir.path().join("one"), vec![1u8; 1 << 20]).unwrap();
    std::fs::write(dir.path().join("two"), vec![2u8; 1 << 20]).unwrap();
    std::fs::write(dir.path().join("too-short"), b"x").unwrap();
    let json = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["rawread", "--seconds", "1", "--depth", "1,8", "--dir"])
        .arg(dir.path())
        .arg("--json")
        .arg(json.path())
        .output()
        .unwrap();
    let refused = ["cannot open an io_uring", "with O_DIRECT"];
    if let Some(reason) = refused
        .iter()
        .find(|reason| said(&output).contains(**reason))
    {
        println!("skipped: {reason}");
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
    let result: Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    assert_eq!(
        (&result["files"], &result["blocks"]),
        (&Value::from(2), &Value::from(512))
    );
    let depths = result["results"].as_array().unwrap();
    assert_eq!(
        (&depths[0]["depth"], &depths[1]["depth"]),
        (&Value::from(1), &Value::from(8))
    );
    assert!(
        depths
            .iter()
            .all(|of| of["reads_per_second"].as_f64().unwrap() > 0.0),
        "{result}"
    );
}
