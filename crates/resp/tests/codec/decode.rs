//! The reply decoder: every type, every split, hostile input, and the encoder as its counterpart.

use crate::random::{self, Random};
use resp::{DecodeError, Encoder, Protocol, Reply, decode, skip_reply};

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

/// One reply of every type, with its bytes.
fn replies() -> Vec<(&'static [u8], Reply)> {
    let pairs = || vec![(bulk("a"), Reply::Integer(1)), (bulk("b"), Reply::Null)];
    vec![
        (b"+OK\r\n", Reply::Simple(b"OK".to_vec())),
        (b"-ERR no\xff\r\n", Reply::Error(b"ERR no\xff".to_vec())),
        (b"!7\r\nERR\r\nno\r\n", Reply::Error(b"ERR\r\nno".to_vec())),
        (b":-42\r\n", Reply::Integer(-42)),
        (b"$0\r\n\r\n", bulk("")),
        (b"$6\r\na\r\nb\0c\r\n", bulk("a\r\nb\0c")),
        (b"$-1\r\n", Reply::Null),
        (b"_\r\n", Reply::Null),
        (b"*-1\r\n", Reply::NullArray),
        (b"*0\r\n", Reply::Array(vec![])),
        (b"*2\r\n*1\r\n:1\r\n+x\r\n", {
            let inner = Reply::Array(vec![Reply::Integer(1)]);
            Reply::Array(vec![inner, Reply::Simple(b"x".to_vec())])
        }),
        (
            b"~2\r\n:1\r\n:2\r\n",
            Reply::Set(vec![Reply::Integer(1), Reply::Integer(2)]),
        ),
        (b">1\r\n$1\r\np\r\n", Reply::Push(vec![bulk("p")])),
        (
            b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n_\r\n",
            Reply::Map(pairs()),
        ),
        (
            b"|2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n_\r\n:9\r\n",
            Reply::Attributed {
                attributes: pairs(),
                reply: Box::new(Reply::Integer(9)),
            },
        ),
        (b",1.5e+3\r\n", Reply::Double(1500.0)),
        (b",-inf\r\n", Reply::Double(f64::NEG_INFINITY)),
        (b"#t\r\n", Reply::Boolean(true)),
        (b"#f\r\n", Reply::Boolean(false)),
        (b"(-123456789012345678901234567890\r\n", {
            Reply::BigNumber("-123456789012345678901234567890".to_owned())
        }),
        (
            b"=8\r\ntxt:a\r\nb\r\n",
            Reply::Verbatim {
                format: *b"txt",
                text: b"a\r\nb".to_vec(),
            },
        ),
    ]
}

#[test]
fn every_type_is_decoded_and_skipped_when_complete_and_not_before() {
    for (bytes, reply) in replies() {
        for len in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..len]),
                Ok(None),
                "{} bytes of {reply:?}",
                len
            );
            assert_eq!(
                skip_reply(&bytes[..len]),
                Ok(None),
                "{} bytes of {reply:?}",
                len
            );
        }
        let followed = [bytes, b"+next\r\n"].concat();
        assert_eq!(skip_reply(&followed), Ok(Some(bytes.len())), "{reply:?}");
        assert_eq!(decode(&followed), Ok(Some((reply, bytes.len()))));
    }
}

