//! Sorted sets: what is not compared with a real server elsewhere: what Redis 7.0 does not have or does otherwise, large ones
//! against a model, restarts, and all of it from the disk.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Connection, Server, check};

const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// The bulk strings of the reply to `command`, in its order.
fn strings(client: &mut Connection, command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let reply = client.command(&words);
    let lines = reply.split("\r\n").skip(1);
    let bulks = lines.filter(|line| !line.is_empty() && !line.starts_with(['$', '*']));
    bulks.map(str::to_owned).collect()
}

/// ZADD of these members with these scores.
fn add(client: &mut Connection, key: &str, pairs: impl Iterator<Item = (i64, String)>) {
    let pairs: Vec<_> = pairs.collect();
    for pairs in pairs.chunks(500) {
        let mut words = vec!["ZADD".to_owned(), key.to_owned()];
        for (score, member) in pairs {
            words.extend([score.to_string(), member.clone()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        client.command(&words);
    }
}

/// `prefix` with the numbers below `count`, each with its number as score.
fn fill(client: &mut Connection, key: &str, prefix: &str, count: i64) {
    add(client, key, (0..count).map(|i| (i, format!("{prefix}{i}"))));
}

#[test]
fn encodings_follow_the_limits_and_never_go_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let encoding = |client: &mut Connection, key: &str, expected: &str| {
        check(
            client,
            &format!("OBJECT ENCODING {key}"),
            &format!("$8 {expected}"),
        );
    };
    fill(&mut client, "z", "m", 128);
    encoding(&mut client, "z", "listpack");
    check(&mut client, "ZADD z 7 m1", ":0");
    encoding(&mut client, "z", "listpack");
    check(&mut client, "ZADD z 7 m128", ":1");
    encoding(&mut client, "z", "skiplist");
    check(&mut client, "ZREM z m128", ":1");
    encoding(&mut client, "z", "skiplist");
    check(&mut client, "ZRANGESTORE y z 0 -1", ":128");
    encoding(&mut client, "y", "listpack");
    check(&mut client, "ZUNIONSTORE y 1 z", ":128");
    encoding(&mut client, "y", "listpack");
    let (just, long) = ("x".repeat(64), "x".repeat(65));
    check(&mut client, &format!("ZADD words 1 a 2 {just}"), ":2");
    encoding(&mut client, "words", "listpack");
    check(&mut client, &format!("ZADD words 1 {long}"), ":1");
    encoding(&mut client, "words", "skiplist");
    check(&mut client, "ZDIFFSTORE y 1 words", ":3");
    encoding(&mut client, "y", "skiplist");
    check(&mut client, &format!("ZADD y2 1 {long}"), ":1");
    encoding(&mut client, "y2", "skiplist");

    // As Redis since 7.2: what a sorted set is made for counts, even if a member comes twice.
    check(&mut client, "CONFIG SET zset-max-ziplist-entries 2", "+OK");
    check(&mut client, "ZADD three 1 a 2 b 3 a", ":2");
    encoding(&mut client, "three", "skiplist");
    check(&mut client, "ZADD two 1 a 2 b", ":2");
    encoding(&mut client, "two", "listpack");
    check(&mut client, "CONFIG SET zset-max-listpack-entries 0", "+OK");
    check(&mut client, "ZADD none 1 a", ":1");
    encoding(&mut client, "none", "skiplist");
    check(&mut client, "ZSCAN none 0", "*2 $1 0 *2 $1 a $1 1");
}

#[test]
fn scores_are_printed_as_since_redis_7_2() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    check(&mut client, "ZADD z 0.1 a 3.14 b 1e20 c -0 d", ":4");
    check(&mut client, "ZSCORE z a", "$3 0.1");
    check(&mut client, "ZINCRBY z 0.2 a", "$19 0.30000000000000004");
    check(
        &mut client,
        "ZRANGE z 0 -1 WITHSCORES",
        "*8 $1 d $1 0 $1 a $19 0.30000000000000004 $1 b $4 3.14 $1 c $5 1e+20",
    );
    // 0 and -0 are the same score.
    check(&mut client, "ZADD z CH 0 d", ":0");
    check(&mut client, "ZADD z 0 c1 -0 c0 0 e", ":3");
    check(
        &mut client,
        "ZRANGE z -0 (0.3 BYSCORE",
        "*4 $2 c0 $2 c1 $1 d $1 e",
    );
    check(&mut client, "ZADD z 9007199254740993 big", ":1");
    check(&mut client, "ZSCORE z big", "$16 9007199254740992");
    assert!(client.command(&["HELLO", "3"]).starts_with('%'));
    check(&mut client, "ZSCORE z a", ",0.30000000000000004");
}

#[test]
fn ranks_come_with_scores() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "ZADD z 1.5 a 2 b 3 c", ":3");
    check(&mut client, "ZRANK z b WITHSCORE", "*2 :1 $1 2");
    check(&mut client, "ZREVRANK z a withscore", "*2 :2 $3 1.5");
    check(&mut client, "ZRANK z none WITHSCORE", "*-1");
    check(&mut client, "ZRANK none b WITHSCORE", "*-1");
    check(&mut client, "ZREVRANK z none", "$-1");
    check(&mut client, "ZRANK z b WITHSCORES", "-ERR syntax error");
    check(
        &mut client,
        "ZREVRANK z b WITHSCORE x",
        "-ERR wrong number of arguments for 'zrevrank' command",
    );
    check(&mut client, "SET s x", "+OK");
    check(
        &mut client,
        "ZRANK s b WITHSCORE",
        "-WRONGTYPE Operation against a key holding the wrong kind of value",
    );
}

