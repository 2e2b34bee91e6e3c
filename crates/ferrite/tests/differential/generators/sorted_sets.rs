//! Sorted set commands. All scores are such that Redis before 7.2, which prints 17 digits, prints them as Redis does since then.
//! And none is -0: here that is 0. Ranges by member are asked for only where all scores are the same: of others Redis promises
//! nothing.

use super::Generator;
use super::keys::same_encoding;
use super::lists::timeout;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};
use crate::wire::Reply;

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("bzpopmin", |s| {
        command!["BZPOPMIN", s.zset_key(), s.zset_key(), timeout(s)]
    })
    .undistorted(),
    Generator::new("bzpopmax", |s| {
        command!["BZPOPMAX", s.zset_key(), timeout(s)]
    })
    .undistorted(),
    Generator::new("bzmpop", |s| {
        let count = s.random.between(1, 3);
        let mut command = command!["BZMPOP", timeout(s), count];
        for _ in 0..count {
            command.push(s.zset_key());
        }
        command.extend(command![s.word(&["MIN", "MAX", "LEFT"])]);
        if s.random.one_in(2) {
            command.extend(command!["COUNT", s.random.between(0, 9)]);
        }
        command
    })
    .undistorted(),
    Generator::new("zadd", |s| {
        let key = read_key(s);
        if s.random.one_in(25) && key.starts_with(b"z:") {
            s.refill_zset(key.clone());
        }
        let command = command!["ZADD", key];
        let command = s.with_options(command, &["NX", "XX", "gt", "LT", "CH"]);
        pairs(s, command)
    })
    .undistorted()
    .weight(8),
    Generator::new("zadd", |s| {
        let command = command!["ZADD", read_key(s), "INCR"];
        let mut command = s.with_options(command, &["NX", "XX", "GT", "LT", "ch"]);
        command.extend([score(s), s.element()]);
        if s.random.one_in(20) {
            command.extend([score(s), s.element()]);
        }
        command
    })
    .undistorted()
    .weight(2),
    Generator::new("zadd", |s| {
        let mut command = command!["ZADD", lex_key(s)];
        for _ in 0..s.random.between(1, 8) {
            command.extend([b"0".to_vec(), s.element()]);
        }
        command
    })
    .undistorted(),
    Generator::new("zincrby", |s| {
        command!["ZINCRBY", s.zset_key(), score(s), s.element()]
    })
    .undistorted()
    .weight(4),
    Generator::new("zrem", |s| {
        let key = read_key(s);
        s.with_elements(command!["ZREM", key])
    })
    .weight(3),
    Generator::new("zcard", |s| command!["ZCARD", read_key(s)]),
    Generator::new("zscore", |s| command!["ZSCORE", read_key(s), s.element()]).weight(3),
    Generator::new("zmscore", |s| {
        let key = read_key(s);
        s.with_elements(command!["ZMSCORE", key])
    }),
    Generator::new("zrank", |s| command!["ZRANK", read_key(s), s.element()])
        .undistorted()
        .weight(2),
    Generator::new("zrevrank", |s| {
        command!["ZREVRANK", read_key(s), s.element()]
    })
    .undistorted()
    .weight(2),
    Generator::new("zcount", |s| {
        command!["ZCOUNT", read_key(s), score_bound(s), score_bound(s)]
    })
    .weight(2),
    Generator::new("zlexcount", |s| {
        command!["ZLEXCOUNT", lex_key(s), lex_bound(s), lex_bound(s)]
    })
    .undistorted(),
    Generator::new("zrange", |s| range(s, "ZRANGE", None)).weight(6),
    Generator::new("zrevrange", |s| {
        let command = command!["ZREVRANGE", read_key(s), s.index(), s.index()];
        s.with_options(command, &["WithScores"])
    }),
    Generator::new("zrangebyscore", |s| by_score(s, "ZRANGEBYSCORE")).weight(2),
    Generator::new("zrevrangebyscore", |s| by_score(s, "ZREVRANGEBYSCORE")),
    Generator::new("zrangebylex", |s| by_lex(s, "ZRANGEBYLEX")).undistorted(),
    Generator::new("zrevrangebylex", |s| by_lex(s, "ZREVRANGEBYLEX")).undistorted(),
    Generator::new("zrangestore", |s| {
        let target = if s.random.one_in(4) {
            s.zset_key()
        } else {
            result_key(s)
        };
        range(s, "ZRANGESTORE", Some(target))
    })
    .weight(3),
    Generator::new("zremrangebyrank", |s| {
        command!["ZREMRANGEBYRANK", read_key(s), s.index(), s.index()]
    })
    .weight(2),
    Generator::new("zremrangebyscore", |s| {
        let (low, high) = (score_bound(s), score_bound(s));
        command!["ZREMRANGEBYSCORE", read_key(s), low, high]
    })
    .weight(2),
    Generator::new("zremrangebylex", |s| {
        command!["ZREMRANGEBYLEX", lex_key(s), lex_bound(s), lex_bound(s)]
    })
    .undistorted(),
    Generator::new("zpopmin", |s| pop(s, "ZPOPMIN")).weight(2),
    Generator::new("zpopmax", |s| pop(s, "ZPOPMAX")).weight(2),
    Generator::new("zmpop", |s| {
        let mut command = some_keys(s, command!["ZMPOP"]);
        command.push(s.word(&["MIN", "max", "MAX", "MID"]).encoded());
        if s.random.one_in(2) {
            command.extend(command!["COUNT", s.random.between(0, 9)]);
        }
        command
    })
    .weight(2),
    Generator::new("zrandmember", |s| {
        let mut command = command!["ZRANDMEMBER", read_key(s)];
        if !s.random.one_in(4) {
            command.push(s.random.between(-9, 9).encoded());
            if s.random.one_in(2) {
                command.push(b"WithScores".to_vec());
            }
        }
        command
    })
    .check(Check::Shape)
    .weight(2),
    Generator::new("zscan", |s| {
        let key = read_key(s);
        s.scan_elements("ZSCAN", key)
    })
    .check(Check::Scan)
    .undistorted(),
    Generator::new("zunion", |s| combined(s, "ZUNION", None))
        .check(Check::By(same_but_for_signs_of_zero))
        .undistorted()
        .weight(2),
    Generator::new("zinter", |s| combined(s, "ZINTER", None))
        .check(Check::By(same_but_for_signs_of_zero))
        .undistorted()
        .weight(2),
    Generator::new("zdiff", |s| combined(s, "ZDIFF", None)),
    Generator::new("zunionstore", |s| stored(s, "ZUNIONSTORE"))
        .undistorted()
        .weight(3),
    Generator::new("zinterstore", |s| stored(s, "ZINTERSTORE"))
        .undistorted()
        .weight(2),
    Generator::new("zdiffstore", |s| {
        let target = s.zset_key();
        combined(s, "ZDIFFSTORE", Some(target))
    })
    .weight(2),
    Generator::new("zintercard", |s| {
        let mut command = some_keys(s, command!["ZINTERCARD"]);
        if s.random.one_in(3) {
            command.extend(command!["LIMIT", s.random.between(-1, 5)]);
        }
        command
    }),
    Generator::new("object|encoding", |s| {
        command!["OBJECT", "ENCODING", read_key(s)]
    })
    .check(Check::By(same_encoding))
    .weight(2),
    Generator::new("debug|digest-value", |s| {
        command!["DEBUG", "DIGEST-VALUE", s.zset_key(), read_key(s)]
    })
    .weight(2),
    Generator::new("copy", |s| {
        command!["COPY", s.zset_key(), s.zset_key(), "REPLACE"]
    }),
    Generator::new("rename", |s| command!["RENAME", s.zset_key(), s.zset_key()]),
];

