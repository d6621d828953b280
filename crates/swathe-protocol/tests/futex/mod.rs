//! A futex, for models.

use loom::sync::{Condvar, Mutex};
use swathe_protocol::sync::{AtomicU32, Ordering::Relaxed};

/// What the kernel promises of a futex, and no more.
#[derive(Default)]
pub(crate) struct Futex {
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    pub(crate) fn wait(&self, word: &AtomicU32, value: u32) {
        let queue = self.queue.lock().unwrap();
        if word.load(Relaxed) == value {
            drop(self.woken.wait(queue).unwrap());
        }
    }

    pub(crate) fn wake(&self, word: &AtomicU32) {
        // The way into the kernel is a place to die: a change that changes nothing.
        word.fetch_or(0, Relaxed);
        drop(self.queue.lock().unwrap());
        self.woken.notify_all();
    }
}
