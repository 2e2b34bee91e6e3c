//! The connection itself: AUTH, HELLO, PING, ECHO, SELECT, RESET, QUIT, and what a server without a cluster answers
//! to READONLY and READWRITE.

use std::sync::atomic::Ordering::Relaxed;

use resp::Protocol;

use crate::args::Args;
use crate::client::{After, Client, ReplyMode, client_flags};
use crate::command::{Done, Flags, Handler, Row, Stop, tip};
use crate::commands::client::check_name;
use crate::commands::parse::{SYNTAX_ERROR, integer_32, strict_integer};
use crate::ctx::Ctx;
use crate::server::Server;

/// The only user there is.
pub(crate) const DEFAULT_USER: &str = "default";

/// The Redis version that clients are told: they choose the commands they send by it.
pub(crate) const REDIS_VERSION: &str = "7.4.2";

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);
const BEFORE_AUTH: Flags = Flags::NOSCRIPT
    .and(ANY_TIME)
    .and(Flags::FAST)
    .and(Flags::NO_AUTH)
    .and(Flags::ALLOW_BUSY);

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[
    row(
        "auth",
        -2,
        BEFORE_AUTH,
        "1.0.0",
        "O(N) where N is the number of passwords of the user",
        "Authenticates the connection.",
        auth,
    ),
    row(
        "echo",
        2,
        ANY_TIME.and(Flags::FAST),
        "1.0.0",
        "O(1)",
        "Returns the given string.",
        echo,
    ),
    row(
        "hello",
        -1,
        BEFORE_AUTH,
        "6.0.0",
        "O(1)",
        "Introduces the client and chooses the protocol.",
        hello,
    ),
    row(
        "ping",
        -1,
        Flags::FAST,
        "1.0.0",
        "O(1)",
        "Returns PONG, or the given string.",
        ping,
    )
    .with_tips(tip::ALL_SHARDS_SUCCEED),
    row(
        "quit",
        -1,
        BEFORE_AUTH.and(Flags::AT_ONCE),
        "1.0.0",
        "O(1)",
        "Closes the connection.",
        quit,
    ),
    row(
        "readonly",
        1,
        ANY_TIME.and(Flags::FAST),
        "3.0.0",
        "O(1)",
        "Allows reads from a replica of a cluster.",
        no_cluster,
    ),
    row(
        "readwrite",
        1,
        ANY_TIME.and(Flags::FAST),
        "3.0.0",
        "O(1)",
        "Ends what READONLY began.",
        no_cluster,
    ),
    row(
        "reset",
        1,
        BEFORE_AUTH.and(Flags::AT_ONCE),
        "6.2.0",
        "O(1)",
        "Gives the connection the state of a new one.",
        reset,
    ),
    row(
        "select",
        2,
        ANY_TIME.and(Flags::FAST).and(Flags::SELECTS),
        "1.0.0",
        "O(1)",
        "Changes the selected database.",
        select,
    ),
];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
    handler: fn(&mut Ctx<'_>, Args<'_>) -> Done,
) -> Row {
    Row {
        name,
        arity,
        flags,
        since,
        complexity,
        summary,
        handler: Handler::Worker(handler),
        ..Row::CONNECTION
    }
}

fn auth(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (user, password) = match args.len() {
        2 => (DEFAULT_USER.as_bytes(), &args[1]),
        3 => (&args[1], &args[2]),
        _ => return Err(SYNTAX_ERROR.into()),
    };
    if args.len() == 2 && cx.server.password().is_none() {
        let text = "ERR AUTH <password> called without any password configured for the default user. \
                    Are you sure your configuration is correct?";
        return Err(text.into());
    }
    authenticate(cx.server, cx.client, user, password)?;
    cx.reply.ok();
    Ok(())
}

fn authenticate(server: &Server, client: &mut Client, user: &[u8], password: &[u8]) -> Done {
    let correct = server
        .password()
        .is_none_or(|expected| same_secret(&expected, password));
    if user != DEFAULT_USER.as_bytes() || !correct {
        return Err("WRONGPASS invalid username-password pair or user is disabled.".into());
    }
    client.authenticated = true;
    Ok(())
}

