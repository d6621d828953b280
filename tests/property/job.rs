//! One random job: how it is run, and what a loop says about it.

use std::collections::BTreeMap;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swathe::{Array, ArrayMut, Batch, Collection, Context, Error, ExitCause, Partial, Pool, Result, Status};
use swathe_tests::{runs, until};

/// What an element does instead of returning a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    Error,
    Panic,
    Abort,
    Exit,
}

impl Harm {
    fn status(self) -> Status {
        match self {
            Self::Error => Status::Failed,
            Self::Panic => Status::Panicked,
            Self::Abort | Self::Exit => Status::Lost,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Map,
    Starmap,
    Texts,
    InPlace,
    Chunks,
    Imap,
    ImapUnordered,
    Reduce,
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) verb: Verb,
    pub(crate) len: usize,
    pub(crate) chunk_size: Option<usize>,
    /// Which pool: of this many processes, less 1.
    pub(crate) pool: usize,
    pub(crate) harms: BTreeMap<u64, Harm>,
    /// How many workers are killed from outside meanwhile.
    pub(crate) kills: u32,
}

/// As parameters of a job: the positions that do harm, and which.
type Harms = Vec<(u64, u8)>;

fn value(x: i64) -> i64 {
    x.wrapping_mul(x).wrapping_sub(3)
}

/// Does the harm of this position, if it has one.
fn suffer(harms: &Harms, position: u64) -> Result<(), String> {
    match harms.iter().find(|harm| harm.0 == position).map(|harm| harm.1) {
        None => Ok(()),
        Some(0) => Err(format!("error at {position}")),
        Some(1) => panic!("panic at {position}"),
        Some(2) => std::process::abort(),
        Some(_) => std::process::exit(9),
    }
}

fn one(harms: &Harms, context: &Context, x: i64) -> Result<i64, String> {
    suffer(harms, context.position()).map(|()| value(x))
}

fn two(harms: &Harms, context: &Context, x: i64, minus: i64) -> Result<i64, String> {
    suffer(harms, context.position()).map(|()| value(x) - minus)
}

fn write(harms: &Harms, context: &Context, x: i64) -> Result<String, String> {
    suffer(harms, context.position()).map(|()| "#".repeat(x as usize % 50) + &value(x).to_string())
}

fn chunk(harms: &Harms, context: &Context, xs: &[i64], out: &mut [i64]) -> Result<(), String> {
    for (i, (x, out)) in xs.iter().zip(out).enumerate() {
        suffer(harms, context.position() + i as u64)?;
        *out = value(*x);
    }
    Ok(())
}

fn tell(harms: &Harms, context: &Context, x: i64) -> Result<[i64; 2], String> {
    one(harms, context, x).map(|value| [x, value])
}

fn term(harms: &Harms, context: &Context, x: i64) -> i64 {
    suffer(harms, context.position()).map_or(0, |()| value(x))
}

fn add(a: i64, b: i64) -> i64 {
    a.wrapping_add(b)
}

/// What differs from the loop, in words.
type Verdict = Result<(), Box<dyn std::error::Error>>;

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*).into());
        }
    };
}

impl Job {
    /// Runs it, and compares.
    pub(crate) fn run(&self, pool: &Pool) -> Verdict {
        match self.verb {
            Verb::Map => {
                let pending = self
                    .batch(pool)
                    .with(&self.parameters())?
                    .collect_errors()
                    .try_map_async(one, self.input())?;
                self.kill_some(pool);
                self.compare(&pending.get()?, |i| value(i as i64))
            }
            Verb::Starmap => {
                let columns = (self.input(), Array::from_vec(vec![1; self.len])?);
                let batch = self.batch(pool).with(&self.parameters())?.collect_errors();
                let pending = batch.try_starmap_async(two, columns)?;
                self.kill_some(pool);
                self.compare(&pending.get()?, |i| value(i as i64) - 1)
            }
            Verb::Texts => {
                let pending = self
                    .batch(pool)
                    .with(&self.parameters())?
                    .collect_errors()
                    .try_map_async(write, self.input())?;
                self.kill_some(pool);
                self.compare(&pending.get()?, |i| {
                    "#".repeat(i % 50) + &value(i as i64).to_string()
                })
            }
            Verb::InPlace => self.in_place(pool),
            Verb::Chunks => {
                let input = Array::from_range(self.input())?;
                let batch = self.batch(pool).with(&self.parameters())?.collect_errors();
                let partial = self.while_killing(pool, || batch.try_map_chunks(chunk, input))?;
                self.compare_chunks(&partial)
            }
            Verb::Imap | Verb::ImapUnordered => self.stream(pool),
            Verb::Reduce => self.reduce(pool),
        }
    }

