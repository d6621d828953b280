//! The pictures of the report, as SVG.

use std::{error::Error, ops::Range};

use plotters::{
    coord::{
        Shift,
        ranged1d::{DefaultFormatting, KeyPointHint},
    },
    prelude::*,
};

use super::{
    run::{BenchPlan, Line, Measured, Who},
    sweep::Sweep,
    timeline::Timeline,
};
use crate::{
    failure::{Failure, Result},
    units,
};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 420;
const INK: RGBColor = RGBColor(34, 38, 46);
const RULE: RGBColor = RGBColor(130, 136, 148);
const MESH: RGBColor = RGBColor(228, 231, 236);

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn Error>>;

/// An SVG picture of this height, as text that can stand in a page.
fn picture(height: u32, draw: impl for<'a> FnOnce(&Drawing<'a>) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = root
            .fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| draw(&root))
            .and_then(|()| Ok(root.present()?));
        drawn.map_err(|error| Failure::new(format!("a plot cannot be drawn: {error}")))?;
    }
    Ok(svg)
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn colour(who: Who) -> RGBColor {
    match who {
        Who::Swathe => RGBColor(11, 110, 79),
        Who::Threads => RGBColor(201, 66, 88),
        Who::Serial => RGBColor(196, 128, 20),
        Who::Python => RGBColor(51, 102, 170),
        Who::Limit => RGBColor(90, 96, 108),
    }
}

fn name(who: Who) -> &'static str {
    match who {
        Who::Swathe => "swathe",
        Who::Threads => "threads (rayon)",
        Who::Serial => "plain loop",
        Who::Python => "Python's Pool",
        Who::Limit => "limit of the machine",
    }
}

