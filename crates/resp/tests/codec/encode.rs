//! The exact bytes of every kind of reply, in both protocols.

use crate::random::{self, Random};
use resp::{Encoder, Protocol, append_double, append_integer, parse_integer};

/// What `write` makes a new encoder write in RESP2 and in RESP3.
fn encoded(write: impl Fn(&mut Encoder)) -> [String; 2] {
    [Protocol::Resp2, Protocol::Resp3].map(|protocol| {
        let mut encoder = Encoder::new(protocol);
        write(&mut encoder);
        encoder.as_bytes().escape_ascii().to_string()
    })
}

#[test]
fn replies_that_are_the_same_in_both_protocols() {
    let same = |write: fn(&mut Encoder), bytes: &str| {
        assert_eq!(encoded(write), [bytes, bytes]);
    };
    same(Encoder::ok, r"+OK\r\n");
    same(|e| e.simple("PONG"), r"+PONG\r\n");
    same(|e| e.integer(0), r":0\r\n");
    same(|e| e.integer(i64::MIN), r":-9223372036854775808\r\n");
    same(|e| e.bulk(b""), r"$0\r\n\r\n");
    same(|e| e.bulk(b"a\r\n\0\xff"), r"$5\r\na\r\n\x00\xff\r\n");
    same(|e| e.array(0), r"*0\r\n");
    same(|e| e.array(10), r"*10\r\n");
    same(|e| e.array(12345), r"*12345\r\n");
    same(|e| e.error("WRONGTYPE bad"), r"-WRONGTYPE bad\r\n");
    same(|e| e.error("ERR a\r\nb\nc\r\n"), r"-ERR a  b c\r\n");
    same(|e| e.error_bytes(b"ERR \xff"), r"-ERR \xff\r\n");
    same(|e| e.error(""), r"-\r\n");
    same(|e| e.raw(b"+as is\r\n"), r"+as is\r\n");
}

#[test]
fn replies_that_differ_between_the_protocols() {
    assert_eq!(encoded(Encoder::null), [r"$-1\r\n", r"_\r\n"]);
    assert_eq!(encoded(Encoder::null_array), [r"*-1\r\n", r"_\r\n"]);
    assert_eq!(encoded(|e| e.map(3)), [r"*6\r\n", r"%3\r\n"]);
    assert_eq!(encoded(|e| e.set(3)), [r"*3\r\n", r"~3\r\n"]);
    assert_eq!(encoded(|e| e.push(3)), [r"*3\r\n", r">3\r\n"]);
    assert_eq!(encoded(|e| e.boolean(true)), [r":1\r\n", r"#t\r\n"]);
    assert_eq!(encoded(|e| e.boolean(false)), [r":0\r\n", r"#f\r\n"]);
    assert_eq!(encoded(|e| e.double(1.5)), [r"$3\r\n1.5\r\n", r",1.5\r\n"]);
    assert_eq!(
        encoded(|e| e.big_number("-12")),
        [r"$3\r\n-12\r\n", r"(-12\r\n"]
    );
    assert_eq!(
        encoded(|e| e.verbatim("txt", b"hi")),
        [r"$2\r\nhi\r\n", r"=6\r\ntxt:hi\r\n"]
    );

    let mut encoder = Encoder::new(Protocol::Resp3);
    encoder.attribute(1);
    assert_eq!(encoder.as_bytes(), b"|1\r\n");
}

#[test]
fn a_bulk_of_every_length_has_the_right_header() {
    for len in (0..300).chain([999, 1000, 65_535, 65_536, 1_000_000]) {
        let value = vec![b'v'; len];
        let mut encoder = Encoder::default();
        encoder.bulk(&value);
        let expected = [format!("${len}\r\n").as_bytes(), &value, b"\r\n"].concat();
        assert!(encoder.as_bytes() == expected, "bulk of {len} bytes");

        encoder.truncate(0);
        encoder.bulk_header(len);
        encoder.buffer_mut().extend_from_slice(&value);
        encoder.bulk_end();
        assert!(
            encoder.as_bytes() == expected,
            "streamed bulk of {len} bytes"
        );
    }
}

#[test]
fn truncate_takes_back_only_what_came_after() {
    let mut encoder = Encoder::default();
    encoder.ok();
    let before = encoder.len();
    encoder.array(2);
    encoder.bulk(b"first");
    encoder.truncate(before);
    encoder.error("ERR no");
    assert_eq!(encoder.as_bytes(), b"+OK\r\n-ERR no\r\n");
}

#[test]
fn integers_are_printed_and_read_back() {
    let mut values = vec![0, i64::MAX, i64::MIN];
    for exponent in 0..19 {
        let power = 10i64.pow(exponent);
        values.extend([power - 1, power, power + 1, -power, 1 - power, -1 - power]);
    }
    for value in values {
        let mut text = b"before ".to_vec();
        append_integer(&mut text, value);
        assert_eq!(text, format!("before {value}").as_bytes());
        assert_eq!(parse_integer(&text[7..]), Some(value));
    }
}

#[test]
fn integers_are_read_as_strictly_as_redis_does() {
    let refused = [
        "",
        "-",
        "+1",
        "01",
        "-01",
        "-0",
        "00",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "0x1",
        "--1",
        "1\0",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "99999999999999999999",
    ];
    for text in refused {
        assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
    }
}

/// The right-hand sides are replies of a real Valkey 9.1, which prints as Redis 7.2 does.
#[test]
fn doubles_are_printed_as_redis_prints_them() {
    let expected = [
        (0.1, "0.1"),
        (3.0, "3"),
        (-3.0, "-3"),
        (-0.0, "-0"),
        (1e7, "10000000"),
        (1e17, "100000000000000000"),
        (1.5e17, "150000000000000000"),
        (4611686018427387904.0, "4611686018427387904"),
        (4.7e18, "4.7e+18"),
        (4611686018427388928.0, "4611686018427389000"),
        (-4.7e18, "-4.7e+18"),
        (1e20, "1e+20"),
        (1e21, "1e+21"),
        (1.2e22, "1.2e+22"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-7, "1.5e-7"),
        (1.234e-5, "1.234e-5"),
        (0.0000123456789, "1.23456789e-5"),
        (0.000999, "0.000999"),
        (1.1e-10, "1.1e-10"),
        (f64::MAX, "1.7976931348623157e+308"),
        (1.23456789011e19, "1.23456789011e+19"),
        (1.234567890123e19, "12345678901230000000"),
        (5e-324, "5e-324"),
        (123.456, "123.456"),
        (1234567.891, "1234567.891"),
        (12345678901.25, "12345678901.25"),
        (2.5e-3, "0.0025"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
    ];
    for (value, text) in expected {
        let mut printed = Vec::new();
        append_double(&mut printed, value);
        assert_eq!(printed.escape_ascii().to_string(), text);
    }
}

#[test]
fn doubles_read_back_as_the_same_double() {
    let seed = random::seed();
    let mut random = Random::new(seed);
    for _ in 0..20_000 {
        let value = f64::from_bits(random.next());
        if value.is_nan() {
            continue;
        }
        let mut printed = Vec::new();
        append_double(&mut printed, value);
        let text = String::from_utf8(printed).expect("ASCII");
        let read: f64 = text.parse().expect("a number");
        assert_eq!(read.to_bits(), value.to_bits(), "{text}; seed {seed}");
    }
}
