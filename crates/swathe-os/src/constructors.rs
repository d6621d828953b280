//! Functions that run before `main` (constructors), of the object that holds one of ours.
//!
//! A zygote that serves from a constructor never returns to the loader, which would run those that are still to come: all
//! of a program's dependencies, in the usual order of linking. So it runs them itself.

use std::{
    ffi::{c_char, c_int},
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::image::{self, Image};

/// A function that the loader calls before `main`, with the arguments of `main`.
pub type Constructor = extern "C" fn(c_int, Strings, Strings);

/// A list of C strings, as `main` gets it.
pub type Strings = *const *const c_char;

/// `DT_INIT_ARRAY` and `DT_INIT_ARRAYSZ` (elf.h).
const LIST: i64 = 25;
const LIST_BYTES: i64 = 27;

/// One entry of an object's dynamic section.
#[repr(C)]
#[derive(Clone, Copy)]
struct Dynamic {
    tag: i64,
    value: u64,
}

/// What is still to be run, if this process is in one of our constructors.
struct Remaining {
    constructors: Vec<usize>,
    arguments: (c_int, usize, usize),
}

static REMAINING: Mutex<Option<Remaining>> = Mutex::new(None);
static HAS_RUN: AtomicBool = AtomicBool::new(false);

/// Runs `main` in the constructor to which `entry`, an entry of the loader's list, refers. While it does it may call
/// [`run_rest`]; then it must not return, and this process ends if it does.
///
/// # Safety
/// `entry` is an entry of the loader's list, by which the loader has called the calling function, with these arguments.
pub unsafe fn call_before_main(
    entry: &'static Constructor,
    arguments: (c_int, Strings, Strings),
    main: fn(),
) {
    // One of several in the program, called by the first that was.
    if HAS_RUN.load(Ordering::Relaxed) {
        return;
    }
    let (count, strings, environment) = arguments;
    let rest = || Remaining {
        constructors: behind(std::ptr::from_ref(entry).addr()),
        arguments: (count, strings.addr(), environment.addr()),
    };
    REMAINING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_with(rest);
    main();
    if HAS_RUN.load(Ordering::Relaxed) {
        // Never back to the loader, which would run them once more.
        std::process::exit(1);
    }
}

/// In a constructor of ours: runs those that the loader would run after it. Otherwise nothing.
pub fn run_rest() {
    let rest = REMAINING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(rest) = rest.filter(|_| !HAS_RUN.swap(true, Ordering::Relaxed)) else {
        return;
    };
    let (count, strings, environment) = rest.arguments;
    for address in rest.constructors {
        // SAFETY: an entry of the list of functions that the loader calls with these arguments, which live as long as the
        // process. It has not called this one, because it waits for an entry before it, and will not any more, because
        // `call_before_main` does not return to it.
        unsafe {
            let constructor =
                std::mem::transmute::<*const (), Constructor>(std::ptr::with_exposed_provenance(address));
            constructor(
                count,
                std::ptr::with_exposed_provenance(strings),
                std::ptr::with_exposed_provenance(environment),
            );
        }
    }
}

/// The functions behind this entry in the list that it lies in.
fn behind(entry: usize) -> Vec<usize> {
    let mut found = Vec::new();
    image::for_each_object(|info| {
        let Some((start, len)) = list_of(&Image::of(info)) else {
            return ControlFlow::Continue(());
        };
        let (word, end) = (size_of::<usize>(), start.saturating_add(len));
        if !(start..end).contains(&entry) || !(entry - start).is_multiple_of(word) {
            return ControlFlow::Continue(());
        }
        let entries = (entry + word..end.saturating_sub(word - 1)).step_by(word);
        // SAFETY: words of the loaded object's own list, which was relocated before the first constructor ran, and which
        // nobody writes.
        let functions = entries.map(|at| unsafe { std::ptr::with_exposed_provenance::<usize>(at).read() });
        // As loaders do, which skip the marks of old linkers.
        found = functions
            .filter(|address| !matches!(*address, 0 | usize::MAX))
            .collect();
        ControlFlow::Break(())
    });
    found
}

/// Where the list of an object's constructors lies, and how many bytes it has.
fn list_of(image: &Image<'_>) -> Option<(usize, usize)> {
    let section = image
        .segments()
        .find(|segment| segment.kind == libc::PT_DYNAMIC)?;
    let range = section.range();
    let count = range.len() / size_of::<Dynamic>();
    let first: *const Dynamic = std::ptr::with_exposed_provenance(image.base.wrapping_add(range.start));
    // SAFETY: the dynamic section of a loaded object is mapped as its program header says, and aligned.
    let entries = (0..count).map(|i| unsafe { first.add(i).read() });
    let find = |tag: i64| {
        let mut entries = entries.clone().take_while(|entry| entry.tag != 0);
        entries
            .find(|entry| entry.tag == tag)
            .map(|entry| entry.value as usize)
    };
    Some((image.base.wrapping_add(find(LIST)?), find(LIST_BYTES)?))
}