/// An axis with these labels and no others.
#[derive(Clone)]
struct Axis {
    from: f64,
    to: f64,
    labels: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let share = (value - self.from) / (self.to - self.from);
        low + (share * f64::from(high - low)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        let within = self.labels.iter().filter(|label| {
            let (low, high) = (self.from.min(self.to), self.from.max(self.to));
            (low..=high).contains(*label)
        });
        within.copied().collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

fn axis(from: f64, to: f64, labels: Vec<f64>) -> Axis {
    Axis { from, to, labels }
}

/// 0 and up to six round numbers that end at or above the largest.
fn round_steps(largest: f64) -> Vec<f64> {
    let rough = (largest / 5.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|n| n * power);
    let step = step.into_iter().find(|&step| step >= rough).unwrap_or(rough);
    let count = (largest / step).ceil() as usize;
    (0..=count).map(|i| i as f64 * step).collect()
}

/// Rates over numbers of workers.
pub(crate) fn throughput(measured: &Measured, plan: &BenchPlan) -> Result<String> {
    let fastest = measured.lines.iter().map(Line::rate).fold(0.0, f64::max);
    let (scale, unit) = match fastest {
        _ if measured.moves_bytes => (measured.bytes_per_element as f64 / 1e9, "GB/s in and out"),
        rate if rate >= 1e6 => (1e-6, "million elements a second"),
        rate if rate >= 1e4 => (1e-3, "thousand elements a second"),
        _ => (1.0, "elements a second"),
    };
    let rate = |line: &Line| line.rate() * scale;
    let first = plan.chunks.first().copied();
    let shown = measured.lines.iter();
    let shown: Vec<&Line> = shown
        .filter(|line| line.chunk.is_none() || line.chunk == first)
        .collect();
    let largest = shown.iter().map(|line| rate(line)).fold(0.0, f64::max);
    let steps = round_steps(largest);
    let top = steps.last().copied().unwrap_or(1.0);
    // Evenly spaced by doublings, whatever numbers were asked for.
    let place = |workers: usize| (workers as f64).log2();
    let mut workers = plan.processes.clone();
    workers.sort_unstable();
    let ends = (place(workers[0]) - 0.15, place(plan.most_processes()) + 0.15);
    picture(HEIGHT, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(18)
            .margin_top(44)
            .x_label_area_size(52)
            .y_label_area_size(76)
            .build_cartesian_2d(
                axis(ends.0, ends.1, workers.iter().map(|&n| place(n)).collect()),
                axis(0.0, top * 1.02, steps),
            )?;
        mesh(
            &mut chart,
            "workers",
            unit,
            &|x| format!("{:.0}", x.exp2()),
            &|y| short(*y),
        )?;
        let mut entries = Vec::new();
        for who in [Who::Limit, Who::Serial, Who::Python, Who::Threads, Who::Swathe] {
            let of = shown.iter().filter(|line| line.who == who);
            let mut points: Vec<(f64, f64)> = of.map(|line| (place(line.workers), rate(line))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let Some(&(_, level)) = points.first() else {
                continue;
            };
            let ink = colour(who);
            if who == Who::Serial {
                points = vec![(ends.0, level), (ends.1, level)]; // it has no workers
            } else {
                chart.draw_series(points.iter().map(|&at| Circle::new(at, 5, ink.filled())))?;
            }
            let stroke = ink.stroke_width(if who == Who::Swathe { 4 } else { 2 });
            chart.draw_series([PathElement::new(points, stroke)])?;
            entries.push((name(who).to_owned(), ink));
        }
        entries.reverse();
        legend(root, &entries)
    })
}

/// Times over chunk sizes.
pub(crate) fn chunk_sizes(sweep: &Sweep) -> Result<String> {
    let times = || sweep.sizes.iter().map(|&(_, time)| time).chain([sweep.auto]);
    let (low, high) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let last = sweep.sizes.last().map_or(1, |&(size, _)| size);
    let first = sweep.sizes.first().map_or(1, |&(size, _)| size);
    let x_ends = ((first as f64).log10() - 0.1, (last as f64).log10() + 0.1);
    let y_ends = (low.log10() - 0.15, high.log10() + 0.15);
    let powers = (x_ends.0.ceil() as i32..=x_ends.1.floor() as i32)
        .map(f64::from)
        .collect();
    picture(HEIGHT, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(18)
            .margin_top(44)
            .x_label_area_size(52)
            .y_label_area_size(86)
            .build_cartesian_2d(
                axis(x_ends.0, x_ends.1, powers),
                axis(y_ends.0, y_ends.1, log_steps(y_ends)),
            )?;
        mesh(
            &mut chart,
            "elements a chunk",
            "time of the whole job",
            &|x| units::plain(&units::decimal(10_f64.powf(*x))),
            &|y| units::plain(&units::seconds(10_f64.powf(*y))),
        )?;
        let points = sweep
            .sizes
            .iter()
            .map(|&(size, time)| ((size as f64).log10(), time.log10()));
        let points: Vec<(f64, f64)> = points.collect();
        let (ink, other) = (colour(Who::Swathe), colour(Who::Serial));
        let auto = sweep.auto.log10();
        chart.draw_series([PathElement::new(
            [(x_ends.0, auto), (x_ends.1, auto)],
            other.stroke_width(2),
        )])?;
        chart.draw_series(points.iter().map(|&at| Circle::new(at, 5, ink.filled())))?;
        chart.draw_series([PathElement::new(points, ink.stroke_width(4))])?;
        let fixed = format!("fixed chunk size, {} workers", sweep.workers);
        legend(
            root,
            &[(fixed, ink), ("chunk size auto (the default)".to_owned(), other)],
        )
    })
}

/// Logarithms of 1, 2, 5, 10, ... between the ends; finer where that gives too few.
fn log_steps((from, to): (f64, f64)) -> Vec<f64> {
    let within = |digits: &[f64]| -> Vec<f64> {
        let powers = from.floor() as i32..=to.ceil() as i32;
        let all = powers.flat_map(|power| digits.iter().map(move |n| n.log10() + f64::from(power)));
        all.filter(|step| (from..=to).contains(step)).collect()
    };
    let finer: [&[f64]; 4] = [
        &[1.0],
        &[1.0, 2.0, 5.0],
        &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0],
        &[
            1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.2, 2.5, 2.7, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0,
            9.0,
        ],
    ];
    let mut steps = Vec::new();
    for digits in finer {
        steps = within(digits);
        if steps.len() >= 4 {
            break;
        }
    }
    steps
}

