//! Where code runs that users wrote: callbacks, wakers, destructors of what jobs keep.
//!
//! It may take its time, never return, panic, or use the pool in every way. So it runs with no lock of ours held, never on
//! a thread that others wait for, and a panic stays where it is. Each kind has a thread of its own, which is started
//! when there is something for it: a callback that waits for a future does not wait for itself.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, ThreadId},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use swathe_os::process;

/// How many panics in a row are caught of a payload that panics when it is dropped, whose payload does so too.
const PAYLOADS: usize = 8;

/// Runs what a user wrote. A panic of it is reported, and goes no further.
pub fn contain<R>(what: &str, body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => Some(result),
        Err(payload) => {
            let text = panic_text(&*payload);
            discard(payload);
            // The panic hook has printed it already. Whoever listens to events is a user as well.
            let told = catch_unwind(|| tracing::error!(text, "{what} panicked; the pool goes on"));
            told.unwrap_or_else(discard);
            None
        }
    }
}

/// What a panic says.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a value that is no text")
        .to_owned()
}

/// Drops what a panic brought. That may panic as well.
pub fn discard(mut payload: Box<dyn Any + Send>) {
    for _ in 0..PAYLOADS {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(next) => payload = next,
        }
    }
    std::mem::forget(payload);
}

/// Values of users whose destructors may panic, one as well as all: that goes no further.
#[derive(Debug)]
pub struct Kept<T>(Vec<T>);

