//! Bar and line charts as SVG: what our reports need and no more.
//!
//! Charts are plain SVG text on a light background, without scripts, style sheets or outside
//! fonts, so that every browser and code forge shows them alike. Colours are told apart by
//! colour-blind readers too (the palette of Okabe and Ito).

use std::fmt::Write;

const COLOURS: [&str; 7] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#595959",
];
const INK: &str = "#1f2328";
const FAINT: &str = "#d8dee4";
const WIDTH: f64 = 960.0;
const MARGIN: f64 = 28.0;
const TITLE_HEIGHT: f64 = 66.0;
const LEGEND_ROW: f64 = 24.0;

/// How an axis maps numbers to distances.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
}

/// Groups of horizontal bars, one bar a series in each group, each labelled with its number.
pub(crate) struct BarChart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) unit: String,
    pub(crate) series: Vec<String>,
    /// A label, and one number a series; None where there is none.
    pub(crate) groups: Vec<(String, Vec<Option<f64>>)>,
}

/// Lines through points, one line a series.
pub(crate) struct LineChart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x_label: String,
    /// Where the marks of the x axis stand, and their labels, from left to right.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) y_label: String,
    pub(crate) y_scale: Scale,
    /// A name, and its points from left to right.
    pub(crate) series: Vec<(String, Vec<(f64, f64)>)>,
}

impl BarChart {
    /// The chart as an SVG document.
    pub(crate) fn to_svg(&self) -> String {
        const BAR: f64 = 17.0;
        const GAP: f64 = 16.0;
        let longest = self
            .groups
            .iter()
            .map(|(label, _)| label.chars().count())
            .max();
        let left = MARGIN + 12.0 + longest.unwrap_or(0) as f64 * 7.2;
        let right = WIDTH - MARGIN - 70.0;
        let group_height = self.series.len() as f64 * BAR + GAP;
        let mut drawing = Drawing::new(&self.title, &self.subtitle);
        let top = drawing.legend(&self.series) + 10.0;
        let bottom = top + self.groups.len() as f64 * group_height;

        let numbers = self
            .groups
            .iter()
            .flat_map(|(_, numbers)| numbers.iter().flatten());
        let axis = Axis::new(Scale::Linear, numbers.copied(), (left, right));
        for tick in axis.ticks() {
            let x = axis.position(tick);
            drawing.line((x, top), (x, bottom), FAINT, 1.0);
            drawing.text((x, bottom + 18.0), Anchor::Middle, 12, &short_number(tick));
        }
        for (n, (label, numbers)) in self.groups.iter().enumerate() {
            let group_top = top + n as f64 * group_height + GAP / 2.0;
            let middle = group_top + self.series.len() as f64 * BAR / 2.0;
            drawing.text((left - 10.0, middle + 4.0), Anchor::End, 13, label);
            for (series, number) in numbers.iter().enumerate() {
                let y = group_top + series as f64 * BAR;
                if let Some(number) = number {
                    let end = axis.position(*number);
                    drawing.bar((left, y + 1.0), (end, y + BAR - 1.0), colour(series));
                    let label = short_number(*number);
                    drawing.text((end + 6.0, y + BAR - 4.5), Anchor::Start, 12, &label);
                }
            }
        }
        drawing.line((left, top), (left, bottom), INK, 1.0);
        drawing.text(
            ((left + right) / 2.0, bottom + 40.0),
            Anchor::Middle,
            13,
            &self.unit,
        );
        drawing.finish(bottom + 58.0)
    }
}

