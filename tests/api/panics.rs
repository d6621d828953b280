//! What is said of a panic, and what becomes of one that ends its process.

use std::{
    borrow::Cow,
    fs::File,
    io,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    process, thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, raise},
    unistd::{ForkResult, fork},
};
use swathe::{Array, ArrayMut, Context, ItemError, Partial, Pool, Result, Status};
use swathe_tests::{pool, watched};

/// The failures of a job over the positions from 0, whose values are the positions.
macro_rules! failures {
    ($pool:expr, $positions:literal, $task:expr) => {
        checked(
            $pool
                .batch()
                .max_deaths(1)
                .collect_errors()
                .map($task, 0..$positions)?,
        )?
    };
}

fn checked(partial: Partial<Array<u64>>) -> Result<Vec<ItemError>> {
    let failures = partial.failures();
    let failed = |i: &usize| failures.iter().any(|failure| failure.position() == *i as u64);
    for i in (0..partial.len()).filter(|i| !failed(i)) {
        assert_eq!(partial.value(i)?, Some(i as u64), "position {i}");
    }
    Ok(failures)
}

/// What is said of the only element, which panics.
macro_rules! message {
    ($pool:expr, $task:expr) => {
        the_message(&failures!($pool, 1, $task))
    };
}

fn the_message(failures: &[ItemError]) -> String {
    assert_eq!(failures[0].status(), Status::Panicked, "{failures:?}");
    failures[0].message().to_owned()
}

/// What panics of other threads and aborts would tell the terminal is not told.
fn silent() {
    let nowhere = File::options().write(true).open("/dev/null");
    let _ = nix::unistd::dup2_stderr(nowhere.expect("it is always there"));
}

macro_rules! pool_with {
    ($initializer:expr) => {
        watched(Pool::builder().processes(1).initializer($initializer, ()).build())
    };
}

/// The line of a text that ends with `, at tests/api/panics.rs:line:column`.
fn line_of(text: &str) -> Option<u32> {
    let (_, place) = text.rsplit_once(", at ")?;
    let mut parts = place.rsplit(':');
    parts.nth(1)?.parse().ok()
}

#[test]
fn the_text_is_the_payloads() -> Result<()> {
    let pool = pool(1);
    assert!(message!(pool, |_: u64| -> u64 { panic!("literal") }).starts_with("literal, at "));
    assert!(message!(pool, |x: u64| -> u64 { panic!("number {x}") }).starts_with("number 0, at "));
    assert!(
        message!(pool, |_: u64| -> u64 { panic::panic_any(String::from("owned")) }).starts_with("owned, at ")
    );
    assert!(
        message!(pool, |_: u64| -> u64 { panic::panic_any(Cow::Borrowed("cow")) }).starts_with("cow, at ")
    );
    assert!(
        message!(pool, |_: u64| -> u64 {
            panic::panic_any(Box::<str>::from("boxed"))
        })
        .starts_with("boxed, at ")
    );
    assert!(
        message!(pool, |_: u64| -> u64 {
            panic::panic_any(io::Error::other("no planet"))
        })
        .starts_with("no planet, at ")
    );
    let boxed =
        |_: u64| -> u64 { panic::panic_any(Box::<dyn std::error::Error + Send + Sync>::from("an error")) };
    assert!(message!(pool, boxed).starts_with("an error, at "));
    assert!(
        message!(pool, |_: u64| -> u64 { panic::panic_any(7_u8) }).starts_with("a panic without a text, at ")
    );
    Ok(())
}

#[test]
fn a_panic_of_another_thread_keeps_its_text_and_its_place() -> Result<()> {
    let pool = pool_with!(silent);
    let here = line!();
    let resumed = message!(pool, |x: u64| {
        let inside = thread::spawn(move || if x < 9 { panic!("number {x}") } else { x });
        inside
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    });
    assert!(resumed.starts_with("number 0, at "), "{resumed}");
    assert_eq!(line_of(&resumed), Some(here + 2), "{resumed}");
    // Whoever makes a payload without a panic says nothing of a place.
    let made = message!(pool, |_: u64| -> u64 {
        panic::resume_unwind(Box::new("made up"))
    });
    assert_eq!(made, "made up");
    Ok(())
}

#[test]
fn a_hook_of_the_users_own_takes_no_text_away() -> Result<()> {
    let quiet = || panic::set_hook(Box::new(|_| ()));
    let boom = |_: u64| -> u64 { panic!("boom") };
    assert_eq!(message!(pool_with!(quiet), boom), "boom");
    // Not that of an earlier panic, which our own hook saw.
    let late = pool(1);
    assert!(message!(late, |_: u64| -> u64 { panic!("before") }).starts_with("before, at "));
    let replaced = |_: u64| -> u64 {
        let _ = panic::catch_unwind(|| panic!("harmless"));
        panic::set_hook(Box::new(|_| ()));
        panic!("after")
    };
    assert_eq!(message!(late, replaced), "after");
    let chained = || {
        let ours = panic::take_hook();
        panic::set_hook(Box::new(move |info| ours(info)));
    };
    assert!(message!(pool_with!(chained), boom).starts_with("boom, at "));
    Ok(())
}

