//! How commands are written, for `COMMAND DOCS`: a line of syntax for each, and the tree of arguments that it stands
//! for, from which clients make their hints.
//!
//! In a line, lower-case words are values (their names tell the type), upper-case words are written as they are,
//! `[a]` may be left out, `<a | b>` and `[a | b]` are one of several, `a...` may be given several times. A value
//! right behind an upper-case word belongs to it.

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) name: String,
    /// The word that announces it, or that it is.
    pub(crate) token: Option<&'static str>,
    pub(crate) kind: Kind,
    pub(crate) optional: bool,
    pub(crate) multiple: bool,
    /// Of `OneOf` and `Block`.
    pub(crate) parts: Vec<Argument>,
}

/// Types of arguments, with Redis's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Key,
    String,
    Integer,
    Double,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Double => "double",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::PureToken => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }

    /// The type of the value called `name`.
    fn of_value(name: &str) -> Kind {
        match name {
            "key" | "key1" | "key2" | "newkey" | "source" | "sourcekey" | "destination"
            | "destkey" | "storekey" | "storedistkey" => Kind::Key,
            "pattern" => Kind::Pattern,
            "float-increment" | "float-seconds" | "score" | "min" | "max" | "weight" => {
                Kind::Double
            }
            _ if name.starts_with("unix-time") => Kind::UnixTime,
            "seconds" | "milliseconds" | "count" | "numkeys" | "offset" | "start" | "end"
            | "bit" | "increment" | "decrement" | "db" | "index1" | "index2" | "cursor"
            | "timeout" | "numlocal" | "numreplicas" | "protover" | "client-id" | "maxage"
            | "idle" | "len" | "numfields" | "limit" | "size" | "min-len" | "version"
            | "columns" | "rows" | "rounds" | "index" | "rank" | "num-matches" | "stop"
            | "entries-added" | "entries-read" => Kind::Integer,
            _ => Kind::String,
        }
    }
}

/// The arguments of the command called `full_name`, as in "config|get"; none if it has none.
pub(crate) fn arguments(full_name: &str) -> Vec<Argument> {
    let line = SYNTAX.iter().find(|(name, _)| *name == full_name);
    let words = line.map_or(Vec::new(), |(_, line)| words(line));
    Parser {
        words: &words,
        at: 0,
    }
    .sequence()
}

/// The words, brackets, bars and dots of a line.
fn words(mut line: &'static str) -> Vec<&'static str> {
    const MARKS: [&str; 6] = ["[", "]", "<", ">", "|", "..."];
    let mut words = Vec::new();
    loop {
        line = line.trim_start();
        if line.is_empty() {
            return words;
        }
        let ends = MARKS
            .iter()
            .filter_map(|mark| line.find(mark))
            .chain(line.find(' '));
        let len = match MARKS.iter().find(|mark| line.starts_with(**mark)) {
            Some(mark) => mark.len(),
            None => ends.min().unwrap_or(line.len()),
        };
        let (word, rest) = line.split_at(len);
        words.push(word);
        line = rest;
    }
}

struct Parser<'w> {
    words: &'w [&'static str],
    at: usize,
}

impl Parser<'_> {
    /// Arguments up to the end of the line or of the alternative.
    fn sequence(&mut self) -> Vec<Argument> {
        let mut arguments: Vec<Argument> = Vec::new();
        while let Some(&word) = self.words.get(self.at) {
            if matches!(word, "|" | "]" | ">") {
                break;
            }
            self.at += 1;
            let mut argument = match word {
                "[" => Argument {
                    optional: true,
                    ..self.group()
                },
                "<" => self.group(),
                word => leaf(word),
            };
            if self.words.get(self.at) == Some(&"...") {
                self.at += 1;
                argument.multiple = true;
            }
            let can_be_announced = argument.token.is_none() && !argument.optional;
            match arguments.last_mut() {
                Some(word)
                    if word.kind == Kind::PureToken && !word.optional && can_be_announced =>
                {
                    argument.token = word.token;
                    *word = argument;
                }
                _ => arguments.push(argument),
            }
        }
        arguments
    }

    /// Alternatives up to the closing bracket.
    fn group(&mut self) -> Argument {
        let mut alternatives = vec![block(self.sequence())];
        while self.words.get(self.at) == Some(&"|") {
            self.at += 1;
            alternatives.push(block(self.sequence()));
        }
        // The closing bracket.
        self.at += 1;
        match alternatives.len() {
            1 => alternatives.remove(0),
            _ => container(Kind::OneOf, alternatives),
        }
    }
}