#[test]
fn scores_at_their_limits() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let max = "1.7976931348623157e+308";
    check(
        &mut client,
        &format!("ZADD z {max} max 0 zero -2 less"),
        ":3",
    );
    check(&mut client, "ZSCORE z max", &format!("$23 {max}"));
    check(&mut client, &format!("ZINCRBY z {max} max"), "$3 inf");
    let not_a_number = "-ERR resulting score is not a number (NaN)";
    check(&mut client, "ZINCRBY z -inf max", not_a_number);
    check(&mut client, "ZADD z INCR -inf max", not_a_number);
    check(&mut client, "ZSCORE z max", "$3 inf");
    let not_a_float = "-ERR value is not a valid float";
    check(&mut client, "ZADD z 1 a nan b", not_a_float);
    check(&mut client, "ZADD z 1 a 1e309 b", not_a_float);
    check(&mut client, "ZSCORE z a", "$-1");
    check(
        &mut client,
        "ZUNION 1 z WEIGHTS -1 WITHSCORES",
        "*6 $3 max $4 -inf $4 zero $1 0 $4 less $1 2",
    );
    check(
        &mut client,
        "ZUNION 1 z WEIGHTS 0 WITHSCORES",
        "*6 $4 less $1 0 $3 max $1 0 $4 zero $1 0",
    );
    check(
        &mut client,
        "ZUNION 1 z WEIGHTS nan",
        "-ERR weight value is not a float",
    );
    // Opposite infinities add up to 0, from the smallest input on.
    check(&mut client, "ZADD plus inf m", ":1");
    check(&mut client, "ZADD minus -inf m 1 n", ":2");
    check(&mut client, "ZADD five 5 m 1 n 1 o", ":3");
    let sum = "*2 $1 m $1 5";
    check(&mut client, "ZINTER 3 five minus plus WITHSCORES", sum);
    check(
        &mut client,
        "ZUNION 3 five minus plus WITHSCORES",
        "*6 $1 o $1 1 $1 n $1 2 $1 m $1 5",
    );
    check(&mut client, "ZCOUNT z -inf +inf", ":3");
    check(&mut client, "ZCOUNT z (-2 (inf", ":1");
}

#[test]
fn intervals_of_strings_where_scores_differ() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    check(&mut client, "ZADD z 1 b 1 d 2 a 2 c", ":4");
    check(&mut client, "ZRANGEBYLEX z - +", "*4 $1 b $1 d $1 a $1 c");
    check(&mut client, "ZLEXCOUNT z [c [a", ":2");
    check(&mut client, "ZREMRANGEBYLEX z (b (c", ":2");
    check(&mut client, "ZRANGE z 0 -1", "*2 $1 b $1 c");
}

#[test]
fn a_member_that_is_too_long_leaves_no_sorted_set_behind() {
    let server = Server::start(&["--maxmemory", "64mb"]);
    let mut client = server.connect();
    let long = "x".repeat((16 << 20) + 1);
    for command in [
        &["ZADD", "z", "1", "m", "2", &long][..],
        &["ZINCRBY", "z", "1", &long],
    ] {
        let refused = client.command(command);
        assert!(refused.starts_with("-ERR "), "{refused}");
        check(&mut client, "EXISTS z", ":0");
    }
}

