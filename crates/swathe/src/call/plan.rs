//! A call as it is written down for the engine.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use bytemuck::Pod;
use swathe_memory::Memory;
use swathe_runtime::{Durable, Engine, Job, JobHandle, JobTraits, Outcome, Region, TaskRef};

use crate::call::{
    callbacks::OnDone,
    options::{MAX_DEATHS, Options},
};
use crate::{
    Error, Result,
    cross::{
        column::Columns,
        datum::Datum,
        item::{Keep, Lowered},
        parameters::Parameters,
        task::Task,
    },
    lower::{self, Finish, Output, wire::Encoder},
};

/// The parameters of a call, ready to cross.
#[derive(Default)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) keep: Keep,
    /// Whether they hold arrays.
    pub(crate) lends: bool,
}

/// The part of a job that lies in a file.
pub(crate) struct Begun {
    pub(crate) durable: Durable,
    /// Positions that an earlier run has done.
    pub(crate) restored: u64,
}

/// What the engine must know of a job.
pub(crate) struct Plan {
    pub(crate) task: TaskRef,
    pub(crate) positions: u64,
    pub(crate) chunk_align: u64,
    pub(crate) wire: Encoder,
    pub(crate) traits: JobTraits,
    /// The memory that the job changes in place.
    pub(crate) in_place: Option<Region>,
    /// What of it lies in a file.
    pub(crate) durable: Option<Begun>,
    pub(crate) base: u64,
    pub(crate) heap_hint: usize,
    /// Of inputs and output slab.
    pub(crate) bytes: u64,
    pub(crate) lends: bool,
    pub(crate) keep: Box<dyn Any + Send + Sync>,
}

impl Plan {
    /// A job of one call a position, with a slab of its own: the job and its slab.
    pub(crate) fn of_map<F, S, W, C, M, N, K>(
        task: F,
        lowered: Lowered,
        parameters: &[u8],
        memory: &Memory,
    ) -> Result<(Self, MapOutput<N::Value, K>)>
    where
        F: Task<S, W::Value, C::Args, M>,
        S: 'static,
        W: Parameters,
        C: Columns,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        Self::of_map_to::<F, S, W, C, M, N, K>(task, lowered, parameters, |len, wire| {
            Output::new(memory, len, wire)
        })
    }

    /// As [`of_map`](Self::of_map), with the slab that `output` makes: it is given the number of values.
    pub(crate) fn of_map_to<F, S, W, C, M, N, K>(
        task: F,
        lowered: Lowered,
        parameters: &[u8],
        output: impl FnOnce(usize, &mut Encoder) -> Result<MapOutput<N::Value, K>>,
    ) -> Result<(Self, MapOutput<N::Value, K>)>
    where
        F: Task<S, W::Value, C::Args, M>,
        S: 'static,
        W: Parameters,
        C: Columns,
        N: Finish<F::Output, Value: Datum<K>>,
    {
        let task = lower::map_task::<F, S, W, C, M, N, K>(task)?;
        let mut wire = Encoder::default();
        wire.bytes(parameters);
        // What has been lowered was counted in memory, or checked to fit.
        let output = output(lowered.len as usize, &mut wire)?;
        wire.append(&lowered.wire);
        let hint = (lowered.len as usize)
            .saturating_mul(<N::Value as Datum<K>>::HEAP)
            .min(1 << 20);
        let plan = Self {
            task,
            positions: lowered.len,
            chunk_align: align_of_chunks::<<N::Value as Datum<K>>::Slot>(),
            wire,
            traits: JobTraits::default(),
            in_place: None,
            durable: None,
            base: 0,
            heap_hint: hint,
            bytes: lowered.bytes as u64 + lowered.len * size_of::<<N::Value as Datum<K>>::Slot>() as u64,
            lends: lowered.lends,
            keep: Box::new((lowered.keep, output.clone())),
        };
        Ok((plan, output))
    }

    pub(crate) fn submit(
        self,
        engine: &Engine,
        options: &Options,
        on_done: Option<OnDone>,
    ) -> Result<JobHandle> {
        if options.timeout == Some(Duration::ZERO) {
            return Err(Error::ZeroTimeout);
        }
        let traits = JobTraits {
            fail_fast: options.fail_fast,
            ..self.traits
        };
        Ok(engine.submit(Job {
            task: self.task,
            heap_hint: self.heap_hint,
            positions: self.positions,
            chunking: options.chunking,
            chunk_align: self.chunk_align,
            params: self.wire.into_bytes(),
            traits,
            seed: options.seed,
            base: self.base,
            max_deaths: options
                .max_deaths
                .unwrap_or(MAX_DEATHS.max(options.retries.more.saturating_add(1))),
            retries: options.retries,
            element_timeout: options.timeout,
            timeout: options
                .deadline
                .map(|at| at.saturating_duration_since(Instant::now())),
            in_place: self.in_place,
            durable: self.durable.map(|begun| begun.durable),
            bytes: self.bytes,
            lends: self.lends,
            keep: self.keep,
            on_done,
        })?)
    }

    /// Submits, and waits for the end.
    pub(crate) fn run(mut self, engine: &Engine, options: &Options) -> Result<Arc<Outcome>> {
        self.traits.watched = true;
        let job = self.submit(engine, options, None)?;
        while !job.wait(None) {}
        Ok(job.outcome().expect("a job that is over has an outcome"))
    }
}

/// The slab of a job that returns `B`s.
pub(crate) type MapOutput<B, K> = Output<<B as Datum<K>>::Slot>;

/// Positions after which a chunk of the output may end, so that no two workers write to one cache line.
pub(crate) fn align_of_chunks<T: Pod>() -> u64 {
    const LINE: usize = 64;
    match size_of::<T>() {
        0 => 1,
        size if LINE.is_multiple_of(size) => (LINE / size) as u64,
        _ => 1,
    }
}
