//! How reads of warm and cold records reach file and device, as INFO and the kernel count it.

mod common;

use std::fs;
use std::process::Command;

use common::{Connection, Server, backends, encode};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

#[test]
fn a_pipeline_of_cold_reads_is_one_submission() {
    for &backend in backends() {
        let server = start(backend);
        let mut client = server.connect();
        let keys = 100;
        for key in 0..keys {
            let (key, value) = (format!("key:{key}"), format!("value of {key}"));
            assert_eq!(client.command(&["SET", &key, &value]), "+OK\r\n");
        }
        force(&mut client, "FORCE-COLD");

        let before = [
            tiers(&mut client, "device_submissions"),
            tiers(&mut client, "device_reads"),
        ];
        let gets = (0..keys).flat_map(|key| encode(&["GET", &format!("key:{key}")]));
        client.send(gets.collect::<Vec<u8>>());
        for key in 0..keys {
            let value = format!("value of {key}");
            assert_eq!(client.reply(), format!("${}\r\n{value}\r\n", value.len()));
        }
        assert_eq!(
            tiers(&mut client, "device_submissions"),
            before[0] + 1,
            "with {backend}"
        );
        assert_eq!(
            tiers(&mut client, "device_reads"),
            before[1] + keys,
            "with {backend}"
        );
    }
}

