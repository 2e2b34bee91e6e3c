//! Values of every type and size go from any server to any other, and are the same there.

use crate::random::Random;
use crate::servers::{Kind, Running};
use crate::wire::Reply;

type Command = Vec<Vec<u8>>;

/// How many elements a collection gets: around the limits between encodings, and many.
const SIZES: [usize; 11] = [1, 2, 5, 40, 127, 128, 129, 511, 512, 513, 1500];

const TYPES: [fn(&mut Random, usize) -> Vec<Command>; 8] = [
    string,
    list,
    list_of_long,
    set,
    integers,
    zset,
    hash,
    stream,
];

fn command(words: &[&str], values: &[&[u8]]) -> Command {
    let words = words.iter().map(|word| word.as_bytes().to_vec());
    words
        .chain(values.iter().map(|value| value.to_vec()))
        .collect()
}

fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| *random.pick(b"abc01\0\r\n\xff")).collect()
}

/// A string of any kind: numbers of all lengths, what compresses and what does not.
fn any(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => random.between(-200, 200).to_string().into(),
        1 => {
            let number = random.next() as i64 >> random.below(63);
            number.to_string().into()
        }
        2 => vec![b'x'; random.below(300) as usize],
        3 => {
            let len = random.below(100) as usize;
            bytes(random, len)
        }
        4 => b"1.50".to_vec(),
        _ => {
            let len = random.below(20) as usize;
            bytes(random, len)
        }
    }
}

fn string(random: &mut Random, size: usize) -> Vec<Command> {
    let value = match random.below(4) {
        0 => vec![b'y'; 100 * size],
        1 => bytes(random, 20 * size),
        _ => any(random),
    };
    vec![command(&["SET", "k"], &[&value])]
}

fn list(random: &mut Random, size: usize) -> Vec<Command> {
    let push = |_| command(&["RPUSH", "k"], &[&any(random)]);
    (0..size).map(push).collect()
}

fn list_of_long(random: &mut Random, size: usize) -> Vec<Command> {
    let push = |at: usize| {
        let len = random.below(if at.is_multiple_of(5) { 20_000 } else { 5000 });
        command(&["RPUSH", "k"], &[&bytes(random, len as usize)])
    };
    (0..size.min(20)).map(push).collect()
}

fn set(random: &mut Random, size: usize) -> Vec<Command> {
    let add = |_| match random.one_in(10) {
        true => command(&["SADD", "k"], &[&any(random)]),
        false => command(&["SADD", "k"], &[&bytes(random, 12)]),
    };
    (0..size).map(add).collect()
}

fn integers(random: &mut Random, size: usize) -> Vec<Command> {
    let shift = random.below(63);
    let add = |_| {
        let number = random.next() as i64 >> shift;
        command(&["SADD", "k"], &[number.to_string().as_bytes()])
    };
    (0..size).map(add).collect()
}

fn zset(random: &mut Random, size: usize) -> Vec<Command> {
    let add = |_| {
        let score = match random.below(6) {
            0 => "inf".to_owned(),
            1 => "-inf".to_owned(),
            2 => "123456789.5".to_owned(),
            3 => (random.between(-1000, 1000) as f64 / 4.0).to_string(),
            _ => random.between(-100, 100).to_string(),
        };
        let len = if random.one_in(200) { 70 } else { 12 };
        command(&["ZADD", "k"], &[score.as_bytes(), &bytes(random, len)])
    };
    (0..size).map(add).collect()
}

fn hash(random: &mut Random, size: usize) -> Vec<Command> {
    let set = |_| {
        let value = if random.one_in(50) {
            any(random)
        } else {
            bytes(random, 9)
        };
        command(&["HSET", "k"], &[&bytes(random, 8), &value])
    };
    (0..size).map(set).collect()
}