/// The destructor of a payload is the user's code, too.
#[test]
fn a_payload_that_panics_when_it_is_dropped_does_no_harm() -> Result<()> {
    struct Spiteful;
    impl Drop for Spiteful {
        fn drop(&mut self) {
            panic!("once more");
        }
    }
    let text = message!(pool(1), |_: u64| -> u64 { panic::panic_any(Spiteful) });
    assert!(text.starts_with("a panic without a text"), "{text}");
    Ok(())
}

fn send(signal: Signal) {
    let _ = raise(signal);
}

/// Panics that were caught: by the task, on its own thread or on another.
fn harmless() {
    let _ = thread::spawn(|| panic!("harmless, too")).join();
    let _ = panic::catch_unwind(|| panic!("harmless"));
}

#[test]
fn a_death_does_not_say_what_a_caught_panic_said() -> Result<()> {
    fn end(x: u64, end: fn()) -> u64 {
        if x == 2 {
            harmless();
            end();
        }
        x
    }
    let pool = pool_with!(silent);
    let found = [
        failures!(pool, 5, |x: u64| end(x, || send(Signal::SIGKILL))),
        failures!(pool, 5, |x: u64| end(x, || send(Signal::SIGABRT))),
        failures!(pool, 5, |x: u64| end(x, || process::abort())),
        failures!(pool, 5, |x: u64| end(x, || process::exit(3))),
    ];
    for failures in found {
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(
            (failures[0].position(), failures[0].status()),
            (2, Status::Lost),
            "{failures:?}"
        );
        assert_eq!(failures[0].message(), "", "{failures:?}");
    }
    Ok(())
}

/// Panics that nobody can catch are deaths, which say how they came about.
#[test]
fn a_panic_that_cannot_be_caught_says_so() -> Result<()> {
    extern "C" fn called_by_c(x: u64) -> u64 {
        assert!(x != 2, "C cannot unwind");
        x
    }
    struct Careless(u64);
    impl Drop for Careless {
        fn drop(&mut self) {
            assert!(self.0 != 2, "again");
        }
    }
    let pool = pool_with!(silent);
    for (failures, texts) in [
        (
            failures!(pool, 5, |x: u64| called_by_c(x)),
            ["C cannot unwind, at ", "; panic in a function that cannot unwind"],
        ),
        (
            failures!(pool, 5, |x: u64| {
                let careless = Careless(x);
                assert!(x != 2, "first");
                careless.0
            }),
            ["again, at ", "; panic in a destructor during cleanup"],
        ),
    ] {
        let [failure] = &failures[..] else {
            panic!("one must fail: {failures:?}")
        };
        assert_eq!((failure.position(), failure.status()), (2, Status::Lost));
        assert!(
            texts.iter().all(|text| failure.message().contains(text)),
            "{failure}"
        );
    }
    Ok(())
}

/// As where panics abort: after what our hook does the process is gone.
fn panics_abort() {
    let ours = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        ours(info);
        process::abort();
    }));
}

fn odd(x: u64) -> u64 {
    assert!(x % 2 == 1, "even {x}");
    x
}

#[test]
fn panics_that_abort_are_panics_and_no_deaths() -> Result<()> {
    // No death is counted.
    let builder = Pool::builder()
        .processes(2)
        .restart_budget(0, Duration::from_secs(60));
    let pool = watched(builder.initializer(panics_abort, ()).build());
    let positions = 100;
    for chunk in [1, 7, 100] {
        let batch = pool.batch().chunk_size(chunk).collect_errors();
        let partial = batch.map(odd, 0..positions)?;
        assert_eq!(partial.why_stopped(), None);
        for i in 0..positions {
            let value = (i % 2 == 1).then_some(i);
            assert_eq!(partial.value(i as usize)?, value);
        }
        let failures = partial.failures();
        assert_eq!(failures.len(), 50);
        for failure in failures {
            let text = format!("even {}, at ", failure.position());
            assert_eq!((failure.status(), failure.attempts()), (Status::Panicked, 1));
            assert!(failure.message().starts_with(&text), "{failure}");
        }
    }
    Ok(())
}

