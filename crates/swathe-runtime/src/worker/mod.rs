//! A worker's life: set up, mow until told to leave, clean up.

pub(crate) mod execute;
pub(crate) mod heap;
mod pace;
pub(crate) mod panics;
pub(crate) mod reporter;

use std::{
    any::Any,
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use swathe_memory::{Access, Segment, SegmentId, lease, registry};
use swathe_os::{
    Descriptor, cores, descriptors, futex,
    image::{self, CodeRef},
    process::{self, monotonic_ns},
    socket::Socket,
    stack,
};
use swathe_protocol::{Found, Header, Inside, JobPhase, JobTerms, Member, Order, SlotPhase, WorkerSlot};

use crate::{
    fault::{self, Chaos, Injection, Point},
    host::host,
    job::task::{ExitHook, Setup, SetupCall, WorkerFacts},
    parent::naps,
    shared::{
        bytes,
        control::{Control, System},
        messages::{Kind, Message},
    },
    worker::{
        execute::Mowing,
        heap::{ParentLine, WorkerHeap},
    },
};

/// What every worker of a pool must know; written once by the parent into the data segment.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) control: Arc<Control>,
    pub(crate) data: Arc<Segment>,
    pub(crate) words: PlanWords,
    pub(crate) injections: Vec<Injection>,
    pub(crate) setup_params: Arc<[u8]>,
}

/// The fixed part of a [`Plan`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlanWords {
    /// Object and offset of the setup function; offset 0 for none.
    pub(crate) setup: [u64; 2],
    /// Likewise of the exit hook.
    pub(crate) exit_hook: [u64; 2],
    /// Elements after which a worker is recycled, 0 for never.
    pub(crate) max_tasks: u64,
    /// Workers the pool starts with.
    pub(crate) processes: u64,
    /// Cores that a worker may use for itself.
    pub(crate) share: u64,
    /// Whether worker `w` is pinned to one core.
    pub(crate) pin: u64,
    /// Private memory that a worker may have, bytes; 0 for no limit.
    pub(crate) max_memory: u64,
    /// Private memory that a worker may gain before it is recycled, bytes; 0 for no limit.
    pub(crate) max_growth: u64,
    /// Bytes of encoded faults that follow.
    pub(crate) chaos: u64,
}

impl PlanWords {
    const LEN: usize = 11;

    fn to_words(self) -> [u64; Self::LEN] {
        let [setup_object, setup_offset] = self.setup;
        let [exit_object, exit_offset] = self.exit_hook;
        [
            setup_object,
            setup_offset,
            exit_object,
            exit_offset,
            self.max_tasks,
            self.processes,
            self.share,
            self.pin,
            self.max_memory,
            self.max_growth,
            self.chaos,
        ]
    }

    /// The bytes that [`Plan::decode`] reads.
    pub(crate) fn encode(mut self, chaos: &Chaos, setup_params: &[u8]) -> Vec<u8> {
        let chaos = chaos.encode();
        self.chaos = chaos.len() as u64;
        let words = self.to_words();
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(chaos);
        bytes.extend(setup_params);
        bytes
    }
}

impl Plan {
    pub(crate) fn decode(
        control: Arc<Control>,
        data: Arc<Segment>,
        offset: u64,
        len: u64,
    ) -> Result<Self, String> {
        let bytes = bytes::read_segment(&data, offset, len).map_err(|e| e.to_string())?;
        let (head, params) = bytes
            .split_at_checked(PlanWords::LEN * 8)
            .ok_or("the pool's plan is shorter than its own header")?;
        let word = |i: usize| u64::from_le_bytes(head[i * 8..i * 8 + 8].try_into().expect("8 bytes"));
        let words = PlanWords {
            setup: [word(0), word(1)],
            exit_hook: [word(2), word(3)],
            max_tasks: word(4),
            processes: word(5),
            share: word(6),
            pin: word(7),
            max_memory: word(8),
            max_growth: word(9),
            chaos: word(10),
        };
        let (chaos, params) = usize::try_from(words.chaos)
            .ok()
            .and_then(|len| params.split_at_checked(len))
            .ok_or("the pool's plan is shorter than its list of faults")?;
        Ok(Self {
            control,
            data,
            words,
            injections: Chaos::decode(chaos),
            setup_params: params.into(),
        })
    }
}

/// Exit code of a worker whose initializer failed.
pub(crate) const SETUP_FAILED: i32 = 70;
/// Exit code of a worker that panicked outside of a task, as of any Rust program that panics.
const PANICKED: i32 = 101;
/// How long an idle worker that may look out does so before it sleeps.
const SPIN: Duration = Duration::from_micros(60);
/// The longest sleep without a look around: no wake is ever lost, but a lost one would cost this, not a hang.
const NAP: Duration = Duration::from_secs(1);

/// A worker process, between two jobs.
pub(crate) struct Worker {
    pub(crate) plan: Plan,
    pub(crate) index: usize,
    pub(crate) facts: WorkerFacts,
    pub(crate) state: Box<dyn Any>,
    pub(crate) heap: WorkerHeap,
    pub(crate) tasks_left: u64,
    growth: Growth,
    /// Its parent's process id.
    zygote: u32,
}

