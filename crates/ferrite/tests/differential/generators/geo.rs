//! Geo commands. No two places are the same, so the nearest come in one order; and what is stored with distances is removed before
//! a digest is made of it, which Redis before 7.2 makes of 17 digits.

use super::Generator;
use crate::check::Check;
use crate::command;
use crate::source::{Command, Part, Source};

pub(crate) const TABLE: &[Generator] = &[
    Generator::new("geoadd", |s| {
        let command = command!["GEOADD", s.geo_key()];
        let mut command = s.with_options(command, &["NX", "xx", "CH"]);
        let count = match s.random.below(25) {
            0 => s.random.between(150, 400),
            1..6 => s.random.between(6, 30),
            _ => s.random.between(1, 4),
        };
        for _ in 0..count {
            command.extend(somewhere(s));
            command.push(match count {
                100.. => format!("m{}", s.random.below(500)).into_bytes(),
                _ => member(s),
            });
        }
        if s.random.one_in(40) {
            command.pop();
        }
        command
    })
    .undistorted()
    .weight(5),
    Generator::new("geodist", |s| {
        let mut command = command!["GEODIST", read_key(s), member(s), member(s)];
        if s.random.one_in(2) {
            command.push(unit(s));
        }
        command
    })
    .weight(3),
    Generator::new("geohash", |s| {
        let command = command!["GEOHASH", read_key(s)];
        with_members(s, command)
    })
    .weight(2),
    Generator::new("geopos", |s| {
        let command = command!["GEOPOS", read_key(s)];
        with_members(s, command)
    })
    .weight(2),
    Generator::new("geosearch", |s| {
        let command = command!["GEOSEARCH", read_key(s)];
        let command = with_area(s, command);
        let command = with_count(s, command);
        with_replies(s, command)
    })
    .weight(8),
    Generator::new("geosearchstore", |s| {
        let command = command!["GEOSEARCHSTORE", target(s), s.geo_key()];
        let command = with_area(s, command);
        with_count(s, command)
    })
    .undistorted()
    .weight(2),
    // Alone, for what follows to be asked at once.
    Generator::new("geosearchstore", |s| {
        let command = command!["GEOSEARCHSTORE", DISTANCES, s.geo_key()];
        let command = with_area(s, command);
        let mut command = with_count(s, command);
        command.push(b"StoreDist".to_vec());
        with_look_at_distances(s, command)
    })
    .undistorted()
    .check(Check::Shape),
    Generator::new("georadius", |s| {
        let command = command!["GEORADIUS", s.geo_key()];
        let command = circle_around_a_place(s, command);
        let mut command = with_count(s, command);
        command.extend(command!["storedist", DISTANCES]);
        with_look_at_distances(s, command)
    })
    .undistorted()
    .check(Check::Shape),
    Generator::new("georadius", |s| {
        let command = command!["GEORADIUS", read_key(s)];
        let command = circle_around_a_place(s, command);
        with_replies_or_target(s, command)
    })
    .undistorted()
    .weight(3),
    Generator::new("georadiusbymember", |s| {
        let command = command![
            "GEORADIUSBYMEMBER",
            read_key(s),
            member(s),
            reach(s),
            unit(s)
        ];
        with_replies_or_target(s, command)
    })
    .undistorted()
    .weight(3),
    Generator::new("georadius_ro", |s| {
        let command = command!["GEORADIUS_RO", read_key(s)];
        let command = circle_around_a_place(s, command);
        let command = with_count(s, command);
        with_replies(s, command)
    }),
    Generator::new("georadiusbymember_ro", |s| {
        let command = command![
            "GEORADIUSBYMEMBER_RO",
            read_key(s),
            member(s),
            reach(s),
            unit(s)
        ];
        let command = with_count(s, command);
        with_replies(s, command)
    }),
    Generator::new("zrange", |s| {
        command!["ZRANGE", s.geo_key(), 0, -1, "WITHSCORES"]
    }),
    Generator::new("zrem", |s| {
        let command = command!["ZREM", s.geo_key()];
        with_members(s, command)
    }),
];

/// A key of places, or of what was found among them.
fn read_key(s: &mut Source) -> Vec<u8> {
    match s.random.below(10) {
        0 => b"gr:0".to_vec(),
        1 if s.random.one_in(4) => s.zset_key(),
        _ => s.geo_key(),
    }
}

/// Where distances are stored.
const DISTANCES: &str = "gd:0";

/// `command`, after which the members are read that it has stored with their distances, in that order.
fn with_look_at_distances(s: &mut Source, command: Command) -> Command {
    let look = command!["ZRANGE", DISTANCES, 0, -1];
    s.then.extend([look, command!["DEL", DISTANCES]]);
    command
}

/// Where to store what is found.
fn target(s: &mut Source) -> Vec<u8> {
    match s.random.below(3) {
        0 => s.geo_key(),
        _ => b"gr:0".to_vec(),
    }
}