#[test]
fn panics_that_abort_keep_to_retries_and_to_fail_fast_and_to_places() -> Result<()> {
    fn shy(context: &Context, x: u64) -> u64 {
        assert!(!x.is_multiple_of(5) || context.attempt() == 3, "not yet");
        x
    }
    let pool = pool_with!(panics_abort);
    let batch = pool.batch().retries(2).chunk_size(10);
    assert!(batch.map(shy, 0..40)?.iter().copied().eq(0..40));
    let partial = pool.batch().retries(1).collect_errors().map(shy, 0..12)?;
    let attempts: Vec<_> = partial
        .failures()
        .iter()
        .map(|f| (f.position(), f.attempts()))
        .collect();
    assert_eq!(attempts, [(0, 2), (5, 2), (10, 2)]);

    let partial = pool
        .batch()
        .fail_fast()
        .chunk_size(1)
        .collect_errors()
        .map(odd, 0..40)?;
    assert_eq!(
        partial.why_stopped(),
        Some("the job stopped at its first failure")
    );

    let array = ArrayMut::from_range(0..40u64)?;
    let grown = |x: u64| if x == 20 { panic!("twenty") } else { x + 100 };
    let Err(swathe::Error::Job(error)) = pool.map_in_place(grown, array) else {
        panic!("one must fail")
    };
    let partial = error
        .into_partial::<ArrayMut<u64>>()
        .expect("the array comes back");
    for i in 0..40 {
        let value = (i != 20).then_some(100 + i as u64);
        assert_eq!(partial.value(i)?, value, "position {i}");
    }
    assert_eq!(partial.status(20), Status::Panicked);

    let halves = |from: &[u64], to: &mut [u64]| {
        assert!(!from.contains(&7), "seven");
        to.copy_from_slice(from);
    };
    let input: Vec<u64> = (0..20).collect();
    let batch = pool.batch().chunk_size(5).collect_errors();
    let partial = batch.map_chunks(halves, input)?;
    let failed: Vec<bool> = (0..20).map(|i| partial.status(i) == Status::Panicked).collect();
    assert!(
        failed
            .iter()
            .enumerate()
            .all(|(i, failed)| *failed == (5..10).contains(&i))
    );
    Ok(())
}

#[test]
fn an_initializer_whose_panic_aborts_breaks_the_pool_with_its_text() -> Result<()> {
    fn start() {
        panics_abort();
        panic!("no plan");
    }
    let pool = pool_with!(start);
    let error = pool.map(odd, [1]).unwrap_err().to_string();
    assert!(
        error.contains("the initializer failed 3 times in a row, last with: it panicked: no plan, at "),
        "{error}"
    );
    Ok(())
}

/// A panic in a process that a task has forked is that process's own.
#[test]
#[expect(unsafe_code, reason = "forking by hand is what is tested")]
fn a_forked_child_that_panics_says_nothing_about_the_worker() -> Result<()> {
    fn forks(x: u64) -> u64 {
        if x == 2 {
            // SAFETY: the child only panics, aborts, and prints to nowhere.
            match unsafe { fork() }.expect("it can be forked") {
                ForkResult::Child => {
                    silent();
                    let _ = panic::catch_unwind(AssertUnwindSafe(|| panic!("in the child")));
                    process::abort();
                }
                ForkResult::Parent { child } => drop(nix::sys::wait::waitpid(child, None)),
            }
            send(Signal::SIGKILL);
        }
        x
    }
    let failures = failures!(pool(1), 5, forks);
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].status(), failures[0].message()), (Status::Lost, ""));
    Ok(())
}

#[test]
fn a_stack_overflow_is_called_so() {
    #[expect(unconditional_recursion, reason = "that is what is tried")]
    fn endless(depth: u64) -> u64 {
        let page = std::hint::black_box([depth; 64]);
        endless(depth + 1) + page[3]
    }
    let pool = pool(2);
    let batch = pool.batch().max_deaths(1).chunk_size(1);
    let task = |x: u64| if x == 1 { endless(x) } else { x };
    let error = batch.map(task, 0..2).unwrap_err().to_string();
    assert!(
        error.starts_with("position 1 was lost: its worker was killed by signal "),
        "{error}"
    );
    assert!(
        error.contains("and said last: its stack has overflowed"),
        "{error}"
    );
}

/// A fault that is none of the stack's says nothing about it.
#[test]
fn another_fault_is_not_called_an_overflow() {
    let pool = pool(1);
    let read = |x: usize| {
        #[expect(unsafe_code, reason = "a fault is what is tried")]
        // SAFETY: none: address 8 belongs to nobody, and reading it ends the worker.
        unsafe {
            std::ptr::with_exposed_provenance::<u64>(x).read_volatile()
        }
    };
    let error = pool
        .batch()
        .max_deaths(1)
        .map(read, [8_usize])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("signal 11 (SIGSEGV)") && !error.contains("overflow"),
        "{error}"
    );
}
