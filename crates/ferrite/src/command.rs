//! What a command is: one row, beside its function, that drives parsing, routing, latching, prefetch, ACL
//! categories, `COMMAND` and `COMMAND DOCS`, and statistics.

use std::borrow::Cow;
use std::iter::{Chain, StepBy};
use std::ops::Range;

use crate::args::Args;
use crate::ctx::Ctx;

/// Why a handler ended without a reply of its own. It has then changed nothing.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The engine cannot go on now (a cold record, no room) or at all (device error, value too large).
    Engine(hybridlog::Stop),
    /// It needs so many bytes of memory more than it may take now.
    Memory(u64),
    /// Another operation has a key latched that the command does not name.
    Latched,
    /// It has run long enough at a stretch.
    Turn,
    /// An error reply, without its leading dash: "ERR syntax error".
    Reply(Cow<'static, str>),
}

impl Stop {
    /// Whether the command is to be run again once it has what it needs.
    pub(crate) fn is_wait(&self) -> bool {
        use hybridlog::Stop::{Cold, NoRoom};
        matches!(
            self,
            Stop::Memory(_) | Stop::Latched | Stop::Turn | Stop::Engine(Cold | NoRoom { .. })
        )
    }
}

impl From<hybridlog::Stop> for Stop {
    fn from(stop: hybridlog::Stop) -> Self {
        Stop::Engine(stop)
    }
}

impl From<&'static str> for Stop {
    fn from(text: &'static str) -> Self {
        Stop::Reply(Cow::Borrowed(text))
    }
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Stop::Reply(Cow::Owned(text))
    }
}

/// What a handler returns. Whatever it wrote to `cx.reply` is discarded when it is an error.
pub(crate) type Done = Result<(), Stop>;

/// How a command is executed.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// On the worker, with the keys of its row latched. It may run several times: a run that meets a cold record
    /// ends with [`Stop`] before it has changed anything, and runs again once the record has been read.
    Worker(fn(&mut Ctx<'_>, Args<'_>) -> Done),
    /// On a slow-lane thread that may block, step by step: for what walks the whole data set (KEYS, DEBUG DIGEST). No key is latched; each step is an operation of its own.
    Slow(fn(&mut crate::ctx::SlowCtx<'_>, Args<'_>) -> Done),
    /// EXEC, which runs those of other commands.
    Exec,
    /// Only subcommands; the row itself does nothing.
    Container,
}

/// Where the keys of a command are among its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keys {
    /// None.
    None,
    /// From argument `first` to argument `last` (negative: from the end), every `step`th. As in `COMMAND INFO`.
    Range { first: i32, last: i32, step: i32 },
    /// Argument `count` holds how many keys follow it, every `step`th argument one.
    Counted { count: usize, step: usize },
    /// Argument 1, and those that follow argument 2, which holds their number (ZUNIONSTORE).
    TargetAndCounted,
    /// Argument 1, and the one behind the last option STORE (SORT).
    FirstAndStore,
    /// Argument 1, and the one behind the last STORE or STOREDIST from argument `from` on (GEORADIUS).
    FirstAndAnyStore { from: usize },
    /// The argument behind this word, which is looked for from argument `from` on.
    AfterWord { word: &'static str, from: usize },
    /// The first half of the arguments behind the word STREAMS, which comes behind options from argument `from` on (XREAD).
    Streams { from: i32 },
    /// From argument `first` to argument `last`, in the client's database and in the one whose number is found among
    /// the arguments (MOVE, COPY).
    TwoDatabases {
        first: i32,
        last: i32,
        other: OtherDatabase,
    },
    /// All keys of all databases: latches everything (FLUSHALL, SWAPDB).
    Everything,
}

/// Where among its arguments a command names another database than the client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OtherDatabase {
    /// At this position.
    At(usize),
    /// Behind the last occurrence of this word among the arguments that follow the keys; optional.
    After(&'static str),
}