#[test]
fn every_command_finds_its_members_on_the_disk() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    fill(&mut client, "a", "m", 6000);
    fill(&mut client, "b", "m", 3000);
    fill(&mut client, "c", "n", 20);
    for (command, expected) in [
        ("ZSCORE a m5999", "$4 5999"),
        ("ZMSCORE a m1 n1 m2", "*3 $1 1 $-1 $1 2"),
        ("ZADD a CH 1.5 m1 7 n1 2 m2", ":2"),
        ("ZADD a INCR GT -1 m3", "$-1"),
        ("ZINCRBY a 0.25 m1", "$4 1.75"),
        ("ZRANGE a 0 3", "*4 $2 m0 $2 m1 $2 m2 $2 m3"),
        ("ZREM a n1 none", ":1"),
        ("ZRANK a m4000", ":4000"),
        ("ZREVRANK a m4000", ":1999"),
        ("ZCARD a", ":6000"),
        ("ZCOUNT a 100 (5000", ":4900"),
        ("ZRANGE a 3000 (2998 BYSCORE REV LIMIT 1 5", "*1 $5 m2999"),
        ("ZINTERCARD 2 a b", ":3000"),
        ("ZINTERCARD 2 a b LIMIT 17", ":17"),
        ("ZDIFFSTORE d 2 a b", ":3000"),
        ("ZUNIONSTORE d 3 a b c WEIGHTS 1 2 3", ":6020"),
        ("ZSCORE d m2000", "$4 6000"),
        ("ZRANGESTORE d d 10 (5000 BYSCORE", ":3679"),
        ("ZREMRANGEBYSCORE a 1000 (2999", ":1999"),
        ("ZREMRANGEBYRANK a -2 -1", ":2"),
        ("ZCARD a", ":3999"),
        ("ZINTERSTORE a 2 a b AGGREGATE MAX", ":1001"),
        ("ZPOPMAX a", "*2 $5 m2999 $4 2999"),
        ("ZPOPMIN a 2", "*4 $2 m0 $1 0 $2 m1 $4 1.75"),
        ("ZMPOP 2 none a MAX", "*2 $1 a *1 *2 $4 m999 $3 999"),
        ("ZREMRANGEBYRANK a 0 -1", ":997"),
        ("EXISTS a", ":0"),
        ("TYPE d", "+zset"),
        ("RENAME d e", "+OK"),
        ("COPY e f", ":1"),
        ("ZCARD f", ":3679"),
    ] {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        check(&mut client, command, expected);
    }
    let mut keys = strings(&mut client, "SCAN 0 COUNT 1000 TYPE zset");
    keys.sort();
    assert_eq!(keys, ["0", "b", "c", "e", "f"]);
    let (mut seen, mut cursor) = (BTreeMap::new(), "0".to_owned());
    loop {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        let step = strings(&mut client, &format!("ZSCAN b {cursor} COUNT 300"));
        cursor.clone_from(&step[0]);
        for pair in step[1..].chunks(2) {
            seen.insert(pair[0].clone(), pair[1].clone());
        }
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 3000);
    assert!(seen.iter().all(|(member, score)| member[1..] == *score));
    check(&mut client, "DEBUG FORCE-COLD", "+OK");
    let picked = strings(&mut client, "ZRANDMEMBER b 2000");
    assert_eq!(picked.iter().collect::<BTreeSet<_>>().len(), 2000);
    assert_eq!(strings(&mut client, "ZRANDMEMBER b -5000").len(), 5000);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What a sorted set should hold.
#[derive(Default)]
struct Model {
    scores: BTreeMap<String, i64>,
    order: BTreeSet<(i64, String)>,
}

impl Model {
    fn put(&mut self, member: &str, score: i64) {
        self.remove(member);
        self.scores.insert(member.to_owned(), score);
        self.order.insert((score, member.to_owned()));
    }

    fn remove(&mut self, member: &str) -> bool {
        let old = self.scores.remove(member);
        old.is_some_and(|score| self.order.remove(&(score, member.to_owned())))
    }

    /// Members and scores from one place to another, `to` not included, as WITHSCORES replies them.
    fn part(&self, from: usize, to: usize) -> Vec<String> {
        let part = self.order.iter().take(to).skip(from);
        part.flat_map(|(score, member)| [member.clone(), score.to_string()])
            .collect()
    }

