//! Which connections CLIENT LIST shows and CLIENT KILL closes: options that each select some, all of which must hold.
//! Every option but SKIPME and the two ages can be negated by a leading "NOT-".

use std::mem::discriminant;
use std::sync::atomic::Ordering::Relaxed;

use crate::args::Args;
use crate::client::ClientEntry;
use crate::command::Stop;
use crate::commands::client::flag_letters;
use crate::commands::connection::DEFAULT_USER;
use crate::commands::parse::{SYNTAX_ERROR, strict_integer};
use crate::server::Server;

/// All letters that a connection's flags can have in Redis.
const FLAG_LETTERS: &[u8] = b"AbBcdeIiMNOPrRSTtuUx";

/// Selects connections.
pub(crate) struct Filter {
    conditions: Vec<(Condition, Expected)>,
    skip_me: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Holds,
    HoldsNot,
}

enum Condition {
    Ids(Vec<u64>),
    Address(Vec<u8>),
    LocalAddress(Vec<u8>),
    Ip(Vec<u8>),
    /// Whether it is the type of every client there is, a normal one.
    NormalType(bool),
    User(Vec<u8>),
    Name(Vec<u8>),
    LibName(Vec<u8>),
    LibVer(Vec<u8>),
    Flags(Vec<u8>),
    Database(u32),
    AgeAtLeast {
        seconds: u64,
    },
    IdleAtLeast {
        seconds: u64,
    },
}

impl Filter {
    /// Whether the connection `entry` is selected for the client `me`.
    pub(crate) fn matches(&self, entry: &ClientEntry, me: u64, server: &Server) -> bool {
        let holds = |(condition, expected): &(Condition, Expected)| {
            condition.holds(entry, server) == (*expected == Expected::Holds)
        };
        !(self.skip_me && entry.id == me) && self.conditions.iter().all(holds)
    }
}

impl Condition {
    fn holds(&self, entry: &ClientEntry, server: &Server) -> bool {
        match self {
            Condition::Ids(ids) => ids.contains(&entry.id),
            Condition::Address(address) => entry.addr.as_bytes() == address,
            Condition::LocalAddress(address) => entry.laddr.as_bytes() == address,
            Condition::Ip(ip) => ip_of(&entry.addr).as_bytes() == ip,
            Condition::NormalType(normal) => *normal,
            Condition::User(user) => entry.details.lock().user.as_bytes() == user,
            Condition::Name(name) => entry.details.lock().name == *name,
            Condition::LibName(name) => entry.details.lock().lib_name == *name,
            Condition::LibVer(version) => entry.details.lock().lib_ver == *version,
            Condition::Flags(wanted) => {
                let letters = flag_letters(entry);
                wanted
                    .iter()
                    .all(|letter| letters.as_bytes().contains(letter))
            }
            Condition::Database(database) => entry.database.load(Relaxed) == *database,
            Condition::AgeAtLeast { seconds } => entry.connected_at.elapsed().as_secs() >= *seconds,
            Condition::IdleAtLeast { seconds } => {
                let idle_ms = server
                    .uptime_ms()
                    .saturating_sub(entry.last_interaction_ms.load(Relaxed));
                idle_ms / 1000 >= *seconds
            }
        }
    }
}

/// "ip:port" or "[ip]:port" without the port.
fn ip_of(address: &str) -> &str {
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    ip.trim_start_matches('[').trim_end_matches(']')
}

/// The options of CLIENT LIST, from argument 2 on.
pub(crate) fn parse_list(args: Args<'_>, server: &Server) -> Result<Filter, Stop> {
    parse(
        args,
        server,
        Filter {
            conditions: Vec::new(),
            skip_me: false,
        },
        "ERR Invalid client ID",
    )
}

/// The options of CLIENT KILL, from argument 2 on.
pub(crate) fn parse_kill(args: Args<'_>, server: &Server) -> Result<Filter, Stop> {
    let filter = Filter {
        conditions: Vec::new(),
        skip_me: true,
    };
    parse(
        args,
        server,
        filter,
        "ERR client-id should be greater than 0",
    )
}