fn leaf(word: &'static str) -> Argument {
    let is_token = !word.contains(|c: char| c.is_ascii_lowercase());
    Argument {
        name: word.to_ascii_lowercase(),
        token: is_token.then_some(word),
        kind: if is_token {
            Kind::PureToken
        } else {
            Kind::of_value(word)
        },
        optional: false,
        multiple: false,
        parts: Vec::new(),
    }
}

/// Several arguments as one.
fn block(mut sequence: Vec<Argument>) -> Argument {
    match sequence.len() {
        1 => sequence.remove(0),
        _ => container(Kind::Block, sequence),
    }
}

fn container(kind: Kind, parts: Vec<Argument>) -> Argument {
    let name = |part: Option<&Argument>| part.map_or("", |part| &part.name).to_owned();
    Argument {
        name: format!("{}-{}", name(parts.first()), name(parts.last())),
        token: None,
        kind,
        optional: false,
        multiple: false,
        parts,
    }
}

/// The syntax of every command that takes arguments, without its name.
const SYNTAX: &[(&str, &str)] = &[
    ("acl|cat", "[category]"),
    ("acl|getuser", "username"),
    ("append", "key value"),
    ("auth", "[username] password"),
    ("bgsave", "[SCHEDULE | CANCEL]"),
    ("bitcount", "key [start end [BYTE | BIT]]"),
    (
        "bitfield",
        "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | INCRBY encoding offset increment>]...",
    ),
    ("bitfield_ro", "key [GET encoding offset]..."),
    ("bitop", "<AND | OR | XOR | NOT> destkey key..."),
    ("bitpos", "key bit [start [end [BYTE | BIT]]]"),
    (
        "blmove",
        "source destination <LEFT | RIGHT> <LEFT | RIGHT> float-timeout",
    ),
    (
        "blmpop",
        "float-timeout numkeys key... <LEFT | RIGHT> [COUNT count]",
    ),
    ("blpop", "key... float-timeout"),
    ("brpop", "key... float-timeout"),
    ("brpoplpush", "source destination float-timeout"),
    (
        "bzmpop",
        "float-timeout numkeys key... <MIN | MAX> [COUNT count]",
    ),
    ("bzpopmax", "key... float-timeout"),
    ("bzpopmin", "key... float-timeout"),
    (
        "client|kill",
        "<ip:port | <ID client-id... | ADDR ip:port | LADDR ip:port | IP ip | TYPE <NORMAL | MASTER | REPLICA | PUBSUB> | USER username | NAME name | LIB-NAME name | LIB-VER version-text | DB db | FLAGS flags | MAXAGE maxage | IDLE idle | SKIPME <YES | NO>>...>",
    ),
    (
        "client|list",
        "[ID client-id... | ADDR ip:port | LADDR ip:port | IP ip | TYPE <NORMAL | MASTER | REPLICA | PUBSUB> | USER username | NAME name | LIB-NAME name | LIB-VER version-text | DB db | FLAGS flags | MAXAGE maxage | IDLE idle | SKIPME <YES | NO>]...",
    ),
    ("client|no-evict", "<ON | OFF>"),
    ("client|no-touch", "<ON | OFF>"),
    ("client|pause", "timeout [WRITE | ALL]"),
    ("client|reply", "<ON | OFF | SKIP>"),
    ("client|setinfo", "<LIB-NAME libname | LIB-VER libver>"),
    ("client|setname", "connection-name"),
    ("client|unblock", "client-id [TIMEOUT | ERROR]"),
    ("commandlog|get", "count type"),
    ("commandlog|len", "type"),
    ("commandlog|reset", "type"),
    ("command|docs", "[command-name...]"),
    ("command|getkeys", "command [arg...]"),
    ("command|getkeysandflags", "command [arg...]"),
    ("command|info", "[command-name...]"),
    (
        "command|list",
        "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
    ),
    ("config|get", "parameter..."),
    ("config|set", "<parameter value>..."),
    ("copy", "source destination [DB db] [REPLACE]"),
    ("debug|digest-value", "key..."),
    ("debug|error", "text"),
    ("debug|object", "key"),
    ("debug|populate", "count [prefix] [size]"),
    ("debug|protocol", "type"),
    ("debug|set-active-expire", "<0 | 1>"),
    ("debug|sleep", "float-seconds"),
    ("debug|tier", "key"),
    ("decr", "key"),
    ("decrby", "key decrement"),
    ("del", "key..."),
    (
        "delex",
        "key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]",
    ),
    ("delifeq", "key value"),
    ("digest", "key"),
    ("dump", "key"),
    ("echo", "message"),
    ("exists", "key..."),
    ("expire", "key seconds [NX | XX | GT | LT]"),
    ("expireat", "key unix-time-seconds [NX | XX | GT | LT]"),
    ("expiretime", "key"),
    ("flushall", "[ASYNC | SYNC]"),
    ("flushdb", "[ASYNC | SYNC]"),
    ("get", "key"),
    ("getbit", "key offset"),
    (
        "geoadd",
        "key [NX | XX] [CH] <longitude latitude member>...",
    ),
    ("geodist", "key member1 member2 [<M | KM | FT | MI>]"),
    ("geohash", "key [member...]"),
    ("geopos", "key [member...]"),
    (
        "georadius",
        "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [<COUNT count [ANY]>] [ASC | DESC] \
         [<STORE storekey | STOREDIST storedistkey>]",
    ),
    (
        "georadius_ro",
        "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [<COUNT count [ANY]>] [ASC | DESC]",
    ),
    (
        "georadiusbymember",
        "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [<COUNT count [ANY]>] [ASC | DESC] \
         [<STORE storekey | STOREDIST storedistkey>]",
    ),
    (
        "georadiusbymember_ro",
        "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [<COUNT count [ANY]>] [ASC | DESC]",
    ),
    (
        "geosearch",
        "key <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height \
         <M | KM | FT | MI>> [ASC | DESC] [<COUNT count [ANY]>] [WITHCOORD] [WITHDIST] [WITHHASH]",
    ),
    (
        "geosearchstore",
        "destination source <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius <M | KM | FT | MI> | BYBOX \
         width height <M | KM | FT | MI>> [ASC | DESC] [<COUNT count [ANY]>] [STOREDIST]",
    ),
    ("getdel", "key"),
    (
        "getex",
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    ),
    ("getrange", "key start end"),
    ("getset", "key value"),
    ("hdel", "key field..."),
    (
        "hello",
        "[protover [AUTH <username password>] [SETNAME clientname]]",
    ),
    ("hexists", "key field"),
    (
        "hexpire",
        "key seconds [NX | XX | GT | LT] FIELDS <numfields field...>",
    ),
    (
        "hexpireat",
        "key unix-time-seconds [NX | XX | GT | LT] FIELDS <numfields field...>",
    ),
    ("hexpiretime", "key FIELDS <numfields field...>"),
    ("hget", "key field"),
    ("hgetall", "key"),
    ("hgetdel", "key FIELDS <numfields field...>"),
    (
        "hgetex",
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] FIELDS <numfields field...>",
    ),
    ("hincrby", "key field increment"),
    ("hincrbyfloat", "key field float-increment"),
    ("hkeys", "key"),
    ("hlen", "key"),
    ("hmget", "key field..."),
    ("hmset", "key <field value>..."),
    ("hpersist", "key FIELDS <numfields field...>"),
    (
        "hpexpire",
        "key milliseconds [NX | XX | GT | LT] FIELDS <numfields field...>",
    ),
    (
        "hpexpireat",
        "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS <numfields field...>",
    ),
    ("hpexpiretime", "key FIELDS <numfields field...>"),
    ("hpttl", "key FIELDS <numfields field...>"),
    ("hrandfield", "key [count [WITHVALUES]]"),
    (
        "hscan",
        "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    ),
    ("hset", "key <field value>..."),
    (
        "hsetex",
        "key [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL] FIELDS <numfields <field value>...>",
    ),
    ("hsetnx", "key field value"),
    ("hstrlen", "key field"),
    ("httl", "key FIELDS <numfields field...>"),
    ("hvals", "key"),
    ("incr", "key"),
    ("incrby", "key increment"),
    ("incrbyfloat", "key float-increment"),
    ("info", "[section...]"),
    ("keys", "pattern"),
    ("latency|graph", "event"),
    ("latency|histogram", "[command...]"),
    ("latency|history", "event"),
    ("latency|reset", "[event...]"),
    (
        "lcs",
        "key1 key2 [LEN] [IDX] [MINMATCHLEN min-len] [WITHMATCHLEN]",
    ),
    ("lindex", "key index"),
    ("linsert", "key <BEFORE | AFTER> pivot element"),
    ("llen", "key"),
    ("lmove", "source destination <LEFT | RIGHT> <LEFT | RIGHT>"),
    ("lmpop", "numkeys key... <LEFT | RIGHT> [COUNT count]"),
    ("lolwut", "[VERSION version] [columns [rows [rounds]]]"),
    ("lpop", "key [count]"),
    (
        "lpos",
        "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
    ),
    ("lpush", "key element..."),
    ("lpushx", "key element..."),
    ("lrange", "key start stop"),
    ("lrem", "key count element"),
    ("lset", "key index element"),
    ("ltrim", "key start stop"),
    ("memory|usage", "key [SAMPLES count]"),
    ("mget", "key..."),
    ("move", "key db"),
    ("mset", "<key value>..."),
    (
        "msetex",
        "numkeys <key value>... [NX | XX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    ),
    ("msetnx", "<key value>..."),
    ("object|encoding", "key"),
    ("object|freq", "key"),
    ("object|idletime", "key"),
    ("object|refcount", "key"),
    ("persist", "key"),
    ("pexpire", "key milliseconds [NX | XX | GT | LT]"),
    (
        "pexpireat",
        "key unix-time-milliseconds [NX | XX | GT | LT]",
    ),
    ("pexpiretime", "key"),
    ("pfadd", "key [element...]"),
    ("pfcount", "key..."),
    ("pfdebug", "subcommand key"),
    ("pfmerge", "destkey [sourcekey...]"),
    ("ping", "[message]"),
    ("psetex", "key milliseconds value"),
    ("pttl", "key"),
    ("rename", "key newkey"),
    ("renamenx", "key newkey"),
    (
        "restore",
        "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
    ),
    (
        "restore-asking",
        "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
    ),
    ("rpop", "key [count]"),
    ("rpoplpush", "source destination"),
    ("rpush", "key element..."),
    ("rpushx", "key element..."),
    ("sadd", "key member..."),
    ("scan", "cursor [MATCH pattern] [COUNT count] [TYPE type]"),
    ("scard", "key"),
    ("sdiff", "key..."),
    ("sdiffstore", "destination key..."),
    ("select", "index1"),
    (
        "set",
        "key value [NX | XX | IFEQ comparison-value | IFNE comparison-value | IFDEQ digest | IFDNE digest] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    ),
    ("setbit", "key offset value"),
    ("setex", "key seconds value"),
    ("setnx", "key value"),
    ("setrange", "key offset value"),
    ("shutdown", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]"),
    ("sinter", "key..."),
    ("sintercard", "numkeys key... [LIMIT limit]"),
    ("sinterstore", "destination key..."),
    ("sismember", "key member"),
    ("slowlog|get", "[count]"),
    ("smembers", "key"),
    ("smismember", "key member..."),
    ("smove", "source destination member"),
    (
        "sort",
        "key [BY by-pattern] [LIMIT <offset count>] [GET get-pattern]... [ASC | DESC] [ALPHA] [STORE destination]",
    ),
    (
        "sort_ro",
        "key [BY by-pattern] [LIMIT <offset count>] [GET get-pattern]... [ASC | DESC] [ALPHA]",
    ),
    ("spop", "key [count]"),
    ("srandmember", "key [count]"),
    ("srem", "key member..."),
    ("sscan", "key cursor [MATCH pattern] [COUNT count]"),
    ("strlen", "key"),
    ("substr", "key start end"),
    ("sunion", "key..."),
    ("sunionstore", "destination key..."),
    ("swapdb", "index1 index2"),
    ("touch", "key..."),
    ("ttl", "key"),
    ("type", "key"),
    ("unlink", "key..."),
    ("wait", "numreplicas timeout"),
    ("waitaof", "numlocal numreplicas timeout"),
    ("watch", "key..."),
    ("xack", "key group id..."),
    (
        "xadd",
        "key [NOMKSTREAM] [<MAXLEN | MINID> [= | ~] threshold [LIMIT count]] <* | id> <field value>...",
    ),
    (
        "xautoclaim",
        "key group consumer min-idle-time start-id [COUNT count] [JUSTID]",
    ),
    (
        "xclaim",
        "key group consumer min-idle-time id... [IDLE milliseconds] [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID last-id]",
    ),
    ("xdel", "key id..."),
    (
        "xgroup|create",
        "key group <id | $> [MKSTREAM] [ENTRIESREAD entries-read]",
    ),
    ("xgroup|createconsumer", "key group consumer"),
    ("xgroup|delconsumer", "key group consumer"),
    ("xgroup|destroy", "key group"),
    (
        "xgroup|setid",
        "key group <id | $> [ENTRIESREAD entries-read]",
    ),
    ("xinfo|consumers", "key group"),
    ("xinfo|groups", "key"),
    ("xinfo|stream", "key [FULL [COUNT count]]"),
    ("xlen", "key"),
    (
        "xpending",
        "key group [[IDLE min-idle-time] start-id end-id count [consumer]]",
    ),
    ("xrange", "key start-id end-id [COUNT count]"),
    (
        "xread",
        "[COUNT count] [BLOCK milliseconds] STREAMS <key... id...>",
    ),
    (
        "xreadgroup",
        "GROUP <group consumer> [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS <key... id...>",
    ),
    ("xrevrange", "key end-id start-id [COUNT count]"),
    (
        "xsetid",
        "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]",
    ),
    (
        "xtrim",
        "key <MAXLEN | MINID> [= | ~] threshold [LIMIT count]",
    ),
    (
        "zadd",
        "key [NX | XX] [GT | LT] [CH] [INCR] <score member>...",
    ),
    ("zcard", "key"),
    ("zcount", "key min max"),
    ("zdiff", "numkeys key... [WITHSCORES]"),
    ("zdiffstore", "destination numkeys key..."),
    ("zincrby", "key float-increment member"),
    (
        "zinter",
        "numkeys key... [WEIGHTS weight...] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    ),
    ("zintercard", "numkeys key... [LIMIT limit]"),
    (
        "zinterstore",
        "destination numkeys key... [WEIGHTS weight...] [AGGREGATE <SUM | MIN | MAX>]",
    ),
    ("zlexcount", "key min-member max-member"),
    ("zmpop", "numkeys key... <MIN | MAX> [COUNT count]"),
    ("zmscore", "key member..."),
    ("zpopmax", "key [count]"),
    ("zpopmin", "key [count]"),
    ("zrandmember", "key [count [WITHSCORES]]"),
    (
        "zrange",
        "key from to [BYSCORE | BYLEX] [REV] [LIMIT <offset count>] [WITHSCORES]",
    ),
    (
        "zrangebylex",
        "key min-member max-member [LIMIT <offset count>]",
    ),
    (
        "zrangebyscore",
        "key min max [WITHSCORES] [LIMIT <offset count>]",
    ),
    (
        "zrangestore",
        "destination source from to [BYSCORE | BYLEX] [REV] [LIMIT <offset count>]",
    ),
    ("zrank", "key member [WITHSCORE]"),
    ("zrem", "key member..."),
    ("zremrangebylex", "key min-member max-member"),
    ("zremrangebyrank", "key start end"),
    ("zremrangebyscore", "key min max"),
    ("zrevrange", "key start end [WITHSCORES]"),
    (
        "zrevrangebylex",
        "key max-member min-member [LIMIT <offset count>]",
    ),
    (
        "zrevrangebyscore",
        "key max min [WITHSCORES] [LIMIT <offset count>]",
    ),
    ("zrevrank", "key member [WITHSCORE]"),
    ("zscan", "key cursor [MATCH pattern] [COUNT count]"),
    ("zscore", "key member"),
    (
        "zunion",
        "numkeys key... [WEIGHTS weight...] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    ),
    (
        "zunionstore",
        "destination numkeys key... [WEIGHTS weight...] [AGGREGATE <SUM | MIN | MAX>]",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Row;
    use crate::commands::FAMILIES;

    /// How many words the arguments take at least.
    fn required(arguments: &[Argument]) -> usize {
        arguments.iter().map(required_of).sum()
    }

    fn required_of(argument: &Argument) -> usize {
        if argument.optional {
            return 0;
        }
        let token = usize::from(argument.token.is_some());
        match argument.kind {
            Kind::PureToken => 1,
            Kind::OneOf => token + argument.parts.iter().map(required_of).min().unwrap_or(0),
            Kind::Block => token + required(&argument.parts),
            _ => token + 1,
        }
    }

    #[test]
    fn lines_agree_with_the_rows() {
        let mut unused: Vec<&str> = SYNTAX.iter().map(|(name, _)| *name).collect();
        let mut check = |name: String, row: &Row, name_words: usize| {
            unused.retain(|known| *known != name);
            let words = required(&arguments(&name)) + name_words;
            let arity = row.arity.unsigned_abs() as usize;
            // DEBUG counts the arguments of its subcommands itself.
            assert!(
                words == arity || name.starts_with("debug|"),
                "{name}: {words}, {arity}"
            );
        };
        for row in FAMILIES.iter().copied().flatten() {
            if row.subcommands.is_empty() {
                check(row.name.to_owned(), row, 1);
            }
            for subcommand in row.subcommands {
                check(format!("{}|{}", row.name, subcommand.name), subcommand, 2);
            }
        }
        assert!(unused.is_empty(), "no such commands: {unused:?}");
    }

    #[test]
    fn lines_are_whole() {
        for (name, line) in SYNTAX {
            let words = words(line);
            let mut parser = Parser {
                words: &words,
                at: 0,
            };
            parser.sequence();
            assert_eq!(parser.at, words.len(), "{name}: {line}");
        }
    }

    #[test]
    fn words_announce_what_follows() {
        let arguments = arguments("copy");
        let shown: Vec<_> = arguments
            .iter()
            .map(|argument| {
                (
                    argument.name.as_str(),
                    argument.token,
                    argument.kind,
                    argument.optional,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("source", None, Kind::Key, false),
                ("destination", None, Kind::Key, false),
                ("db", Some("DB"), Kind::Integer, true),
                ("replace", Some("REPLACE"), Kind::PureToken, true),
            ]
        );
    }
}
