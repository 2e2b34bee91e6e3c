//! The request parser: exact results, every split into reads, limits, hostile input.

use crate::random::{self, Random};
use resp::{ArgRange, Authentication, Encoder, Limits, Parsed, ProtocolError, RequestParser};

type Command = Vec<Vec<u8>>;
type Outcome = (Vec<Command>, Option<ProtocolError>);

/// A connection as a server keeps it: a read buffer, a parser, and what came out so far.
struct Connection {
    buf: Vec<u8>,
    parser: RequestParser,
    commands: Vec<Command>,
    error: Option<ProtocolError>,
}

impl Connection {
    fn new(limits: Limits) -> Self {
        let parser = RequestParser::new(limits);
        Self {
            buf: Vec::new(),
            parser,
            commands: Vec::new(),
            error: None,
        }
    }

    /// Receives one read's worth of bytes and parses all that is complete.
    fn receive(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        self.buf.extend_from_slice(bytes);
        let mut args: Vec<ArgRange> = Vec::new();
        let mut start = 0;
        loop {
            match self.parser.parse(&mut self.buf, start, &mut args) {
                Ok(Parsed::Complete { end, args: range }) => {
                    let command = args[range].iter().map(|arg| arg.of(&self.buf).to_vec());
                    self.commands.push(command.collect());
                    start = end;
                }
                Ok(Parsed::Incomplete { keep_from, need }) => {
                    assert!(need > 0);
                    self.buf.drain(..keep_from);
                    return;
                }
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    fn outcome(self) -> Outcome {
        (self.commands, self.error)
    }
}

fn parse_in_reads<'a>(limits: Limits, reads: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut connection = Connection::new(limits);
    reads.into_iter().for_each(|read| connection.receive(read));
    connection.outcome()
}

fn parse(bytes: &[u8]) -> Outcome {
    parse_in_reads(Limits::default(), [bytes])
}

fn command(words: &[&str]) -> Command {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn error_of(bytes: &[u8]) -> ProtocolError {
    let (commands, error) = parse(bytes);
    assert_eq!(commands, Vec::<Command>::new());
    error.unwrap_or_else(|| panic!("no error for {}", bytes.escape_ascii()))
}

/// Requests of every shape; each is parsed whole and in pieces by the tests below.
const REQUESTS: &[&[u8]] = &[
    b"*1\r\n$4\r\nPING\r\n",
    b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\nhello\r\nworld\r\n",
    b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nECHO \"in line\"\r\n*1\r\n$4\r\nPING\r\n",
    b"*0\r\n*-1\r\n\r\n\n   \r\n*1\r\n$4\r\nPING\r\n",
    b"PING\n\r\nECHO 'a b' \"\\x41\\n\\\"\" c\"d e\"\r\n",
    b"*2\r\n$3\r\nGET\r\n$abc\r\n",
    b"*2\r\n$3\r\nGET\r\n+abc\r\n",
    b"*2x\r\n",
    b"PING\r\nECHO 'a\r\n",
    b"*1\rx$4\rxPINGxxPING\r\n",
    b"*12\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n$1\r\n7\r\n\
      $1\r\n8\r\n$1\r\n9\r\n$2\r\n10\r\n$11\r\nabcdefghijk\r\n",
];

#[test]
fn a_pipeline_becomes_a_batch_of_ranges() {
    let (commands, error) = parse(REQUESTS[2]);
    let expected = [
        &["PING"][..],
        &["GET", "a"],
        &["ECHO", "in line"],
        &["PING"],
    ]
    .map(command);
    assert_eq!((commands, error), (expected.to_vec(), None));
}

#[test]
fn arguments_may_hold_any_bytes() {
    let (commands, error) = parse(b"*2\r\n$0\r\n\r\n$6\r\n\0\r\n\xff*1\r\n");
    assert_eq!(
        (commands, error),
        (vec![vec![vec![], b"\0\r\n\xff*1".to_vec()]], None)
    );
}

#[test]
fn empty_commands_are_passed_over_and_let_go_of() {
    for bytes in [
        &b"*0\r\n"[..],
        b"*-1\r\n",
        b"*-9223372036854775808\r\n",
        b"\r\n",
        b"\n",
        b" \n",
    ] {
        let mut buf = bytes.to_vec();
        let parsed = RequestParser::default().parse(&mut buf, 0, &mut Vec::new());
        assert_eq!(
            parsed,
            Ok(Parsed::Incomplete {
                keep_from: bytes.len(),
                need: 1
            })
        );
        buf.extend_from_slice(b"PING\r\n");
        assert_eq!(parse(&buf), (vec![command(&["PING"])], None));
    }
}

#[test]
fn every_split_into_two_or_into_single_bytes_gives_the_same_result() {
    for request in REQUESTS {
        let whole = parse(request);
        assert_ne!(whole, (Vec::new(), None), "{}", request.escape_ascii());
        for split in 0..=request.len() {
            let (head, tail) = request.split_at(split);
            let in_two = parse_in_reads(Limits::default(), [head, tail]);
            assert_eq!(in_two, whole, "{} split at {split}", request.escape_ascii());
        }
        let in_bytes = parse_in_reads(Limits::default(), request.chunks(1));
        assert_eq!(in_bytes, whole, "{} byte by byte", request.escape_ascii());
    }
}

#[test]
fn an_unfinished_command_leaves_nothing_in_the_batch_and_may_move() {
    let mut buf = b"PING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva".to_vec();
    let mut parser = RequestParser::default();
    let mut args = Vec::new();
    let ping = parser.parse(&mut buf, 0, &mut args);
    assert_eq!(ping, Ok(Parsed::Complete { end: 6, args: 0..1 }));
    let set = parser.parse(&mut buf, 6, &mut args);
    assert_eq!(
        set,
        Ok(Parsed::Incomplete {
            keep_from: 6,
            need: 5
        })
    );
    assert_eq!(args.len(), 1);

    let mut moved = b"another place: ".to_vec();
    let start = moved.len();
    moved.extend_from_slice(&buf[6..]);
    moved.extend_from_slice(b"lue\r\n");
    let set = parser.parse(&mut moved, start, &mut args);
    assert_eq!(
        set,
        Ok(Parsed::Complete {
            end: moved.len(),
            args: 1..4
        })
    );
    let words: Vec<_> = args[1..].iter().map(|arg| arg.of(&moved)).collect();
    assert_eq!(words, [&b"SET"[..], b"k", b"value"]);
}

#[test]
fn need_is_what_the_bulk_lacks() {
    let mut buf = b"*1\r\n$1000000\r\nabc".to_vec();
    let mut parser = RequestParser::default();
    let parsed = parser.parse(&mut buf, 0, &mut Vec::new());
    assert_eq!(
        parsed,
        Ok(Parsed::Incomplete {
            keep_from: 0,
            need: 1_000_000 + 2 - 3
        })
    );
}

/// Half a million arguments in reads of 100 bytes, then a long bulk in reads of one byte: minutes
/// if any read looked again at what earlier reads brought.
#[test]
fn work_is_linear_however_small_the_reads() {
    const ARGS: usize = 500_000;
    let mut request = format!("*{ARGS}\r\n").into_bytes();
    request.extend_from_slice(&b"$1\r\nx\r\n".repeat(ARGS));
    request.extend_from_slice(b"*1\r\n$1000000\r\n");
    request.extend_from_slice(&vec![b'v'; 1_000_000]);
    request.extend_from_slice(b"\r\n");
    let split = request.len() - 1_000_000;

    let mut parser = RequestParser::default();
    let (mut args, mut start, mut counts) = (Vec::new(), 0, Vec::new());
    let reads = (100..split).step_by(100).chain(split..=request.len());
    for received in reads {
        match parser.parse(&mut request[..received], start, &mut args) {
            Ok(Parsed::Complete { end, args }) => {
                start = end;
                counts.push(args.len());
            }
            Ok(Parsed::Incomplete { keep_from, .. }) => start = keep_from,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(counts, [ARGS, 1]);
}

#[test]
fn inline_words_are_unescaped() {
    let words = |line: &str, expected: &[&str]| {
        let (commands, error) = parse(format!("{line}\r\n").as_bytes());
        assert_eq!((commands, error), (vec![command(expected)], None), "{line}");
    };
    words("SET key value", &["SET", "key", "value"]);
    words(
        " \t SET\x0b \x0c key\t\tvalue  ",
        &["SET\x0b", "key", "value"],
    );
    words(r#"a "b c" 'd e'"#, &["a", "b c", "d e"]);
    words(r#""" ''"#, &["", ""]);
    words(
        r#""\x41\x7a\x4A\n\r\t\b\a\q\"\\ \xzz \x4""#,
        &["AzJ\n\r\t\x08\x07q\"\\ xzz x4"],
    );
    words(r#"'a\'b\n"'"#, &["a'b\\n\""]);
    words(r#"foo"bar baz" x'y z'"#, &["foobar baz", "xy z"]);
    words(r"a\x41 b\n", &["a\\x41", "b\\n"]);
    words("a\rb", &["a", "b"]);
    words("\"a\rb\"", &["a\rb"]);
    words("a\0b", &["a\0b"]);
}

#[test]
fn unbalanced_quotes_are_refused() {
    for line in [
        r#""a b"#, "'a b", r#""a"b"#, "'a'b", r#"a"b"c"#, r#""a\"#, r#""a\""#, r"'a\'",
    ] {
        let request = format!("SET {line}\r\n");
        assert_eq!(
            error_of(request.as_bytes()),
            ProtocolError::UnbalancedQuotes,
            "{line}"
        );
    }
}

#[test]
fn lengths_that_are_no_lengths_are_refused() {
    for count in [
        "",
        "abc",
        " 1",
        "+1",
        "01",
        "-0",
        "1\n",
        "2147483648",
        "9223372036854775808",
    ] {
        let request = format!("*{count}\r\n");
        let error = error_of(request.as_bytes());
        assert_eq!(error, ProtocolError::InvalidMultibulkLength, "{request:?}");
    }
    for len in [
        "",
        "abc",
        "-1",
        "+1",
        "01",
        "-0",
        "536870913",
        "9223372036854775807",
    ] {
        let request = format!("*1\r\n${len}\r\n");
        assert_eq!(
            error_of(request.as_bytes()),
            ProtocolError::InvalidBulkLength,
            "{request:?}"
        );
    }
    assert_eq!(error_of(b"*1\r\n:1\r\n"), ProtocolError::ExpectedBulk(b':'));
    assert_eq!(
        error_of(b"*1\r\n\xff\r\n"),
        ProtocolError::ExpectedBulk(0xff)
    );
    for accepted in ["*2147483647\r\n", "*1\r\n$536870912\r\n"] {
        assert_eq!(parse(accepted.as_bytes()), (Vec::new(), None));
    }
}

#[test]
fn lines_longer_than_64_kib_are_refused_whether_or_not_they_end() {
    const LIMIT: usize = 64 * 1024;
    let cases = [
        ("", 'a', ProtocolError::TooBigInlineRequest, '\n'),
        ("*", '1', ProtocolError::TooBigMultibulkCount, '\r'),
        ("*1\r\n$", '1', ProtocolError::TooBigBulkCount, '\r'),
    ];
    for (prefix, filler, too_big, end) in cases {
        let line_start = prefix.len().saturating_sub(1);
        let line = |len: usize| {
            let fillers = len + line_start - prefix.len();
            format!("{prefix}{}", String::from(filler).repeat(fillers))
        };
        assert_eq!(
            parse(line(LIMIT).as_bytes()),
            (Vec::new(), None),
            "{too_big}"
        );
        assert_ne!(
            parse(format!("{}{end}\n", line(LIMIT)).as_bytes()).1,
            Some(too_big)
        );
        assert_eq!(error_of(line(LIMIT + 1).as_bytes()), too_big);
        assert_eq!(
            error_of(format!("{}{end}\n", line(LIMIT + 1)).as_bytes()),
            too_big
        );
    }
}

#[test]
fn limits_can_be_set_and_are_tighter_before_authentication() {
    let pending = Limits {
        authentication: Authentication::Pending,
        ..Limits::default()
    };
    let error = |limits, request: &str| parse_in_reads(limits, [request.as_bytes()]).1;
    assert_eq!(error(pending, "*10\r\n$16384\r\n"), None);
    let too_many = Some(ProtocolError::UnauthenticatedMultibulkLength);
    assert_eq!(error(pending, "*11\r\n"), too_many);
    let too_long = Some(ProtocolError::UnauthenticatedBulkLength);
    assert_eq!(error(pending, "*1\r\n$16385\r\n"), too_long);

    let small = Limits {
        max_bulk_bytes: 5,
        max_args: 2,
        ..Limits::default()
    };
    assert_eq!(error(small, "*2\r\n$5\r\n"), None);
    assert_eq!(
        error(small, "*3\r\n"),
        Some(ProtocolError::InvalidMultibulkLength)
    );
    assert_eq!(
        error(small, "*2\r\n$6\r\n"),
        Some(ProtocolError::InvalidBulkLength)
    );

    let mut connection = Connection::new(pending);
    connection.receive(b"AUTH secret\r\n");
    connection.parser.set_limits(Limits::default());
    connection.receive(b"*11\r\n");
    assert_eq!(
        connection.outcome(),
        (vec![command(&["AUTH", "secret"])], None)
    );
}

#[test]
fn errors_are_replied_in_the_words_of_redis() {
    let reply = |error: ProtocolError| {
        let mut encoder = Encoder::default();
        error.encode(&mut encoder);
        encoder.as_bytes().escape_ascii().to_string()
    };
    assert_eq!(
        reply(ProtocolError::UnauthenticatedMultibulkLength),
        r"-ERR Protocol error: unauthenticated multibulk length\r\n"
    );
    let expected_bulk = |byte| reply(ProtocolError::ExpectedBulk(byte));
    assert_eq!(
        expected_bulk(0xff),
        r"-ERR Protocol error: expected \'$\', got \'\xff\'\r\n"
    );
    assert_eq!(
        expected_bulk(b'\r'),
        r"-ERR Protocol error: expected \'$\', got \' \'\r\n"
    );
}

/// Random bytes, likely to be nearly right: no panic, and the split into reads does not matter.
#[test]
fn hostile_input_neither_panics_nor_depends_on_the_reads() {
    const PIECES: &[&[u8]] = &[
        b"*",
        b"$",
        b"\r\n",
        b"\r",
        b"\n",
        b"0",
        b"1",
        b"2",
        b"3",
        b"-",
        b"*1\r\n",
        b"*2\r\n",
        b"$1\r\n",
        b"$3\r\n",
        b"a",
        b"GET",
        b" ",
        b"\"",
        b"'",
        b"\\x4",
        b"\\",
        b"\0",
        b"\xff",
        b"$4294967297\r\n",
        b"*2147483647\r\n",
        b"$536870912\r\n",
    ];
    let seed = random::seed();
    let mut random = Random::new(seed);
    let mut complete = 0;
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..random.below(30) {
            bytes.extend_from_slice(PIECES[random.below(PIECES.len())]);
        }
        let whole = parse(&bytes);
        let read_len = 1 + random.below(5);
        let in_reads = parse_in_reads(Limits::default(), bytes.chunks(read_len));
        assert_eq!(in_reads, whole, "{}; seed {seed}", bytes.escape_ascii());
        complete += whole.0.len();
    }
    assert!(
        complete > 1000,
        "only {complete} commands: the input is no test; seed {seed}"
    );
}