/// A key of a sorted set that is what was added to it, or the result of others.
fn read_key(s: &mut Source) -> Vec<u8> {
    if s.random.one_in(8) {
        result_key(s)
    } else {
        s.zset_key()
    }
}

/// A key of sorted sets that no other is made of, for scores to stay small.
fn result_key(s: &mut Source) -> Vec<u8> {
    format!("zr:{}", s.random.below(3)).into_bytes()
}

/// A key of a sorted set whose scores are all the same.
fn lex_key(s: &mut Source) -> Vec<u8> {
    format!("zl:{}", s.random.below(3)).into_bytes()
}

fn score(s: &mut Source) -> Vec<u8> {
    let text = match s.random.below(40) {
        0 => "inf",
        1 => "-inf",
        2 => "+Infinity",
        3 => "0x10",
        4 => "1e3",
        5 => "-.5",
        6 => "1e12",
        7 => s.word(&[
            "", "x", "nan", "-nan", " 1", "1 ", "1e400", "1e-400", "(1", "*",
        ]),
        8..16 => {
            let quarters = s.random.between(1, 400);
            return format!("{}", quarters as f64 / 4.0 - 50.0).into_bytes();
        }
        _ => return s.random.between(-12, 12).encoded(),
    };
    text.encoded()
}

fn score_bound(s: &mut Source) -> Vec<u8> {
    match s.random.below(12) {
        0 => b"-inf".to_vec(),
        1 => b"+inf".to_vec(),
        2 => s
            .word(&["", "(", " 3", "(inf", "(-inf", "1e400", "nan", "4 ", "-0"])
            .encoded(),
        3..6 => format!("({}", s.random.between(-13, 13)).into_bytes(),
        6 => s.float(),
        _ => s.random.between(-13, 13).encoded(),
    }
}

