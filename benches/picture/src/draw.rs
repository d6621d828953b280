//! The picture of the README, drawn from figures that an earlier run wrote: the same figures give the same bytes.
//!
//! Each case is a group of lanes, one a contender. A lane starts at Swathe's time and ends at the contender's, so what
//! is left of the line of 1 is faster than Swathe, and what is right of it slower. The quickest turns are compared,
//! because they are what is left when others use the machine; how much others did shows in the distance to the median.
//! The axis is logarithmic, because one case differs by a fifth and the next by some ten thousand times. The picture has
//! a background of its own, so that it can stand on a light page and on a dark one.

use std::{fmt::Write, fs, path::Path};

use crate::{
    Result,
    figures::{Figure, read},
};

/// Contender, what the legend says, its colour.
const CONTENDERS: [(&str, &str, &str); 4] = [
    ("swathe", "Swathe", "#0b6e4f"),
    ("rayon", "rayon (threads)", "#d0570a"),
    ("openmp", "OpenMP (threads, gcc)", "#2f5fb3"),
    ("python_pool", "Python's multiprocessing.Pool", "#8b3f96"),
];

/// Case, its title, and what its time is. From small work to large.
const CASES: [(&str, &str, &str); 6] = [
    ("pool_start", "Start a pool", "build it, one result, drop it"),
    ("small_map", "Map 1000 numbers", "again and again; time a map"),
    (
        "tiny_chunks",
        "Run 10⁷ empty tasks",
        "in chunks of one; time a task",
    ),
    ("strings", "Format 10⁶ texts", "text in, text out; time a text"),
    (
        "black_scholes",
        "Price 10⁷ options",
        "arithmetic; time of the whole job",
    ),
    (
        "stream_square",
        "Square 2²⁷ numbers",
        "memory speed; time of the whole job",
    ),
];

const WIDTH: f64 = 880.0;
/// Where the first group starts, below title and legend.
const TOP: f64 = 116.0;
/// Height of a lane, and of what a group has around its lanes.
const LANE: f64 = 17.0;
const GAP: f64 = 16.0;
/// Ends of the axis. Right of them is room for the text of the longest lane, left for the text of the shortest.
const LEFT: f64 = 318.0;
const RIGHT: f64 = 742.0;
const EDGE: f64 = 16.0;

const INK: &str = "#1f2328";
const PALE: &str = "#59636e";
const MESH: &str = "#dfe3e8";

/// A figure as a multiple of Swathe's.
struct Lane<'a> {
    contender: usize,
    figure: &'a Figure,
    /// Least and median over Swathe's least.
    ratios: [f64; 2],
}

/// Draws the figures of a file into a file of the same name that ends in `.svg`.
pub(crate) fn draw(figures: &Path) -> Result<()> {
    let picture = figures.with_extension("svg");
    fs::write(&picture, svg(&read(figures)?)?)
        .map_err(|error| format!("cannot write {}: {error}", picture.display()))?;
    println!("{}", picture.display());
    Ok(())
}

fn svg(figures: &[Figure]) -> Result<String> {
    let groups: Vec<_> = CASES
        .iter()
        .map(|case| (case, lanes(figures, case.0)))
        .filter(|(_, lanes)| lanes.len() > 1)
        .collect();
    let all = || groups.iter().flat_map(|(_, lanes)| lanes);
    let Some(first) = all().next() else {
        return Err("the figures hold no case of the picture".into());
    };
    let low = all().fold(1.0, |low: f64, lane| low.min(lane.ratios[0]));
    let high = all().fold(1.0, |high: f64, lane| high.max(lane.ratios[1]));
    let axis = Axis {
        from: low.log10() - 0.5,
        to: high.log10() + 0.1,
    };
    let lanes: usize = groups.iter().map(|(_, lanes)| lanes.len()).sum();
    let bottom = TOP + lanes as f64 * LANE + groups.len() as f64 * GAP;
    let height = bottom + 100.0;

    let mut out = String::new();
    header(&mut out, height)?;
    legend(&mut out)?;

    let mut y = TOP;
    for (number, (_, lanes)) in groups.iter().enumerate() {
        let tall = lanes.len() as f64 * LANE + GAP;
        if number % 2 == 0 {
            rect(&mut out, (EDGE, y, WIDTH - 2.0 * EDGE, tall), "fill=\"#f5f7f9\"")?;
        }
        y += tall;
    }
    mesh(&mut out, &axis, bottom)?;
    y = TOP;
    for (case, lanes) in &groups {
        let tall = lanes.len() as f64 * LANE + GAP;
        let middle = y + tall / 2.0;
        text(
            &mut out,
            (EDGE + 8.0, middle - 3.0),
            "font-size=\"14\" font-weight=\"bold\"",
            case.1,
        )?;
        text(
            &mut out,
            (EDGE + 8.0, middle + 14.0),
            &format!("fill=\"{PALE}\""),
            case.2,
        )?;
        for (number, lane) in lanes.iter().enumerate() {
            draw_lane(
                &mut out,
                &axis,
                y + GAP / 2.0 + (number as f64 + 0.5) * LANE,
                lane,
            )?;
        }
        y += tall;
    }
    footer(&mut out, bottom, first.figure)?;
    out.push_str("</svg>\n");
    Ok(out)
}

