//! A worker's life: set up, run until told to leave, clean up.

mod code;
mod execute;
mod find;
mod growth;
pub(crate) mod heap;
pub(crate) mod line;
mod pace;
pub(crate) mod panics;
pub(crate) mod reporter;

use std::{
    any::Any,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use swathe_memory::lease;
use swathe_os::{
    cores, futex,
    image::{self, CodeRef},
    process::{self},
    socket::Socket,
    stack,
};
use swathe_protocol::{SlotPhase, WorkerSlot};

use crate::{
    fault::{self, Point},
    host::host,
    job::task::{ExitHook, Setup, SetupCall, WorkerFacts},
    shared::{
        messages::{Message, MessageKind},
        plan::WorkerPlan,
    },
    worker::{growth::Growth, heap::WorkerHeap, line::ParentLine},
};

/// The longest wait without a look around.
const NAP: Duration = Duration::from_secs(1);

/// Exit code of a worker whose initializer failed.
pub(crate) const SETUP_FAILED: i32 = 70;
/// Exit code of a worker that panicked outside of a task, as of any Rust program that panics.
const PANICKED: i32 = 101;
/// A worker process, between two jobs.
pub(crate) struct Worker {
    pub(crate) plan: WorkerPlan,
    pub(crate) index: usize,
    pub(crate) facts: WorkerFacts,
    pub(crate) state: Box<dyn Any>,
    pub(crate) heap: WorkerHeap,
    pub(crate) tasks_left: u64,
    growth: Growth,
    /// Its parent's process id.
    zygote: u32,
}

/// A worker, as its host wants it. Does not return.
pub(crate) fn main(plan: WorkerPlan, index: usize, incarnation: u32, line: Socket, zygote: u32) -> ! {
    let mut life = Some(move || live(plan, index, incarnation, line, zygote));
    let mut code = PANICKED;
    let entered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        host().enter(index as u32, &mut || {
            if let Some(life) = life.take() {
                code = life();
            }
        });
    }));
    // A panic of the host's must not get to the program's `main`, which would go on as if this were the parent.
    host().exit(if entered.is_ok() { code } else { PANICKED })
}

/// The life of a worker. Gives its exit code.
fn live(plan: WorkerPlan, index: usize, incarnation: u32, line: Socket, zygote: u32) -> i32 {
    let facts = WorkerFacts {
        index: index as u32,
        incarnation,
        processes: plan.words.processes as u32,
    };
    process::set_name(&facts.name());
    await_announcement(&plan.control.slots[index]);
    fault::arm(plan.injections.clone(), facts.index, incarnation);
    if plan.words.pin != 0 {
        pin(index);
    }
    cores::set_worker_share(plan.words.share.max(1) as usize);
    let line = Arc::new(ParentLine::new(line));
    line::ask_parent_for_unknown_segments(&line);
    line::ask_parent_for_unknown_code(&line);
    panics::watch(plan.control.clone(), index);
    let slot = &plan.control.slots[index];
    slot.set_phase(SlotPhase::Initializing);
    if plan.words.max_memory != 0
        && let Err(e) = process::limit_private_memory(plan.words.max_memory)
    {
        slot.write_last_words(&format!("its memory could not be limited: {e}"));
        return SETUP_FAILED;
    }
    stack::assume_main_threads();
    let state = match set_up(&plan, facts) {
        Ok(state) => state,
        Err(text) => {
            slot.write_last_words(&text);
            process::flush_c_output();
            return SETUP_FAILED;
        }
    };
    // Whoever changes its user is no longer ended with its parent (prctl(2)).
    stay_bound_to(zygote);
    lease::count_from_now();
    let growth = Growth::of_at_most(plan.words.max_growth);
    let heap = WorkerHeap::new(line.clone(), &plan, index);
    let tasks_left = if plan.words.max_tasks == 0 {
        u64::MAX
    } else {
        plan.words.max_tasks
    };
    let mut worker = Worker {
        plan,
        index,
        facts,
        state,
        heap,
        tasks_left,
        growth,
        zygote,
    };
    worker.slot().set_phase(SlotPhase::Idle);
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.serve())) {
        worker.slot().write_last_words(&panics::text_of(panic));
        // Not even its state's destructor: nothing of it is known to be whole.
        std::mem::forget(worker);
        return PANICKED;
    }
    // The supervisor watches over the exit hook.
    line.tell(&Message::new(MessageKind::Leaving, &[]));
    worker.clean_up();
    0
}

/// Waits until the parent has been told of this process. If the zygote dies before that this process dies with it, and the
/// parent, which has never heard of it, may give its slot to another at once: so it must not have touched the slot.
fn await_announcement(slot: &WorkerSlot) {
    let me = std::process::id();
    loop {
        let announced = slot.pid.load(Ordering::Acquire);
        if announced == me {
            return;
        }
        futex::wait(&slot.pid, announced, NAP);
    }
}

/// Makes sure that this process ends with its zygote, whatever a task has made of that; ends it if the zygote is gone.
fn stay_bound_to(zygote: u32) {
    if !process::die_with_parent(zygote) {
        std::process::exit(1);
    }
}

fn pin(index: usize) {
    let allowed = cores::affinity();
    if let Some(core) = allowed.get(index % allowed.len().max(1)) {
        let _ = cores::pin_to(&[*core]);
    }
}

fn set_up(plan: &WorkerPlan, facts: WorkerFacts) -> Result<Box<dyn Any>, String> {
    let [object, offset] = plan.words.setup;
    let set_up = || -> Result<Box<dyn Any>, String> {
        fault::point(Point::Initializer);
        find_exit_hook(plan)?;
        if offset == 0 {
            return Ok(Box::new(()));
        }
        let setup: Setup = image::find(CodeRef { object, offset })
            .map(code::setup)
            .map_err(|why| format!("its code cannot be had: {why}"))?;
        setup(&SetupCall {
            params: &plan.setup_params,
            worker: facts,
        })
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(set_up))
        .unwrap_or_else(|panic| Err(format!("it panicked: {}", panics::text_of(panic))))
}

/// The exit hook, if there is one. Looked for before it is needed: who leaves can tell nobody any more.
fn find_exit_hook(plan: &WorkerPlan) -> Result<Option<ExitHook>, String> {
    let [object, offset] = plan.words.exit_hook;
    if offset == 0 {
        return Ok(None);
    }
    let address = image::find(CodeRef { object, offset });
    let address = address.map_err(|why| format!("the code of the exit hook cannot be had: {why}"))?;
    Ok(Some(code::exit_hook(address)))
}

impl Worker {
    pub(crate) fn slot(&self) -> &WorkerSlot {
        &self.plan.control.slots[self.index]
    }

    /// Recycles the worker, from here on as if its tasks were used up, when it has gained too much memory.
    pub(crate) fn look_at_growth(&mut self) {
        if self.growth.is_too_much() {
            self.tasks_left = 0;
        }
    }

    /// Runs the exit hook, drops the state, flushes, ends.
    fn clean_up(mut self) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fault::point(Point::ExitHook);
            if let Ok(Some(hook)) = find_exit_hook(&self.plan) {
                hook(&mut *self.state);
            }
            self.state = Box::new(());
            host().leave();
        }));
        if let Err(panic) = result {
            eprintln!(
                "swathe: the exit hook of worker {} panicked: {}",
                self.index,
                panics::text_of(panic)
            );
        }
        // Rust's output is flushed by `exit`, C's by its own exit handlers, which also run what libraries registered.
    }
}
