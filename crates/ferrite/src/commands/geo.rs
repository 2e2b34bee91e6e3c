//! Places: GEOADD, GEODIST, GEOHASH, GEOPOS. They are members of a sorted set, whose scores are the numbers of their places.

use super::parse::SYNTAX_ERROR;
use super::read_each;
use super::string::{GROW, READ};
use super::zset::{ZSET_ROW, Zset};
use super::zset_number::score;
use super::zset_write::{Options, add};
use crate::args::Args;
use crate::command::{Done, Handler, Row, Stop};
use crate::ctx::Ctx;
use crate::geo::Place;
use crate::output::Output;

/// What most rows of geo commands have in common.
pub(super) const GEO_ROW: Row = Row {
    categories: &["geo"],
    group: "geo",
    since: "3.2.0",
    ..ZSET_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "geoadd",
        arity: -5,
        flags: GROW,
        complexity: "O(log(N)) for each place added, N being the number of places",
        summary: "Adds places to a sorted set, or changes where they are.",
        handler: Handler::Worker(geoadd),
        ..GEO_ROW
    },
    Row {
        name: "geodist",
        arity: -4,
        flags: READ,
        complexity: "O(1)",
        summary: "Returns how far two places of a sorted set are from each other.",
        handler: Handler::Worker(geodist),
        ..GEO_ROW
    },
    Row {
        name: "geohash",
        arity: -2,
        flags: READ,
        complexity: "O(1) for each place",
        summary: "Returns places of a sorted set as geohashes, which other programs know.",
        handler: Handler::Worker(geohash),
        ..GEO_ROW
    },
    Row {
        name: "geopos",
        arity: -2,
        flags: READ,
        complexity: "O(1) for each place",
        summary: "Returns the longitudes and latitudes of places of a sorted set.",
        handler: Handler::Worker(geopos),
        ..GEO_ROW
    },
];

/// The place with this score.
pub(super) fn place_of(score: f64) -> Place {
    // As C does where there are eight bytes of a negative number.
    Place::of_number(score as i64 as u64)
}

/// A longitude and a latitude.
pub(super) fn place(longitude: &[u8], latitude: &[u8]) -> Result<Place, Stop> {
    let (longitude, latitude) = (score(longitude)?, score(latitude)?);
    Place::new(longitude, latitude).ok_or_else(|| {
        format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}").into()
    })
}

/// Metres of a unit.
pub(super) fn metres(unit: &[u8]) -> Result<f64, Stop> {
    const UNITS: [(&[u8], f64); 4] = [
        (b"m", 1.0),
        (b"km", 1000.0),
        (b"ft", 0.3048),
        (b"mi", 1609.34),
    ];
    let found = UNITS
        .iter()
        .find(|(name, _)| unit.eq_ignore_ascii_case(name));
    found
        .map(|&(_, metres)| metres)
        .ok_or("ERR unsupported unit provided. please use M, KM, FT, MI".into())
}

/// Replies a distance with four digits behind the point.
pub(super) fn reply_distance(reply: &mut Output, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}

/// Replies the longitude and the latitude of a place.
pub(super) fn reply_place(reply: &mut Output, place: Place) {
    reply.array(2);
    for degrees in [place.longitude, place.latitude] {
        let text = format!("{degrees:.17}");
        reply.decimal(text.trim_end_matches('0').trim_end_matches('.'));
    }
}

fn geoadd(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let mut options = Options::default();
    let mut first = 2;
    while ["nx", "xx", "ch"].iter().any(|name| args.is(first, name))
        && let Some(option) = options.called(&args[first])
    {
        *option = true;
        first += 1;
    }
    let words = args.len() - first;
    if words == 0 || !words.is_multiple_of(3) || options.exclude_all() {
        return Err(SYNTAX_ERROR.into());
    }
    let longitudes = args.from(first).step_by(3);
    let latitudes = args.from(first + 1).step_by(3);
    let places = longitudes
        .zip(latitudes)
        .map(|(longitude, latitude)| place(longitude, latitude));
    let scores: Vec<f64> = places
        .map(|place| Ok(place?.number() as f64))
        .collect::<Result<_, Stop>>()?;
    let members = args.from(first + 2).step_by(3);
    add(cx, &args[1], &options, &scores, members)
}

/// The places of members, in their order; `None` for those that are not there.
fn places<'k>(
    cx: &Ctx<'_>,
    key: &[u8],
    members: impl ExactSizeIterator<Item = &'k [u8]> + Clone,
) -> Result<Vec<Option<Place>>, Stop> {
    let Some(zset) = Zset::find(&cx.op, cx.namespace, key)? else {
        return Ok(vec![None; members.len()]);
    };
    zset.want(members.clone())?;
    read_each(members, |member| Ok(zset.score(member)?.map(place_of)))
}

fn geodist(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    if args.len() > 5 {
        return Err(SYNTAX_ERROR.into());
    }
    let unit_m = args.get(4).map_or(Ok(1.0), metres)?;
    let found = places(cx, &args[1], args.range(2..4).from(0))?;
    match found[..] {
        [Some(one), Some(other)] => reply_distance(cx.reply, one.distance_m(other) / unit_m),
        _ => cx.reply.null(),
    }
    Ok(())
}

fn geohash(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_each(cx, args, |reply, place| match place {
        Some(place) => reply.bulk(&place.geohash()),
        None => reply.null(),
    })
}

fn geopos(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    reply_each(cx, args, |reply, place| match place {
        Some(place) => reply_place(reply, place),
        None => reply.null_array(),
    })
}

/// What a place takes in a reply, at most.
pub(super) const PLACE_BYTES: usize = 80;

/// Replies an array with something about each of the members.
fn reply_each(cx: &mut Ctx<'_>, args: Args<'_>, each: impl Fn(&mut Output, Option<Place>)) -> Done {
    let found = places(cx, &args[1], args.from(2))?;
    let bytes = found.len() * PLACE_BYTES;
    cx.reply.ask_for_room(&mut cx.client.allowance, bytes)?;
    cx.reply.array(found.len());
    found.into_iter().for_each(|place| each(cx.reply, place));
    Ok(())
}