    /// One random command on the key `z`, and what it must reply.
    fn step(&mut self, client: &mut Connection, random: &mut Random, members: u64) {
        let len = self.order.len();
        let at = random.below(len as u64 + 1) as usize;
        let member = format!("m{}", random.below(members));
        let score = random.below(500) as i64;
        match random.below(10) {
            0..3 => {
                let count = if random.below(4) == 0 { 300 } else { 3 };
                let pairs: Vec<_> = (0..count)
                    .map(|_| {
                        let member = format!("m{}", random.below(members));
                        (random.below(500) as i64, member)
                    })
                    .collect();
                for (score, member) in &pairs {
                    self.put(member, *score);
                }
                add(client, "z", pairs.into_iter());
            }
            3 => {
                let old = self.scores.get(&member).copied().unwrap_or(0);
                self.put(&member, old + score);
                let sum = (old + score).to_string();
                let expected = format!("${} {sum}", sum.len());
                check(client, &format!("ZINCRBY z {score} {member}"), &expected);
            }
            4 => {
                let was_there = i64::from(self.remove(&member));
                check(
                    client,
                    &format!("ZREM z {member}"),
                    &format!(":{was_there}"),
                );
            }
            5 => {
                let to = (at + 20).min(len);
                let command = format!("ZRANGE z {at} {} WITHSCORES", at + 19);
                assert_eq!(strings(client, &command), self.part(at, to));
            }
            6 => {
                let rank = self.scores.get(&member).map(|score| {
                    let key = (*score, member.clone());
                    self.order.range(..key).count()
                });
                let expected = rank.map_or("$-1".to_owned(), |rank| format!(":{rank}"));
                check(client, &format!("ZRANK z {member}"), &expected);
            }
            7 => {
                let high = score + 40;
                let low = (score, String::new());
                let count = self.order.range(low..(high, String::new())).count();
                let command = format!("ZCOUNT z {score} ({high}");
                check(client, &command, &format!(":{count}"));
            }
            8 => {
                let count = if random.below(8) == 0 { 2500 } else { 40 };
                let gone = self.part(at, (at + count).min(len));
                for pair in gone.chunks(2) {
                    self.remove(&pair[0]);
                }
                let command = format!("ZREMRANGEBYRANK z {at} {}", at + count - 1);
                check(client, &command, &format!(":{}", gone.len() / 2));
            }
            _ => {
                let count = if random.below(8) == 0 { 1500 } else { 10 };
                let popped = strings(client, &format!("ZPOPMAX z {count}"));
                let last = self.part(len.saturating_sub(count), len);
                let mut expected: Vec<_> = last.chunks(2).map(<[_]>::to_vec).collect();
                expected.reverse();
                let expected = expected.concat();
                assert_eq!(popped, expected);
                for pair in popped.chunks(2) {
                    self.remove(&pair[0]);
                }
            }
        }
    }
}

#[test]
fn large_sorted_sets_are_as_their_model() {
    let seed = match std::env::var("FERRITE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("FERRITE_TEST_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("a time after 1970").as_nanos() as u64
        }
    };
    println!("seed {seed}");
    let directives = [
        &DEBUG[..],
        &["--maxmemory", "36mb", "--appendfsync", "always"],
    ]
    .concat();
    for (round, members) in [40, 1000, 20_000].into_iter().enumerate() {
        let mut random = Random(seed.wrapping_add(round as u64));
        let mut server = Server::start(&directives);
        let mut client = server.connect();
        let mut model = Model::default();
        let first = (0..members / 2).map(|i| (random.below(500) as i64, format!("m{i}")));
        let first: Vec<_> = first.collect();
        for (score, member) in &first {
            model.put(member, *score);
        }
        add(&mut client, "z", first.into_iter());
        for step in 0..400 {
            if random.below(4) == 0 {
                check(&mut client, "DEBUG FORCE-COLD", "+OK");
            }
            if step % 150 == 100 {
                server = Server::start_in(server.kill(), &directives);
                client = server.connect();
            }
            model.step(&mut client, &mut random, members);
        }
        let all = strings(&mut client, "ZRANGE z 0 -1 WITHSCORES");
        assert_eq!(all, model.part(0, usize::MAX));
        for (member, score) in model.scores.iter().take(500) {
            let expected = score.to_string();
            let expected = format!("${} {expected}", expected.len());
            check(&mut client, &format!("ZSCORE z {member}"), &expected);
        }
        check(&mut client, "ZCARD z", &format!(":{}", model.order.len()));
    }
}

