//! The parser against a real `redis-server`: the same bytes must be refused with the same error,
//! and understood as the same words. Skipped where no `redis-server` is installed.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::random::{self, Random};
use resp::{Authentication, Encoder, Limits, Parsed, RequestParser, skip_reply};

/// A server that is stopped, and whose directory is removed, when dropped.
struct Redis {
    process: Child,
    dir: PathBuf,
}

impl Redis {
    /// Starts a server with one more option; none if it is not installed.
    fn start(name: &str, option: &[&str]) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("resp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the server");
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", "redis.sock", "--save", ""])
            .args(option)
            .current_dir(&dir)
            .stdout(Stdio::piped())
            .spawn();
        let mut process = match spawned {
            Ok(process) => process,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                println!("skipped: no redis-server");
                std::fs::remove_dir_all(&dir).expect("remove the directory");
                return None;
            }
            Err(error) => panic!("redis-server does not start: {error}"),
        };
        let log = BufReader::new(process.stdout.take().expect("piped"));
        let redis = Self { process, dir };
        let is_ready = log
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("is now ready"));
        assert!(is_ready, "redis-server ended before it was ready");
        Some(redis)
    }

    /// All that the server replies to `request` until it closes the connection.
    fn replies(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.dir.join("redis.sock")).expect("connect");
        // The server may close before it has read everything: a failed write is no failure.
        let _ = stream
            .write_all(request)
            .and_then(|()| stream.shutdown(Shutdown::Write));
        let mut replies = Vec::new();
        match stream.read_to_end(&mut replies) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("read: {error}"),
            _ => replies,
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.kill().expect("stop redis-server");
        self.process.wait().expect("redis-server ends");
        std::fs::remove_dir_all(&self.dir).expect("remove the directory");
    }
}

/// The commands of `request`, and the protocol error that ends it, as our parser sees them.
fn parse(limits: Limits, request: &[u8]) -> (Vec<Vec<Vec<u8>>>, Option<Vec<u8>>) {
    let mut parser = RequestParser::new(limits);
    let mut buf = request.to_vec();
    let (mut args, mut start, mut commands) = (Vec::new(), 0, Vec::new());
    loop {
        match parser.parse(&mut buf, start, &mut args) {
            Ok(Parsed::Complete { end, args: range }) => {
                commands.push(
                    args[range]
                        .iter()
                        .map(|arg| arg.of(&buf).to_vec())
                        .collect(),
                );
                start = end;
            }
            Ok(Parsed::Incomplete { .. }) => return (commands, None),
            Err(error) => {
                let mut encoder = Encoder::default();
                error.encode(&mut encoder);
                return (commands, Some(encoder.as_bytes().to_vec()));
            }
        }
    }
}

/// Checks that the server replies once to each command that our parser finds, and then with our
/// parser's error, if it finds one. Returns whether it does.
fn assert_same(redis: &Redis, limits: Limits, request: &[u8], note: &str) -> bool {
    let (commands, error) = parse(limits, request);
    let replies = redis.replies(request);
    let mut rest = &replies[..];
    let shown = || {
        let (request, replies) = (request.escape_ascii(), replies.escape_ascii());
        format!("request {request}, replies {replies} {note}")
    };
    for _ in &commands {
        let size = skip_reply(rest).expect("valid reply");
        rest = &rest[size.unwrap_or_else(|| panic!("no reply to a command: {}", shown()))..];
    }
    let expected = error.clone().unwrap_or_default();
    assert_eq!(
        rest.escape_ascii().to_string(),
        expected.escape_ascii().to_string(),
        "{}",
        shown()
    );
    error.is_some()
}

#[test]
fn every_error_is_refused_by_redis_in_the_same_words() {
    let Some(redis) = Redis::start("errors", &[]) else {
        return;
    };
    let long = |prefix: &str, filler: &str| [prefix, &filler.repeat(65_536)].concat().into_bytes();
    let requests: Vec<Vec<u8>> = vec![
        b"*x\r\n".to_vec(),
        b"*2147483648\r\n".to_vec(),
        b"*1\r\n$x\r\n".to_vec(),
        b"*1\r\n$536870913\r\n".to_vec(),
        b"*1\r\nx\r\n".to_vec(),
        b"*1\r\n\xff\r\n".to_vec(),
        b"*1\r\n\r\n".to_vec(),
        b"PING \"\r\n".to_vec(),
        long("a", "a"),
        long("*", "1"),
        long("*1\r\n$", "1"),
    ];
    for request in requests {
        assert!(
            assert_same(&redis, Limits::default(), &request, ""),
            "no error"
        );
    }
}

#[test]
fn limits_before_authentication_are_those_of_redis() {
    let Some(redis) = Redis::start("unauthenticated", &["--requirepass", "secret"]) else {
        return;
    };
    let pending = Limits {
        authentication: Authentication::Pending,
        ..Limits::default()
    };
    for (request, is_error) in [
        ("*10\r\n$1\r\nx\r\n", false),
        ("*11\r\n", true),
        ("*2147483648\r\n", true),
        ("*1\r\n$16384\r\n", false),
        ("*1\r\n$16385\r\n", true),
        ("*1\r\n$536870913\r\n", true),
        ("a b c d e f g h i j k l m\r\n", false),
    ] {
        assert_eq!(
            assert_same(&redis, pending, request.as_bytes(), ""),
            is_error,
            "{request:?}"
        );
    }
}

#[test]
fn random_inline_words_are_those_that_redis_sees() {
    const PIECES: &[&str] = &[
        "a", "B", "\"", "'", "\\", "\\\"", "\\'", "\\x4a", "\\x", "\\n", "n", " ", "\t", "\x0b",
        "\r", "\"a b\"", "'c d'", "é",
    ];
    let Some(redis) = Redis::start("inline", &[]) else {
        return;
    };
    let seed = random::seed();
    let mut random = Random::new(seed);
    let mut echoed = 0;
    for _ in 0..2000 {
        let words: String = (0..random.below(8))
            .map(|_| PIECES[random.below(PIECES.len())])
            .collect();
        let request = format!("ECHO {words}\r\n").into_bytes();
        let note = format!("seed {seed}");
        assert_same(&redis, Limits::default(), &request, &note);
        if let (commands, None) = parse(Limits::default(), &request)
            && let [_, word] = &commands[0][..]
        {
            let mut expected = Encoder::default();
            expected.bulk(word);
            assert_eq!(
                redis.replies(&request),
                expected.as_bytes(),
                "{words:?}; {note}"
            );
            echoed += 1;
        }
    }
    assert!(
        echoed > 100,
        "only {echoed} lines had one word; {note}",
        note = seed
    );
}

#[test]
fn damaged_requests_are_understood_as_redis_does() {
    let Some(redis) = Redis::start("damaged", &[]) else {
        return;
    };
    let seed = random::seed();
    let mut random = Random::new(seed);
    let mut errors = 0;
    for _ in 0..2000 {
        let mut request = b"*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\n".repeat(2);
        for _ in 0..1 + random.below(3) {
            let at = random.below(request.len());
            match random.below(3) {
                0 => request[at] = b"*$\r\n0123456789-+ x\"\xff"[random.below(20)],
                1 => drop(request.remove(at)),
                _ => request.insert(at, b"*$\r\n0123456789-+ x\"\xff"[random.below(20)]),
            }
        }
        let note = format!("seed {seed}");
        errors += usize::from(assert_same(&redis, Limits::default(), &request, &note));
    }
    assert!(
        errors > 100,
        "only {errors} requests were refused; seed {seed}"
    );
}
