//! Places in a circle or a rectangle: GEOSEARCH, GEOSEARCHSTORE, GEORADIUS, GEORADIUSBYMEMBER.
//!
//! An area is in nine ranges of scores at most (`geo/area.rs`), and only those are read: what is cold of all of them together, but
//! for a search that ends with the first places it finds.

use std::ops::{ControlFlow, Range};

use hybridlog::Direction;

use super::collection::walk_range;
use super::geo::{GEO_ROW, PLACE_BYTES, metres, place, place_of, reply_distance, reply_place};
use super::parse::{SYNTAX_ERROR, integer};
use super::string::{GROW, READ};
use super::zset::{SCORES, Zset, ordered, scored};
use super::zset_number::double;
use super::zset_result::{ScoredMembers, store};
use crate::args::Args;
use crate::command::{Done, Handler, Keys, Row, Stop};
use crate::ctx::Ctx;
use crate::geo::{Area, Place, Shape};
use crate::memory::Allowance;

const SEARCH_ROW: Row = Row {
    flags: READ,
    complexity: "O(N+log(M)), N being the places around the area and M those in it",
    ..GEO_ROW
};

const RADIUS_ROW: Row = Row {
    flags: GROW,
    keys: Keys::FirstAndAnyStore { from: 6 },
    ..SEARCH_ROW
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "geosearch",
        arity: -7,
        since: "6.2.0",
        summary: "Returns the places of a sorted set that are in a circle or a rectangle.",
        handler: Handler::Worker(geosearch),
        ..SEARCH_ROW
    },
    Row {
        name: "geosearchstore",
        arity: -8,
        flags: GROW,
        keys: Keys::Range {
            first: 1,
            last: 2,
            step: 1,
        },
        since: "6.2.0",
        summary: "Stores the places of a sorted set that are in a circle or a rectangle as a sorted set.",
        handler: Handler::Worker(geosearchstore),
        ..SEARCH_ROW
    },
    Row {
        name: "georadius",
        arity: -6,
        summary: "Returns, or stores, the places of a sorted set that are in a circle around a place.",
        handler: Handler::Worker(georadius),
        ..RADIUS_ROW
    },
    Row {
        name: "georadiusbymember",
        arity: -5,
        keys: Keys::FirstAndAnyStore { from: 5 },
        summary: "Returns, or stores, the places of a sorted set that are in a circle around one of them.",
        handler: Handler::Worker(georadiusbymember),
        ..RADIUS_ROW
    },
    Row {
        name: "georadius_ro",
        arity: -6,
        since: "3.2.10",
        summary: "Returns the places of a sorted set that are in a circle around a place.",
        handler: Handler::Worker(georadius_ro),
        ..SEARCH_ROW
    },
    Row {
        name: "georadiusbymember_ro",
        arity: -5,
        since: "3.2.10",
        summary: "Returns the places of a sorted set that are in a circle around one of them.",
        handler: Handler::Worker(georadiusbymember_ro),
        ..SEARCH_ROW
    },
];

/// Which of the commands it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Search,
    SearchStore,
    /// `stores`: whether it may store what it finds.
    Radius {
        stores: bool,
    },
    RadiusByMember {
        stores: bool,
    },
}

impl Form {
    fn is_search(self) -> bool {
        matches!(self, Form::Search | Form::SearchStore)
    }

    fn takes_store(self) -> bool {
        matches!(
            self,
            Form::Radius { stores: true } | Form::RadiusByMember { stores: true }
        )
    }

    /// Where the sorted set is among the arguments.
    fn source_at(self) -> usize {
        if self == Form::SearchStore { 2 } else { 1 }
    }

    /// Where the options begin.
    fn options_at(self) -> usize {
        match self {
            Form::Search => 2,
            Form::SearchStore => 3,
            Form::Radius { .. } => 6,
            Form::RadiusByMember { .. } => 5,
        }
    }
}

/// A command, read.
struct Query<'a> {
    middle: Option<Middle>,
    shape: Option<Shape>,
    /// Metres of the unit that distances are in.
    unit_m: f64,
    order: Option<Direction>,
    /// At most so many places.
    count: Option<usize>,
    /// The first that are found will do.
    is_any: bool,
    with_distance: bool,
    with_score: bool,
    with_place: bool,
    target: Option<&'a [u8]>,
    stores_distance: bool,
}

/// The middle of the area.
#[derive(Clone, Copy)]
enum Middle {
    Given(Place),
    /// Where a member is; nowhere if there is no sorted set.
    Member(Option<Place>),
}