/// Where keys are: one in front, or none, and those at equal distances.
pub(crate) type Positions = Chain<Range<usize>, StepBy<Range<usize>>>;

impl Keys {
    /// Positions of the keys among `args`; none where they would lie outside (the handler then finds the mistake).
    pub(crate) fn positions(self, args: Args<'_>) -> Positions {
        match self {
            Keys::TargetAndCounted => {
                let sources = Keys::Counted { count: 2, step: 1 }.run(args);
                let targets = usize::from(sources.len() > 0);
                (1..1 + targets).chain(sources)
            }
            Keys::FirstAndStore => {
                let target = target_of_sort(args).map_or(0..0, |at| at..at + 1);
                (1..args.len().min(2)).chain(target.step_by(1))
            }
            Keys::FirstAndAnyStore { from } => {
                let words = ["store", "storedist"];
                (1..args.len().min(2)).chain(behind_last(args, &words, from).step_by(1))
            }
            other => (0..0).chain(other.run(args)),
        }
    }

    /// As [`Self::positions`], where they are at equal distances.
    fn run(self, args: Args<'_>) -> StepBy<Range<usize>> {
        let none = (0..0).step_by(1);
        match self {
            Keys::TargetAndCounted
            | Keys::FirstAndStore
            | Keys::FirstAndAnyStore { .. }
            | Keys::None
            | Keys::Everything => none,
            Keys::AfterWord { word, from } => behind_last(args, &[word], from).step_by(1),
            Keys::TwoDatabases { first, last, .. } => Keys::Range {
                first,
                last,
                step: 1,
            }
            .run(args),
            Keys::Range { first, last, step } => {
                let last = if last < 0 {
                    last + args.len() as i32
                } else {
                    last
                };
                let end = (last + 1).clamp(0, args.len() as i32);
                (first as usize..end as usize).step_by(step as usize)
            }
            Keys::Counted { count, step } => {
                let announced = args.get(count).and_then(parse_count).unwrap_or(0);
                let first = count + 1;
                if announced > args.len().saturating_sub(first) / step {
                    return none;
                }
                (first..first + announced * step).step_by(step)
            }
            Keys::Streams { .. } => match first_stream(args) {
                Some(first) if (args.len() - first).is_multiple_of(2) => {
                    (first..first + (args.len() - first) / 2).step_by(1)
                }
                _ => none,
            },
        }
    }

    /// The number of the second database that the keys are latched in, if the arguments name one.
    pub(crate) fn other_database(self, args: Args<'_>) -> Option<usize> {
        let Keys::TwoDatabases { last, other, .. } = self else {
            return None;
        };
        let at = match other {
            OtherDatabase::At(at) => at,
            OtherDatabase::After(word) => {
                let after_keys = last as usize + 1..args.len();
                after_keys
                    .rev()
                    .find(|&at| args.is(at, word) && at + 1 < args.len())?
                    + 1
            }
        };
        args.get(at).and_then(parse_count)
    }
}

/// Where the argument is that stands behind the last of `words` from argument `from` on; one that does is none of them itself.
fn behind_last(args: Args<'_>, words: &[&str], from: usize) -> Range<usize> {
    let mut found = 0..0;
    let mut at = from;
    while at + 1 < args.len() {
        if words.iter().any(|word| args.is(at, word)) {
            at += 1;
            found = at..at + 1;
        }
        at += 1;
    }
    found
}

/// Where the keys begin behind the options of XREAD or XREADGROUP.
fn first_stream(args: Args<'_>) -> Option<usize> {
    let mut at = 1;
    while !args.is(at, "streams") {
        at += match () {
            () if args.is(at, "block") || args.is(at, "count") => 2,
            () if args.is(at, "group") => 3,
            () if args.is(at, "noack") => 1,
            () => return None,
        };
    }
    Some(at + 1)
}

