//! Panics in a worker: their texts, and what one leaves behind that ends the process.
//!
//! The text of a panic is its payload's. The hook adds only where it happened, because the payload does not know. Most
//! panics are caught and go no further than this process. One that ends it (`panic = "abort"`, a panic in a destructor
//! while another unwinds, a function that cannot unwind, a hook that aborts or exits) is told of in the worker's slot: not
//! by the hook, which cannot know how it will end, but by whoever ends the process, if its thread is panicking then.

use std::{
    any::{Any, TypeId},
    borrow::Cow,
    error::Error,
    panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use swathe_os::{ending, overflow};
use swathe_protocol::{PanickedAt, SlotPhase, WorkerSlot};

use crate::{job::task::CURSOR, shared::control::Control};

/// What the cursor is worth while the trampoline runs.
const CURSOR_IS_EXACT: bool = cfg!(panic = "abort");
/// A payload of which nothing can be said.
const NO_TEXT: &str = "a panic without a text";
/// Panics of the standard library's that no one can catch. What led to them is the panic before.
const FATAL: [&str; 2] = [
    "panic in a function that cannot unwind",
    "panic in a destructor during cleanup",
];
/// How many panics are kept of one strip, for those who let them go on later or on another thread.
const KEPT: usize = 64;

/// This worker.
struct Here {
    control: Arc<Control>,
    index: usize,
    pid: u32,
}

impl Here {
    fn slot(&self) -> &WorkerSlot {
        &self.control.slots[self.index]
    }
}

static HERE: OnceLock<Here> = OnceLock::new();
/// The thread whose panic the slot's prepared text tells of; 0 for none.
static THREAD: AtomicU32 = AtomicU32::new(0);
/// How long that text is, bytes.
static PREPARED: AtomicU32 = AtomicU32::new(0);
/// Whether the panic is the task's own affair: one that is caught where panics unwind. It is then reported as there.
static ORDINARY: AtomicBool = AtomicBool::new(false);
/// Whether there has been a panic since the strip began.
static ANY: AtomicBool = AtomicBool::new(false);
/// Those panics, oldest first.
static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

/// A panic as the hook saw it.
struct Seen {
    thread: u32,
    payload: Identity,
    text: String,
    location: Option<String>,
}

/// What a payload keeps when it moves: its type, and where the bytes of its text lie.
type Identity = (TypeId, usize);

/// Panics of tasks are caught and reported by position; their text must not also clutter the terminal. Other threads of
/// the worker keep the usual hook, and so do processes that a task has forked.
pub(crate) fn watch(control: Arc<Control>, index: usize) {
    let pid = std::process::id();
    let _ = HERE.set(Here { control, index, pid });
    #[expect(unsafe_code, reason = "functions run in signal handlers")]
    // SAFETY: both read and write atomics and ask for ids, and nothing else.
    unsafe {
        ending::call_at_the_end(tell);
        overflow::call_when_stack_overflows(tell_of_overflow);
    }
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match HERE.get() {
        Some(here) if here.pid == std::process::id() => note(here, info, &usual),
        _ => usual(info),
    }));
}

/// A strip begins: what panicked before was caught by somebody, and says nothing about what comes.
pub(crate) fn forget() {
    CURSOR.store(0, Ordering::Relaxed);
    if ANY.load(Ordering::Relaxed) {
        ANY.store(false, Ordering::Relaxed);
        THREAD.store(0, Ordering::Relaxed);
        seen().clear();
    }
}

/// The text of a panic that was caught, and where it happened if our hook has seen it.
pub(crate) fn text_of(payload: Box<dyn Any + Send>) -> String {
    let text = catch_unwind(AssertUnwindSafe(|| payload_text(&*payload, true)))
        .unwrap_or_else(|second| {
            drop_quietly(second);
            NO_TEXT.into()
        })
        .into_owned();
    let identity = identity_of(&*payload);
    drop_quietly(payload);
    let seen = seen();
    let panic = seen
        .iter()
        .rfind(|seen| seen.payload == identity && (seen.text == text || identity.1 == 0));
    with_location(&text, panic.and_then(|panic| panic.location.as_deref()))
}

/// The destructor of a payload may panic, too.
fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