impl Middle {
    /// Where this member is.
    fn of_member(zset: Option<&Zset<'_>>, member: &[u8]) -> Result<Middle, Stop> {
        let Some(zset) = zset else {
            return Ok(Middle::Member(None));
        };
        let score = zset.score(member)?;
        let score = score.ok_or("ERR could not decode requested zset member")?;
        Ok(Middle::Member(Some(place_of(score))))
    }
}

fn geosearch(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    search(cx, args, Form::Search)
}

fn geosearchstore(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    search(cx, args, Form::SearchStore)
}

fn georadius(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    search(cx, args, Form::Radius { stores: true })
}

fn georadiusbymember(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    search(cx, args, Form::RadiusByMember { stores: true })
}

fn georadius_ro(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    search(cx, args, Form::Radius { stores: false })
}

fn georadiusbymember_ro(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    search(cx, args, Form::RadiusByMember { stores: false })
}

impl<'a> Query<'a> {
    /// Reads the arguments, and looks up the member that they name.
    fn parse(args: Args<'a>, form: Form, zset: Option<&Zset<'_>>) -> Result<Query<'a>, Stop> {
        let mut query = Query {
            middle: None,
            shape: None,
            unit_m: 1.0,
            order: None,
            count: None,
            is_any: false,
            with_distance: false,
            with_score: false,
            with_place: false,
            target: args.get(1).filter(|_| form == Form::SearchStore),
            stores_distance: false,
        };
        query.parse_fixed(args, form, zset)?;
        let mut at = form.options_at();
        while at < args.len() {
            at += query.parse_option(args.tail(at), form, zset)?;
        }
        query.check(args, form)?;
        Ok(query)
    }

    /// Reads what is in front of the options of GEORADIUS and its kin.
    fn parse_fixed(&mut self, args: Args<'_>, form: Form, zset: Option<&Zset<'_>>) -> Done {
        let at = match form {
            Form::Search | Form::SearchStore => return Ok(()),
            Form::Radius { .. } => {
                self.middle = Some(Middle::Given(place(&args[2], &args[3])?));
                4
            }
            Form::RadiusByMember { .. } => {
                self.middle = Some(Middle::of_member(zset, &args[2])?);
                if zset.is_none() {
                    return Ok(());
                }
                3
            }
        };
        self.circle(&args[at], &args[at + 1])
    }

    fn circle(&mut self, radius: &[u8], unit: &[u8]) -> Done {
        let radius = double(radius).ok_or("ERR need numeric radius")?;
        if radius < 0.0 {
            return Err("ERR radius cannot be negative".into());
        }
        self.unit_m = metres(unit)?;
        let radius_m = radius * self.unit_m;
        self.shape = Some(Shape::Circle { radius_m });
        Ok(())
    }

    fn rectangle(&mut self, width: &[u8], height: &[u8], unit: &[u8]) -> Done {
        let width = double(width).ok_or("ERR need numeric width")?;
        let height = double(height).ok_or("ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err("ERR height or width cannot be negative".into());
        }
        self.unit_m = metres(unit)?;
        let (width_m, height_m) = (width * self.unit_m, height * self.unit_m);
        self.shape = Some(Shape::Rectangle { width_m, height_m });
        Ok(())
    }

    /// Reads the option at the start of `words`; returns how many of them it takes.
    fn parse_option(
        &mut self,
        words: Args<'a>,
        form: Form,
        zset: Option<&Zset<'_>>,
    ) -> Result<usize, Stop> {
        let follow = words.len() - 1;
        let is = |option: &str| words.is(0, option);
        let is_search = |option: &str, values: usize| {
            form.is_search() && follow >= values && words.is(0, option)
        };
        let has_circle = matches!(self.shape, Some(Shape::Circle { .. }));
        let has_rectangle = matches!(self.shape, Some(Shape::Rectangle { .. }));
        let has_member = matches!(self.middle, Some(Middle::Member(_)));
        let has_place = matches!(self.middle, Some(Middle::Given(_)));
        if is("withdist") {
            self.with_distance = true;
        } else if is("withhash") {
            self.with_score = true;
        } else if is("withcoord") {
            self.with_place = true;
        } else if is("any") {
            self.is_any = true;
        } else if is("asc") {
            self.order = Some(Direction::Forward);
        } else if is("desc") {
            self.order = Some(Direction::Backward);
        } else if is("count") && follow >= 1 {
            let count = usize::try_from(integer(&words[1])?).unwrap_or(0);
            if count == 0 {
                return Err("ERR COUNT must be > 0".into());
            }
            self.count = Some(count);
            return Ok(2);
        } else if form.takes_store() && follow >= 1 && (is("store") || is("storedist")) {
            self.target = words.get(1);
            self.stores_distance = is("storedist");
            return Ok(2);
        } else if is_search("frommember", 1) && !has_place {
            self.middle = Some(Middle::of_member(zset, &words[1])?);
            return Ok(2);
        } else if is_search("fromlonlat", 2) && !has_member {
            self.middle = Some(Middle::Given(place(&words[1], &words[2])?));
            return Ok(3);
        } else if is_search("byradius", 2) && !has_rectangle {
            self.circle(&words[1], &words[2])?;
            return Ok(3);
        } else if is_search("bybox", 3) && !has_circle {
            self.rectangle(&words[1], &words[2], &words[3])?;
            return Ok(4);
        } else if form == Form::SearchStore && is("storedist") {
            self.stores_distance = true;
        } else {
            return Err(SYNTAX_ERROR.into());
        }
        Ok(1)
    }

    /// Looks for options that are missing, or do not go together.
    fn check(&self, args: Args<'_>, form: Form) -> Done {
        let replies_more = self.with_distance || self.with_score || self.with_place;
        if self.target.is_some() && replies_more {
            let what = match form {
                Form::SearchStore => "GEOSEARCHSTORE",
                _ => "STORE option in GEORADIUS",
            };
            let options = "WITHDIST, WITHHASH and WITHCOORD options";
            return Err(format!("ERR {what} is not compatible with {options}").into());
        }
        let missing = match (self.middle, self.shape) {
            (None, _) => Some("FROMMEMBER or FROMLONLAT can be"),
            (_, None) => Some("BYRADIUS and BYBOX can be"),
            _ => None,
        };
        if let Some(missing) = missing.filter(|_| form.is_search()) {
            let name = String::from_utf8_lossy(&args[0]);
            return Err(format!("ERR exactly one of {missing} specified for {name}").into());
        }
        if self.is_any && self.count.is_none() {
            return Err("ERR the ANY argument requires COUNT argument".into());
        }
        Ok(())
    }

    /// Where to search.
    fn area(&self) -> Option<Area> {
        let (Middle::Given(middle) | Middle::Member(Some(middle))) = self.middle? else {
            return None;
        };
        let shape = self.shape?;
        Some(Area { middle, shape })
    }
}