/// Where SORT names the key that it stores its result under.
fn target_of_sort(args: Args<'_>) -> Option<usize> {
    let (mut at, mut target) = (2, None);
    while at < args.len() {
        if args.is(at, "store") && at + 1 < args.len() {
            target = Some(at + 1);
        }
        at += match () {
            () if args.is(at, "limit") => 3,
            () if args.is(at, "by") || args.is(at, "get") || args.is(at, "store") => 2,
            () => 1,
        };
    }
    target
}

fn parse_count(arg: &[u8]) -> Option<usize> {
    resp::parse_integer(arg).and_then(|count| usize::try_from(count).ok())
}

/// Properties of a command, with Redis's names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    /// May change data.
    pub(crate) const WRITE: Flags = Flags(1 << 0);
    /// Only reads data.
    pub(crate) const READONLY: Flags = Flags(1 << 1);
    /// Refused when memory is exhausted.
    pub(crate) const DENYOOM: Flags = Flags(1 << 2);
    pub(crate) const ADMIN: Flags = Flags(1 << 3);
    pub(crate) const PUBSUB: Flags = Flags(1 << 4);
    pub(crate) const NOSCRIPT: Flags = Flags(1 << 5);
    pub(crate) const BLOCKING: Flags = Flags(1 << 6);
    /// Allowed while the data set is being loaded.
    pub(crate) const LOADING: Flags = Flags(1 << 7);
    pub(crate) const STALE: Flags = Flags(1 << 8);
    pub(crate) const SKIP_MONITOR: Flags = Flags(1 << 9);
    pub(crate) const SKIP_SLOWLOG: Flags = Flags(1 << 10);
    pub(crate) const ASKING: Flags = Flags(1 << 11);
    /// Constant or logarithmic time.
    pub(crate) const FAST: Flags = Flags(1 << 12);
    /// Allowed before AUTH.
    pub(crate) const NO_AUTH: Flags = Flags(1 << 13);
    pub(crate) const MOVABLEKEYS: Flags = Flags(1 << 14);
    pub(crate) const ALLOW_BUSY: Flags = Flags(1 << 15);
    pub(crate) const NO_MULTI: Flags = Flags(1 << 16);
    pub(crate) const NO_ASYNC_LOADING: Flags = Flags(1 << 17);
    /// Refused unless `enable-debug-command` allows it.
    pub(crate) const PROTECTED: Flags = Flags(1 << 18);
    /// Ours: overwrites its keys without reading them, so cold ones are not fetched first (SET without options, MSET).
    pub(crate) const BLIND: Flags = Flags(1 << 24);
    /// Ours: may change data, yet the keys it finds count as hits like those of a command that only reads (GETDEL).
    pub(crate) const COUNTS_HITS: Flags = Flags(1 << 25);

    /// Ours: between MULTI and EXEC it runs at once, instead of being queued.
    pub(crate) const AT_ONCE: Flags = Flags(1 << 26);
    /// Ours: changes the database that the commands after it run in (SELECT).
    pub(crate) const SELECTS: Flags = Flags(1 << 27);
    /// Ours: may change data, but nothing that a client can wait for, so nobody who waits is looked for (XACK).
    pub(crate) const WAKES_NOBODY: Flags = Flags(1 << 29);
    /// Ours: looks at keys that it does not name (SCAN, DBSIZE); in a transaction nobody may change any of them.
    pub(crate) const KEYSPACE: Flags = Flags(1 << 28);
    /// Ours: only reads data, but may note under its keys what it has found out (PFCOUNT).
    pub(crate) const NOTES: Flags = Flags(1 << 29);

    pub(crate) const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One command or subcommand.
pub(crate) struct Row {
    /// Lower case; of a subcommand its own name only ("get" of CONFIG GET).
    pub(crate) name: &'static str,
    /// Number of arguments with the name (and subcommand name) itself; negative: at least that many.
    pub(crate) arity: i32,
    pub(crate) flags: Flags,
    pub(crate) keys: Keys,
    /// ACL categories beyond those implied by the flags, without "@": "string", "keyspace", "dangerous".
    pub(crate) categories: &'static [&'static str],
    /// COMMAND DOCS: group, first Redis version with it, complexity, one-line summary (our own words).
    pub(crate) group: &'static str,
    pub(crate) since: &'static str,
    pub(crate) complexity: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) handler: Handler,
    pub(crate) subcommands: &'static [Row],
    /// For clients of several servers, see [`tip`].
    pub(crate) tips: &'static [&'static str],
}