/// What surrounds it: a background, and the title.
fn header(out: &mut String, height: f64) -> Result<()> {
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <title>Swathe beside rayon, OpenMP and Python's multiprocessing.Pool</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n",
        WIDTH - 1.0,
        height - 1.0
    )?;
    text(
        out,
        (EDGE + 8.0, 34.0),
        "font-size=\"19\" font-weight=\"bold\"",
        "Time for the same work, beside threads and Python's Pool",
    )?;
    Ok(())
}

/// The lanes of a case, Swathe's first.
fn lanes<'a>(figures: &'a [Figure], case: &str) -> Vec<Lane<'a>> {
    let found = |contender: &str| {
        figures.iter().find(|figure| {
            figure.case == case
                && figure.contender == contender
                && seconds(&figure.unit).is_some()
                && figure.min > 0.0
        })
    };
    let Some(own) = found("swathe") else {
        return Vec::new();
    };
    let lane = |(contender, (name, ..)): (usize, &(&str, _, _))| {
        let figure = found(name)?;
        Some(Lane {
            contender,
            figure,
            ratios: [figure.min, figure.median].map(|value| value / own.min),
        })
    };
    CONTENDERS.iter().enumerate().filter_map(lane).collect()
}

/// How many seconds the unit is; `None` if it is no unit of time.
fn seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        _ => return None,
    })
}

/// Powers of ten between [`LEFT`] and [`RIGHT`].
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, ratio: f64) -> f64 {
        LEFT + (ratio.log10() - self.from) / (self.to - self.from) * (RIGHT - LEFT)
    }
}

fn draw_lane(out: &mut String, axis: &Axis, y: f64, lane: &Lane<'_>) -> Result<()> {
    let [least, median] = lane.ratios.map(|ratio| axis.place(ratio));
    let (name, _, colour) = CONTENDERS[lane.contender];
    let from = axis.place(1.0);
    line(
        out,
        (least, y),
        (median, y),
        &format!("stroke=\"{colour}\" stroke-width=\"8\" opacity=\"0.25\""),
    )?;
    line(
        out,
        (from, y),
        (least, y),
        &format!("stroke=\"{colour}\" stroke-width=\"2\""),
    )?;
    writeln!(
        out,
        "<circle cx=\"{least:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{colour}\"/>"
    )?;
    let time = duration(lane.figure.min * seconds(&lane.figure.unit).unwrap_or(f64::NAN));
    let ratio = lane.ratios[0];
    let says = match name {
        "swathe" => time,
        _ => format!("{time}, {}×", short(ratio)),
    };
    // Away from the line of 1, where nothing else of the lane is.
    let (x, anchor) = match ratio < 1.0 {
        true => (least - 9.0, " text-anchor=\"end\""),
        false => (median + 9.0, ""),
    };
    text(out, (x, y + 4.0), &format!("fill=\"{colour}\"{anchor}"), &says)
}

fn legend(out: &mut String) -> Result<()> {
    let mut x = EDGE + 8.0;
    for (_, says, colour) in CONTENDERS {
        writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"58\" r=\"5\" fill=\"{colour}\"/>",
            x + 5.0
        )?;
        text(out, (x + 16.0, 62.5), "font-size=\"13\"", says)?;
        x += 44.0 + 6.9 * says.chars().count() as f64; // letters of this size are hardly ever wider
    }
    Ok(())
}

