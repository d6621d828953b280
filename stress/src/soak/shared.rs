//! Jobs whose tasks share a queue and counters.

use std::{thread, time::Duration};

use swathe::{Pool, Queue, Result, SharedArray, Value};

use super::{
    plan::{JobPlan, Verb, Weather},
    tasks::{self, Common, Item},
};
use crate::verdict::Verdict;

/// What came out of a queue.
struct Got {
    /// How often each number came.
    numbers: Vec<u32>,
    stamps: std::collections::HashSet<u64>,
    damaged: u64,
    doubled: u64,
}

impl Got {
    fn new(len: usize) -> Self {
        Self {
            numbers: vec![0; len],
            stamps: std::collections::HashSet::new(),
            damaged: 0,
            doubled: 0,
        }
    }

    fn take(&mut self, (number, stamp, text): Item) {
        if text != tasks::item_text(number, stamp) {
            self.damaged += 1;
        }
        match self.numbers.get_mut(number as usize) {
            Some(count) => *count += 1,
            None => self.damaged += 1,
        }
        if !self.stamps.insert(stamp) {
            self.doubled += 1;
        }
    }
}

impl JobPlan {
    /// Runs elements that use one queue, and judges what became of its items.
    pub(super) fn share(&self, pool: &Pool, verdict: &mut Verdict) -> Result<()> {
        let places = if self.verb == Verb::Consume {
            self.len
        } else {
            4 + self.seed as usize % 60
        };
        let queue = Queue::bounded(places)?;
        let seen = SharedArray::zeros(self.len)?;
        let counters = [Value::new(0)?, Value::new(0)?, Value::new(0)?];
        let common: Common = (
            queue.clone(),
            seen.clone(),
            counters.clone(),
            self.pace.micros().saturating_sub(60),
        );
        if self.verb == Verb::Consume {
            for number in 0..self.len as u64 {
                queue.put(&tasks::item(number))?;
            }
        }
        let batch = self.batch(pool).with(&common)?.collect_errors();
        let input = 0..self.len as u64;
        let pending = match self.verb {
            Verb::Produce => batch.try_map_async(tasks::produce, input)?,
            Verb::Consume => batch.try_map_async(tasks::consume, input)?,
            _ => batch.try_map_async(tasks::relay, input)?,
        };
        let mut got = Got::new(self.len);
        if self.verb == Verb::Produce {
            while !pending.ready() {
                if let Some(item) = queue.get_timeout(Duration::from_millis(2))? {
                    got.take(item);
                }
            }
        }
        let partial = pending.get()?;
        for failure in partial.failures() {
            verdict.lose(failure.to_string());
        }
        let [begun, ended, steps] = counters.map(|counter| counter.load());
        self.judge_counters(begun, ended, steps, verdict);
        for item in queue.drain() {
            got.take(item?);
        }
        if got.doubled + got.damaged > 0 {
            verdict.double(format!(
                "{} items came twice, {} damaged",
                got.doubled, got.damaged
            ));
        }
        match self.verb {
            Verb::Produce => self.judge_products(&got, begun, verdict),
            Verb::Consume => self.judge_consumption(&got, &seen, begun - ended, verdict),
            _ => self.judge_relay(&got, &seen, &partial, begun - ended, verdict)?,
        }
        // The queue is as good as new: whoever died in it has left no mark.
        thread::yield_now();
        for number in 0..100 {
            queue.try_put(&tasks::item(number))?;
            match queue.try_get()? {
                Some((found, ..)) if found == number => {}
                other => verdict.reject(format!("item {number} comes back as {other:?}")),
            }
        }
        Ok(())
    }

    fn judge_counters(&self, begun: u64, ended: u64, steps: u64, verdict: &mut Verdict) {
        let len = self.len as u64;
        let steps = steps / 3;
        if !(len <= ended && ended <= steps && steps <= begun) {
            verdict.reject(format!(
                "{len} elements: {begun} have begun, {steps} counted, {ended} ended"
            ));
        }
        if self.weather == Weather::Calm && begun != len {
            verdict.double(format!("{len} elements have begun {begun} times"));
        }
        verdict.in_hand += begun - ended;
    }

    /// What a finished element has put is there; what a dead one has put may be.
    fn judge_products(&self, got: &Got, begun: u64, verdict: &mut Verdict) {
        let came = got.stamps.len() as u64;
        if came > begun {
            verdict.double(format!("{came} items of {begun} puts"));
        }
        for (number, _) in got.numbers.iter().enumerate().filter(|(_, count)| **count == 0) {
            verdict.lose(format!("the item of element {number} never came"));
        }
    }

    /// Every item was got once, or lies there still, or was in the hands of one who died.
    fn judge_consumption(&self, got: &Got, seen: &SharedArray<u32>, in_hand: u64, verdict: &mut Verdict) {
        let mut missing = 0;
        for (number, (left, seen)) in got.numbers.iter().zip(seen.iter()).enumerate() {
            match left + seen {
                0 => missing += 1,
                1 => {}
                n => verdict.double(format!("item {number} was got {n} times")),
            }
        }
        if missing > in_hand {
            verdict.lose(format!("{missing} items are missing, and {in_hand} were in hand"));
        }
    }

    fn judge_relay(
        &self,
        got: &Got,
        seen: &SharedArray<u32>,
        partial: &swathe::Partial<swathe::Array<u64>>,
        in_hand: u64,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let mut missing = 0;
        for x in (0..self.len).step_by(2) {
            let number = x / 2;
            let came = got.numbers[number] + seen.load(number);
            let put = partial.value(x)? == Some(1);
            missing += u64::from(put && came == 0);
            // An element that was run again has put again.
            if came > 1 && self.weather == Weather::Calm {
                verdict.double(format!("item {number} was got {came} times"));
            }
        }
        if missing > in_hand {
            verdict.lose(format!("{missing} items are missing, and {in_hand} were in hand"));
        }
        Ok(())
    }
}