impl Row {
    /// Whether the command can be called with `count` arguments, its name among them.
    #[inline]
    pub(crate) fn takes(&self, count: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 {
            count >= arity
        } else {
            count == arity
        }
    }
}

/// What a client of several servers is told about a command, with Redis's words ("command tips").
pub(crate) mod tip {
    pub(crate) const NONDETERMINISTIC: &[&str] = &["nondeterministic_output"];
    pub(crate) const UNORDERED: &[&str] = &["nondeterministic_output_order"];
    pub(crate) const ALL_NODES: &[&str] = &["request_policy:all_nodes", "nondeterministic_output"];
    pub(crate) const ALL_NODES_SUCCEED: &[&str] =
        &["request_policy:all_nodes", "response_policy:all_succeeded"];
    pub(crate) const ALL_NODES_SUM: &[&str] =
        &["request_policy:all_nodes", "response_policy:agg_sum"];
    pub(crate) const ALL_NODES_SUM_NOW: &[&str] = &[
        "request_policy:all_nodes",
        "response_policy:agg_sum",
        "nondeterministic_output",
    ];
    pub(crate) const ALL_NODES_SPECIAL: &[&str] = &[
        "nondeterministic_output",
        "request_policy:all_nodes",
        "response_policy:special",
    ];
    pub(crate) const ALL_SHARDS: &[&str] =
        &["request_policy:all_shards", "nondeterministic_output"];
    pub(crate) const ALL_SHARDS_UNORDERED: &[&str] =
        &["request_policy:all_shards", "nondeterministic_output_order"];
    pub(crate) const ALL_SHARDS_SUCCEED: &[&str] =
        &["request_policy:all_shards", "response_policy:all_succeeded"];
    pub(crate) const ALL_SHARDS_SUM: &[&str] =
        &["request_policy:all_shards", "response_policy:agg_sum"];
    pub(crate) const ALL_SHARDS_MIN: &[&str] =
        &["request_policy:all_shards", "response_policy:agg_min"];
    pub(crate) const ALL_SHARDS_SPECIAL: &[&str] = &[
        "nondeterministic_output",
        "request_policy:all_shards",
        "response_policy:special",
    ];
    pub(crate) const SPECIAL: &[&str] = &["nondeterministic_output", "request_policy:special"];
    pub(crate) const MULTI_SHARD: &[&str] = &["request_policy:multi_shard"];
    pub(crate) const MULTI_SHARD_SUCCEED: &[&str] = &[
        "request_policy:multi_shard",
        "response_policy:all_succeeded",
    ];
    pub(crate) const MULTI_SHARD_SUM: &[&str] =
        &["request_policy:multi_shard", "response_policy:agg_sum"];
    pub(crate) const MULTI_SHARD_MIN: &[&str] =
        &["request_policy:multi_shard", "response_policy:agg_min"];
}

impl Row {
    pub(crate) const fn with_tips(self, tips: &'static [&'static str]) -> Row {
        Row { tips, ..self }
    }

    /// What rows without keys that concern the whole server have in common.
    pub(crate) const SERVER: Row = Row {
        name: "",
        arity: 0,
        flags: Flags::NONE,
        keys: Keys::None,
        categories: &[],
        group: "server",
        since: "",
        complexity: "O(1)",
        summary: "",
        handler: Handler::Container,
        subcommands: &[],
        tips: &[],
    };

    /// What rows that concern the client's connection have in common.
    pub(crate) const CONNECTION: Row = Row {
        categories: &["connection"],
        group: "connection",
        ..Row::SERVER
    };
}