impl LineChart {
    /// The chart as an SVG document.
    pub(crate) fn to_svg(&self) -> String {
        const HEIGHT: f64 = 380.0;
        let (left, right) = (MARGIN + 66.0, WIDTH - MARGIN - 20.0);
        let names: Vec<String> = self.series.iter().map(|(name, _)| name.clone()).collect();
        let mut drawing = Drawing::new(&self.title, &self.subtitle);
        let top = drawing.legend(&names) + 26.0;
        let bottom = top + HEIGHT;

        let points = || self.series.iter().flat_map(|(_, points)| points.iter());
        let y_axis = Axis::new(self.y_scale, points().map(|point| point.1), (bottom, top));
        let from = self.x_ticks.first().map_or(0.0, |tick| tick.0);
        let to = self.x_ticks.last().map_or(1.0, |tick| tick.0);
        let x_axis = Axis {
            scale: Scale::Linear,
            numbers: (from, to),
            ends: (left, right),
        };
        for tick in y_axis.ticks() {
            let y = y_axis.position(tick);
            drawing.line((left, y), (right, y), FAINT, 1.0);
            drawing.text((left - 8.0, y + 4.0), Anchor::End, 12, &short_number(tick));
        }
        for (at, label) in &self.x_ticks {
            let x = x_axis.position(*at);
            drawing.line((x, top), (x, bottom + 5.0), FAINT, 1.0);
            drawing.text((x, bottom + 20.0), Anchor::Middle, 12, label);
        }
        drawing.line((left, bottom), (right, bottom), INK, 1.0);
        for (series, (_, points)) in self.series.iter().enumerate() {
            let place = |point: &(f64, f64)| (x_axis.position(point.0), y_axis.position(point.1));
            let places: Vec<(f64, f64)> = points.iter().map(place).collect();
            drawing.path(&places, colour(series));
        }
        drawing.text((left - 66.0, top - 12.0), Anchor::Start, 13, &self.y_label);
        let middle = (left + right) / 2.0;
        drawing.text((middle, bottom + 44.0), Anchor::Middle, 13, &self.x_label);
        drawing.finish(bottom + 62.0)
    }
}

fn colour(series: usize) -> &'static str {
    COLOURS[series % COLOURS.len()]
}

/// Maps the numbers of one axis to places between its two ends.
struct Axis {
    scale: Scale,
    numbers: (f64, f64),
    ends: (f64, f64),
}

impl Axis {
    /// An axis that holds all `numbers`; a linear one starts at 0, a logarithmic one at a power
    /// of ten.
    fn new(scale: Scale, numbers: impl Iterator<Item = f64>, ends: (f64, f64)) -> Self {
        let positive: Vec<f64> = numbers.filter(|n| n.is_finite() && *n > 0.0).collect();
        let max = positive.iter().copied().reduce(f64::max).unwrap_or(1.0);
        let numbers = match scale {
            Scale::Linear => (0.0, max),
            Scale::Logarithmic => {
                let min = positive.iter().copied().reduce(f64::min).unwrap_or(1.0);
                let low = 10f64.powf(min.log10().floor());
                (low, 10f64.powf(max.log10().ceil()).max(low * 10.0))
            }
        };
        Axis {
            scale,
            numbers,
            ends,
        }
    }

    fn position(&self, number: f64) -> f64 {
        let (low, high) = self.numbers;
        let share = match self.scale {
            Scale::Linear => (number - low) / (high - low),
            Scale::Logarithmic => (number.max(low) / low).log10() / (high / low).log10(),
        };
        self.ends.0 + share * (self.ends.1 - self.ends.0)
    }

    /// Round numbers for its marks: every power of ten, or steps of 1, 2 or 5.
    fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.numbers;
        match self.scale {
            Scale::Linear => {
                let rough = (high - low) / 6.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .into_iter()
                    .map(|digit| digit * power)
                    .find(|step| *step >= rough)
                    .unwrap_or(high);
                (0..=6)
                    .map(|n| f64::from(n) * step)
                    .take_while(|tick| *tick <= high)
                    .collect()
            }
            Scale::Logarithmic => {
                let decades = (high / low).log10().round() as i32;
                (0..=decades).map(|n| low * 10f64.powi(n)).collect()
            }
        }
    }
}