fn parse(
    args: Args<'_>,
    server: &Server,
    mut filter: Filter,
    bad_id: &'static str,
) -> Result<Filter, Stop> {
    let mut i = 2;
    while let Some(option) = args.get(i) {
        let Some(value) = args.get(i + 1) else {
            return Err(SYNTAX_ERROR.into());
        };
        let option = option.to_ascii_lowercase();
        let (option, expected) = match option.strip_prefix(b"not-") {
            Some(option) => (option, Expected::HoldsNot),
            None => (option.as_slice(), Expected::Holds),
        };
        i += 2;
        let condition = match (option, expected) {
            (b"id", _) => {
                let mut ids = vec![parse_id(value).ok_or(Stop::from(bad_id))?];
                while let Some(id) = args.get(i).and_then(parse_id) {
                    ids.push(id);
                    i += 1;
                }
                Condition::Ids(ids)
            }
            (b"skipme", Expected::Holds) => {
                filter.skip_me = parse_yes_no(value)?;
                continue;
            }
            (b"maxage", Expected::Holds) => Condition::AgeAtLeast {
                seconds: parse_seconds("maxage", value)?,
            },
            (b"idle", Expected::Holds) => Condition::IdleAtLeast {
                seconds: parse_seconds("idle", value)?,
            },
            _ => parse_condition(option, value, server)?,
        };
        // Of an option that is given twice, the latter counts.
        filter.conditions.retain(|(earlier, earlier_expected)| {
            *earlier_expected != expected || discriminant(earlier) != discriminant(&condition)
        });
        filter.conditions.push((condition, expected));
    }
    Ok(filter)
}

fn parse_condition(option: &[u8], value: &[u8], server: &Server) -> Result<Condition, Stop> {
    let owned = value.to_vec();
    Ok(match option {
        b"addr" => Condition::Address(owned),
        b"laddr" => Condition::LocalAddress(owned),
        b"ip" => Condition::Ip(owned),
        b"name" => Condition::Name(owned),
        b"lib-name" => Condition::LibName(owned),
        b"lib-ver" => Condition::LibVer(owned),
        b"type" => match value.to_ascii_lowercase().as_slice() {
            b"normal" => Condition::NormalType(true),
            b"master" | b"primary" | b"slave" | b"replica" | b"pubsub" => {
                Condition::NormalType(false)
            }
            _ => {
                return Err(format!(
                    "ERR Unknown client type '{}'",
                    String::from_utf8_lossy(value)
                )
                .into());
            }
        },
        b"user" if value != DEFAULT_USER.as_bytes() => {
            return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(value)).into());
        }
        b"user" => Condition::User(owned),
        b"flags" if !value.iter().all(|letter| FLAG_LETTERS.contains(letter)) => {
            let flags = String::from_utf8_lossy(value);
            return Err(format!("ERR Unknown flags found in the provided filter: {flags}").into());
        }
        b"flags" => Condition::Flags(owned),
        b"db" => Condition::Database(parse_database(value, server)?),
        _ => return Err(SYNTAX_ERROR.into()),
    })
}

fn parse_id(arg: &[u8]) -> Option<u64> {
    strict_integer(arg)
        .and_then(|id| u64::try_from(id).ok())
        .filter(|id| *id > 0)
}

fn parse_yes_no(arg: &[u8]) -> Result<bool, Stop> {
    match arg.to_ascii_lowercase().as_slice() {
        b"yes" => Ok(true),
        b"no" => Ok(false),
        _ => Err(SYNTAX_ERROR.into()),
    }
}

fn parse_seconds(option: &str, arg: &[u8]) -> Result<u64, Stop> {
    match strict_integer(arg) {
        None => Err(format!("ERR {option} is not an integer or out of range").into()),
        Some(seconds @ 1..) => Ok(seconds as u64),
        Some(_) => Err(format!("ERR {option} should be greater than 0").into()),
    }
}

fn parse_database(arg: &[u8], server: &Server) -> Result<u32, Stop> {
    let Some(number) = strict_integer(arg) else {
        return Err("ERR DB is not an integer or out of range".into());
    };
    match u32::try_from(number) {
        Ok(database) if (database as usize) < server.databases.count() => Ok(database),
        _ => Err(format!(
            "ERR DB number should be between 0 and {}",
            server.databases.count() - 1
        )
        .into()),
    }
}
