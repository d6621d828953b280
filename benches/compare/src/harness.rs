//! Contenders take turns: one turn each a round, for some rounds, each round from another one on.

use std::{thread, time::Duration, time::Instant};

use crate::Result;

/// What a run asks of every case.
pub(crate) struct Setup {
    pub(crate) workers: usize,
    pub(crate) rounds: Option<usize>,
    pub(crate) quick: bool,
}

impl Setup {
    /// The size of a case, or a fiftieth of it.
    pub(crate) fn sized(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(50) } else { full }
    }

    /// A pool as a user builds it.
    pub(crate) fn pool(&self) -> Result<swathe::Pool> {
        Ok(swathe::Pool::builder().processes(self.workers).build()?)
    }

    /// As many threads as the pool has workers.
    pub(crate) fn threads(&self) -> Result<rayon::ThreadPool> {
        Ok(rayon::ThreadPoolBuilder::new()
            .num_threads(self.workers)
            .build()?)
    }

    /// A case in seconds, shown in `unit`, that takes `rounds` rounds unless the command line says otherwise.
    pub(crate) fn bout<'a>(&self, unit: Unit, rounds: usize) -> Bout<'a> {
        Bout {
            unit,
            rounds: self
                .rounds
                .unwrap_or(if self.quick { rounds.min(3) } else { rounds }),
            workers: self.workers,
            contenders: Vec::new(),
            ratios: Vec::new(),
            rate: None,
        }
    }
}

/// The unit that figures are shown in: its name, and how many of it the turns' unit (mostly a second) has.
#[derive(Clone, Copy)]
pub(crate) struct Unit(pub(crate) &'static str, pub(crate) f64);

pub(crate) const NS: Unit = Unit("ns", 1e9);
pub(crate) const US: Unit = Unit("us", 1e6);
pub(crate) const MS: Unit = Unit("ms", 1e3);

/// What one turn gave.
pub(crate) struct Turn {
    /// Mostly seconds. Less is better.
    pub(crate) value: f64,
    /// Something of the result that all contenders of a case must agree on.
    pub(crate) digest: Option<f64>,
}

impl From<f64> for Turn {
    fn from(value: f64) -> Self {
        Self { value, digest: None }
    }
}

impl From<(f64, f64)> for Turn {
    fn from((value, digest): (f64, f64)) -> Self {
        Self {
            value,
            digest: Some(digest),
        }
    }
}

struct Contender<'a> {
    name: &'static str,
    turn: Box<dyn FnMut() -> Result<Turn> + 'a>,
    values: Vec<f64>,
}

/// A side of a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// The figure of this contender.
    Of(&'static str),
    /// Its figure divided by the number of workers.
    PerWorker(&'static str),
    /// So much of the shown unit.
    Fixed(f64),
}

impl From<&'static str> for Side {
    fn from(contender: &'static str) -> Self {
        Self::Of(contender)
    }
}

/// What a ratio shall be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Shown, and asked nothing of.
    Shown,
}

struct Ratio {
    of: Side,
    over: Side,
    bound: Bound,
}

/// The contenders of a case.
pub(crate) struct Bout<'a> {
    unit: Unit,
    rounds: usize,
    workers: usize,
    contenders: Vec<Contender<'a>>,
    ratios: Vec<Ratio>,
    rate: Option<(Unit, f64)>,
}

/// The figures of a contender, in the shown unit.
pub(crate) struct Row {
    pub(crate) contender: &'static str,
    pub(crate) spread: Spread,
}

/// Median, least and greatest.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            0.5 * (values[half - 1] + values[half])
        };
        Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        }
    }
}

/// A ratio, and what was asked of it.
pub(crate) struct Verdict {
    pub(crate) what: String,
    /// Of the medians.
    pub(crate) of_medians: f64,
    /// Of the least of each: what is left when others disturb the machine.
    pub(crate) of_minima: f64,
    /// Within each round.
    pub(crate) by_round: Spread,
    pub(crate) bound: Bound,
}

impl Verdict {
    /// Whether the ratio of medians is what was asked; `None` if nothing was.
    pub(crate) fn met(&self) -> Option<bool> {
        self.bound.holds(self.of_medians)
    }

    /// Whether the least figures say otherwise: one of the two was disturbed by others.
    pub(crate) fn doubtful(&self) -> bool {
        self.met() != self.bound.holds(self.of_minima)
    }
}

impl Bound {
    fn holds(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtMost(bound) => Some(ratio <= bound),
            Self::AtLeast(bound) => Some(ratio >= bound),
            Self::Shown => None,
        }
    }
}