fn lex_bound(s: &mut Source) -> Vec<u8> {
    match s.random.below(8) {
        0 => b"-".to_vec(),
        1 => b"+".to_vec(),
        2 if s.random.one_in(4) => s.word(&["", "a", "(", "[", "-x", "+x", "1"]).encoded(),
        kind => {
            let mark = if kind % 2 == 0 { b"(" } else { b"[" };
            [mark.to_vec(), s.element()].concat()
        }
    }
}

/// `command` with one to five scores and members, now and then many.
fn pairs(s: &mut Source, mut command: Command) -> Command {
    let count = if s.random.one_in(60) {
        s.random.between(250, 700)
    } else {
        s.random.between(1, 5)
    };
    for _ in 0..count {
        let (score, member) = match count {
            6.. => (s.random.between(-9, 9), s.random.between(0, 2000).encoded()),
            _ => {
                command.push(score(s));
                command.push(s.element());
                continue;
            }
        };
        command.extend([score.encoded(), member]);
    }
    if s.random.one_in(40) {
        command.pop();
    }
    command
}

/// ZRANGE or ZRANGESTORE.
fn range(s: &mut Source, name: &str, target: Option<Vec<u8>>) -> Command {
    let mut command = command![name];
    let is_stored = target.is_some();
    command.extend(target);
    let by = s.random.below(4);
    match by {
        0 => {
            let bounds = [score_bound(s), score_bound(s)];
            command.push(read_key(s));
            command.extend(bounds);
            command.push(b"BYSCORE".to_vec());
        }
        1 => {
            command.push(lex_key(s));
            command.extend([lex_bound(s), lex_bound(s)]);
            command.push(b"bylex".to_vec());
        }
        _ => command.extend(command![read_key(s), s.index(), s.index()]),
    }
    if s.random.one_in(3) {
        command.push(b"REV".to_vec());
    }
    if s.random.one_in(if by < 2 { 3 } else { 20 }) {
        let (offset, count) = (s.random.between(-1, 5), s.random.between(-2, 6));
        command.extend(command!["LIMIT", offset, count]);
    }
    if s.random.one_in(if is_stored || by == 1 { 20 } else { 2 }) {
        command.push(b"WITHSCORES".to_vec());
    }
    command
}