fn member(s: &mut Source) -> Vec<u8> {
    match s.random.below(30) {
        0 => s.element(),
        _ => format!("m{}", s.random.below(30)).into_bytes(),
    }
}

fn with_members(s: &mut Source, mut command: Command) -> Command {
    for _ in 0..s.random.between(0, 5) {
        command.push(member(s));
    }
    command
}

/// A longitude and a latitude: mostly around a few towns, some of them near an edge.
fn somewhere(s: &mut Source) -> Command {
    const TOWNS: [(i64, i64); 6] = [
        (13_361_389, 38_115_556),
        (15_087_269, 37_502_669),
        (-179_990_000, -16_500_000),
        (179_990_000, 66_100_000),
        (25_000_000, 81_000_000),
        (-70_900_000, -84_900_000),
    ];
    let (longitude, latitude) = match s.random.below(40) {
        0 => {
            let texts = ["181", "x", "", "nan", "inf", "-180.000001"];
            return command![s.word(&texts), "1.5"];
        }
        1 => return command!["1.5", s.word(&["85.0511288", "-86", "y", "90"])],
        2 => {
            // On an edge; where on it, is hardly ever the same.
            let latitude = degrees(s.random.between(-85_000_000, 85_000_000));
            return command![s.word(&["180", "-180"]), latitude];
        }
        3..9 => (
            s.random.between(-180_000_000, 180_000_000),
            s.random.between(-85_051_128, 85_051_128),
        ),
        _ => {
            let (longitude, latitude) = *s.random.pick(&TOWNS);
            let most = *s.random.pick(&[2_000, 100_000, 10_000_000]);
            let longitude = longitude + s.random.between(-most, most);
            let latitude = latitude + s.random.between(-most, most);
            (
                longitude.clamp(-180_000_000, 180_000_000),
                latitude.clamp(-85_051_128, 85_051_128),
            )
        }
    };
    command![degrees(longitude), degrees(latitude)]
}

/// Millionths of degrees as text.
fn degrees(millionths: i64) -> String {
    format!("{:.6}", millionths as f64 / 1e6)
}

fn unit(s: &mut Source) -> Vec<u8> {
    let units = ["m", "M", "km", "km", "KM", "km", "ft", "mi", "Mi", "parsec"];
    let most = if s.random.one_in(10) { 10 } else { 9 };
    s.word(&units[..most]).encoded()
}

/// A radius, or the length of a side.
fn reach(s: &mut Source) -> Vec<u8> {
    match s.random.below(30) {
        0 => s.word(&["-1", "x", "", "1e400", "1e300"]).encoded(),
        1 => b"0".to_vec(),
        2 => s.random.between(10_000, 30_000).encoded(),
        3..10 => s.random.between(1000, 9000).encoded(),
        10..20 => s.random.between(50, 1000).encoded(),
        _ => format!("{}.5", s.random.between(0, 200)).into_bytes(),
    }
}

fn circle_around_a_place(s: &mut Source, mut command: Command) -> Command {
    command.extend(somewhere(s));
    command.extend([reach(s), unit(s)]);
    command
}

fn with_area(s: &mut Source, mut command: Command) -> Command {
    let middle = match s.random.below(30) {
        0 => command![],
        1 => command!["FROMMEMBER", member(s), "FROMLONLAT", 1, 2],
        2..14 => command!["FromMember", member(s)],
        _ => [command!["FROMLONLAT"], somewhere(s)].concat(),
    };
    let shape = match s.random.below(30) {
        0 => command![],
        1 => command!["BYBOX", reach(s), reach(s), unit(s), "BYRADIUS", 1, "m"],
        2..14 => command!["BYBOX", reach(s), reach(s), unit(s)],
        _ => command!["ByRadius", reach(s), unit(s)],
    };
    let parts = match s.random.one_in(4) {
        true => [shape, middle],
        false => [middle, shape],
    };
    command.extend(parts.concat());
    command
}

fn with_count(s: &mut Source, command: Command) -> Command {
    let mut command = s.with_options(command, &["ASC", "Desc"]);
    if s.random.one_in(3) {
        command.extend(command!["COUNT", s.random.between(1, 12)]);
        if s.random.one_in(3) {
            command.push(b"ANY".to_vec());
        }
    }
    if s.random.one_in(40) {
        command.extend(command![s.word(&["COUNT", "ANY", "STOREDIST"]), "0"]);
    }
    command
}

fn with_replies(s: &mut Source, command: Command) -> Command {
    s.with_options(command, &["WITHDIST", "withhash", "WithCoord"])
}

fn with_replies_or_target(s: &mut Source, command: Command) -> Command {
    let mut command = with_count(s, command);
    if s.random.one_in(2) {
        return with_replies(s, command);
    }
    command.extend(command!["store", target(s)]);
    if s.random.one_in(20) {
        command.push(b"WITHDIST".to_vec());
    }
    command
}