/// All figures of a case.
pub(crate) struct Measured {
    pub(crate) unit: &'static str,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
    /// Unit, and so much of it in one unit of the rows' inverse.
    pub(crate) rate: Option<(&'static str, f64)>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl<'a> Bout<'a> {
    /// A contender, that measures itself: what is no work (checking, freeing) is not timed.
    pub(crate) fn contender<T: Into<Turn>>(
        mut self,
        name: &'static str,
        mut turn: impl FnMut() -> Result<T> + 'a,
    ) -> Self {
        self.contenders.push(Contender {
            name,
            turn: Box::new(move || turn().map(Into::into)),
            values: Vec::new(),
        });
        self
    }

    /// A contender that this machine may lack.
    pub(crate) fn contender_if<T: Into<Turn>>(
        self,
        name: &'static str,
        turn: Option<impl FnMut() -> Result<T> + 'a>,
    ) -> Self {
        match turn {
            Some(turn) => self.contender(name, turn),
            None => self,
        }
    }

    /// Asks for a ratio of two figures. It is left out where a contender is missing.
    pub(crate) fn ratio(mut self, of: impl Into<Side>, over: impl Into<Side>, bound: Bound) -> Self {
        self.ratios.push(Ratio {
            of: of.into(),
            over: over.into(),
            bound,
        });
        self
    }

    /// Shows how much of something a turn's unit of time gives: a turn is `amount` of it, in `unit`.
    pub(crate) fn rate(mut self, unit: Unit, amount: f64) -> Self {
        self.rate = Some((unit, amount));
        self
    }

    /// Lets them run.
    pub(crate) fn run(mut self) -> Result<Measured> {
        self.round(0, false)?;
        for round in 0..self.rounds {
            self.round(round, true)?;
        }
        let scale = self.unit.1;
        let shown = |contender: &Contender<'_>| Row {
            contender: contender.name,
            spread: Spread::of(contender.values.iter().map(|value| value * scale).collect()),
        };
        Ok(Measured {
            unit: self.unit.0,
            rounds: self.rounds,
            rows: self.contenders.iter().map(shown).collect(),
            rate: self.rate.map(|(unit, amount)| (unit.0, amount * unit.1 * scale)),
            verdicts: self
                .ratios
                .iter()
                .filter_map(|ratio| self.verdict(ratio))
                .collect(),
        })
    }

    /// A turn of each, from the `from`-th on: nobody always comes after the same one.
    fn round(&mut self, from: usize, keep: bool) -> Result<()> {
        let many = self.contenders.len();
        let mut agreed: Option<(&str, f64)> = None;
        for at in (0..many).map(|at| (from + at) % many) {
            // Threads and workers of the turn before fall asleep.
            thread::sleep(Duration::from_millis(20));
            let contender = &mut self.contenders[at];
            let turn = (contender.turn)().map_err(|error| format!("{}: {error}", contender.name))?;
            if keep {
                contender.values.push(turn.value);
            }
            match (turn.digest, agreed) {
                (Some(digest), Some((other, theirs))) if (digest - theirs).abs() > 1e-6 * theirs.abs() => {
                    return Err(
                        format!("{} has the result {digest}, {other} has {theirs}", contender.name).into(),
                    );
                }
                (Some(digest), None) => agreed = Some((contender.name, digest)),
                _ => {}
            }
        }
        Ok(())
    }

    fn verdict(&self, ratio: &Ratio) -> Option<Verdict> {
        let (of, over) = (self.side(ratio.of)?, self.side(ratio.over)?);
        let by_round = of.1.iter().zip(&over.1).map(|(of, over)| of / over).collect();
        let (what, of, over) = (
            format!("{} / {}", of.0, over.0),
            Spread::of(of.1),
            Spread::of(over.1),
        );
        Some(Verdict {
            what,
            of_medians: of.median / over.median,
            of_minima: of.min / over.min,
            by_round: Spread::of(by_round),
            bound: ratio.bound,
        })
    }

    /// Name and figures of a side; `None` if the contender is missing.
    fn side(&self, side: Side) -> Option<(String, Vec<f64>)> {
        let values = |name: &str| {
            let contender = self.contenders.iter().find(|contender| contender.name == name)?;
            Some(contender.values.iter().map(|value| value * self.unit.1))
        };
        Some(match side {
            Side::Of(name) => (name.to_owned(), values(name)?.collect()),
            Side::PerWorker(name) => {
                let share = values(name)?.map(|value| value / self.workers as f64);
                (format!("({name} / {})", self.workers), share.collect())
            }
            Side::Fixed(figure) => (format!("{figure} {}", self.unit.0), vec![figure; self.rounds]),
        })
    }
}

/// The seconds that `work` takes, and what it gives.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let result = work();
    (begun.elapsed().as_secs_f64(), result)
}

/// The seconds of one of `calls` calls in a row, after a tenth as many that wake up whoever sleeps.
pub(crate) fn each(calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..calls / 10 + 1 {
        call()?;
    }
    let (seconds, result) = timed(|| (0..calls).try_for_each(|_| call()));
    result.map(|()| seconds / calls as f64)
}

/// One number for many: it depends on their order, and on all of them up to four million.
pub(crate) fn digest(x: &[f64]) -> f64 {
    let step = x.len() >> 22 | 1;
    x.iter()
        .enumerate()
        .step_by(step)
        .fold(0.0, |sum, (i, x)| sum + x * (i % 1009 + 1) as f64)
}