#[test]
fn restarts_find_sorted_sets() {
    let directives = [&DEBUG[..], &["--appendfsync", "always"]].concat();
    let mut server = Server::start(&directives);
    let mut client = server.connect();
    fill(&mut client, "big", "m", 3000);
    check(&mut client, "ZADD small 3 a 1 b", ":2");
    check(&mut client, "SAVE", "+OK");
    fill(&mut client, "later", "m", 6000);
    check(&mut client, "ZUNIONSTORE union 2 big later", ":6000");
    check(&mut client, "ZREM big m7 m2999", ":2");
    check(&mut client, "ZREMRANGEBYRANK later 1 4998", ":4998");
    check(&mut client, "ZINCRBY small 5 b", "$1 6");
    let digest = client.command(&["DEBUG", "DIGEST"]);
    for killed in [true, false] {
        let dir = if killed {
            server.kill()
        } else {
            server.shut_down(&[])
        };
        server = Server::start_in(dir, &directives);
        let mut client = server.connect();
        assert_eq!(client.command(&["DEBUG", "DIGEST"]), digest);
        check(&mut client, "ZCARD big", ":2998");
        check(&mut client, "ZRANGE later 0 1", "*2 $2 m0 $5 m4999");
        check(&mut client, "ZSCORE union m2000", "$4 4000");
        check(&mut client, "ZRANK union m5999", ":5999");
        check(
            &mut client,
            "ZRANGE small 0 -1 WITHSCORES",
            "*4 $1 a $1 3 $1 b $1 6",
        );
        check(&mut client, "OBJECT ENCODING small", "$8 listpack");
    }
}

#[test]
fn watches_see_what_changes_a_sorted_set() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    check(&mut client, "ZADD z 1 a 2 b", ":2");
    check(&mut client, "ZADD t 1 a", ":1");
    for (change, is_seen) in [
        ("ZADD z 1 a", false),
        ("ZADD z NX 5 a", false),
        ("ZADD z XX 5 none", false),
        ("ZADD z GT 0 a", false),
        ("ZREM z none", false),
        ("ZREMRANGEBYSCORE z 100 200", false),
        ("ZUNION 2 z t", false),
        ("ZPOPMIN z 0", false),
        ("ZRANGESTORE u z 0 -1", false),
        ("ZADD z 3 c", true),
        ("ZADD z 4 c", true),
        ("ZPOPMIN z", true),
        ("ZUNIONSTORE z 2 z t", true),
        ("ZREMRANGEBYRANK z 0 0", true),
        ("ZRANGESTORE z none 0 -1", true),
        ("ZUNIONSTORE z 1 t", true),
    ] {
        check(&mut client, "WATCH z", "+OK");
        let words: Vec<&str> = change.split(' ').collect();
        other.command(&words);
        check(&mut client, "MULTI", "+OK");
        let expected = if is_seen { "*-1" } else { "*0" };
        let reply = client.command(&["EXEC"]);
        assert_eq!(reply.trim_end(), expected, "{change}");
    }
}

/// A lookup reads the root and one page a level of each tree it needs; both trees are read together.
#[test]
fn a_cold_member_takes_few_reads() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    let members = 300_000;
    fill(&mut client, "z", "member:", members);
    check(&mut client, "SAVE", "+OK");
    for (command, reads_max) in [
        ("ZSCORE z member:123456", 3),
        ("ZSCORE z none", 3),
        ("ZRANGE z 77770 77779", 4),
        ("ZRANGEBYSCORE z 200000 +inf LIMIT 0 10", 5),
        ("ZRANK z member:222222", 5),
        ("ZADD z 1234.5 new", 5),
    ] {
        check(&mut client, "DEBUG FORCE-COLD", "+OK");
        let before = device_reads(&mut client);
        client.command(&command.split(' ').collect::<Vec<_>>());
        let reads = device_reads(&mut client) - before;
        println!("{command}: {reads} reads");
        assert!((1..=reads_max).contains(&reads), "{command}: {reads} reads");
    }
    check(&mut client, "ZCARD z", &format!(":{}", members + 1));
}

fn device_reads(client: &mut Connection) -> u64 {
    let info = client.command(&["INFO", "tiers"]);
    let mut lines = info.lines();
    let reads = lines.find_map(|line| line.strip_prefix("device_reads:"));
    reads.expect("a field of INFO").trim().parse().unwrap()
}