#[test]
fn a_command_on_many_cold_keys_is_few_submissions() {
    let server = start("auto");
    let mut client = server.connect();
    let keys: Vec<String> = (0..1000).map(|key| format!("key:{key}")).collect();
    for key in &keys {
        assert_eq!(client.command(&["SET", key, "v"]), "+OK\r\n");
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for (command, reply) in [
        (&["EXISTS"][..], ":1000\r\n"),
        (&["TOUCH"][..], ":1000\r\n"),
        (&["BITOP", "OR", "result"][..], ":1\r\n"),
        (&["DEBUG", "DIGEST-VALUE"][..], "*1000\r\n"),
    ] {
        force(&mut client, "FORCE-COLD");
        let before = tiers(&mut client, "device_submissions");
        let found = client.command(&[command, &keys].concat());
        assert!(found.starts_with(reply), "{command:?}: {found}");
        let submissions = tiers(&mut client, "device_submissions") - before;
        assert!(
            (1..=64).contains(&submissions),
            "{command:?}: {submissions} submissions"
        );
    }
}

#[test]
fn a_large_warm_value_is_sent_from_where_it_lies() {
    let server = start("auto");
    let mut client = server.connect();
    let value: String = (0..1 << 20)
        .map(|i| char::from(b'a' + (i / 7 % 26) as u8))
        .collect();
    assert_eq!(client.command(&["SET", "large", &value]), "+OK\r\n");
    force(&mut client, "FORCE-WARM");
    assert_eq!(client.command(&["DEBUG", "TIER", "large"]), "+warm\r\n");

    let before = [
        tiers(&mut client, "warm_copied_bytes"),
        tiers(&mut client, "device_reads"),
    ];
    assert!(client.command(&["GET", "large"]) == format!("${}\r\n{value}\r\n", value.len()));
    assert_eq!(tiers(&mut client, "warm_copied_bytes"), before[0]);
    assert_eq!(tiers(&mut client, "device_reads"), before[1]);

    // A part of it is put together in memory, and counted.
    let part = client.command(&["GETRANGE", "large", "100", "99999"]);
    assert!(part == format!("${}\r\n{}\r\n", 99_900, &value[100..100_000]));
    assert_eq!(tiers(&mut client, "warm_copied_bytes"), before[0] + 99_900);
}

#[test]
fn cold_reads_come_from_the_device() {
    for &backend in backends() {
        let server = start(backend);
        let kind = Command::new("stat")
            .args(["-f", "-c", "%T"])
            .arg(server.dir.path())
            .output();
        if kind.is_ok_and(|kind| kind.stdout == b"tmpfs\n") {
            println!("skipped: the data directory is in memory");
            return;
        }
        let Some(_) = read_bytes(&server) else {
            println!("skipped: the kernel does not tell what a process reads from devices");
            return;
        };
        let mut client = server.connect();
        let value = "v".repeat(4096);
        let keys = 500;
        for key in 0..keys {
            assert_eq!(
                client.command(&["SET", &format!("key:{key}"), &value]),
                "+OK\r\n"
            );
        }
        force(&mut client, "FORCE-COLD");

        // The second time too: the first has left nothing in the page cache.
        for round in ["first", "second"] {
            let before = [
                read_bytes(&server).unwrap(),
                tiers(&mut client, "device_read_bytes"),
            ];
            let gets = (0..keys).flat_map(|key| encode(&["GET", &format!("key:{key}")]));
            client.send(gets.collect::<Vec<u8>>());
            for _ in 0..keys {
                assert!(client.reply() == format!("$4096\r\n{value}\r\n"));
            }
            let kernel = read_bytes(&server).unwrap() - before[0];
            let counted = tiers(&mut client, "device_read_bytes") - before[1];
            assert!(
                counted >= keys * 4096,
                "{round} round with {backend}: counted {counted}"
            );
            assert!(
                kernel >= counted,
                "{round} round with {backend}: {kernel} of {counted} bytes"
            );
        }
    }
}

#[test]
fn a_damaged_record_fails_the_command_that_needs_it_alone() {
    for &backend in backends() {
        let server = start(backend);
        let mut client = server.connect();
        let value = |key: &str| format!("value of {key} ").repeat(100);
        for key in ["before", "damaged", "after"] {
            assert_eq!(client.command(&["SET", key, &value(key)]), "+OK\r\n");
        }
        force(&mut client, "FORCE-COLD");
        damage(&server, value("damaged").as_bytes());

        for _ in 0..2 {
            let gets = ["before", "damaged", "after"].map(|key| encode(&["GET", key]));
            client.send(gets.concat());
            let right = |key| format!("${}\r\n{}\r\n", value(key).len(), value(key));
            assert_eq!(client.reply(), right("before"));
            let error = client.reply();
            assert!(
                error.starts_with("-IOERR ") && error.contains(".seg"),
                "{error}"
            );
            assert_eq!(client.reply(), right("after"));
        }
        assert!(tiers(&mut client, "damaged_reads") >= 2);
        // It can be written again, which reads nothing.
        assert_eq!(client.command(&["SET", "damaged", "healed"]), "+OK\r\n");
        assert_eq!(client.command(&["GET", "damaged"]), "$6\r\nhealed\r\n");
    }
}

fn start(backend: &str) -> Server {
    Server::start(
        &[
            &DEBUG[..],
            &["--maxmemory", "64mb", "--io-backend", backend],
        ]
        .concat(),
    )
}

fn force(client: &mut Connection, tier: &str) {
    assert_eq!(client.command(&["DEBUG", tier]), "+OK\r\n");
}

/// A figure of INFO's section Tiers.
fn tiers(client: &mut Connection, field: &str) -> u64 {
    let info = client.command(&["INFO", "tiers"]);
    let mut values = info
        .lines()
        .filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = values
        .next()
        .unwrap_or_else(|| panic!("no {field} in {info}"));
    value.parse().unwrap()
}

/// Bytes that the kernel has read from devices for the server.
fn read_bytes(server: &Server) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).ok()?;
    let mut values = io
        .lines()
        .filter_map(|line| line.strip_prefix("read_bytes: "));
    values.next()?.parse().ok()
}

/// Changes one byte of `bytes` wherever a segment file of the server has them.
fn damage(server: &Server, bytes: &[u8]) {
    let mut damaged = 0;
    for entry in fs::read_dir(server.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let mut content = fs::read(&path).unwrap();
        if let Some(at) = content
            .windows(bytes.len())
            .position(|window| window == bytes)
        {
            content[at + bytes.len() / 2] ^= 1;
            fs::write(&path, content).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1, "files that hold the value");
}
