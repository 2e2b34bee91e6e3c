//! Places on the earth as numbers of 52 bits, near places mostly having near numbers.
//!
//! Longitude and latitude are halved 26 times each, and the bits that say in which half a place is are taken in turns. So the first
//! bits of the number name a *cell*, and all places in a cell are one range of numbers: what is near a place is found in few
//! ranges (`area.rs`).
//!
//! Everything is computed as Redis does it, operation by operation: replies have the same digits.

mod area;

pub(crate) use area::{Area, Shape};

/// So often each coordinate is halved.
const STEPS: u32 = 26;

pub(crate) const LONGITUDE_MAX: f64 = 180.0;
/// As far from the equator as the web's maps go.
pub(crate) const LATITUDE_MAX: f64 = 85.05112878;

/// The earth as a ball.
const EARTH_RADIUS_M: f64 = 6_372_797.560856;

/// A place, in degrees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Place {
    pub(crate) longitude: f64,
    pub(crate) latitude: f64,
}

impl Place {
    /// `None` outside of what has a number.
    pub(crate) fn new(longitude: f64, latitude: f64) -> Option<Place> {
        let is_there = (-LONGITUDE_MAX..=LONGITUDE_MAX).contains(&longitude)
            && (-LATITUDE_MAX..=LATITUDE_MAX).contains(&latitude);
        is_there.then_some(Place {
            longitude,
            latitude,
        })
    }

    /// Its number.
    pub(crate) fn number(self) -> u64 {
        Cell::around(self, STEPS).first_number()
    }

    /// The middle of what has this number.
    pub(crate) fn of_number(number: u64) -> Place {
        let (south_west, north_east) = Cell {
            bits: number,
            steps: STEPS,
        }
        .corners();
        let middle = |one: f64, other: f64, most: f64| ((one + other) / 2.0).clamp(-most, most);
        Place {
            longitude: middle(south_west.longitude, north_east.longitude, LONGITUDE_MAX),
            latitude: middle(south_west.latitude, north_east.latitude, LATITUDE_MAX),
        }
    }

    /// Metres to another place.
    pub(crate) fn distance_m(self, other: Place) -> f64 {
        let half_sine = |from: f64, to: f64| ((to - from) / 2.0).sin();
        let sine = half_sine(radians(self.longitude), radians(other.longitude));
        if sine == 0.0 {
            return self.latitude_distance_m(other);
        }
        let (latitude, other_latitude) = (radians(self.latitude), radians(other.latitude));
        let latitude_sine = half_sine(latitude, other_latitude);
        let haversine =
            latitude_sine * latitude_sine + latitude.cos() * other_latitude.cos() * sine * sine;
        2.0 * EARTH_RADIUS_M * haversine.sqrt().asin()
    }

    /// Metres to its latitude.
    fn latitude_distance_m(self, other: Place) -> f64 {
        EARTH_RADIUS_M * (radians(other.latitude) - radians(self.latitude)).abs()
    }

    /// The 11 characters that others know as its geohash, which has latitudes up to the poles. The last one says nothing.
    pub(crate) fn geohash(self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        const LATITUDES: f64 = 90.0;
        let bits = Cell::within(self, STEPS, LATITUDES).bits;
        let mut text = [ALPHABET[0]; 11];
        for (i, character) in text[..10].iter_mut().enumerate() {
            let five = bits >> (2 * STEPS as usize - 5 * (i + 1)) & 31;
            *character = ALPHABET[five as usize];
        }
        text
    }
}

fn radians(degrees: f64) -> f64 {
    degrees * (std::f64::consts::PI / 180.0)
}

fn degrees(radians: f64) -> f64 {
    radians / (std::f64::consts::PI / 180.0)
}

/// What is left after each coordinate has been halved some times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    /// The bits of the longitude are the odd ones, those of the latitude the even ones.
    bits: u64,
    steps: u32,
}

impl Cell {
    fn around(place: Place, steps: u32) -> Cell {
        Cell::within(place, steps, LATITUDE_MAX)
    }