impl<T> Kept<T> {
    /// Keeps them.
    pub fn new(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            // One by one: a second panic while the rest of a vector is dropped would end the process.
            for value in self.0.drain(..) {
                contain("a destructor of what a job has kept", || drop(value));
            }
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread that does one thing after the other, and is there once there was something to do. A cheap clone.
#[derive(Clone)]
pub(crate) struct SideThread(Arc<Inner>);

struct Inner {
    name: &'static str,
    /// What a panic is called.
    what: &'static str,
    state: Mutex<Queue>,
    /// Notified when there is something to do, and when everything is done.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    thread: Option<ThreadId>,
    starting: bool,
    busy: bool,
    /// Work that will be here and is not yet.
    promised: usize,
    /// The pool is over: the thread leaves when everything is done.
    ended: bool,
}

impl fmt::Debug for SideThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SideThread")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

impl SideThread {
    pub(crate) fn new(name: &'static str, what: &'static str) -> Self {
        Self(Arc::new(Inner {
            name,
            what,
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Has something done. Nothing runs before [`kick`](Self::kick): this may be called with the state's lock held.
    pub(crate) fn push(&self, work: impl FnOnce() + Send + 'static) {
        self.0.state.lock().work.push_back(Box::new(work));
    }

    /// Sees to it that what was pushed is done. If no thread can be had now, a later call tries again.
    pub(crate) fn kick(&self) {
        {
            let mut queue = self.0.state.lock();
            if queue.work.is_empty() || queue.starting {
                return;
            }
            if queue.thread.is_some() {
                self.0.changed.notify_all();
                return;
            }
            queue.starting = true;
        }
        let inner = self.0.clone();
        if let Err(error) = process::spawn_thread(self.0.name, move || inner.run()) {
            tracing::warn!(%error, name = self.0.name, "a thread could not be started; it is tried again");
            self.0.state.lock().starting = false;
        }
    }

    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.push(work);
        self.kick();
    }

    /// Whether the calling thread is this one.
    pub(crate) fn is_current(&self) -> bool {
        self.0.state.lock().thread == Some(thread::current().id())
    }

    /// Waits until there is nothing to do, and nothing promised, at most this long. Gives whether that is so.
    pub(crate) fn wait_idle(&self, patience: Duration) -> bool {
        self.kick();
        let mut queue = self.0.state.lock();
        if !queue.is_idle() {
            self.0.changed.wait_for(&mut queue, patience);
        }
        queue.is_idle()
    }

    /// The thread leaves when it has done what there is.
    pub(crate) fn end(&self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.work.is_empty() && !self.busy && self.promised == 0
    }
}

impl Inner {
    fn run(&self) {
        let mut queue = self.state.lock();
        (queue.thread, queue.starting) = (Some(thread::current().id()), false);
        loop {
            if let Some(work) = queue.work.pop_front() {
                queue.busy = true;
                drop(queue);
                contain(self.what, work);
                queue = self.state.lock();
                queue.busy = false;
                continue;
            }
            self.changed.notify_all();
            if queue.ended {
                queue.thread = None;
                return;
            }
            self.changed.wait(&mut queue);
        }
    }
}

/// The callbacks of a pool, which run one at a time on a thread of their own; `join` waits for them.
#[derive(Clone, Debug)]
pub struct Callbacks(pub(crate) SideThread);

impl Callbacks {
    /// Something will be called back that cannot be called yet.
    pub fn promise(&self) -> Promise {
        self.0.0.state.lock().promised += 1;
        Promise(self.0.clone())
    }
}

/// A callback to come, for which `join` waits. Dropped, it never comes.
#[derive(Debug)]
pub struct Promise(SideThread);

impl Promise {
    /// Calls it, on the thread of the callbacks.
    pub fn keep(self, callback: impl FnOnce() + Send + 'static) {
        self.0.run(callback);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let inner = &*self.0.0;
        inner.state.lock().promised -= 1;
        inner.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    struct Bomb(usize);

    impl Drop for Bomb {
        fn drop(&mut self) {
            match self.0 {
                0 => {}
                n => std::panic::panic_any(Bomb(n - 1)),
            }
        }
    }

    #[test]
    fn a_panic_goes_no_further_whatever_it_brings() {
        assert_eq!(contain("a test", || 3), Some(3));
        assert_eq!(contain("a test", || panic!("a test's own")), None::<()>);
        for bombs in [1, 3, PAYLOADS + 3] {
            assert_eq!(
                contain("a test", || std::panic::panic_any(Bomb(bombs))),
                None::<()>
            );
        }
    }

    #[test]
    fn every_kept_value_is_dropped_whatever_the_others_do() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        struct Counted;
        impl Drop for Counted {
            fn drop(&mut self) {
                DROPS.fetch_add(1, SeqCst);
                panic!("a test's own");
            }
        }
        drop(Kept::new(vec![Counted, Counted, Counted]));
        assert_eq!(DROPS.load(SeqCst), 3);
    }

    #[test]
    fn work_is_done_in_order_by_one_thread_that_leaves_at_the_end() {
        let side = SideThread::new("swathe-test", "a test");
        let (said, heard) = mpsc::channel();
        assert!(side.wait_idle(Duration::ZERO) && !side.is_current());
        for i in 0..10 {
            let (said, me) = (said.clone(), side.clone());
            side.run(move || said.send((i, me.is_current(), thread::current().id())).unwrap());
            side.run(|| panic!("a test's own"));
        }
        let all: Vec<_> = (0..10).map(|_| heard.recv_timeout(LONG).unwrap()).collect();
        assert!(
            all.iter()
                .enumerate()
                .all(|(i, one)| one.0 == i && one.1 && one.2 == all[0].2)
        );
        side.end();
        while side.0.state.lock().thread.is_some() {
            thread::yield_now();
        }
        side.run(move || said.send((10, true, thread::current().id())).unwrap());
        assert_eq!(heard.recv_timeout(LONG).unwrap().0, 10, "late work is done, too");
    }

    #[test]
    fn a_promise_is_waited_for_until_it_is_kept_or_given_up() {
        let callbacks = Callbacks(SideThread::new("swathe-test", "a test"));
        let done = Arc::new(AtomicUsize::new(0));
        let (first, second) = (callbacks.promise(), callbacks.promise());
        assert!(!callbacks.0.wait_idle(Duration::ZERO));
        drop(second);
        assert!(!callbacks.0.wait_idle(Duration::ZERO));
        let mine = done.clone();
        first.keep(move || _ = mine.fetch_add(1, SeqCst));
        while !callbacks.0.wait_idle(LONG) {}
        assert_eq!(done.load(SeqCst), 1);
        callbacks.0.end();
    }
}
