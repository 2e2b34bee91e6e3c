//! LOLWUT: a ferrite that cools down. Spins on a grid start at random and, the colder it gets, the more they side
//! with their neighbours: the domains that form are drawn in Braille dots, with the version below.

use std::fmt::Write as _;

use crate::args::Args;
use crate::command::{Done, Flags, Handler, Keys, Row, Stop};
use crate::commands::connection::REDIS_VERSION;
use crate::commands::parse::integer;
use crate::ctx::Ctx;

/// The version of LOLWUT that draws the picture; others show the version of the server only.
const PICTURE_VERSION: i64 = 1;
/// Columns, rows, and rounds of cooling: default and maximum.
const COLUMNS: (i64, i64) = (66, 132);
const ROW_COUNT: (i64, i64) = (20, 60);
const ROUNDS: (i64, i64) = (40, 80);
/// Dots of one Braille character.
const DOTS_WIDE: usize = 2;
const DOTS_HIGH: usize = 4;

/// The rows of this family.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "lolwut",
    arity: -1,
    flags: Flags::READONLY.and(Flags::FAST),
    keys: Keys::None,
    categories: &[],
    group: "server",
    since: "5.0.0",
    complexity: "O(N) where N is the number of dots times the rounds of cooling",
    summary: "Draws a ferrite that cools down, and shows the version.",
    handler: Handler::Worker(lolwut),
    subcommands: &[],
    tips: &[],
}];

fn lolwut(cx: &mut Ctx<'_>, args: Args<'_>) -> Done {
    let (version, options) = match args.get(2) {
        Some(version) if args.is(1, "version") => (integer(version)?, args.tail(3)),
        _ => (PICTURE_VERSION, args.tail(1)),
    };
    let mut text = String::new();
    if version == PICTURE_VERSION {
        let columns = size(options, 0, COLUMNS)?;
        let rows = size(options, 1, ROW_COUNT)?;
        let rounds = size(options, 2, ROUNDS)?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| format!("ERR no random numbers: {error}"))?;
        let mut ferrite = Ferrite::new(
            columns * DOTS_WIDE,
            rows * DOTS_HIGH,
            u64::from_le_bytes(seed) | 1,
        );
        (0..rounds).for_each(|round| ferrite.cool(round, rounds));
        ferrite.draw(&mut text);
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "Redis ver. {REDIS_VERSION}, Ferrite ver. {}",
        env!("CARGO_PKG_VERSION")
    );
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// Argument `at` of the picture's, clamped to what is drawn.
fn size(options: Args<'_>, at: usize, (default, max): (i64, i64)) -> Result<usize, Stop> {
    let given = options.get(at).map_or(Ok(default), integer)?;
    Ok(given.clamp(1, max) as usize)
}

/// Spins on a grid whose edges meet.
struct Ferrite {
    width: usize,
    height: usize,
    up: Vec<bool>,
    random: u64,
}

impl Ferrite {
    fn new(width: usize, height: usize, random: u64) -> Self {
        let mut ferrite = Ferrite {
            width,
            height,
            up: vec![false; width * height],
            random,
        };
        for spin in 0..width * height {
            ferrite.up[spin] = ferrite.random() & 1 == 1;
        }
        ferrite
    }

    /// One Metropolis round over all spins, at the temperature of this round.
    fn cool(&mut self, round: usize, rounds: usize) {
        let temperature = 2.6 * (1.0 - round as f64 / rounds as f64) + 0.2;
        // Turning a spin that 3 or 4 of its 4 neighbours side with costs energy 4 or 8.
        let [cost_4, cost_8] =
            [4.0, 8.0].map(|energy: f64| (u32::MAX as f64 * (-energy / temperature).exp()) as u32);
        for spin in 0..self.up.len() {
            let turns = match self.siding_neighbours(spin) {
                4 => (self.random() as u32) < cost_8,
                3 => (self.random() as u32) < cost_4,
                _ => true,
            };
            self.up[spin] ^= turns;
        }
    }

    fn siding_neighbours(&self, spin: usize) -> usize {
        let (x, y) = (spin % self.width, spin / self.width);
        let at = |x: usize, y: usize| self.up[(y % self.height) * self.width + x % self.width];
        let neighbours = [
            at(x + 1, y),
            at(x + self.width - 1, y),
            at(x, y + 1),
            at(x, y + self.height - 1),
        ];
        neighbours.iter().filter(|up| **up == self.up[spin]).count()
    }

    fn draw(&self, text: &mut String) {
        /// The bit of each dot of a Braille character, row by row.
        const DOT_BITS: [[u32; DOTS_WIDE]; DOTS_HIGH] =
            [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        for top in (0..self.height).step_by(DOTS_HIGH) {
            for left in (0..self.width).step_by(DOTS_WIDE) {
                let mut dots = 0;
                for (y, bits) in DOT_BITS.iter().enumerate() {
                    for (x, bit) in bits.iter().enumerate() {
                        dots |= if self.up[(top + y) * self.width + left + x] {
                            *bit
                        } else {
                            0
                        };
                    }
                }
                text.extend(char::from_u32(0x2800 + dots));
            }
            text.push('\n');
        }
    }

    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 16
    }
}