/// Watches what a worker's private memory gains: for tasks that leak.
#[derive(Debug)]
struct Growth {
    /// Bytes at which the worker is recycled.
    limit: Option<u64>,
    looked: Instant,
}

impl Growth {
    /// How often the kernel is asked.
    const EVERY: Duration = Duration::from_millis(10);

    /// From what there is now.
    fn of_at_most(gain: u64) -> Self {
        let limit = (gain != 0).then(process::private_memory).flatten();
        Self {
            limit: limit.map(|now| now.saturating_add(gain)),
            looked: Instant::now(),
        }
    }

    fn is_too_much(&mut self) -> bool {
        let Some(limit) = self.limit else { return false };
        if self.looked.elapsed() < Self::EVERY {
            return false;
        }
        self.looked = Instant::now();
        process::private_memory().is_some_and(|now| now > limit)
    }
}

/// A worker, as its host wants it. Does not return.
pub(crate) fn main(plan: Plan, index: usize, incarnation: u32, line: Socket, zygote: u32) -> ! {
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
fn live(plan: Plan, index: usize, incarnation: u32, line: Socket, zygote: u32) -> i32 {
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
    ask_parent_for_unknown_segments(&line);
    ask_parent_for_unknown_code(&line);
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
    line.tell(&Message::new(Kind::Leaving, &[]));
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

fn ask_parent_for_unknown_segments(line: &Arc<ParentLine>) {
    let line = line.clone();
    registry::set_resolver(Box::new(move |id: SegmentId| {
        let (fd, answer) = ask_for_segment(&line, id)?;
        let access = if answer.words[1] == 0 {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        Ok((fd, answer.words[0] as usize, access))
    }));
}

/// A descriptor that comes while no number is free is lost, and its message comes without: then room is made, and it is asked
/// for once more.
fn ask_for_segment(line: &ParentLine, id: SegmentId) -> Result<(Descriptor, Message), String> {
    /// What tasks hold open may be closed by another of their threads.
    const TRIES: u32 = 20;
    const APART: Duration = Duration::from_millis(10);
    /// It was in vain the last time: then nobody waits.
    static IN_VAIN: AtomicBool = AtomicBool::new(false);
    let tries = if IN_VAIN.load(Ordering::Relaxed) { 2 } else { TRIES };
    for again in 0..tries {
        let mut answer = line.ask(&Message::new(Kind::WantSegment, &[id.to_bits()]))?;
        if let Some(fd) = answer.fds.pop() {
            IN_VAIN.store(false, Ordering::Relaxed);
            return Ok((fd, answer));
        }
        if descriptors::make_room_for(1).is_err() {
            registry::release_kept();
        }
        if again > 0 && tries == TRIES {
            std::thread::sleep(APART);
        }
    }
    IN_VAIN.store(true, Ordering::Relaxed);
    Err(format!(
        "its memory cannot be had, because worker process {} has every descriptor open that it may (RLIMIT_NOFILE): have \
         tasks close files, or raise the hard limit (`ulimit -Hn`) before the pool is built",
        std::process::id()
    ))
}

fn ask_parent_for_unknown_code(line: &Arc<ParentLine>) {
    let line = line.clone();
    image::set_locator(Box::new(move |object| {
        let answer = line.ask(&Message::new(Kind::WantObject, &[object]))?;
        Ok(OsString::from_vec(answer.text).into())
    }));
}

fn set_up(plan: &Plan, facts: WorkerFacts) -> Result<Box<dyn Any>, String> {
    let [object, offset] = plan.words.setup;
    let set_up = || -> Result<Box<dyn Any>, String> {
        fault::point(Point::Initializer);
        find_exit_hook(plan)?;
        if offset == 0 {
            return Ok(Box::new(()));
        }
        let setup: Setup = image::find(CodeRef { object, offset })
            .map(task_code::setup)
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
fn find_exit_hook(plan: &Plan) -> Result<Option<ExitHook>, String> {
    let [object, offset] = plan.words.exit_hook;
    if offset == 0 {
        return Ok(None);
    }
    let address = image::find(CodeRef { object, offset });
    let address = address.map_err(|why| format!("the code of the exit hook cannot be had: {why}"))?;
    Ok(Some(task_code::exit_hook(address)))
}

/// Addresses to functions: the engine's one act of faith, kept in one place.
pub(crate) mod task_code {
    #![expect(
        unsafe_code,
        reason = "an address that was resolved in this process becomes a function again"
    )]

    use super::{ExitHook, Setup};
    use crate::job::task::Trampoline;

    /// The trampoline at an address that `image::find` gave.
    pub(crate) fn trampoline(address: usize) -> Trampoline {
        // SAFETY: the parent made the reference from a `Trampoline`, in an object of which this process has loaded the
        // same build: the handshake has compared that of the home object, `find` that of any other; and `find` has
        // checked that the address is code of it.
        unsafe { std::mem::transmute::<usize, Trampoline>(address) }
    }

    /// Likewise a setup function.
    pub(crate) fn setup(address: usize) -> Setup {
        // SAFETY: as in `trampoline`, made from a `Setup`.
        unsafe { std::mem::transmute::<usize, Setup>(address) }
    }

    /// Likewise an exit hook.
    pub(crate) fn exit_hook(address: usize) -> ExitHook {
        // SAFETY: as in `trampoline`, made from an `ExitHook`.
        unsafe { std::mem::transmute::<usize, ExitHook>(address) }
    }
}

impl Worker {
    pub(crate) fn slot(&self) -> &WorkerSlot {
        &self.plan.control.slots[self.index]
    }

    /// Mows until it is time to leave.
    fn serve(&mut self) {
        self.plan.control.parks[self.index].unpark_self();
        while !self.must_leave() {
            fault::point(Point::Idle);
            if !(self.run_order() || self.take_run() || self.steal()) {
                self.wait_for_work();
            }
        }
        self.slot().set_phase(SlotPhase::Leaving);
    }

    fn must_leave(&self) -> bool {
        let control = &self.plan.control;
        match control.header.shutdown.load(Ordering::Acquire) {
            0 => self.tasks_left == 0 || self.slot().order.read() == Order::Retire,
            Header::DRAIN => self.tasks_left == 0 || control.ring().is_empty(),
            _ => true,
        }
    }

    /// A job that wants this very worker. Gives whether there was an order.
    fn run_order(&mut self) -> bool {
        let order = self.slot().order.read();
        if !matches!(order, Order::Run { .. }) {
            return false;
        }
        let control = self.plan.control.clone();
        if let Some(job) = self.member(&control).follow(order) {
            self.mow(&control, job);
        }
        true
    }

    /// Gives whether there was a run.
    fn take_run(&mut self) -> bool {
        let control = self.plan.control.clone();
        match self.member(&control).take_run() {
            Found::Nothing => return false,
            Found::Void => {}
            Found::Run(job) => self.mow(&control, job),
        }
        true
    }

    /// Gives whether there was something to steal.
    fn steal(&mut self) -> bool {
        let control = self.plan.control.clone();
        let loot = self.member(&control).steal();
        loot.map(|job| self.mow(&control, job)).is_some()
    }

    fn member<'c>(&self, control: &'c Control) -> Member<'c, System> {
        Member::new(control.words(), &System, self.index)
    }

    /// Mows this worker's lane in a job it has entered, then leaves the job.
    fn mow(&mut self, control: &Control, job: Inside<'_, System>) {
        // The arguments are let go before it is said which of their handles are kept.
        let attended = Mowing::new(self, control, &job).run();
        match self.tasks_left {
            0 => job.recycle(lease::held(), attended),
            _ => job.leave(lease::held(), attended),
        }
    }

    /// Recycles the worker, from here on as if its tasks were used up, when it has gained too much memory.
    pub(crate) fn look_at_growth(&mut self) {
        if self.growth.is_too_much() {
            self.tasks_left = 0;
        }
    }

    /// Looks for work for a while, then sleeps until the parent rings.
    fn wait_for_work(&mut self) {
        let control = &self.plan.control;
        let something = |worker: &Self| {
            !control.ring().is_empty()
                || worker.slot().order.read() != Order::None
                || control.header.shutdown.load(Ordering::Acquire) != 0
        };
        if self.may_look_out() {
            let start = Instant::now();
            while start.elapsed() < SPIN && self.may_look_out() {
                for _ in 0..64 {
                    if something(self) {
                        return;
                    }
                    std::hint::spin_loop();
                }
                if self.somebody_has_spare_chunks() {
                    return;
                }
            }
        }
        let park = &control.parks[self.index];
        park.prepare();
        if something(self) || self.somebody_has_spare_chunks() {
            park.unpark_self();
            return;
        }
        while !park.is_awake() {
            let napped = naps::sleep(park.word(), swathe_protocol::ParkWord::PARKED, NAP);
            if napped {
                stay_bound_to(self.zygote);
            }
            if napped && something(self) {
                naps::of_worker(control, self.index);
                park.unpark_self();
            }
        }
    }

    /// Whether this worker may stay awake without work: those with lower numbers come first.
    fn may_look_out(&self) -> bool {
        let control = &self.plan.control;
        let seats = control.header.lookouts.load(Ordering::Relaxed) as usize;
        seats > 0 && control.words().lookouts(self.index) < seats
    }

    fn somebody_has_spare_chunks(&self) -> bool {
        let control = &self.plan.control;
        let used = control.header.used_slots.load(Ordering::Relaxed) as usize;
        (0..used).filter(|&victim| victim != self.index).any(|victim| {
            control.slots[victim].inside().is_some_and(|key| {
                control.job(key).is_some_and(|cell| {
                    !control.lane(key, victim).waiting().is_empty()
                        && cell.gate.state().phase == JobPhase::Open
                        && !cell.has(JobTerms::PINNED)
                })
            })
        })
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

/// Nanoseconds since some moment, for strips.
pub(crate) fn now() -> u64 {
    monotonic_ns()
}