fn seen() -> MutexGuard<'static, Vec<Seen>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hook: in the midst of a panic, of which nobody knows yet how it ends.
fn note(here: &Here, info: &PanicHookInfo<'_>, usual: &(dyn Fn(&PanicHookInfo<'_>) + Send + Sync)) {
    let thread = ending::thread_id();
    ANY.store(true, Ordering::Relaxed);
    let location = info.location().map(Location::to_string);
    // First without the text: making it may panic, and that ends the process.
    let place = location.as_deref();
    prepare(
        here,
        thread,
        with_location("a panic while the text of a panic was made", place),
        false,
    );
    // Only where the process ends anyway may the code of others run here.
    let text = payload_text(info.payload(), cfg!(panic = "abort"));
    let mut seen = seen();
    match seen.iter().rfind(|seen| seen.thread == thread) {
        Some(cause) if FATAL.contains(&&*text) => {
            let cause = with_location(&cause.text, cause.location.as_deref());
            prepare(here, thread, format!("{cause}; {text}"), false);
        }
        _ => prepare(here, thread, with_location(&text, place), true),
    }
    if seen.len() == KEPT {
        seen.remove(0);
    }
    seen.push(Seen {
        thread,
        payload: identity_of(info.payload()),
        text: text.into_owned(),
        location,
    });
    drop(seen);
    let leaving = here.slot().phase() == SlotPhase::Leaving;
    if thread != here.pid || (cfg!(panic = "abort") && leaving) {
        usual(info);
    }
}

fn with_location(text: &str, location: Option<&str>) -> String {
    match location {
        Some(location) => format!("{text}, at {location}"),
        None => text.to_owned(),
    }
}

/// Writes down what is to be said if the process ends of this panic.
fn prepare(here: &Here, thread: u32, text: String, ordinary: bool) {
    let slot = here.slot();
    // Nobody is to say a text of which half is another's.
    THREAD.store(0, Ordering::Release);
    let len = match slot.phase() {
        SlotPhase::Initializing => slot.prepare_last_words(&format!("it panicked: {text}")),
        _ => slot.prepare_last_words(&text),
    };
    PREPARED.store(len, Ordering::Relaxed);
    ORDINARY.store(ordinary, Ordering::Relaxed);
    THREAD.store(thread, Ordering::Release);
}

/// The process ends. If that is because this thread panics, its slot says so. May run in a signal handler.
fn tell() {
    let (Some(here), thread) = (HERE.get(), THREAD.load(Ordering::Acquire)) else {
        return;
    };
    let mine = thread != 0 && thread == ending::thread_id() && here.pid == std::process::id();
    if !mine || !std::thread::panicking() {
        return;
    }
    let slot = here.slot();
    slot.say_last_words(PREPARED.load(Ordering::Relaxed));
    // Another thread's panic says nothing about the element that this one is at.
    if thread == here.pid && ORDINARY.load(Ordering::Relaxed) {
        slot.say_panicked(match CURSOR_IS_EXACT {
            true => PanickedAt::Element(CURSOR.load(Ordering::Relaxed)),
            false => PanickedAt::Somewhere,
        });
    }
}

/// A stack has overflowed, and the process will end of that. Runs in a signal handler: nothing but copies to atomics.
fn tell_of_overflow() {
    let Some(here) = HERE.get().filter(|here| here.pid == std::process::id()) else {
        return;
    };
    let text = match ending::thread_id() == here.pid {
        true => "its stack has overflowed",
        false => "the stack of one of its threads has overflowed",
    };
    // A panic that is under way is not what ends the process.
    THREAD.store(0, Ordering::Release);
    let len = here.slot().prepare_last_words(text);
    here.slot().say_last_words(len);
}

/// What a payload says. `of_errors`: also if code of others must be run for it.
fn payload_text(payload: &(dyn Any + Send), of_errors: bool) -> Cow<'_, str> {
    if let Some(text) = str_of(payload) {
        return text.into();
    }
    if let Some(inner) = payload.downcast_ref::<Box<dyn Any + Send>>() {
        return payload_text(&**inner, of_errors);
    }
    match error_of(payload) {
        Some(error) if of_errors => crate::error::chain(error).into(),
        _ => NO_TEXT.into(),
    }
}

fn str_of(payload: &(dyn Any + Send)) -> Option<&str> {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        Some(text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Some(text)
    } else if let Some(text) = payload.downcast_ref::<Box<str>>() {
        Some(text)
    } else if let Some(text) = payload.downcast_ref::<Arc<str>>() {
        Some(text)
    } else {
        payload.downcast_ref::<Cow<'static, str>>().map(|text| &**text)
    }
}

fn error_of(payload: &(dyn Any + Send)) -> Option<&dyn Error> {
    if let Some(error) = payload.downcast_ref::<Box<dyn Error + Send + Sync>>() {
        Some(&**error)
    } else if let Some(error) = payload.downcast_ref::<Box<dyn Error + Send>>() {
        Some(&**error)
    } else if let Some(error) = payload.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(&**error)
    } else {
        let error = payload.downcast_ref::<std::io::Error>()?;
        Some(error)
    }
}

fn identity_of(payload: &(dyn Any + Send)) -> Identity {
    let bytes = str_of(payload).map_or(0, |text| text.as_ptr().addr());
    (payload.type_id(), bytes)
}
