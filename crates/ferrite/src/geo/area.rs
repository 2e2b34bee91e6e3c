//! A circle or a rectangle around a place, and the nine cells that it lies in: the one of its middle, and those around it.

use std::ops::Range;

use super::{Cell, EARTH_RADIUS_M, Place, STEPS, degrees, radians};

/// Half the length of the equator on the web's maps.
const MAP_HALF_M: f64 = 20_037_726.37;

/// In which order the cells are looked through, by how many cells each is to the east and to the north.
const NEIGHBOURS: [(i32, i32); 8] = [
    (0, 1),
    (0, -1),
    (1, 0),
    (-1, 0),
    (1, 1),
    (-1, 1),
    (1, -1),
    (-1, -1),
];

/// What an area looks like, in metres.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Shape {
    Circle { radius_m: f64 },
    Rectangle { width_m: f64, height_m: f64 },
}

/// Where to search.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Area {
    pub(crate) middle: Place,
    pub(crate) shape: Shape,
}

impl Area {
    /// Metres from the middle to a place, if that is in the area.
    pub(crate) fn distance_m(&self, place: Place) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius_m } => {
                let distance_m = self.middle.distance_m(place);
                (distance_m <= radius_m).then_some(distance_m)
            }
            Shape::Rectangle { width_m, height_m } => {
                if place.latitude_distance_m(self.middle) > height_m / 2.0 {
                    return None;
                }
                let beside = Place {
                    longitude: self.middle.longitude,
                    latitude: place.latitude,
                };
                if place.distance_m(beside) > width_m / 2.0 {
                    return None;
                }
                Some(self.middle.distance_m(place))
            }
        }
    }

    /// The ranges of the numbers of all places in the area, and of others, in the order in which they are to be looked through.
    pub(crate) fn numbers(&self) -> Vec<Range<u64>> {
        let cells = self.cells();
        let numbers = cells
            .iter()
            .map(|cell| cell.first_number()..cell.end_number());
        numbers.collect()
    }

    /// The cells that the area may be in.
    fn cells(&self) -> Vec<Cell> {
        let (south_west, north_east) = self.bounds();
        let mut steps = steps_for(self.reach_m(), self.middle.latitude);
        let mut cell = Cell::around(self.middle, steps);
        if steps > 1 && !covers(cell, south_west, north_east) {
            steps -= 1;
            cell = Cell::around(self.middle, steps);
        }
        // Neighbours that the area does not reach; of large cells the bounds say too little.
        let (low, high) = cell.corners();
        let is_useless = |(east, north): (i32, i32)| {
            steps >= 2
                && (north < 0 && low.latitude < south_west.latitude
                    || north > 0 && high.latitude > north_east.latitude
                    || east < 0 && low.longitude < south_west.longitude
                    || east > 0 && high.longitude > north_east.longitude)
        };
        let mut cells = vec![cell];
        for (east, north) in NEIGHBOURS {
            let neighbour = cell.neighbour(east, north);
            // Where there are few cells, those on both sides may be the same; Redis compares with the last but the first.
            let is_repeated = cells.len() > 1 && cells.last() == Some(&neighbour);
            if !is_useless((east, north)) && !is_repeated {
                cells.push(neighbour);
            }
        }
        cells
    }

    /// How far it reaches from its middle.
    fn reach_m(&self) -> f64 {
        match self.shape {
            Shape::Circle { radius_m } => radius_m,
            Shape::Rectangle { width_m, height_m } => {
                let (width_m, height_m) = (width_m / 2.0, height_m / 2.0);
                (width_m * width_m + height_m * height_m).sqrt()
            }
        }
    }

    /// The corners, in the southwest and the northeast, of a box around it.
    fn bounds(&self) -> (Place, Place) {
        let (width_m, height_m) = match self.shape {
            Shape::Circle { radius_m } => (radius_m, radius_m),
            Shape::Rectangle { width_m, height_m } => (width_m / 2.0, height_m / 2.0),
        };
        let Place {
            longitude,
            latitude,
        } = self.middle;
        let latitudes = degrees(height_m / EARTH_RADIUS_M);
        // Degrees of longitude are shorter on the side of the pole, so there are more of them.
        let widest = match latitude < 0.0 {
            true => latitude - latitudes,
            false => latitude + latitudes,
        };
        let longitudes = degrees(width_m / EARTH_RADIUS_M / radians(widest).cos());
        let south_west = Place {
            longitude: longitude - longitudes,
            latitude: latitude - latitudes,
        };
        let north_east = Place {
            longitude: longitude + longitudes,
            latitude: latitude + latitudes,
        };
        (south_west, north_east)
    }
}

/// How often the coordinates are halved for the nine cells to have all that is so near.
fn steps_for(reach_m: f64, latitude: f64) -> u32 {
    if reach_m == 0.0 {
        return STEPS;
    }
    let (mut reach_m, mut steps) = (reach_m, 1);
    while reach_m < MAP_HALF_M {
        reach_m *= 2.0;
        steps += 1;
    }
    // Two less, for the area to reach over one edge at most; and cells are narrower near the poles.
    steps -= 2;
    if latitude.abs() > 66.0 {
        steps -= 1;
    }
    if latitude.abs() > 80.0 {
        steps -= 1;
    }
    steps.clamp(1, STEPS as i32) as u32
}

/// Whether the nine cells around `cell` reach as far as the box with these corners.
fn covers(cell: Cell, south_west: Place, north_east: Place) -> bool {
    let (_, north) = cell.neighbour(0, 1).corners();
    let (south, _) = cell.neighbour(0, -1).corners();
    let (_, east) = cell.neighbour(1, 0).corners();
    let (west, _) = cell.neighbour(-1, 0).corners();
    let is_short = north.latitude < north_east.latitude
        || south.latitude > south_west.latitude
        || east.longitude < north_east.longitude
        || west.longitude > south_west.longitude;
    !is_short
}
