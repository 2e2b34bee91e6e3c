//! Bit commands against a plain model of them, on values longer than what is read at a time.

mod common;

use common::{Connection, Server};

/// A seeded generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// Bytes that are characters too, so that they pass the text interface of [`Connection`].
    fn text(&mut self, len: usize) -> String {
        (0..len).map(|_| self.below(128) as u8 as char).collect()
    }
}

fn integer(client: &mut Connection, words: &[&str]) -> i64 {
    let reply = client.command(words);
    let number = reply
        .strip_prefix(':')
        .and_then(|number| number.trim_end().parse().ok());
    number.unwrap_or_else(|| panic!("{:?}: {reply}", &words[..words.len().min(6)]))
}

fn bulk(client: &mut Connection, words: &[&str]) -> String {
    let reply = client.command(words);
    let (_, body) = reply.split_once("\r\n").unwrap();
    body.strip_suffix("\r\n").unwrap_or_default().to_owned()
}

#[test]
fn bitop_combines_as_its_names_say() {
    const SEED: u64 = 0x5EED_0001;
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let server = Server::start(&[]);
    let mut client = server.connect();
    for round in 0..40 {
        // One source may be absent; some are longer than a block.
        let longest = if round % 8 == 0 { 150_000 } else { 50 };
        let sources: Vec<String> = (0..2 + random.below(3))
            .map(|_| {
                let len = random.below(longest) as usize;
                random.text(len)
            })
            .collect();
        let keys: Vec<String> = (0..sources.len()).map(|i| format!("source{i}")).collect();
        for (key, source) in keys.iter().zip(&sources) {
            client.command(&["DEL", key]);
            if !source.is_empty() {
                client.command(&["SET", key, source]);
            }
        }
        for name in ["AND", "OR", "XOR", "DIFF", "DIFF1", "ANDOR", "ONE"] {
            let expected = combined(name, &sources);
            let mut words = vec!["BITOP", name, "result"];
            words.extend(keys.iter().map(String::as_str));
            let len = integer(&mut client, &words);
            assert_eq!(len, expected.len() as i64, "{name}, round {round}");
            assert!(
                bulk(&mut client, &["GET", "result"]) == expected,
                "{name}, round {round}"
            );
        }
    }
}

/// BITOP, bit by bit.
fn combined(name: &str, sources: &[String]) -> String {
    let len = sources.iter().map(String::len).max().unwrap_or(0);
    let byte = |i: usize| {
        let bytes: Vec<u8> = sources
            .iter()
            .map(|source| source.as_bytes().get(i).copied().unwrap_or(0))
            .collect();
        let bit = |bit: u32| {
            let bits: Vec<bool> = bytes.iter().map(|byte| byte >> bit & 1 == 1).collect();
            let count = bits.iter().filter(|set| **set).count();
            let (x, any_y) = (bits[0], bits[1..].contains(&true));
            match name {
                "AND" => count == bits.len(),
                "OR" => count > 0,
                "XOR" => count % 2 == 1,
                "DIFF" => x && !any_y,
                "DIFF1" => !x && any_y,
                "ANDOR" => x && any_y,
                "ONE" => count == 1,
                _ => unreachable!("an operation of the test"),
            }
        };
        (0..8).map(|i| u8::from(bit(i)) << i).sum::<u8>() as char
    };
    (0..len).map(byte).collect()
}

#[test]
fn bitop_checks_the_number_of_its_sources() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["SET", "a", "x"]);
    for name in ["DIFF", "diff1", "AndOr"] {
        let error = format!(
            "-ERR BITOP {} must be called with at least two source keys.\r\n",
            name.to_uppercase()
        );
        assert_eq!(client.command(&["BITOP", name, "result", "a"]), error);
    }
    let not_error = "-ERR BITOP NOT must be called with a single source key.\r\n";
    assert_eq!(
        client.command(&["BITOP", "NOT", "result", "a", "a"]),
        not_error
    );
    assert_eq!(
        client.command(&["BITOP", "NAND", "result", "a"]),
        "-ERR syntax error\r\n"
    );
    assert_eq!(integer(&mut client, &["BITOP", "ONE", "result", "a"]), 1);
    assert_eq!(integer(&mut client, &["BITOP", "NOT", "result", "a"]), 1);
    assert_eq!(integer(&mut client, &["BITCOUNT", "result"]), 4);
    // An empty result is no key.
    assert_eq!(
        integer(&mut client, &["BITOP", "OR", "result", "absent"]),
        0
    );
    assert_eq!(integer(&mut client, &["EXISTS", "result"]), 0);
}

