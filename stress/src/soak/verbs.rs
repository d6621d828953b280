//! Jobs whose results are judged position by position against a loop.

use std::{fmt::Debug, ops::Range, thread, time::Duration};

use swathe::{
    Array, ArrayMut, Batch, Collection, Error, ExitCause, ItemError, Partial, Pending, Pool, Result,
    SharedArray, Status,
};

use super::{
    plan::{Cut, JobPlan, Verb, Weather},
    tasks::{self, Harm, Orders, value},
};
use crate::verdict::Verdict;

impl JobPlan {
    /// Runs it, and judges the results. An error is a refusal of the pool.
    pub(super) fn run(&self, pool: &Pool) -> Result<Verdict> {
        let starts = SharedArray::zeros(self.len.max(64))?;
        let mut verdict = Verdict::default();
        match self.verb {
            Verb::Map => self.map(pool, &starts, &mut verdict)?,
            Verb::Starmap => self.starmap(pool, &starts, &mut verdict)?,
            Verb::Texts => self.texts(pool, &starts, &mut verdict)?,
            Verb::InPlace => self.in_place(pool, &starts, &mut verdict)?,
            Verb::Chunks => self.chunks(pool, &starts, &mut verdict)?,
            Verb::Reduce => self.reduce(pool, &starts, &mut verdict)?,
            Verb::Imap | Verb::ImapUnordered => self.stream(pool, &starts, &mut verdict)?,
            Verb::Apply => self.apply(pool, &mut verdict)?,
            Verb::PerWorker => self.per_worker(pool, &starts, &mut verdict)?,
            Verb::Produce | Verb::Consume | Verb::Relay => self.share(pool, &mut verdict)?,
        }
        Ok(verdict)
    }

    fn input(&self) -> Range<i64> {
        0..self.len as i64
    }

    fn orders(&self, starts: &SharedArray<u32>) -> Orders {
        let harms = self.harms.iter().map(|(&at, &harm)| (at, harm));
        tasks::orders(harms, self.pace, starts)
    }

