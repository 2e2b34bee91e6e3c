//! Numbers in strings. What INCRBYFLOAT prints is compared with a real server's where one is installed.

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Connection, Server};

#[test]
fn sums_print_as_the_extended_precision_of_redis() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (value, increment, sum) in [
        ("3.0", "1.1", "4.1"),
        ("10.50", "0.1", "10.6"),
        ("5.0e3", "2.0e2", "5200"),
        ("0.1", "0.2", "0.3"),
        ("1", "-1", "0"),
        ("-0.0", "-1e-18", "0"),
        ("0", "0.00000000000000001", "0.00000000000000001"),
        ("9223372036854775807", "0x10", "9223372036854775823"),
        ("17179869184.5", "1e-9", "17179869184.50000000186264515"),
        ("1e30", "1", "1000000000000000000024696061952"),
    ] {
        client.command(&["SET", "k", value]);
        let reply = client.command(&["INCRBYFLOAT", "k", increment]);
        assert_eq!(
            reply,
            format!("${}\r\n{sum}\r\n", sum.len()),
            "{value} + {increment}"
        );
        assert_eq!(client.command(&["GET", "k"]), reply);
    }
    let invalid = "-ERR value is not a valid float\r\n";
    for text in [
        "", " 1", "1 ", "1e", "0x", "nan", "1e5000", "1e-5000", "--1", "1.2.3",
    ] {
        assert_eq!(
            client.command(&["INCRBYFLOAT", "k", text]),
            invalid,
            "{text:?}"
        );
    }
    let infinite = "-ERR increment would produce NaN or Infinity\r\n";
    assert_eq!(client.command(&["INCRBYFLOAT", "k", "-inf"]), infinite);
    client.command(&["SET", "k", "1.1e4932"]);
    assert_eq!(client.command(&["INCRBYFLOAT", "k", "1.1e4932"]), infinite);
}

#[test]
fn integers_keep_their_bounds_and_their_expiry() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.command(&["SET", "k", "9223372036854775806", "EX", "100"]);
    assert_eq!(client.command(&["INCR", "k"]), ":9223372036854775807\r\n");
    assert_eq!(client.command(&["TTL", "k"]), ":100\r\n");
    let overflow = "-ERR increment or decrement would overflow\r\n";
    assert_eq!(client.command(&["INCR", "k"]), overflow);
    assert_eq!(client.command(&["DECRBY", "k", "-1"]), overflow);
    let negation = "-ERR decrement would overflow\r\n";
    assert_eq!(
        client.command(&["DECRBY", "k", "-9223372036854775808"]),
        negation
    );
    assert_eq!(
        client.command(&["INCRBYFLOAT", "k", "0"]),
        "$19\r\n9223372036854775807\r\n"
    );
    assert_eq!(client.command(&["TTL", "k"]), ":100\r\n");
    let invalid = "-ERR value is not an integer or out of range\r\n";
    for text in ["1.0", "01", "+1", " 1", "-0", "", "9223372036854775808"] {
        client.command(&["SET", "text", text]);
        assert_eq!(client.command(&["INCR", "text"]), invalid, "{text:?}");
        assert_eq!(client.command(&["INCRBY", "k", text]), invalid, "{text:?}");
    }
    assert_eq!(client.command(&["DECR", "absent"]), ":-1\r\n");
}

#[test]
fn random_sums_equal_those_of_a_real_server() {
    let Some((redis, port)) = start_redis() else {
        println!("skipped: no redis-server");
        return;
    };
    const SEED: u64 = 0x5EED_0003;
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let server = Server::start(&[]);
    let mut ours = server.connect();
    let mut theirs = Connection::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    for batch in 0..40 {
        let pairs: Vec<(String, String)> = (0..250)
            .map(|_| (random.number(), random.number()))
            .collect();
        for client in [&mut ours, &mut theirs] {
            let requests: Vec<u8> = pairs
                .iter()
                .flat_map(|(value, increment)| {
                    let set = common::encode(&["SET", "k", value]);
                    [set, common::encode(&["INCRBYFLOAT", "k", increment])].concat()
                })
                .collect();
            client.send(requests);
        }
        for pair in &pairs {
            for step in ["SET", "INCRBYFLOAT"] {
                assert_eq!(
                    ours.reply(),
                    theirs.reply(),
                    "{step} of {pair:?}, batch {batch}"
                );
            }
        }
    }
    drop(redis);
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn number(&mut self) -> String {
        let sign = ["", "-", "+"][self.below(3) as usize];
        let (whole, fraction) = (self.below(1 << 50), self.below(1 << 50));
        match self.below(8) {
            0 => format!("{sign}{}.{}", whole % 1000, fraction % 1000),
            1 => format!("{sign}{whole}.{fraction}"),
            2 => format!("{sign}{}", whole % 100),
            3 => format!("{sign}{whole}{fraction}"),
            4 => format!(
                "{sign}{}.{fraction}e{}",
                whole % 10,
                self.below(60) as i64 - 30
            ),
            5 => format!(
                "{sign}{}.{fraction}e{}",
                whole % 10,
                self.below(9990) as i64 - 4995
            ),
            6 => format!(
                "{sign}0x{whole:x}.{fraction:x}p{}",
                self.below(200) as i64 - 100
            ),
            _ => format!("{sign}.{fraction}5e-{}", self.below(20)),
        }
    }
}

/// A server that is stopped when dropped.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `redis-server` on a free port; `None` where it is not installed.
fn start_redis() -> Option<(Redis, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--dir", "/tmp"])
        .stdout(Stdio::null())
        .spawn()
        .ok()?;
    let redis = Redis(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !TcpStream::connect(("127.0.0.1", port))
        .is_ok_and(|mut stream| stream.write_all(b"PING\r\n").is_ok())
    {
        assert!(
            Instant::now() < deadline,
            "redis-server does not listen on port {port}"
        );
        std::thread::yield_now();
    }
    Some((redis, port))
}