#[test]
fn counting_and_searching_cross_the_pieces_of_a_large_value() {
    const SEED: u64 = 0x5EED_0002;
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    // Zeros but for a few bits.
    let bits = 3_000_000u64;
    let mut set: Vec<u64> = (0..60).map(|_| random.below(bits)).collect();
    set.extend([64 * 1024 * 8 - 1, 64 * 1024 * 8, bits - 1]);
    set.sort_unstable();
    set.dedup();
    for bit in &set {
        client.command(&["SETBIT", "sparse", &bit.to_string(), "1"]);
    }
    // The same with ones and zeros swapped.
    client.command(&["BITOP", "NOT", "dense", "sparse"]);
    assert_eq!(client.command(&["DEBUG", "FORCE-COLD"]), "+OK\r\n");
    assert_eq!(
        integer(&mut client, &["BITCOUNT", "sparse"]),
        set.len() as i64
    );
    for _ in 0..500 {
        let (start, end) = (random.below(bits), random.below(bits));
        let (first, last) = (start.to_string(), end.to_string());
        let range = [first.as_str(), last.as_str(), "BIT"];
        let within = || set.iter().filter(|bit| (start..=end).contains(bit));
        let count = integer(&mut client, &[&["BITCOUNT", "sparse"], &range[..]].concat());
        assert_eq!(count, within().count() as i64, "{range:?}");
        let next = within().next().map_or(-1, |bit| *bit as i64);
        for (key, bit) in [("sparse", "1"), ("dense", "0")] {
            let found = integer(&mut client, &[&["BITPOS", key, bit], &range[..]].concat());
            assert_eq!(found, next, "{key} {range:?}");
        }
    }
    assert_eq!(
        integer(&mut client, &["BITPOS", "dense", "0", "-1"]),
        bits as i64 - 1
    );
    client.command(&["SETBIT", "dense", &(bits - 1).to_string(), "1"]);
    assert_eq!(
        integer(&mut client, &["BITPOS", "dense", "0", "-1"]),
        bits as i64
    );
    assert_eq!(
        integer(&mut client, &["BITPOS", "dense", "0", "-1", "-1"]),
        -1
    );
}

#[test]
fn bitfield_touches_only_its_bytes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut run = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        client.command(&words)
    };
    // Fields far apart in one command; later ones see what earlier ones did.
    let far = "BITFIELD k SET u8 0 255 SET i16 #40000 -5 GET i16 640000 INCRBY u8 0 1 GET u8 0";
    assert_eq!(run(far), "*5\r\n:0\r\n:0\r\n:-5\r\n:0\r\n:0\r\n");
    assert_eq!(run("STRLEN k"), ":80002\r\n");
    assert_eq!(run("BITCOUNT k"), ":15\r\n");
    let overflow = "BITFIELD k OVERFLOW SAT INCRBY u2 3 9 OVERFLOW FAIL INCRBY u2 3 1 GET u2 3";
    assert_eq!(run(overflow), "*3\r\n:3\r\n$-1\r\n:3\r\n");
    // Even a field that overflow leaves as it is makes room for itself; one that is read does not.
    assert_eq!(
        run("BITFIELD new OVERFLOW FAIL SET u1 15 2 GET u8 100"),
        "*2\r\n$-1\r\n:0\r\n"
    );
    assert_eq!(run("STRLEN new"), ":2\r\n");
    assert_eq!(run("BITFIELD_RO absent GET i64 0"), "*1\r\n:0\r\n");
    assert_eq!(run("EXISTS absent"), ":0\r\n");
    assert_eq!(
        run("BITFIELD_RO k SET u8 0 1"),
        "-ERR BITFIELD_RO only supports the GET subcommand\r\n"
    );
}