    /// The options that all verbs have.
    pub(super) fn batch<'p>(&self, pool: &'p Pool) -> Batch<'p> {
        let mut batch = pool
            .batch()
            .chunk_size(self.chunks)
            .max_deaths(self.max_deaths)
            .retries(self.retries)
            .backoff(Duration::from_micros(500), Duration::from_millis(5));
        if let Some(each) = self.timeout {
            batch = batch.timeout(each);
        }
        match self.cut {
            Some(Cut::FirstFailure) => batch.fail_fast(),
            Some(Cut::Deadline(within)) => batch.deadline(within),
            _ => batch,
        }
    }

    /// Waits for a job in one of the ways that there are, or cancels it.
    fn wait<T>(&self, pending: &Pending<T>) -> Result<T> {
        if let Some(Cut::Cancelled(after)) = self.cut {
            thread::sleep(after);
            pending.cancel_within(Duration::from_millis(self.seed % 50));
        } else if !self.blocking {
            let mut last = 0;
            while !pending.wait(Duration::from_millis(1 + self.seed % 5)) {
                let (settled, _) = pending.progress();
                if settled > self.len as u64 {
                    last = settled;
                }
            }
            assert_eq!(last, 0, "more positions are settled than there are");
        }
        pending.get()
    }

    fn map(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let batch = self.batch(pool).with(&self.orders(starts))?.collect_errors();
        let pending = match self.in_array {
            true => batch.try_map_async(tasks::number, Array::from_range(self.input())?)?,
            false => batch.try_map_async(tasks::number, self.input())?,
        };
        let partial = self.wait(&pending)?;
        self.judge(&partial, |i| value(i as i64), starts, verdict);
        Ok(())
    }

    fn starmap(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let ys = Array::from_fn(self.len, |i| i as f64 * 0.5)?;
        let batch = self.batch(pool).with(&self.orders(starts))?.collect_errors();
        let pending = batch.try_starmap_async(tasks::columns, (self.input(), ys))?;
        let partial = self.wait(&pending)?;
        self.judge(
            &partial,
            |i| tasks::row(i as i64, i as f64 * 0.5),
            starts,
            verdict,
        );
        Ok(())
    }

    fn texts(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let batch = self.batch(pool).with(&self.orders(starts))?.collect_errors();
        let partial = if self.blocking && !matches!(self.cut, Some(Cut::Cancelled(_))) {
            batch.try_map(tasks::text, self.input())?
        } else {
            self.wait(&batch.try_map_async(tasks::text, self.input())?)?
        };
        self.judge(&partial, |i| tasks::label(i as i64), starts, verdict);
        Ok(())
    }

    fn in_place(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let array = ArrayMut::from_range(self.input())?;
        let batch = self.batch(pool).with(&self.orders(starts))?;
        let partial = match batch.try_map_in_place(tasks::number, array) {
            Ok(array) => return self.judge_array(&array, starts, verdict),
            Err(Error::Job(error)) => error.into_partial::<ArrayMut<i64>>()?,
            Err(error) => return Err(error),
        };
        self.judge(&partial, |i| value(i as i64), starts, verdict);
        // What has no value is as it was.
        let statuses: Vec<_> = (0..partial.len()).map(|i| partial.status(i)).collect();
        let values = partial.into_values();
        for (i, status) in statuses.into_iter().enumerate() {
            if status != Status::Done && values[i] != i as i64 {
                verdict.reject(format!(
                    "position {i} is {status:?}, and was changed to {}",
                    values[i]
                ));
            }
        }
        Ok(())
    }

    fn judge_array(
        &self,
        array: &ArrayMut<i64>,
        starts: &SharedArray<u32>,
        verdict: &mut Verdict,
    ) -> Result<()> {
        for (i, &found) in array.iter().enumerate() {
            self.judge_value(i, &found, &value(i as i64), verdict);
            self.judge_starts(i, Status::Done, starts, verdict);
            if self.last_harm(i as u64).is_some_and(|harm| !self.may_pass(harm)) {
                verdict.reject(format!("position {i} has a value in spite of its harm"));
            }
        }
        Ok(())
    }

    fn chunks(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let input = Array::from_range(self.input())?;
        let batch = self.batch(pool).with(&self.orders(starts))?.collect_errors();
        let partial = batch.try_map_chunks(tasks::chunk, input)?;
        self.judge(&partial, |i| value(i as i64), starts, verdict);
        Ok(())
    }

    /// The tree that the documentation describes.
    fn tree(&self) -> Option<f64> {
        let block = match self.chunks {
            swathe::ChunkSize::Fixed(elements) => elements,
            _ => self.len.div_ceil(1024).max(1),
        };
        let terms: Vec<f64> = self.input().map(tasks::fraction).collect();
        let mut sums: Vec<f64> = terms
            .chunks(block)
            .filter_map(|block| block.iter().copied().reduce(tasks::add))
            .collect();
        while sums.len() > 1 {
            sums = sums
                .chunks(2)
                .filter_map(|pair| pair.iter().copied().reduce(tasks::add))
                .collect();
        }
        sums.pop()
    }

    fn reduce(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let batch = self.batch(pool).with(&self.orders(starts))?;
        let sum = batch.map_reduce(tasks::term, tasks::add, self.input())?;
        let bits = |sum: Option<f64>| sum.map(f64::to_bits);
        if bits(sum) != bits(self.tree()) {
            verdict.reject(format!("the sum is {sum:?} instead of {:?}", self.tree()));
        }
        for i in 0..self.len {
            self.judge_starts(i, Status::Done, starts, verdict);
        }
        Ok(())
    }

    fn apply(&self, pool: &Pool, verdict: &mut Verdict) -> Result<()> {
        let us = self.pace.micros();
        let call = |x: i64, us: u64| {
            thread::sleep(Duration::from_micros(us));
            tasks::label(x)
        };
        let calls: Vec<_> = self
            .input()
            .map(|x| self.batch(pool).apply_async(call, (x, us)))
            .collect::<Result<_>>()?;
        for (x, call) in (0..).zip(&calls) {
            match call.get() {
                Ok(text) if text == tasks::label(x) => {}
                Ok(text) => verdict.reject(format!("call {x} gives {text}")),
                Err(error) => verdict.lose(format!("call {x}: {error}")),
            }
        }
        Ok(())
    }

    fn per_worker(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let batch = self.batch(pool).with(&self.orders(starts))?.collect_errors();
        let found = batch.run_per_worker(tasks::whoami)?;
        for i in 0..found.len() {
            match found.value(i)? {
                Some([worker, _]) if worker == i as u64 => {}
                Some([worker, pid]) => {
                    verdict.reject(format!(
                        "what worker {i} is to run ran in worker {worker}, pid {pid}"
                    ));
                }
                None => verdict.lose(format!(
                    "worker {i}: {:?} {:?}",
                    found.status(i),
                    found.failures()
                )),
            }
        }
        Ok(())
    }

    /// Every position of a result.
    fn judge<O: Collection<Item: PartialEq + Debug>>(
        &self,
        partial: &Partial<O>,
        expected: impl Fn(usize) -> O::Item,
        starts: &SharedArray<u32>,
        verdict: &mut Verdict,
    ) {
        if partial.len() != self.len {
            return verdict.reject(format!("{} positions instead of {}", partial.len(), self.len));
        }
        if let (None, Some(why)) = (&self.cut, partial.why_stopped()) {
            verdict.lose(format!("nobody stopped it, and {why}"));
        }
        for i in 0..self.len {
            let status = partial.status(i);
            self.judge_starts(i, status, starts, verdict);
            match partial.value(i) {
                Ok(Some(found)) => self.judge_value(i, &found, &expected(i), verdict),
                Ok(None) => {}
                Err(error) => verdict.reject(format!("position {i}: {error}")),
            }
            self.judge_status(i, status, verdict);
        }
        for failure in partial.failures() {
            // Positions that a stopped job did not come to have been judged by their status.
            let was_run = failure.worker().is_some();
            if was_run || self.cut.is_none() {
                self.judge_failure(&failure, verdict);
            }
        }
    }

    fn judge_value<T: PartialEq + Debug>(&self, i: usize, found: &T, expected: &T, verdict: &mut Verdict) {
        if found == expected {
            return;
        }
        let text = format!("position {i} has {found:?} instead of {expected:?}");
        match self.verb {
            // The value of a value: it was run over its own result.
            Verb::InPlace if format!("{found:?}") == value(value(i as i64)).to_string() => {
                verdict.double(text);
            }
            _ => verdict.reject(text),
        }
    }

    /// Whether an element that does harm at its first try only may be spared: a death beside it counts as a try.
    fn may_pass(&self, harm: Harm) -> bool {
        harm.passes() && self.weather != Weather::Calm
    }

    fn judge_status(&self, i: usize, status: Status, verdict: &mut Verdict) {
        let harm = self.last_harm(i as u64);
        let wanted = harm.map_or(Status::Done, Harm::status);
        let stopped = match self.cut {
            None => false,
            Some(Cut::Cancelled(_)) => status == Status::Cancelled,
            Some(Cut::Deadline(_)) => status == Status::TimedOut,
            Some(Cut::FirstFailure) => status == Status::NotRun,
        };
        // A try may be the last, if the job ends before the next.
        let earlier = self.cut.is_some() && self.harms.get(&(i as u64)).is_some_and(|h| h.status() == status);
        let spared = status == Status::Done && harm.is_some_and(|harm| self.may_pass(harm));
        // One that hangs may be killed from outside as often as a deadly one, before its time is over.
        let shot = status == Status::Lost && wanted == Status::TimedOut && self.weather != Weather::Calm;
        // Who is stopped in the last try of an element that fails.
        let late = status == Status::TimedOut && harm.is_some() && self.weather == Weather::Stops;
        if status == wanted || stopped || earlier || spared || shot || late {
            return;
        }
        let text = format!("position {i} is {status:?} instead of {wanted:?}");
        match status {
            Status::Done => verdict.reject(text),
            _ => verdict.lose(text),
        }
    }

    fn judge_failure(&self, failure: &ItemError, verdict: &mut Verdict) {
        let at = failure.position();
        let died = failure.status() == Status::Lost;
        let late = self.weather == Weather::Stops && failure.message().starts_with("it took longer than");
        let fits = match self.harms.get(&at) {
            _ if self.verb.takes_chunks() => false,
            Some(_) if late => true,
            Some(Harm::Error | Harm::ErrorOnce) => failure.message() == format!("error at {at}"),
            Some(Harm::Panic | Harm::PanicOnce) => {
                failure.message().starts_with(&format!("panic at {at}, at "))
            }
            Some(Harm::Hang | Harm::HangOnce) => died || failure.message().starts_with("it took longer than"),
            // The last of its deaths may be one from outside.
            Some(Harm::Abort) => {
                died && matches!(
                    failure.cause(),
                    Some(ExitCause::Signal(6 | 9) | ExitCause::Unknown)
                )
            }
            None => false,
        };
        if !fits {
            verdict.lose(format!("{failure}, after {} attempts", failure.attempts()));
        }
    }

    /// How often an element was started: in calm weather exactly as often as it was tried.
    fn judge_starts(&self, i: usize, status: Status, starts: &SharedArray<u32>, verdict: &mut Verdict) {
        let found = starts.load(i);
        let tries = match self.harms.get(&(i as u64)) {
            None => 1,
            Some(harm) if harm.passes() => 1 + self.retries.min(1),
            Some(_) => 1 + self.retries,
        };
        let finished = matches!(status, Status::Done | Status::Failed | Status::Panicked);
        if finished && found == 0 {
            verdict.reject(format!("position {i} is {status:?}, and was never started"));
        }
        if found > 1 {
            verdict.rerun += 1;
        }
        if self.counts_starts() && (found > tries || (finished && self.cut.is_none() && found < tries)) {
            verdict.double(format!(
                "position {i} was started {found} times, and tried {tries} times"
            ));
        }
    }

    fn stream(&self, pool: &Pool, starts: &SharedArray<u32>, verdict: &mut Verdict) -> Result<()> {
        let parameters = self.orders(starts);
        let mut batch = pool
            .batch()
            .max_deaths(self.max_deaths)
            .retries(self.retries)
            .backoff(Duration::from_micros(500), Duration::from_millis(5));
        if let swathe::ChunkSize::Fixed(elements) = self.chunks {
            batch = batch.chunk_size(elements);
        }
        if let Some(each) = self.timeout {
            batch = batch.timeout(each);
        }
        let batch = batch.with(&parameters)?;
        let (ordered, texts) = (self.verb == Verb::Imap, self.in_array);
        let check_text = |(x, text): (i64, String)| (x, text == tasks::label(x));
        let check = |[x, found]: [i64; 2]| (x, found == value(x));
        match (ordered, texts) {
            (true, false) => self.drain(batch.try_imap(tasks::tell, self.input()), check, verdict),
            (false, false) => self.drain(
                batch.try_imap_unordered(tasks::tell, self.input()),
                check,
                verdict,
            ),
            (true, true) => self.drain(
                batch.try_imap(tasks::tell_text, self.input()),
                check_text,
                verdict,
            ),
            (false, true) => self.drain(
                batch.try_imap_unordered(tasks::tell_text, self.input()),
                check_text,
                verdict,
            ),
        }
        if self.dropped_after.is_none() {
            for i in 0..self.len {
                let harm = self.last_harm(i as u64).map_or(Status::Done, Harm::status);
                self.judge_starts(i, harm, starts, verdict);
            }
        }
        Ok(())
    }

    /// `check` tells where a result belongs, and whether it is right.
    fn drain<I: Iterator, B>(
        &self,
        mut stream: swathe::Imap<'_, I, B>,
        check: impl Fn(B) -> (i64, bool),
        verdict: &mut Verdict,
    ) {
        if let Some(elements) = self.look_ahead {
            stream = stream.look_ahead(elements);
        }
        let ordered = self.verb == Verb::Imap;
        let mut seen = vec![false; self.len];
        let mut count = 0;
        let until = self.dropped_after.unwrap_or(usize::MAX);
        while count < until {
            // A short wait now and then, which must lose nothing.
            let result = match stream.next_timeout(Duration::from_millis(1 + self.seed % 7)) {
                Ok(Some(result)) => result,
                Ok(None) => break,
                Err(Error::Timeout) => continue,
                Err(error) => return verdict.reject(format!("the stream ended with {error}")),
            };
            let at = match result {
                Ok(value) => {
                    let (x, right) = check(value);
                    if !right {
                        verdict.reject(format!("result {x} is wrong"));
                    }
                    self.judge_status(x as usize, Status::Done, verdict);
                    x as u64
                }
                Err(failure) => {
                    self.judge_status(failure.position() as usize, failure.status(), verdict);
                    self.judge_failure(&failure, verdict);
                    failure.position()
                }
            };
            if ordered && at != count as u64 {
                verdict.reject(format!("position {at} comes as number {count}"));
            }
            match seen.get_mut(at as usize) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => verdict.double(format!("position {at} comes twice")),
                None => verdict.reject(format!("there is no position {at}")),
            }
            count += 1;
        }
        if self.dropped_after.is_none() {
            for (i, _) in seen.iter().enumerate().filter(|(_, seen)| !**seen) {
                verdict.lose(format!("position {i} never came"));
            }
        }
    }

    /// A job that a terminated pool leaves unfinished.
    pub(super) fn left_over(pool: &Pool) -> Result<LeftOver> {
        let len = 300;
        let pending = pool.batch().collect_errors().map_async(tasks::nap, 0..len)?;
        Ok(LeftOver(pending, len as usize))
    }
}

/// See [`JobPlan::left_over`].
pub(super) struct LeftOver(Pending<Partial<Array<i64>>>, usize);

impl LeftOver {
    /// It must be over, and what has a value has the right one.
    pub(super) fn judge(self, verdict: &mut Verdict) -> Result<()> {
        let Self(pending, len) = self;
        if !pending.ready() {
            verdict.lose("a job of a terminated pool is not over".to_owned());
        }
        let partial = pending.get()?;
        for i in 0..len {
            match (partial.status(i), partial.value(i)?) {
                (Status::Cancelled, None) => {}
                (Status::Done, Some(found)) if found == value(i as i64) => {}
                other => verdict.reject(format!("position {i} of a terminated pool is {other:?}")),
            }
        }
        Ok(())
    }
}