fn by_score(s: &mut Source, name: &str) -> Command {
    let mut command = command![name, read_key(s), score_bound(s), score_bound(s)];
    if s.random.one_in(2) {
        command.push(b"withscores".to_vec());
    }
    with_limit(s, command)
}

fn by_lex(s: &mut Source, name: &str) -> Command {
    let command = command![name, lex_key(s), lex_bound(s), lex_bound(s)];
    with_limit(s, command)
}

fn with_limit(s: &mut Source, mut command: Command) -> Command {
    if s.random.one_in(3) {
        let (offset, count) = (s.random.between(-1, 5), s.random.between(-2, 6));
        command.extend(command!["Limit", offset, count]);
    }
    command
}

fn pop(s: &mut Source, name: &str) -> Command {
    let mut command = command![name, read_key(s)];
    if !s.random.one_in(3) {
        let count = if s.random.one_in(10) {
            s.integer()
        } else {
            s.random.between(0, 9)
        };
        command.push(count.encoded());
    }
    command
}

/// `command` with one to three keys behind their number.
fn some_keys(s: &mut Source, mut command: Command) -> Command {
    let count = s.random.between(1, 3);
    let shown = if s.random.one_in(25) {
        s.random.between(-1, 4)
    } else {
        count
    };
    command.push(shown.encoded());
    for _ in 0..count {
        let key = if s.random.one_in(5) {
            s.set_key()
        } else {
            s.zset_key()
        };
        command.push(key);
    }
    command
}

fn combined(s: &mut Source, name: &str, target: Option<Vec<u8>>) -> Command {
    let mut command = command![name];
    let is_stored = target.is_some();
    command.extend(target);
    let head = command.len();
    let mut command = some_keys(s, command);
    let keys = command.len() - head - 1;
    let combines = !name.starts_with("ZDIFF") || s.random.one_in(20);
    if combines && s.random.one_in(3) {
        command.push(b"WEIGHTS".to_vec());
        for _ in 0..keys {
            let weight = s.word(&["1", "2", "3", "5", "inf", "1.5", "x"]);
            command.push(weight.encoded());
        }
    }
    if combines && s.random.one_in(3) {
        let how = s.word(&["SUM", "min", "MAX", "MAX", "AVG"]);
        command.extend(command!["AGGREGATE", how]);
    }
    if s.random.one_in(if is_stored { 25 } else { 2 }) {
        command.push(b"WITHSCORES".to_vec());
    }
    command
}

/// A result that is stored under a key that is not among its sources; or under one of them, with scores that do not grow.
fn stored(s: &mut Source, name: &str) -> Command {
    if !s.random.one_in(3) {
        let target = result_key(s);
        return combined(s, name, Some(target));
    }
    let target = s.zset_key();
    let mut command = some_keys(s, command![name, target]);
    command.extend(command!["AGGREGATE", s.word(&["MIN", "MAX"])]);
    command
}

/// A weight of -0 makes a score of -0, which is 0 here.
fn same_but_for_signs_of_zero(ferrite: &Reply, oracle: &Reply) -> bool {
    if let (Some(ours), Some(theirs)) = (ferrite.elements(), oracle.elements()) {
        let mut pairs = ours.iter().zip(theirs);
        return ours.len() == theirs.len()
            && pairs.all(|(ours, theirs)| same_but_for_signs_of_zero(ours, theirs));
    }
    match (ferrite, oracle) {
        (Reply::Double(ours), Reply::Double(theirs)) | (Reply::Bulk(ours), Reply::Bulk(theirs)) => {
            ours == theirs || (ours == b"0" && theirs == b"-0")
        }
        _ => ferrite == oracle,
    }
}
