//! Two kinds of plots: lines over one axis, and ranges beside each other.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const COLOURS: [&str; 8] = ["#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774", "#cb912f", "#d44c47"];

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Points, x growing.
    pub points: Vec<(f64, f64)>,
}

/// A mean with its range.
#[derive(Debug, Clone)]
pub struct Range {
    /// Its name under the axis.
    pub name: String,
    /// The series that it belongs to: one colour each.
    pub series: String,
    /// Lowest, mean, highest.
    pub low_mean_high: (f64, f64, f64),
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn bounds(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    if !low.is_finite() || !high.is_finite() {
        return (0.0, 1.0);
    }
    let room = ((high - low) * 0.06).max(1e-9);
    (low - room, high + room)
}

/// The frame: title, value axis with five marks.
fn open(title: &str, unit: &str, (low, high): (f64, f64)) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    for mark in 0..=4 {
        let value = low + (high - low) * f64::from(mark) / 4.0;
        let y = y(value, (low, high));
        let right = WIDTH - 140.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{value:.1}{}</text>",
            LEFT - 6.0,
            y + 4.0,
            escape(unit)
        );
    }
    svg
}

fn y(value: f64, (low, high): (f64, f64)) -> f64 {
    HEIGHT - TOP - (value - low) / (high - low) * (HEIGHT - 2.0 * TOP)
}

fn legend(svg: &mut String, place: usize, name: &str) {
    let (x, y) = (WIDTH - 130.0, TOP + 18.0 * place as f64);
    let colour = COLOURS[place % COLOURS.len()];
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y:.1}\">{}</text>",
        y - 9.0,
        x + 15.0,
        escape(name)
    );
}

/// Lines over one axis.
pub fn lines(title: &str, x_name: &str, unit: &str, all: &[Line]) -> String {
    let points = || all.iter().flat_map(|l| &l.points);
    let (y_bounds, x_bounds) = (bounds(points().map(|p| p.1)), bounds(points().map(|p| p.0)));
    let right = WIDTH - 140.0;
    let x = |value: f64| LEFT + (value - x_bounds.0) / (x_bounds.1 - x_bounds.0) * (right - LEFT);
    let mut svg = open(title, unit, y_bounds);
    for (place, line) in all.iter().enumerate() {
        let path: Vec<String> = line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1, y_bounds))).collect();
        let colour = COLOURS[place % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            path.join(" ")
        );
        legend(&mut svg, place, &line.name);
    }
    for value in [x_bounds.0, (x_bounds.0 + x_bounds.1) / 2.0, x_bounds.1] {
        let at = x(value);
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value:.0}</text>", HEIGHT - 22.0);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 6.0,
        escape(x_name)
    );
    svg + "</svg>\n"
}

/// Means with their ranges, beside each other.
pub fn ranges(title: &str, unit: &str, all: &[Range]) -> String {
    let values = all.iter().flat_map(|r| [r.low_mean_high.0, r.low_mean_high.2]);
    let y_bounds = bounds(values);
    let (mut names, mut series): (Vec<&str>, Vec<&str>) = (vec![], vec![]);
    for range in all {
        if !names.contains(&range.name.as_str()) {
            names.push(&range.name);
        }
        if !series.contains(&range.series.as_str()) {
            series.push(&range.series);
        }
    }
    let mut svg = open(title, unit, y_bounds);
    let step = (WIDTH - 140.0 - LEFT) / names.len().max(1) as f64;
    for range in all {
        let name = names.iter().position(|n| *n == range.name).unwrap_or(0);
        let of = series.iter().position(|s| *s == range.series).unwrap_or(0);
        let x = LEFT + step * (name as f64 + (of as f64 + 1.0) / (series.len() as f64 + 1.0));
        let (low, mean, high) = range.low_mean_high;
        let colour = COLOURS[of % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"><title>{}: {mean:.2}</title></circle>",
            y(low, y_bounds),
            y(high, y_bounds),
            y(mean, y_bounds),
            escape(&range.series)
        );
    }
    for (place, name) in names.iter().enumerate() {
        let x = LEFT + step * (place as f64 + 0.5);
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 18.0, escape(name));
    }
    for (place, name) in series.iter().enumerate() {
        legend(&mut svg, place, name);
    }
    svg + "</svg>\n"
}