fn mesh(out: &mut String, axis: &Axis, bottom: f64) -> Result<()> {
    for power in axis.from.ceil() as i32..=axis.to.floor() as i32 {
        let x = axis.place(10_f64.powi(power));
        let stroke = match power {
            0 => format!("stroke=\"{}\" stroke-width=\"1.5\"", CONTENDERS[0].2),
            _ => format!("stroke=\"{MESH}\""),
        };
        line(out, (x, TOP - 6.0), (x, bottom), &stroke)?;
        let label = match power {
            ..=0 => format!("{}×", 10_f64.powi(power)),
            1..=3 => format!("{}×", short(10_f64.powi(power))),
            _ => format!(
                "10{}×",
                ["⁴", "⁵", "⁶", "⁷", "⁸", "⁹"]
                    .get(power as usize - 4)
                    .unwrap_or(&"…")
            ),
        };
        text(out, (x, bottom + 17.0), "text-anchor=\"middle\"", &label)?;
    }
    let one = axis.place(1.0);
    let above = TOP - 14.0;
    text(
        out,
        (one - 10.0, above),
        &format!("text-anchor=\"end\" fill=\"{PALE}\""),
        "← faster than Swathe",
    )?;
    text(
        out,
        (one + 10.0, above),
        &format!("fill=\"{PALE}\""),
        "slower than Swathe →",
    )?;
    text(
        out,
        ((LEFT + RIGHT) / 2.0, bottom + 38.0),
        "text-anchor=\"middle\" font-size=\"13\"",
        "time, as a multiple of Swathe's time (logarithmic)",
    )
}

/// What the figures are, and of which machine.
fn footer(out: &mut String, bottom: f64, first: &Figure) -> Result<()> {
    let style = format!("font-size=\"11\" fill=\"{PALE}\"");
    let mut what = "A dot is the quickest".to_owned();
    if let Some(rounds) = first.rounds {
        write!(what, " of {rounds} turns")?;
    }
    what.push_str(", and its pale bar reaches to the median. All took turns.");
    if let Some(workers) = first.workers {
        write!(what, " {workers} processes or threads each.")?;
    }
    text(out, (EDGE + 8.0, bottom + 66.0), &style, &what)?;
    let told = [first.machine.as_deref(), first.date.as_deref()];
    let told: Vec<_> = told.into_iter().flatten().collect();
    let told = match told.is_empty() {
        true => String::new(),
        false => format!("{}. ", told.join(", ")),
    };
    let tasks =
        "Python's Pool runs Python functions, and numpy's on pieces of arrays in the two large cases.";
    text(
        out,
        (EDGE + 8.0, bottom + 83.0),
        &style,
        &format!("{told}{tasks}"),
    )
}

/// Two digits, and groups of three.
fn short(value: f64) -> String {
    if value < 1.0 {
        let digits = (1.0 - value.log10().floor()) as usize;
        return format!("{value:.digits$}");
    }
    if value < 10.0 {
        return format!("{value:.1}");
    }
    let power = 10_f64.powf(value.log10().floor() - 1.0);
    let digits = format!("{:.0}", (value / power).round() * power);
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push('\u{202f}'); // a narrow space that does not break
        }
        grouped.push(digit);
    }
    grouped
}

/// Two or three digits in the unit that suits.
fn duration(seconds: f64) -> String {
    let (factor, unit) = match seconds {
        s if s < 1e-6 => (1e9, "ns"),
        s if s < 1e-3 => (1e6, "µs"),
        s if s < 1.0 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    let value = seconds * factor;
    match value {
        v if v < 1.0 => format!("{v:.2} {unit}"),
        v if v < 10.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

fn text(out: &mut String, (x, y): (f64, f64), style: &str, what: &str) -> Result<()> {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    Ok(writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{what}</text>"
    )?)
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), style: &str) -> Result<()> {
    let (x1, y1, x2, y2) = (from.0, from.1, to.0, to.1);
    Ok(writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>"
    )?)
}

fn rect(out: &mut String, (x, y, width, height): (f64, f64, f64, f64), style: &str) -> Result<()> {
    Ok(writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {style}/>"
    )?)
}