/// What every worker did when.
pub(crate) fn timeline(timeline: &Timeline) -> Result<String> {
    let unit = [(1.0, "s"), (1e3, "ms"), (1e6, "µs")];
    let (factor, unit) = unit
        .into_iter()
        .find(|(factor, _)| timeline.wall * factor >= 1.0)
        .unwrap_or((1e6, "µs"));
    let wall = timeline.wall * factor;
    let rows = timeline.workers as f64;
    let height = 100 + (timeline.workers as u32 * 34).clamp(68, 1600);
    picture(height, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(18)
            .x_label_area_size(52)
            .y_label_area_size(90)
            .build_cartesian_2d(
                axis(0.0, wall * 1.01, round_steps(wall)),
                axis(rows, 0.0, (0..timeline.workers).map(|w| w as f64 + 0.5).collect()),
            )?;
        let since = format!(
            "{unit} since the job was submitted; the line on the right is when the caller had its result"
        );
        mesh(&mut chart, &since, "", &|x| short(*x), &|y| {
            format!("worker {:.0}", y.floor())
        })?;
        // Two shades in turn, so that one sees where a chunk ends.
        let shades = [colour(Who::Swathe), RGBColor(120, 190, 160)];
        let mut done = vec![0_usize; timeline.workers];
        let mut bars = timeline.bars.clone();
        bars.sort_by(|a, b| a.start.total_cmp(&b.start));
        chart.draw_series(
            bars.iter()
                .filter(|bar| bar.worker < timeline.workers)
                .map(|bar| {
                    done[bar.worker] += 1;
                    let top = bar.worker as f64;
                    Rectangle::new(
                        [(bar.start * factor, top + 0.15), (bar.end * factor, top + 0.85)],
                        shades[done[bar.worker] % 2].filled(),
                    )
                }),
        )?;
        chart.draw_series([PathElement::new(
            vec![(wall, 0.0), (wall, rows)],
            colour(Who::Threads).stroke_width(2),
        )])?;
        Ok(())
    })
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

fn mesh(
    chart: &mut Chart<'_>,
    x_title: &str,
    y_title: &str,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> Drawn {
    chart
        .configure_mesh()
        .x_desc(x_title)
        .y_desc(y_title)
        .axis_style(RULE)
        .bold_line_style(MESH)
        .light_line_style(TRANSPARENT)
        .label_style(font(15))
        .axis_desc_style(font(16))
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .draw()?;
    Ok(())
}

/// Names and colours in a row above the plot, where they hide nothing.
fn legend(root: &Drawing<'_>, entries: &[(String, RGBColor)]) -> Drawn {
    let mut x = 96;
    for (name, ink) in entries {
        root.draw(&Rectangle::new([(x, 16), (x + 22, 21)], ink.filled()))?;
        root.draw(&Text::new(name.clone(), (x + 30, 12), font(15)))?;
        x += 56 + 8 * name.chars().count() as i32; // letters of this size are hardly ever wider
    }
    Ok(())
}

/// Without digits that say nothing.
fn short(value: f64) -> String {
    ((value * 1e6).round() / 1e6).to_string()
}

#[cfg(test)]
mod tests {
    use super::{super::timeline::Bar, *};

    #[test]
    fn steps_are_round_and_reach_the_largest() {
        assert_eq!(round_steps(23.0), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
        assert_eq!(round_steps(0.9), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert!(
            log_steps((-2.1, -1.9)).len() >= 2,
            "a narrow range has labels too"
        );
    }

    #[test]
    fn a_timeline_has_a_bar_a_chunk_and_a_row_a_worker() {
        let bar = |worker, start: f64| Bar {
            worker,
            start,
            end: start + 0.001,
        };
        let svg = timeline(&Timeline {
            workers: 2,
            bars: vec![bar(0, 0.0), bar(1, 0.0), bar(0, 0.002)],
            wall: 0.004,
        })
        .unwrap();
        assert_eq!(svg.matches("<rect").count(), 1 + 3, "background and bars");
        assert!(svg.contains("worker 0") && svg.contains("worker 1") && svg.contains("ms since"));
    }
}