    fn input(&self) -> std::ops::Range<i64> {
        0..self.len as i64
    }

    fn parameters(&self) -> Harms {
        self.harms
            .iter()
            .map(|(&position, &harm)| (position, harm as u8))
            .collect()
    }

    fn batch<'p>(&self, pool: &'p Pool) -> Batch<'p> {
        // An element that is only near a worker that is killed from outside must not be given up for it.
        let batch = pool.batch().max_deaths(self.kills + 1);
        match self.chunk_size {
            Some(elements) => batch.chunk_size(elements),
            None => batch,
        }
    }

    fn kill_some(&self, pool: &Pool) {
        for nth in 0..self.kills as usize {
            // Not one that has yet to come to work: a few such deaths in a row are held against the initializer.
            let workers: Vec<_> = pool
                .workers()
                .into_iter()
                .filter(|worker| worker.elements > 0)
                .collect();
            let Some(victim) = workers.get((self.len + nth) % workers.len().max(1)) else {
                continue;
            };
            let victim = victim.pid;
            let _ = kill(Pid::from_raw(victim as i32), Signal::SIGKILL);
            // It must not be counted as a death of the next job.
            until("the victim is gone", || !runs(victim));
        }
    }

    /// Kills some workers while a verb runs that waits.
    fn while_killing<T: Send>(&self, pool: &Pool, verb: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| self.kill_some(pool));
            verb()
        })
    }

    fn compare<O: Collection<Item: PartialEq + std::fmt::Debug>>(
        &self,
        partial: &Partial<O>,
        expected: impl Fn(usize) -> O::Item,
    ) -> Verdict {
        ensure!(
            partial.len() == self.len,
            "{} positions instead of {}",
            partial.len(),
            self.len
        );
        let (torn, failures): (Vec<_>, Vec<_>) = partial
            .failures()
            .into_iter()
            .partition(|failure| self.is_torn(failure));
        let torn = |at| {
            torn.iter()
                .any(|t| (t.position()..t.position() + t.span()).contains(&at))
        };
        for i in (0..self.len).filter(|&i| !torn(i as u64)) {
            let (status, value) = (partial.status(i), partial.value(i)?);
            let harm = self.harms.get(&(i as u64));
            let wanted = (
                harm.map_or(Status::Done, |harm| harm.status()),
                harm.is_none().then(|| expected(i)),
            );
            ensure!(
                (status, &value) == (wanted.0, &wanted.1),
                "position {i}: {status:?} {value:?} instead of {wanted:?}"
            );
        }
        let harmed = self.harms.keys().copied().filter(|&at| !torn(at));
        ensure!(
            failures.iter().map(|f| f.position()).eq(harmed),
            "failures {failures:?}"
        );
        for failure in &failures {
            self.check_message(failure)?;
        }
        Ok(())
    }

    /// A strip in place that was hit from outside while its results were copied over its inputs is lost.
    fn is_torn(&self, failure: &swathe::ItemError) -> bool {
        self.verb == Verb::InPlace
            && self.kills > 0
            && failure.cause() == Some(ExitCause::Signal(9))
            && failure
                .message()
                .starts_with("its results were being written over its inputs")
    }

    fn check_message(&self, failure: &swathe::ItemError) -> Verdict {
        let at = failure.position();
        // The last death at an element may be one from outside.
        let died = |cause| failure.cause() == Some(cause) || self.was_killed(failure);
        let fits = match self.harms.get(&at) {
            Some(Harm::Error) => failure.message() == format!("error at {at}"),
            Some(Harm::Panic) => failure.message().starts_with(&format!("panic at {at}, at ")),
            Some(Harm::Abort) => died(ExitCause::Signal(6)),
            Some(Harm::Exit) => died(ExitCause::Code(9)),
            None => false,
        };
        ensure!(fits, "the failure of position {at} reads {failure:?}");
        Ok(())
    }

    fn was_killed(&self, failure: &swathe::ItemError) -> bool {
        self.kills > 0 && failure.cause() == Some(ExitCause::Signal(9))
    }

    /// A chunk has the failure of the first harm in it.
    fn compare_chunks(&self, partial: &Partial<Array<i64>>) -> Verdict {
        for i in 0..self.len {
            let (status, got) = (partial.status(i), partial.value(i)?);
            if status == Status::Done {
                ensure!(got == Some(value(i as i64)), "position {i} has {got:?}");
                ensure!(
                    !self.harms.contains_key(&(i as u64)),
                    "position {i} must have failed"
                );
            }
        }
        for failure in partial.failures() {
            let positions = failure.position()..failure.position() + failure.span();
            let aligned = self.chunk_size.is_none_or(|size| {
                let (size, len) = (size as u64, self.len as u64);
                positions.start % size == 0 && positions.end == (positions.start + size).min(len)
            });
            ensure!(aligned, "positions {positions:?} are no chunk");
            let harm = self.harms.range(positions.clone()).next();
            ensure!(
                harm.is_some_and(|(_, harm)| harm.status() == failure.status()),
                "no reason for {failure}"
            );
        }
        Ok(())
    }

    fn in_place(&self, pool: &Pool) -> Verdict {
        let array = ArrayMut::from_range(self.input())?;
        let batch = self.batch(pool).with(&self.parameters())?;
        match self.while_killing(pool, || batch.try_map_in_place(one, array)) {
            Ok(array) => {
                ensure!(self.harms.is_empty(), "no failures");
                ensure!(array.iter().copied().eq(self.input().map(value)), "wrong values");
                Ok(())
            }
            Err(Error::Job(error)) => {
                let partial = error.into_partial::<ArrayMut<i64>>()?;
                self.compare(&partial, |i| value(i as i64))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn stream(&self, pool: &Pool) -> Verdict {
        let ordered = self.verb == Verb::Imap;
        let parameters = self.parameters();
        let batch = self.batch(pool).with(&parameters)?;
        let stream = if ordered {
            batch.try_imap(tell, self.input())
        } else {
            batch.try_imap_unordered(tell, self.input())
        };
        let mut seen = vec![false; self.len];
        for (i, result) in stream.enumerate() {
            if i == self.len / 2 {
                self.kill_some(pool);
            }
            let position = match &result {
                Ok([x, value]) => {
                    ensure!(*value == self::value(*x), "{x} gives {value}");
                    ensure!(
                        !self.harms.contains_key(&(*x as u64)),
                        "position {x} must have failed"
                    );
                    *x as usize
                }
                Err(failure) => {
                    self.check_message(failure)?;
                    failure.position() as usize
                }
            };
            ensure!(
                !ordered || position == i,
                "position {position} comes as number {i}"
            );
            ensure!(
                !std::mem::replace(&mut seen[position], true),
                "position {position} comes twice"
            );
        }
        ensure!(seen.iter().all(|seen| *seen), "some positions are missing");
        Ok(())
    }

    fn reduce(&self, pool: &Pool) -> Verdict {
        let batch = self.batch(pool).with(&self.parameters())?;
        let harmful = self.harms.values().any(|harm| *harm != Harm::Error);
        match self.while_killing(pool, || batch.map_reduce(term, add, self.input())) {
            Ok(sum) => {
                let terms = self
                    .input()
                    .filter(|x| !self.harms.contains_key(&(*x as u64)))
                    .map(value);
                let wanted = (self.len > 0).then(|| terms.fold(0, add));
                ensure!(!harmful, "a sum in spite of {:?}", self.harms);
                ensure!(sum == wanted, "the sum is {sum:?} instead of {wanted:?}");
                Ok(())
            }
            Err(Error::Job(error)) => {
                let first = error.first().ok_or("an error without a failure")?;
                let (positions, harm) = (
                    first.position()..first.position() + first.span(),
                    self.harms.iter().next(),
                );
                ensure!(
                    harm.is_some_and(|(at, _)| positions.contains(at)),
                    "{error} in spite of {:?}",
                    self.harms
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
