//! Figures, and what they are to reach.

use serde_json::{Value, json};

/// What a figure is to be.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// Something that was measured, with its goal.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) goal: Goal,
    pub(crate) measured: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    fn is_reached(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.measured <= most,
            Goal::AtLeast(least) => self.measured >= least,
        }
    }

    /// A row of a table in Markdown.
    fn row(&self) -> String {
        let goal = match self.goal {
            Goal::AtMost(most) => format!("at most {}", shown(most)),
            Goal::AtLeast(least) => format!("at least {}", shown(least)),
        };
        let (name, measured, unit) = (self.name, shown(self.measured), self.unit);
        let verdict = if self.is_reached() {
            "reached"
        } else {
            "**missed**"
        };
        format!("| {name} | {goal}{unit} | {measured}{unit} | {verdict} |")
    }

    fn to_json(&self) -> Value {
        let (kind, goal) = match self.goal {
            Goal::AtMost(most) => ("at_most", most),
            Goal::AtLeast(least) => ("at_least", least),
        };
        json!({
            "name": self.name,
            kind: goal,
            "measured": self.measured,
            "unit": self.unit.trim(),
            "reached": self.is_reached(),
        })
    }
}

/// Prints them as a table in Markdown.
pub(crate) fn print_table(figures: &[Figure]) {
    println!("\n| | target | measured | |\n|---|---|---|---|");
    for figure in figures {
        println!("{}", figure.row());
    }
}

/// For programs.
pub(crate) fn to_json(figures: &[Figure]) -> Value {
    figures.iter().map(Figure::to_json).collect()
}

/// The one in the middle; of an even number the upper of the two; not a number if there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The largest; not a number if there are none.
pub(crate) fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NAN, f64::max)
}

/// With as many digits as say something.
fn shown(number: f64) -> String {
    if number.fract() == 0.0 || number.abs() >= 1000.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_figure_is_on_the_right_side_of_its_goal() {
        let mut figure = Figure {
            name: "a thing",
            goal: Goal::AtMost(2.0),
            measured: 1.25,
            unit: " ms",
        };
        assert_eq!(
            figure.row(),
            "| a thing | at most 2 ms | 1.25 ms | reached |"
        );
        figure.goal = Goal::AtLeast(2.0);
        assert!(!figure.is_reached());
        figure.measured = f64::NAN;
        assert!(!figure.is_reached(), "nothing measured reaches nothing");
    }
}