/// Compares without telling by the time it takes how far two secrets agree.
fn same_secret(expected: &[u8], given: &[u8]) -> bool {
    let same_len = expected.len() == given.len();
    let difference = expected
        .iter()
        .zip(given)
        .fold(0, |difference, (a, b)| difference | (a ^ b));
    same_len && std::hint::black_box(difference) == 0
}

/// What HELLO asks for.
#[derive(Default)]
struct Hello<'a> {
    protocol: Option<Protocol>,
    auth: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

fn hello(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let wanted = parse_hello(args)?;
    if let Some((user, password)) = wanted.auth {
        authenticate(cx.server, cx.client, user, password)?;
    }
    if !cx.client.authenticated {
        let text = "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                    HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
                    RESP protocol version at the same time";
        return Err(text.into());
    }
    if let Some(name) = wanted.name {
        name.clone_into(&mut cx.client.entry.details.lock().name);
    }
    if let Some(protocol) = wanted.protocol {
        set_protocol(cx, protocol);
    }
    let reply = &mut *cx.reply;
    let protocol = protocol_number(reply.protocol());
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(i64::from(protocol));
    reply.bulk(b"id");
    reply.integer(cx.client.id() as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn parse_hello<'a>(args: Args<'a>) -> Result<Hello<'a>, Stop> {
    let mut wanted = Hello::default();
    let Some(version) = args.get(1) else {
        return Ok(wanted);
    };
    wanted.protocol = Some(match strict_integer(version) {
        Some(2) => Protocol::Resp2,
        Some(3) => Protocol::Resp3,
        Some(_) => return Err("NOPROTO unsupported protocol version".into()),
        None => return Err("ERR Protocol version is not an integer or out of range".into()),
    });
    let mut i = 2;
    while let Some(option) = args.get(i) {
        match (args.get(i + 1), args.get(i + 2)) {
            (Some(user), Some(password)) if args.is(i, "auth") => {
                wanted.auth = Some((user, password));
                i += 3;
            }
            (Some(name), _) if args.is(i, "setname") => {
                check_name(name)?;
                wanted.name = Some(name);
                i += 2;
            }
            _ => {
                let option = String::from_utf8_lossy(option);
                return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
            }
        }
    }
    Ok(wanted)
}

fn set_protocol(cx: &mut Ctx<'_>, protocol: Protocol) {
    cx.reply.set_protocol(protocol);
    cx.client
        .entry
        .protocol
        .store(protocol_number(protocol), Relaxed);
}

fn protocol_number(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}

fn ping(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    match args.len() {
        1 => cx.reply.simple("PONG"),
        2 => cx.reply.bulk(&args[1]),
        _ => return Err("ERR wrong number of arguments for 'ping' command".into()),
    }
    Ok(())
}

fn echo(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    cx.reply.bulk(&args[1]);
    Ok(())
}

fn select(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    cx.client.select(selected_database(args, cx.server)?);
    cx.reply.ok();
    Ok(())
}

/// The database that a SELECT with these arguments selects.
pub(crate) fn selected_database(args: Args<'_>, server: &Server) -> Result<usize, Stop> {
    let database = usize::try_from(integer_32(&args[1])?).ok();
    database
        .filter(|database| *database < server.databases.count())
        .ok_or("ERR DB index is out of range".into())
}

fn reset(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    set_protocol(cx, Protocol::Resp2);
    let client = &mut *cx.client;
    client.end_transaction();
    client.select(0);
    client.authenticated = cx.server.password().is_none();
    client.reply_mode = ReplyMode::default();
    client.entry.set_flag(client_flags::NO_TOUCH, false);
    client.entry.set_flag(client_flags::NO_EVICT, false);
    client.entry.details.lock().name.clear();
    cx.reply.simple("RESET");
    Ok(())
}

fn quit(cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    cx.client.after = After::Close;
    cx.reply.ok();
    Ok(())
}

fn no_cluster(_cx: &mut Ctx<'_>, _args: Args<'_>) -> Done {
    Err("ERR This instance has cluster support disabled".into())
}