/// A place that was found.
struct Hit {
    /// Where its name is among those of all.
    member: Range<usize>,
    score: f64,
    place: Place,
    distance_m: f64,
}

/// Places that were found.
#[derive(Default)]
struct Hits {
    members: Vec<u8>,
    hits: Vec<Hit>,
}

impl Hits {
    /// All places in the area, or as many as will do.
    fn find(
        zset: &Zset<'_>,
        area: &Area,
        enough: Option<usize>,
        memory: &mut Allowance,
    ) -> Result<Hits, Stop> {
        let mut hits = Hits::default();
        let (mut cold, ranges) = (None, positions(zset, area)?);
        for range in ranges {
            let walked = hits.look_through(zset, area, range, enough, memory);
            match walked {
                // The other cells are asked for, too, unless they may not be needed.
                Err(stop @ Stop::Engine(hybridlog::Stop::Cold)) if enough.is_none() => {
                    cold = Some(stop);
                }
                walked => walked?,
            }
            if enough.is_some_and(|enough| hits.hits.len() >= enough) {
                break;
            }
        }
        cold.map_or(Ok(hits), Err)
    }

    fn look_through(
        &mut self,
        zset: &Zset<'_>,
        area: &Area,
        range: Range<u64>,
        enough: Option<usize>,
        memory: &mut Allowance,
    ) -> Done {
        let forward = Direction::Forward;
        walk_range(&zset.collection, SCORES, range, forward, |element| {
            let (score, member) = scored(&element)?;
            let place = place_of(score);
            if let Some(distance_m) = area.distance_m(place) {
                self.push(member, score, place, distance_m, memory)?;
            }
            Ok(match enough {
                Some(enough) if self.hits.len() >= enough => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        })
    }

    fn push(
        &mut self,
        member: &[u8],
        score: f64,
        place: Place,
        distance_m: f64,
        memory: &mut Allowance,
    ) -> Done {
        let start = self.members.len();
        let end = start + member.len();
        if end > self.members.capacity() {
            memory.ask(end.max(2 * self.members.capacity()) as u64)?;
        }
        if self.hits.len() == self.hits.capacity() {
            memory.ask((2 * self.hits.len() * size_of::<Hit>()) as u64)?;
        }
        self.members.extend_from_slice(member);
        self.hits.push(Hit {
            member: start..end,
            score,
            place,
            distance_m,
        });
        Ok(())
    }

    /// Puts them in the order that is asked for, and leaves out what is too many.
    fn arrange(&mut self, query: &Query<'_>) {
        // The first places are the nearest, unless any will do.
        let is_limited = query.count.is_some() && !query.is_any;
        let order = query.order.or(is_limited.then_some(Direction::Forward));
        let by_distance = |one: &Hit, other: &Hit| one.distance_m.total_cmp(&other.distance_m);
        match order {
            Some(Direction::Forward) => self.hits.sort_by(by_distance),
            Some(Direction::Backward) => self.hits.sort_by(|one, other| by_distance(other, one)),
            None => {}
        }
        self.hits.truncate(query.count.unwrap_or(usize::MAX));
    }

    fn member(&self, hit: &Hit) -> &[u8] {
        &self.members[hit.member.clone()]
    }
}

/// The positions of the members in the cells that the area may be in.
fn positions(zset: &Zset<'_>, area: &Area) -> Result<Vec<Range<u64>>, Stop> {
    let edge = |number: u64| ordered(number as f64).to_be_bytes();
    let edges: Vec<_> = area
        .numbers()
        .into_iter()
        .map(|numbers| (edge(numbers.start), edge(numbers.end)))
        .collect();
    let both = edges.iter().flat_map(|(first, end)| [first, end]);
    zset.collection
        .want(SCORES, both.map(<[u8; 8]>::as_slice))?;
    let mut positions = Vec::with_capacity(edges.len());
    for (first, end) in &edges {
        let (first, _) = zset.collection.rank(SCORES, first)?;
        let (end, _) = zset.collection.rank(SCORES, end)?;
        positions.push(first..end.max(first));
    }
    Ok(positions)
}

fn search(cx: &mut Ctx<'_>, args: Args<'_>, form: Form) -> Done {
    // What has begun to be stored may have been made of what it replaces.
    let result = match cx.progress.scored.take() {
        Some(result) => target(args, form).map(|key| (key, result)),
        None => find_and_reply(cx, args, form)?,
    };
    let Some((key, result)) = result else {
        return Ok(());
    };
    let count = result.len();
    store(cx, key, result)?;
    cx.reply.integer(count as i64);
    Ok(())
}

/// The key that what is found is stored under.
fn target(args: Args<'_>, form: Form) -> Option<&[u8]> {
    let from = form.options_at();
    match form {
        Form::SearchStore => args.get(1),
        _ => args.get(Keys::FirstAndAnyStore { from }.positions(args).nth(1)?),
    }
}

/// Searches; replies what is found, or returns it with the key to store it under.
fn find_and_reply<'a>(
    cx: &mut Ctx<'_>,
    args: Args<'a>,
    form: Form,
) -> Result<Option<(&'a [u8], ScoredMembers)>, Stop> {
    let zset = Zset::find(&cx.op, cx.namespace, &args[form.source_at()])?;
    let query = Query::parse(args, form, zset.as_ref())?;
    let enough = query.count.filter(|_| query.is_any);
    let memory = &mut cx.client.allowance;
    let mut hits = match (&zset, query.area()) {
        (Some(zset), Some(area)) => Hits::find(zset, &area, enough, memory)?,
        _ => Hits::default(),
    };
    hits.arrange(&query);
    if let Some(key) = query.target {
        let mut result = ScoredMembers::default();
        for hit in &hits.hits {
            let score = match query.stores_distance {
                true => hit.distance_m / query.unit_m,
                false => hit.score,
            };
            result.push(hits.member(hit), score, memory)?;
        }
        result.sort();
        return Ok(Some((key, result)));
    }
    let options = [query.with_distance, query.with_score, query.with_place];
    let options = options.iter().filter(|is_set| **is_set).count();
    cx.reply.array(hits.hits.len());
    for hit in &hits.hits {
        let member = hits.member(hit);
        cx.reply
            .ask_for_room(memory, member.len() + 2 * PLACE_BYTES)?;
        if options > 0 {
            cx.reply.array(1 + options);
        }
        cx.reply.bulk(member);
        if query.with_distance {
            reply_distance(cx.reply, hit.distance_m / query.unit_m);
        }
        if query.with_score {
            cx.reply.integer(hit.score as i64);
        }
        if query.with_place {
            reply_place(cx.reply, hit.place);
        }
    }
    Ok(None)
}
