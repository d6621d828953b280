//! What a task is to the engine: a function that runs some positions, found by its address in the executable.
//!
//! This is the narrow waist: below it there are only positions, bytes and addresses, above it types. The functions
//! behind [`Trampoline`] and [`Setup`] are monomorphised by the typed front end.

use std::{
    any::Any,
    fmt,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use swathe_memory::SegmentId;
use swathe_os::image::{self, CodeRef};

/// Runs the positions of one strip. It may panic: the position is then `call.first() + call.cursor()`.
pub type Trampoline = fn(&mut Call<'_>);

/// Builds the state of a worker from the bytes of its arguments.
pub type Setup = fn(&SetupCall<'_>) -> Result<Box<dyn Any>, String>;

/// Runs once when a worker ends of its own accord.
pub type ExitHook = fn(&mut dyn Any);

/// A function as it crosses to a worker: the object that holds it, and the offset in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRef(pub(crate) CodeRef);

impl TaskRef {
    /// Refers to a trampoline. `None`: its code lies in no loaded object.
    pub fn trampoline(f: Trampoline) -> Option<Self> {
        image::code_ref(f as usize).map(Self)
    }

    /// Refers to a setup function.
    pub fn setup(f: Setup) -> Option<Self> {
        image::code_ref(f as usize).map(Self)
    }

    /// Refers to an exit hook.
    pub fn exit_hook(f: ExitHook) -> Option<Self> {
        image::code_ref(f as usize).map(Self)
    }
}

/// Who runs a task.
#[derive(Clone, Copy, Debug)]
pub struct WorkerFacts {
    /// The worker's number, from 0; a replacement has the number of its predecessor.
    pub index: u32,
    /// How many processes have had this number, from 1.
    pub incarnation: u32,
    /// Workers in the pool when this one started.
    pub processes: u32,
}

impl WorkerFacts {
    /// The worker's name, as `ps` shows it.
    pub fn name(&self) -> String {
        format!("swathe-w{}", self.index)
    }
}

/// Whether a process of this name is a worker.
pub(crate) fn is_worker_name(name: &str) -> bool {
    name.strip_prefix("swathe-w")
        .is_some_and(|index| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a setup function is given.
pub struct SetupCall<'a> {
    /// The encoded arguments.
    pub params: &'a [u8],
    /// Who runs it.
    pub worker: WorkerFacts,
}

impl fmt::Debug for SetupCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetupCall")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// One strip to be run, and everything that a trampoline may use.
pub struct Call<'a> {
    /// First position of the strip, in the job's own numbering from 0.
    pub first: u64,
    /// Number of positions.
    pub len: u64,
    /// What to add to a position for the caller's numbering (streams go on over several jobs).
    pub base: u64,
    /// Seed of the per-position random generators.
    pub seed: u64,
    /// The job's parameter bytes. They do not change while the job lives.
    pub params: &'a [u8],
    /// Who runs the strip.
    pub worker: WorkerFacts,
    /// Whether somebody died in this strip before.
    pub careful: bool,
    /// Which try this is, as far as is known: 1, and one more for each retry and each worker that died of it.
    pub attempt: u32,
    /// When it must be done, nanoseconds of the monotonic clock: then the worker is killed.
    pub deadline_ns: Option<u64>,
    /// The worker's state, made by its setup function (`()` without one).
    pub state: &'a mut dyn Any,
    pub(crate) cache: &'a mut Option<Box<dyn Any>>,
    pub(crate) sink: &'a mut (dyn Sink + 'a),
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("first", &self.first)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Bytes that a worker may write its variable-length results to.
#[derive(Clone, Copy, Debug)]
pub struct HeapSpan {
    /// Where they are mapped here; 16-byte aligned.
    pub pointer: NonNull<u8>,
    /// The segment that holds them.
    pub segment: SegmentId,
    /// Where in the segment, bytes.
    pub offset: u64,
}

impl<'a> Call<'a> {
    /// Says how far into the strip the running element is; read only if the trampoline panics. Where panics unwind it is
    /// enough to say so while they do. Where they abort (`cfg!(panic = "abort")`) it must be said before each element, when
    /// the values of those before it are written.
    pub fn set_cursor(&self, within_strip: u64) {
        set_cursor(within_strip);
    }

    /// What the trampoline keeps from strip to strip of one job in one worker: decoded parameters, attached arrays.
    /// `build` runs at the first strip.
    ///
    /// # Panics
    /// If the same job asked for another type before.
    pub fn cached<T: 'static>(
        &mut self,
        build: impl FnOnce(&'a [u8]) -> Result<T, String>,
    ) -> Result<(&mut T, Rest<'_>), String> {
        if self.cache.is_none() {
            *self.cache = Some(Box::new(build(self.params)?));
        }
        let cached = self.cache.as_mut().expect("was just filled");
        let cached = cached.downcast_mut::<T>().expect("one job has one kind of cache");
        let rest = Rest {
            state: &mut *self.state,
            sink: &mut *self.sink,
        };
        Ok((cached, rest))
    }

    /// Every position of the strip has failed with this message: the parameters could not be decoded, say.
    pub fn fail_all(&mut self, message: &str) {
        self.sink.fail_all(message);
    }
}

/// How far into its strip the running element is. Where panics unwind it is up to date when the trampoline has returned;
/// where they abort there is no later moment, and it is so while the trampoline runs.
pub(crate) static CURSOR: AtomicU64 = AtomicU64::new(0);

#[inline]
fn set_cursor(within_strip: u64) {
    // Release: not before the values of the elements that are passed. A death is a cut through that.
    CURSOR.store(within_strip, Ordering::Release);
}

/// What is left of a [`Call`] while its cache is borrowed.
pub struct Rest<'a> {
    /// The worker's state.
    pub state: &'a mut dyn Any,
    sink: &'a mut (dyn Sink + 'a),
}

/// Where a call puts what it brings besides values.
pub(crate) trait Sink {
    fn fail_all(&mut self, message: &str);
    fn fail(&mut self, within_strip: u64, message: &str);
    fn heap(&mut self, len: usize) -> Result<HeapSpan, String>;
    fn copy_begins(&mut self, copy: &WriteBack);
    fn copy_ends(&mut self, copy: &WriteBack);
    fn point(&self, point: crate::fault::Point);
}

/// A copy of results over the inputs they came from.
#[derive(Clone, Copy, Debug)]
pub struct WriteBack {
    /// Where the results lie: bytes into the segment of [`Rest::heap`].
    pub from: u64,
    /// The segment of the inputs.
    pub to_segment: SegmentId,
    /// Where they lie in there, bytes.
    pub to: u64,
    /// How many bytes.
    pub len: u64,
    /// How many elements of the strip are settled by it.
    pub settled: u64,
}

impl fmt::Debug for Rest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl Rest<'_> {
    /// As [`Call::set_cursor`].
    #[inline]
    pub fn set_cursor(&self, within_strip: u64) {
        set_cursor(within_strip);
    }

    /// The element `within_strip` has failed: it returned an error, with this text (its causes included). Every element
    /// of the strip that is not reported so has a value.
    pub fn fail(&mut self, within_strip: u64, message: &str) {
        self.sink.fail(within_strip, message);
    }

    /// Room for a variable-length result. It belongs to the job, and lives as long as the job's output.
    pub fn heap(&mut self, len: usize) -> Result<HeapSpan, String> {
        self.sink.heap(len)
    }

    /// Copies results over the inputs they came from. The copy is written down first: if the worker dies in it, the
    /// supervisor makes it once more, and the strip is not run again.
    pub fn write_back<R>(&mut self, copy: WriteBack, make: impl FnOnce() -> R) -> R {
        self.sink.copy_begins(&copy);
        let result = make();
        self.sink.copy_ends(&copy);
        result
    }

    /// A named point at which a fault may be injected; nothing without the feature `chaos`.
    #[inline]
    pub fn point(&self, point: crate::fault::Point) {
        if cfg!(feature = "chaos") {
            self.sink.point(point);
        }
    }
}