fn stream(random: &mut Random, size: usize) -> Vec<Command> {
    let mut commands = Vec::new();
    for at in 0..size {
        let id = format!("{}-{}", 1000 + at / 3, 1 + at % 3);
        let mut add = command(&["XADD", "k", &id], &[]);
        for field in 0..1 + random.below(9) / 7 {
            add.push(format!("field {field}").into());
            add.push(any(random));
        }
        commands.push(add);
    }
    let taken = random.below(200).to_string();
    let left = random.below(size as u64 + 1).to_string();
    let more: [(u64, &[&str]); 8] = [
        (1, &["XGROUP", "CREATE", "k", "g", "0"]),
        (1, &["XGROUP", "CREATE", "k", "h", "1001-1"]),
        (
            1,
            &[
                "XREADGROUP",
                "GROUP",
                "g",
                "alice",
                "COUNT",
                &taken,
                "STREAMS",
                "k",
                ">",
            ],
        ),
        (
            1,
            &[
                "XREADGROUP",
                "GROUP",
                "g",
                "bob",
                "COUNT",
                "7",
                "STREAMS",
                "k",
                ">",
            ],
        ),
        (2, &["XGROUP", "CREATECONSUMER", "k", "h", "carol"]),
        (2, &["XACK", "k", "g", "1000-2", "1001-1"]),
        (2, &["XDEL", "k", "1000-2", "1002-1"]),
        (4, &["XTRIM", "k", "MAXLEN", &left]),
    ];
    for (once_in, words) in more {
        if random.one_in(once_in) {
            commands.push(command(words, &[]));
        }
    }
    commands
}

#[test]
fn values_go_from_any_server_to_any_other() {
    let seed = crate::seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut servers = Running::all();
    for round in 0..4 * TYPES.len() {
        let size = *random.pick(&SIZES);
        let commands = TYPES[round % TYPES.len()](&mut random, size);
        for server in &mut servers {
            server.must("FLUSHALL");
            for command in &commands {
                let reply = server.call(command);
                assert!(!reply.is_error(), "{:?}: {reply:?}", server.kind);
            }
            // Every other value is on disk when it is dumped.
            if server.kind == Kind::Ferrite && round % 2 == 1 {
                server.must("DEBUG FORCE-COLD");
            }
        }
        let context = format!("seed {seed}, round {round}, size {size}");
        for source in 0..servers.len() {
            exchange(&mut servers, source, &context);
        }
    }
}

/// What one server dumps is restored by all that read its version.
fn exchange(servers: &mut [Running], source: usize, context: &str) {
    let from = servers[source].kind;
    let payload = servers[source].dump("k");
    let expected = servers[source].contents("k");
    let mut encodings = Vec::new();
    for to in servers {
        if (from, to.kind) == (Kind::Valkey, Kind::Redis) {
            continue;
        }
        let context = format!("{context}, from {from:?} to {:?}", to.kind);
        let reply = to.restore("copy", &payload);
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{context}");
        assert_eq!(to.contents("copy"), expected, "{context}");
        encodings.push((to.kind, to.encoding("copy")));
    }
    let (_, ours) = encodings.remove(0);
    for (kind, theirs) in encodings {
        // Which strings are in one piece with their keys, a Valkey decides in another way.
        if kind == Kind::Valkey
            && [&ours, &theirs]
                .map(String::as_str)
                .iter()
                .all(|encoding| ["raw", "embstr"].contains(encoding))
        {
            continue;
        }
        let known = as_known_to(kind, &ours, &expected);
        assert_eq!(theirs, known, "{context}, from {from:?} to {kind:?}");
    }
}

/// What a server says of a value that Ferrite says this of.
fn as_known_to<'e>(kind: Kind, encoding: &'e str, contents: &str) -> &'e str {
    match kind {
        Kind::Redis if contents.starts_with("+list") => "quicklist",
        Kind::Redis if contents.starts_with("+set") && encoding == "listpack" => "hashtable",
        _ => encoding,
    }
}