#[test]
fn bytes_that_are_no_reply_are_refused() {
    let cases: [(&[u8], DecodeError); 20] = [
        (b"x", DecodeError::UnknownType(b'x')),
        (b"\r\n", DecodeError::UnknownType(b'\r')),
        (b"*1\r\n?\r\n", DecodeError::UnknownType(b'?')),
        (b"+OK\rx", DecodeError::MissingLineEnd(b'+')),
        (b"$1\r\naxx", DecodeError::MissingLineEnd(b'$')),
        (b"$-2\r\n", DecodeError::InvalidLength(b'$')),
        (b"$?\r\n", DecodeError::InvalidLength(b'$')),
        (
            b"$99999999999999999999\r\n",
            DecodeError::InvalidLength(b'$'),
        ),
        (b"*-2\r\n", DecodeError::InvalidLength(b'*')),
        (b"*2147483648\r\n", DecodeError::InvalidLength(b'*')),
        (b"%-1\r\n", DecodeError::InvalidLength(b'%')),
        (b"~?\r\n", DecodeError::InvalidLength(b'~')),
        (b":1.5\r\n", DecodeError::InvalidValue(b':')),
        (b":\r\n", DecodeError::InvalidValue(b':')),
        (b"_x\r\n", DecodeError::InvalidValue(b'_')),
        (b"#x\r\n", DecodeError::InvalidValue(b'#')),
        (b",one\r\n", DecodeError::InvalidValue(b',')),
        (b"(1.5\r\n", DecodeError::InvalidValue(b'(')),
        (b"(-\r\n", DecodeError::InvalidValue(b'(')),
        (b"=3\r\ntxt\r\n", DecodeError::InvalidValue(b'=')),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(bytes), Err(error), "{}", bytes.escape_ascii());
        assert_eq!(skip_reply(bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

#[test]
fn nesting_is_bounded_for_decode_and_free_for_skip() {
    let nested = |marks: &str, depth: usize| [marks.repeat(depth).as_bytes(), b":1\r\n"].concat();
    for marks in ["*1\r\n", "|0\r\n", "%1\r\n:1\r\n"] {
        let deepest = nested(marks, 128);
        assert_eq!(decode(&deepest).map(|found| found.map(|(_, size)| size)), {
            Ok(Some(deepest.len()))
        });
        assert_eq!(decode(&nested(marks, 129)), Err(DecodeError::TooDeep));
        let very_deep = nested(marks, 1_000_000);
        assert_eq!(decode(&very_deep), Err(DecodeError::TooDeep));
        assert_eq!(skip_reply(&very_deep), Ok(Some(very_deep.len())));
    }
}

#[test]
fn announced_lengths_take_no_memory() {
    for header in [
        "*2147483647\r\n",
        "%2147483647\r\n",
        "$9223372036854775807\r\n",
    ] {
        let bytes = header.repeat(100);
        assert_eq!(decode(bytes.as_bytes()), Ok(None));
        assert_eq!(skip_reply(bytes.as_bytes()), Ok(None));
    }
}

#[test]
fn what_the_encoder_writes_is_what_is_decoded() {
    let mut encoder = Encoder::new(Protocol::Resp3);
    encoder.map(2);
    encoder.simple("doubles");
    encoder.array(2);
    encoder.double(0.1);
    encoder.double(f64::INFINITY);
    encoder.bulk(b"rest");
    encoder.set(5);
    encoder.null();
    encoder.boolean(true);
    encoder.big_number("123");
    encoder.verbatim("mkd", b"*hi*");
    encoder.error("ERR no");
    let (reply, size) = decode(encoder.as_bytes())
        .expect("valid")
        .expect("complete");
    assert_eq!(size, encoder.len());
    let shown = format!("{reply:?}");
    assert_eq!(
        shown,
        "Map([(Simple(\"doubles\"), Array([Double(0.1), Double(inf)])), (Bulk(\"rest\"), \
         Set([Null, Boolean(true), BigNumber(123), Verbatim(mkd, \"*hi*\"), Error(\"ERR no\")]))])"
    );
}

/// Damaged replies: no panic, and `skip_reply` agrees with `decode`.
#[test]
fn hostile_input_neither_panics_nor_divides_decode_and_skip() {
    let seed = random::seed();
    let mut random = Random::new(seed);
    let replies = replies();
    let (mut decoded, mut refused) = (0, 0);
    for _ in 0..50_000 {
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(4) {
            bytes.extend_from_slice(replies[random.below(replies.len())].0);
        }
        for _ in 0..random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] = b"*$%~|0123456789-\r\n"[random.below(18)],
                _ => bytes.truncate(at + 1),
            }
        }
        let size = decode(&bytes).map(|found| found.map(|(_, size)| size));
        assert_eq!(
            size,
            skip_reply(&bytes),
            "{}; seed {seed}",
            bytes.escape_ascii()
        );
        decoded += usize::from(matches!(size, Ok(Some(_))));
        refused += usize::from(size.is_err());
    }
    assert!(
        decoded > 1000 && refused > 1000,
        "{decoded} decoded, {refused} refused; seed {seed}"
    );
}
