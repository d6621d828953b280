//! Which threads a program has started by itself, and not its libraries before `main`.
//!
//! A function of the executable (or of the library that holds this) which the loader calls before `main` notes who is there:
//! the threads of libraries, which are loaded before. The loader may call others of the same object after it; threads that
//! these start count as the program's.

use std::{hint::black_box, sync::OnceLock};

use crate::kernel_files;

/// The ids of the threads that were there before `main`, in order.
static BEFORE_MAIN: OnceLock<Vec<u32>> = OnceLock::new();

#[used]
#[expect(
    unsafe_code,
    reason = "an entry in the list of functions that the loader calls before `main`"
)]
// The section holds addresses of functions, and the loader calls one after the other. This one takes none of their arguments,
// and needs nothing that the standard library sets up in `main`: that is what the attribute asks of it.
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    // A panic must not get to the loader.
    let _ = std::panic::catch_unwind(|| BEFORE_MAIN.get_or_init(ids));
}

/// The threads of this process, the main one among them. None if the kernel does not tell.
fn ids() -> Vec<u32> {
    let mut ids: Vec<u32> = kernel_files::names("/proc/self/task")
        .iter()
        .filter_map(|task| task.parse().ok())
        .collect();
    ids.sort_unstable();
    ids
}

/// The names of the threads, other than the main one, that were not there before `main`. None if it is not known who was
/// there, which is so in a function that the loader calls itself.
pub fn names() -> Vec<String> {
    // Who refers to the entry has it linked.
    black_box(&raw const NOTE);
    let Some(before) = BEFORE_MAIN.get() else {
        return Vec::new();
    };
    let main = std::process::id();
    ids()
        .into_iter()
        .filter(|id| *id != main && before.binary_search(id).is_err())
        .filter_map(|id| kernel_files::text(format!("/proc/self/task/{id}/comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    #[test]
    fn a_thread_that_the_program_starts_is_its_own() {
        let ((go, gone), (here, there)) = (mpsc::channel::<()>(), mpsc::channel());
        let started = thread::Builder::new()
            .name("of the program".to_owned())
            .spawn(move || {
                // A thread gives itself its name.
                here.send(()).unwrap();
                gone.recv()
            });
        there.recv().unwrap();
        assert!(
            super::BEFORE_MAIN.get().is_some(),
            "the loader has called the function"
        );
        assert!(super::names().iter().any(|name| name == "of the program"));
        drop(go);
        let _ = started.expect("a thread can be started").join();
    }
}