    /// The cell of a place where latitudes go up to `latitude_max`. On the very edge it is one too far, as in Redis.
    fn within(place: Place, steps: u32, latitude_max: f64) -> Cell {
        let cells = (1u64 << steps) as f64;
        let index = |degrees: f64, most: f64| ((degrees - -most) / (most - -most) * cells) as u32;
        let x = index(place.longitude, LONGITUDE_MAX);
        let y = index(place.latitude, latitude_max);
        Cell::of_indexes(x, y, steps)
    }

    fn of_indexes(x: u32, y: u32, steps: u32) -> Cell {
        Cell {
            bits: spread(x) << 1 | spread(y),
            steps,
        }
    }

    /// Its place among those in its row, and in its column.
    fn indexes(self) -> (u32, u32) {
        (gather(self.bits >> 1), gather(self.bits))
    }

    /// The lowest number in it.
    fn first_number(self) -> u64 {
        self.bits << (2 * (STEPS - self.steps))
    }

    /// The lowest number behind it.
    fn end_number(self) -> u64 {
        (self.bits + 1) << (2 * (STEPS - self.steps))
    }

    /// Its corners in the southwest and the northeast.
    fn corners(self) -> (Place, Place) {
        let cells = (1u64 << self.steps) as f64;
        let at = |index: u32, most: f64| -most + f64::from(index) / cells * (most - -most);
        let (x, y) = self.indexes();
        let south_west = Place {
            longitude: at(x, LONGITUDE_MAX),
            latitude: at(y, LATITUDE_MAX),
        };
        let north_east = Place {
            longitude: at(x.wrapping_add(1), LONGITUDE_MAX),
            latitude: at(y.wrapping_add(1), LATITUDE_MAX),
        };
        (south_west, north_east)
    }

    /// The cell so many to the east and to the north, around the edges.
    fn neighbour(self, east: i32, north: i32) -> Cell {
        let mask = ((1u64 << self.steps) - 1) as u32;
        let moved = |index: u32, by: i32| match by {
            0 => index,
            by => index.wrapping_add_signed(by) & mask,
        };
        let (x, y) = self.indexes();
        Cell::of_indexes(moved(x, east), moved(y, north), self.steps)
    }
}

/// The bits of a number at the even places.
fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & 0x5555_5555_5555_5555
}

/// The number whose bits are at the even places.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(longitude: f64, latitude: f64) -> Place {
        Place::new(longitude, latitude).unwrap()
    }

    #[test]
    fn numbers_are_those_of_redis() {
        let palermo = place(13.361389, 38.115556);
        let catania = place(15.087269, 37.502669);
        assert_eq!(palermo.number(), 3479099956230698);
        assert_eq!(catania.number(), 3479447370796909);
        let [palermo, catania] = [3479099956230698, 3479447370796909].map(Place::of_number);
        assert_eq!(format!("{:.17}", palermo.longitude), "13.36138933897018433");
        assert_eq!(format!("{:.17}", palermo.latitude), "38.11555639549629859");
        assert_eq!(&palermo.geohash(), b"sqc8b49rny0");
        assert_eq!(&catania.geohash(), b"sqdtr74hyu0");
        assert_eq!(format!("{:.4}", palermo.distance_m(catania)), "166274.1516");
    }

    #[test]
    fn there_are_no_places_beyond_the_edges() {
        assert!(Place::new(180.0, -85.05112878).is_some());
        for (longitude, latitude) in [(180.1, 0.0), (0.0, 85.06), (f64::NAN, 0.0)] {
            assert_eq!(Place::new(longitude, latitude), None);
        }
    }

    #[test]
    fn a_number_is_in_the_cells_around_its_place() {
        for (longitude, latitude) in [(0.0, 0.0), (-179.9, 85.0), (12.5, -33.3)] {
            let place = place(longitude, latitude);
            for steps in 1..=STEPS {
                let cell = Cell::around(place, steps);
                let numbers = cell.first_number()..cell.end_number();
                assert!(numbers.contains(&place.number()), "{place:?} {steps}");
                let (south_west, north_east) = cell.corners();
                assert!((south_west.longitude..=north_east.longitude).contains(&longitude));
                assert!((south_west.latitude..=north_east.latitude).contains(&latitude));
                assert_eq!(cell.neighbour(1, -1).neighbour(-1, 1), cell);
            }
        }
    }
}
