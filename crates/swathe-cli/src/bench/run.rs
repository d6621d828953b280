//! All contenders, in turn, round after round.

use std::{fmt, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use swathe::Pool;

use super::{
    kernel::{Kernel, Step},
    limit::Reused,
    python::Python,
    turn::{self, Contender},
};
use crate::{
    args::{BenchArgs, Chunk, Peer},
    failure::{Failure, Result},
    machine, units,
};

/// What is to be measured.
pub(crate) struct BenchPlan {
    pub(crate) processes: Vec<usize>,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) against: Vec<Peer>,
    pub(crate) rounds: usize,
    /// Whether to ask the pools where the time went.
    pub(crate) verbose: bool,
}

/// Whose figures these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Swathe,
    Threads,
    Serial,
    Python,
    Limit,
}

/// A contender's figures.
pub(crate) struct Line {
    pub(crate) who: Who,
    /// Processes or threads.
    pub(crate) workers: usize,
    /// `None`: it knows no chunks.
    pub(crate) chunk: Option<Chunk>,
    /// Elements done in a turn.
    pub(crate) elements: usize,
    /// Of all timed turns, ascending.
    pub(crate) times: Vec<Duration>,
}

/// All figures of a run.
pub(crate) struct Measured {
    pub(crate) kernel: String,
    pub(crate) elements: usize,
    pub(crate) bytes_per_element: usize,
    /// Whether GB/s say something.
    pub(crate) moves_bytes: bool,
    pub(crate) rounds: usize,
    pub(crate) lines: Vec<Line>,
    /// What one must know to read them.
    pub(crate) notes: Vec<String>,
    /// Where the time went in one more run of each pool, if that was asked for.
    pub(crate) reports: Vec<String>,
}

impl BenchPlan {
    pub(crate) fn new(args: &BenchArgs, chunk: Chunk) -> Self {
        let mut processes: Vec<usize> = args.processes.iter().map(|n| n.get()).collect();
        if processes.is_empty() {
            processes = doublings(swathe::cores().count);
        }
        let mut chunks = args.chunk_size.clone();
        if chunks.is_empty() {
            chunks.push(chunk);
        }
        let mut against = args.against.clone();
        if args.report.is_some() {
            against.push(Peer::Limit);
        }
        Self {
            processes: unique(processes),
            chunks: unique(chunks),
            against: unique(against),
            rounds: args.rounds.get(),
            verbose: args.verbose,
        }
    }

    /// The largest number of processes.
    pub(crate) fn most_processes(&self) -> usize {
        self.processes.iter().copied().max().unwrap_or(1)
    }
}

/// 1, 2, 4, ... and the last.
fn doublings(last: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1_usize), |n| n.checked_mul(2));
    powers.take_while(|&n| n < last).chain([last]).collect()
}

/// What is named twice is measured once.
fn unique<T: Copy + PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(all.len());
    for one in all {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Swathe => "swathe",
            Self::Threads => "threads",
            Self::Serial => "serial",
            Self::Python => "python",
            Self::Limit => "limit",
        })
    }
}

impl Line {
    fn new(who: Who, workers: usize, chunk: Option<Chunk>, elements: usize) -> Self {
        Self {
            who,
            workers,
            chunk,
            elements,
            times: Vec::new(),
        }
    }

    /// Who with what.
    fn title(&self) -> String {
        let workers = match self.workers {
            1 => "1 worker".to_owned(),
            n => format!("{n} workers"),
        };
        let chunk = self
            .chunk
            .map_or(String::new(), |chunk| format!(", chunk size {chunk}"));
        format!("{} with {workers}{chunk}", self.who)
    }

    /// The middle one of its times; of an even number, the mean of the two in the middle. Seconds.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.times.len() / 2;
        match self.times.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => self.times[middle].as_secs_f64(),
            _ => (self.times[middle - 1] + self.times[middle]).as_secs_f64() / 2.0,
        }
    }

    /// The shortest and the longest of its times, seconds.
    pub(crate) fn extremes(&self) -> (f64, f64) {
        let seconds = |time: Option<&Duration>| time.map_or(f64::NAN, Duration::as_secs_f64);
        (seconds(self.times.first()), seconds(self.times.last()))
    }

    /// Elements a second, from the median.
    pub(crate) fn rate(&self) -> f64 {
        self.elements as f64 / self.median()
    }
}

impl Measured {
    /// Bytes in and out a second, in units of 1e9.
    pub(crate) fn gigabytes(&self, line: &Line) -> f64 {
        line.rate() * self.bytes_per_element as f64 / 1e9
    }