/// `n` to three digits, with k, M or G.
fn short_number(n: f64) -> String {
    let (n, suffix) = match n.abs() {
        size if size >= 1e9 => (n / 1e9, " G"),
        size if size >= 1e6 => (n / 1e6, " M"),
        size if size >= 1e4 => (n / 1e3, " k"),
        _ => (n, ""),
    };
    let digits = match n.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{n:.digits$}");
    let text = if digits > 0 {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{suffix}")
}

/// The side of a point on which its text stands.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// An SVG document being written. Its height is known only at the end.
struct Drawing {
    body: String,
}

impl Drawing {
    fn new(title: &str, subtitle: &str) -> Self {
        let mut drawing = Drawing {
            body: String::new(),
        };
        drawing.text((MARGIN, 34.0), Anchor::Start, 19, title);
        drawing.text((MARGIN, 56.0), Anchor::Start, 13, subtitle);
        drawing
    }

    /// Draws the names of the series under the title; returns where the legend ends.
    fn legend(&mut self, names: &[String]) -> f64 {
        let (mut x, mut y) = (MARGIN, TITLE_HEIGHT);
        for (series, name) in names.iter().enumerate() {
            let width = 24.0 + name.chars().count() as f64 * 7.4 + 22.0;
            if x > MARGIN && x + width > WIDTH - MARGIN {
                (x, y) = (MARGIN, y + LEGEND_ROW);
            }
            self.bar((x, y + 4.0), (x + 16.0, y + 16.0), colour(series));
            self.text((x + 23.0, y + 15.0), Anchor::Start, 13, name);
            x += width;
        }
        y + LEGEND_ROW
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.write(format_args!(
            "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' stroke='{colour}' \
             stroke-width='{width}'/>\n"
        ));
    }

    fn bar(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        let (width, height) = ((x2 - x1).max(1.0), y2 - y1);
        self.write(format_args!(
            "<rect x='{x1:.1}' y='{y1:.1}' width='{width:.1}' height='{height:.1}' rx='2' \
             fill='{colour}'/>\n"
        ));
    }

    fn path(&mut self, points: &[(f64, f64)], colour: &str) {
        let list: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let list = list.join(" ");
        self.write(format_args!(
            "<polyline points='{list}' fill='none' stroke='{colour}' stroke-width='2.2' \
             stroke-linejoin='round'/>\n"
        ));
        for (x, y) in points {
            self.write(format_args!(
                "<circle cx='{x:.1}' cy='{y:.1}' r='3' fill='{colour}'/>\n"
            ));
        }
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, size: u32, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        self.write(format_args!(
            "<text x='{x:.1}' y='{y:.1}' font-size='{size}' text-anchor='{anchor}' \
             fill='{INK}'>{text}</text>\n"
        ));
    }

    fn write(&mut self, element: std::fmt::Arguments<'_>) {
        self.body
            .write_fmt(element)
            .expect("a String takes any text");
    }

    fn finish(self, height: f64) -> String {
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0}' \
             viewBox='0 0 {WIDTH} {height:.0}' font-family='system-ui, Helvetica, Arial, \
             DejaVu Sans, sans-serif'>\n<rect width='100%' height='100%' fill='#fcfcfc'/>\n{}</svg>\n",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_round() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (950.0, "950"),
            (9_999.0, "9999"),
            (12_340.0, "12.3 k"),
            (9_400_000.0, "9.4 M"),
            (100_000_000.0, "100 M"),
            (2e9, "2 G"),
        ] {
            assert_eq!(short_number(number), text);
        }
    }

    #[test]
    fn an_axis_keeps_its_numbers_between_its_ends() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let axis = Axis::new(scale, [3.0, 470.0, 12.0].into_iter(), (100.0, 900.0));
            for number in axis.ticks().into_iter().chain([3.0, 470.0, 12.0]) {
                let at = axis.position(number);
                assert!((100.0..=900.01).contains(&at), "{number} at {at}");
            }
            assert!((3..=7).contains(&axis.ticks().len()), "{:?}", axis.ticks());
        }
    }

    #[test]
    fn a_bar_chart_shows_every_number_and_label() {
        let chart = BarChart {
            title: "a < b".into(),
            subtitle: String::new(),
            unit: "operations a second".into(),
            series: vec!["one".into(), "two".into()],
            groups: vec![
                ("hot".into(), vec![Some(2_500_000.0), Some(1_000_000.0)]),
                ("cold".into(), vec![Some(80_000.0), None]),
            ],
        };
        let svg = chart.to_svg();
        for part in [
            "a &lt; b",
            ">2.5 M<",
            ">80 k<",
            ">cold<",
            ">two<",
            ">operations a second<",
        ] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        // The background, two in the legend, and a bar for each number.
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 3);
    }

    #[test]
    fn charts_without_numbers_are_still_charts() {
        let chart = LineChart {
            title: "empty".into(),
            subtitle: String::new(),
            x_label: "x".into(),
            x_ticks: Vec::new(),
            y_label: "y".into(),
            y_scale: Scale::Logarithmic,
            series: vec![("zero".into(), vec![(0.0, 0.0), (1.0, 0.0)])],
        };
        let svg = chart.to_svg();
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }
}