    /// How many times as fast as the same with one process it is.
    pub(crate) fn speed_up(&self, line: &Line) -> Option<f64> {
        let one = self
            .lines
            .iter()
            .find(|one| one.workers == 1 && one.who == line.who && one.chunk == line.chunk)?;
        (line.who != Who::Serial).then(|| line.rate() / one.rate())
    }

    /// How many times as fast as a peer with as many workers (and, where it knows them, chunks of the same size) a line is.
    pub(crate) fn ratio(&self, line: &Line, peer: Who) -> Option<f64> {
        let peer = self.lines.iter().find(|other| {
            other.who == peer
                && (peer == Who::Serial || other.workers == line.workers)
                && (other.chunk.is_none() || other.chunk == line.chunk)
        })?;
        Some(line.rate() / peer.rate())
    }
}

/// Measures everything.
pub(crate) fn run<S: Step>(kernel: &Kernel<S>, plan: &BenchPlan) -> Result<Measured> {
    let mut notes = notes(plan);
    let mut field = line_up(kernel, plan, &mut notes)?;
    let bar = progress(((plan.rounds + 1) * field.len()) as u64);
    bar.set_message("a plain loop, to compare with");
    let reference = turn::serially::<S>(&kernel.input);
    for round in 0..=plan.rounds {
        for (line, contender) in &mut field {
            bar.set_message(line.title());
            let turn = contender.take_turn(kernel)?;
            if let Some(position) = turn.values.first_difference(&reference) {
                bar.finish_and_clear();
                return Err(Failure::different(format!(
                    "the results of {} differ from those of a plain loop, first at position {position}",
                    line.title()
                )));
            }
            // The first round only warms up.
            if round > 0 {
                line.times.push(turn.time);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut reports = Vec::new();
    if plan.verbose {
        for (line, contender) in &field {
            if let Some(report) = contender.report(kernel)? {
                reports.push(format!("{}:\n{report}", line.title()));
            }
        }
    }
    let lines = field.into_iter().map(|(mut line, _)| {
        line.times.sort_unstable();
        line
    });
    Ok(Measured {
        kernel: kernel.name.clone(),
        elements: kernel.input.len(),
        bytes_per_element: kernel.bytes_per_element(),
        moves_bytes: S::MOVES_BYTES,
        rounds: plan.rounds,
        lines: lines.collect(),
        notes,
        reports,
    })
}

/// What must be said before anything is measured.
fn notes(plan: &BenchPlan) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((load, true)) = machine::load() {
        notes.push(format!(
            "other programs used the cores when this began (load {}): the figures say little",
            units::digits(load)
        ));
    }
    if !plan.processes.contains(&1) {
        notes.push("speed-up is over 1 process, which --processes does not name".into());
    }
    notes
}

/// A bar that is drawn on a terminal only.
pub(crate) fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)") {
        bar.set_style(style);
    }
    bar
}

/// Makes the contenders ready, in the order in which they take turns.
fn line_up<S: Step>(
    kernel: &Kernel<S>,
    plan: &BenchPlan,
    notes: &mut Vec<String>,
) -> Result<Vec<(Line, Contender<S>)>> {
    let has = |peer| plan.against.contains(&peer);
    let all = kernel.input.len();
    let python = has(Peer::Python).then(Python::version).flatten();
    if has(Peer::Python) && python.is_none() {
        notes.push("there is no python3 that can be started, so python is left out".into());
    }
    let mut field = Vec::new();
    for &workers in &plan.processes {
        for &chunk in &plan.chunks {
            let line = |who, elements| Line::new(who, workers, Some(chunk), elements);
            let pool = Pool::builder().processes(workers).build()?;
            field.push((line(Who::Swathe, all), Contender::Pool(pool, chunk)));
            if has(Peer::Threads) {
                let threads = Contender::Threads(turn::threads(workers)?, chunk);
                field.push((line(Who::Threads, all), threads));
            }
            if python.is_some() {
                let python = Python::start(kernel, workers)?;
                let line = line(Who::Python, python.elements());
                field.push((line, Contender::Python(python, chunk)));
            }
        }
        if has(Peer::Limit) {
            let limit = Contender::Limit(Reused::new(kernel, workers)?);
            field.push((Line::new(Who::Limit, workers, None, all), limit));
        }
    }
    if has(Peer::Serial) {
        field.push((Line::new(Who::Serial, 1, None, all), Contender::Serial));
    }
    if let Some(version) = python {
        let stride = all.div_ceil(kernel.python_len);
        notes.push(match stride {
            1 => format!("python is {version}"),
            _ => {
                format!("python is {version} and does one element in {stride}; its rates are of what it does")
            }
        });
    }
    Ok(field)
}
