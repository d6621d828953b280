//! Twins of the tests of CPython's `multiprocessing.Pool`: same name, same claim. Where Swathe differs on purpose, the
//! twin says how. (Those of `imap` are in [`crate::streams`].)

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::sleep,
    time::{Duration, Instant},
};

use swathe::{Error, Memory, Pool, Result, Status, items};
use swathe_tests::{pool, runs, until, watched};

fn sqr(x: i64) -> i64 {
    x * x
}

fn mul(x: i64, y: i64) -> i64 {
    x * y
}

fn sqr_after(x: i64, milliseconds: u64) -> i64 {
    sleep(Duration::from_millis(milliseconds));
    x * x
}

fn nap(x: i64) -> i64 {
    sqr_after(x, 100)
}

fn squares(n: i64) -> Vec<i64> {
    (0..n).map(sqr).collect()
}

/// The panic of an iterator that comes to a number, or all numbers before.
fn breaking_at(bad: usize) -> impl Iterator<Item = i64> {
    (0..20).map(move |x| {
        if x == bad {
            panic!("{x} does not exist")
        } else {
            x as i64
        }
    })
}

/// A value that cannot always be encoded: a path is text only if its bytes are UTF-8.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Debug, PartialEq)]
struct Located {
    #[rkyv(with = rkyv::with::AsString)]
    path: std::path::PathBuf,
}
impl swathe::Record for Located {}

fn located(name: &[u8]) -> Located {
    use std::os::unix::ffi::OsStrExt;
    Located {
        path: std::ffi::OsStr::from_bytes(name).into(),
    }
}

/// Rust has no keyword arguments; a tuple has the positional ones.
#[test]
fn test_apply() -> Result<()> {
    let pool = pool(2);
    assert_eq!(pool.apply(sqr, 5_i64)?, 25);
    assert_eq!(pool.apply(sqr, (5_i64,))?, 25);
    assert_eq!(pool.apply(mul, (3_i64, -4_i64))?, -12);
    assert_ne!(pool.apply(std::process::id, ())?, std::process::id());
    Ok(())
}

#[test]
fn test_map() -> Result<()> {
    let pool = pool(2);
    assert_eq!(pool.map(sqr, 0..10)?, squares(10));
    assert_eq!(pool.batch().chunk_size(20).map(sqr, 0..100)?, squares(100));
    Ok(())
}

#[test]
fn test_starmap() -> Result<()> {
    let pool = pool(2);
    let pairs: Vec<(i64, i64)> = (0..100).zip((0..100).rev()).collect();
    let products: Vec<i64> = pairs.iter().map(|&(x, y)| mul(x, y)).collect();
    assert_eq!(pool.starmap(mul, &pairs)?, products);
    assert_eq!(pool.batch().chunk_size(20).starmap(mul, pairs)?, products);
    Ok(())
}

#[test]
fn test_starmap_async() -> Result<()> {
    let pool = pool(2);
    let pairs: Vec<(i64, i64)> = (0..100).zip(0..100).collect();
    assert_eq!(pool.starmap_async(mul, pairs)?.get()?, squares(100));
    Ok(())
}

#[test]
fn test_map_async() -> Result<()> {
    let pool = pool(2);
    assert_eq!(pool.map_async(sqr, 0..10)?.get()?, squares(10));
    Ok(())
}

#[test]
fn test_map_async_callbacks() -> Result<()> {
    let pool = pool(2);
    let (calls, called) = mpsc::channel();
    let parse = |text: &str| text.parse::<i64>();
    let start = |input: [&'static str; 1]| {
        let (success, error) = (calls.clone(), calls.clone());
        pool.batch()
            .on_success(move |values: &[i64]| success.send(Ok(values.to_vec())).unwrap())
            .on_error(move |e| error.send(Err(e.to_string())).unwrap())
            .try_map_async(parse, input)
    };
    assert_eq!(start(["1"])?.get()?, [1]);
    assert!(start(["a"])?.get().is_err());
    pool.close();
    pool.join()?;
    drop(calls);
    let all: Vec<_> = called.into_iter().collect();
    assert_eq!(all[0], Ok(vec![1]));
    let text = all[1].as_ref().unwrap_err();
    assert!(
        text.starts_with("position 0 failed: invalid digit found in string (worker "),
        "{text}"
    );
    assert_eq!(all.len(), 2, "once each");
    Ok(())
}

/// A task that cannot cross does not compile here; an element that cannot is an error at once, and the pool goes on.
#[test]
fn test_map_unplicklable() -> Result<()> {
    let pool = pool(2);
    let error = pool
        .map(
            |at: Located| at.path.is_absolute(),
            [located(b"/a"), located(b"/\xff")],
        )
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("element 1 of the input cannot cross to the workers: it cannot be encoded"),
        "{text}"
    );
    assert_eq!(
        pool.map(
            |at: Located| at.path.is_absolute(),
            [located(b"/a"), located(b"b")]
        )?,
        [true, false]
    );
    Ok(())
}

#[test]
fn test_map_chunksize() -> Result<()> {
    let pool = pool(2);
    let pending = pool.batch().chunk_size(1).map_async(sqr, Vec::<i64>::new())?;
    assert!(pending.get_timeout(Duration::from_secs(30))?.is_empty());
    Ok(())
}

/// An iterator's panic is an error of the call, which names the position. A length that lies is only a hint.
#[test]
fn test_map_handle_iterable_exception() -> Result<()> {
    struct Liar(u32);
    impl Iterator for Liar {
        type Item = i64;
        fn next(&mut self) -> Option<i64> {
            self.0 = self.0.checked_sub(1)?;
            Some(self.0.into())
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (usize::MAX, Some(1))
        }
    }
    let pool = pool(2);
    for bad in [0, 4] {
        for chunk in [1, 2, 3] {
            let error = pool
                .batch()
                .chunk_size(chunk)
                .map(sqr, items(breaking_at(bad)))
                .unwrap_err();
            let expected = format!("the input's iterator panicked at position {bad}: {bad} does not exist");
            assert_eq!(error.to_string(), expected);
        }
    }
    assert_eq!(pool.map(sqr, items(Liar(4)))?, [9, 4, 1, 0]);
    Ok(())
}

#[test]
fn test_async() -> Result<()> {
    let pool = pool(2);
    let start = Instant::now();
    let pending = pool.apply_async(sqr_after, (7_i64, 100_u64))?;
    assert_eq!(pending.get()?, 49);
    assert!(start.elapsed() >= Duration::from_millis(100));
    Ok(())
}

#[test]
fn test_async_timeout() -> Result<()> {
    let pool = pool(2);
    let pending = pool.apply_async(sqr_after, (6_i64, 3_600_000_u64))?;
    let start = Instant::now();
    let error = pending.get_timeout(Duration::from_millis(80)).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(80));
    assert_eq!(
        error.to_string(),
        "the result is not ready in time; the job goes on"
    );
    assert!(!pending.wait(Duration::ZERO) && !pending.ready());
    let text = pending.successful().unwrap_err().to_string();
    assert_eq!(
        text,
        "the result is not ready: whether the job was successful is not known yet"
    );
    Ok(())
}

/// A negative number of processes is none that compiles.
#[test]
fn test_make_pool() -> Result<()> {
    let error = Pool::builder().processes(0).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "a pool has at least 1 process, and 0 were asked for"
    );
    let pool = pool(3);
    assert_eq!(pool.processes(), 3);
    until("3 workers are there", || pool.workers().len() == 3);
    pool.close();
    pool.join()
}

/// The handle of what was not finished gets an error, where CPython would let `get()` hang.
#[test]
fn test_terminate() -> Result<()> {
    let pool = pool(3);
    let pending = pool.batch().chunk_size(1).map_async(nap, 0..10_000)?;
    pool.terminate();
    pool.join()?;
    let text = pending.get().unwrap_err().to_string();
    assert!(
        text.starts_with("the pool was terminated: ") && text.ends_with(" of 10000 positions were done"),
        "{text}"
    );
    Ok(())
}

/// The callback of an empty job is called, where CPython forgets it.
#[test]
fn test_empty_iterable() -> Result<()> {
    let pool = pool(1);
    assert!(pool.map(sqr, Vec::<i64>::new())?.is_empty());
    assert!(pool.map(sqr, items(std::iter::empty::<i64>()))?.is_empty());
    assert!(pool.map(sqr, 5..5)?.is_empty());
    assert!(pool.starmap(mul, Vec::<(i64, i64)>::new())?.is_empty());
    assert!(
        pool.map(|text: &str| text.to_owned(), Vec::<&str>::new())?
            .is_empty()
    );
    let (told, heard) = mpsc::channel();
    let pending = pool
        .batch()
        .on_success(move |all: &[i64]| told.send(all.len()).unwrap())
        .map_async(sqr, 0..0)?;
    assert!(pending.get()?.is_empty());
    assert_eq!(heard.recv(), Ok(0));
    Ok(())
}

/// The end of a scope terminates a pool, as the end of `with` does.
#[test]
fn test_context() -> Result<()> {
    let (pending, pids) = {
        let pool = pool(2);
        assert_eq!(pool.map_async(sqr, 0..10)?.get()?, squares(10));
        until("both workers are there", || pool.workers().len() == 2);
        let pids: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
        (pool.map_async(nap, 0..1_000)?, pids)
    };
    assert!(pids.into_iter().all(|pid| !runs(pid)));
    let text = pending.get().unwrap_err().to_string();
    assert!(text.starts_with("the pool was terminated: "), "{text}");
    Ok(())
}

/// What a panic says names its source line; an error of the input's iterator concerns no worker and names none.
#[test]
fn test_traceback() -> Result<()> {
    fn raise(x: i64) -> i64 {
        if x == 3 { panic!("some error") } else { x }
    }
    let pool = pool(1);
    let Err(Error::Job(error)) = pool.map(raise, 0..5) else {
        panic!("position 3 must fail")
    };
    let first = error.first().expect("one failed");
    assert_eq!((first.position(), first.status()), (3, Status::Panicked));
    assert!(first.message().starts_with("some error, at "), "{error}");
    assert!(first.message().contains(concat!(file!(), ":")), "{error}");
    assert_eq!(
        (first.worker(), first.pid()),
        (Some(0), Some(pool.workers()[0].pid))
    );

    let error = pool.map(sqr, items(breaking_at(1))).unwrap_err();
    assert!(matches!(error, Error::Iterator { position: 1, .. }), "{error}");
    Ok(())
}

/// Errors keep the text of all their causes.
#[test]
fn test_wrapped_exception() -> Result<()> {
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the header is damaged")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    fn raise(text: &str) -> Result<u8, Outer> {
        text.parse().map_err(Outer)
    }
    let pool = pool(1);
    let text = pool.try_apply(raise, "256").unwrap_err().to_string();
    let expected =
        "position 0 failed: the header is damaged: number too large to fit in target type (worker 0, pid ";
    assert!(text.starts_with(expected), "{text}");
    Ok(())
}

/// The values beside a failure are not thrown away here. An error of a mebibyte passes, cut to what is worth reading.
#[test]
fn test_map_no_failfast() -> Result<()> {
    fn sleep_or_fail(x: u64) -> Result<u64, String> {
        match x {
            0 => Err("e".repeat(1 << 20)),
            _ => {
                sleep(Duration::from_millis(300));
                Ok(x)
            }
        }
    }
    let pool = pool(2);
    let start = Instant::now();
    let Err(Error::Job(error)) = pool.batch().chunk_size(1).try_map(sleep_or_fail, 0..3) else {
        panic!("position 0 must fail")
    };
    assert!(start.elapsed() >= Duration::from_millis(300));
    let message = error.first().expect("one failed").message();
    assert!(
        message.len() >= 1 << 10 && message.chars().all(|c| c == 'e'),
        "{} bytes",
        message.len()
    );
    let partial = error
        .into_partial::<swathe::Array<u64>>()
        .expect("these are integers");
    assert_eq!(partial.to_vec_or(9)?, [9, 1, 2]);
    Ok(())
}

/// Nothing holds the inputs and results of a job when its handles are gone.
#[test]
fn test_release_task_refs() -> Result<()> {
    let memory = Memory::with_capacity(64 << 20)?;
    let pool = watched(Pool::builder().processes(2).memory(memory.clone()).build());
    pool.map(sqr, 0..10)?;
    until("the first job's memory is free", || {
        memory.stats().in_use < 1 << 20
    });
    let input = swathe::Array::from_fn_in(&memory, 1 << 20, |i| i as i64)?;
    let pending = pool.map_async(sqr, &input)?;
    let result = pending.get()?;
    drop(input);
    assert_eq!(result[1000], 1_000_000);
    drop((result, pending));
    until("inputs and results are free", || memory.stats().in_use < 1 << 20);
    Ok(())
}

/// There is nothing to enter; a pool that does not run refuses its verbs.
#[test]
fn test_enter() -> Result<()> {
    let pool = pool(1);
    pool.close();
    assert_eq!(
        pool.map(sqr, 0..3).unwrap_err().to_string(),
        "the pool is not running: it was closed"
    );
    pool.terminate();
    assert_eq!(
        pool.map(sqr, 0..3).unwrap_err().to_string(),
        "the pool is not running: it was terminated"
    );
    Ok(())
}

/// Dropping a pool that runs is no resource leak that would need a warning: it is terminated.
#[test]
fn test_resource_warning() -> Result<()> {
    let pool = pool(2);
    until("both workers are there", || pool.workers().len() == 2);
    let pids: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    drop(pool);
    assert!(pids.into_iter().all(|pid| !runs(pid)));
    Ok(())
}

#[test]
fn test_async_error_callback() -> Result<()> {
    let pool = pool(2);
    let (told, heard) = mpsc::channel();
    let raise = || -> Result<u8, String> { Err("key".into()) };
    let pending = pool
        .batch()
        .on_error(move |error| told.send(error.to_string()).unwrap())
        .try_apply_async(raise, ())?;
    let text = pending.get().unwrap_err().to_string();
    assert!(text.starts_with("position 0 failed: key (worker "), "{text}");
    assert_eq!(heard.recv(), Ok(text));
    assert!(heard.recv().is_err(), "once");
    Ok(())
}

/// A result of a type that cannot cross does not compile; a value that cannot is the failure of its position.
#[test]
fn test_unpickleable_result() -> Result<()> {
    let pool = pool(2);
    for round in 0..20 {
        let (told, heard) = mpsc::channel();
        let pending = pool
            .batch()
            .on_error(move |error| told.send(error.to_string()).unwrap())
            .apply_async(|| located(b"\xff"), ())?;
        let text = pending.get().unwrap_err().to_string();
        assert!(
            text.starts_with("position 0 failed: it cannot be encoded"),
            "round {round}: {text}"
        );
        assert_eq!(heard.recv(), Ok(text));
    }
    assert_eq!(pool.apply(|| located(b"/fine"), ())?, located(b"/fine"));
    Ok(())
}

/// `max_tasks_per_child` counts elements, not chunks.
#[test]
fn test_pool_worker_lifetime() -> Result<()> {
    fn who(_: i64) -> u32 {
        std::process::id()
    }
    let pool = watched(Pool::builder().processes(3).max_tasks_per_child(10).build());
    let calls: Vec<_> = (0..100)
        .map(|x| pool.apply_async(who, x))
        .collect::<Result<_>>()?;
    let mut runs: HashMap<u32, usize> = HashMap::new();
    for call in calls {
        *runs.entry(call.get()?).or_default() += 1;
    }
    assert!(runs.values().all(|&n| n <= 10) && runs.len() >= 10, "{runs:?}");
    let mut runs: HashMap<u32, usize> = HashMap::new();
    for pid in &pool.batch().chunk_size(3).map(who, 0..100)? {
        *runs.entry(*pid).or_default() += 1;
    }
    assert!(
        runs.values().all(|&n| n <= 12) && runs.len() >= 8,
        "a worker ends the chunk it has begun: {runs:?}"
    );
    until("3 workers are there again", || pool.workers().len() == 3);
    Ok(())
}

#[test]
fn test_pool_worker_lifetime_early_close() -> Result<()> {
    let pool = watched(Pool::builder().processes(3).max_tasks_per_child(1).build());
    let calls: Vec<_> = (0..6)
        .map(|x| pool.apply_async(sqr_after, (x, 30_u64)))
        .collect::<Result<_>>()?;
    pool.close();
    pool.join()?;
    for (x, call) in (0..).zip(calls) {
        assert_eq!(call.get()?, x * x);
    }
    Ok(())
}

/// -1, 0.5 and "12" do not compile.
#[test]
fn test_pool_maxtasksperchild_invalid() {
    let error = Pool::builder().max_tasks_per_child(0).build().unwrap_err();
    let expected = "a worker runs at least 1 element before it is replaced: max_tasks_per_child(0) would replace it for ever";
    assert_eq!(error.to_string(), expected);
}

/// What C libraries registered with `atexit` runs when a worker leaves in peace.
#[test]
fn test_worker_finalization_via_atexit_handler_of_multiprocessing() -> Result<()> {
    use std::sync::OnceLock;
    static FILE: OnceLock<String> = OnceLock::new();
    extern "C" fn finalize() {
        let file = FILE.get().expect("the initializer has set it");
        let _ = std::fs::write(format!("{file}.{}", std::process::id()), "finalized");
    }
    #[expect(unsafe_code, reason = "the C library's own way to register a function")]
    fn register(file: String) {
        FILE.set(file).expect("once a process");
        // SAFETY: `finalize` is a function that lives as long as the process and does not unwind.
        assert_eq!(unsafe { libc::atexit(finalize) }, 0);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("worker").display().to_string();
    let pool = watched(Pool::builder().processes(2).initializer(register, file).build());
    pool.run_per_worker(|| ())?;
    pool.close();
    pool.join()?;
    assert_eq!(
        std::fs::read_dir(directory.path()).expect("it is there").count(),
        2
    );
    Ok(())
}

/// The callers of a pool are not harmed by a panic of their own while they hold it.
#[test]
fn a_panic_of_the_caller_terminates_the_pool() {
    let pids = std::sync::Mutex::new(Vec::new());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let pool = pool(2);
        until("both workers are there", || pool.workers().len() == 2);
        pids.lock()
            .expect("no panic yet")
            .extend(pool.workers().iter().map(|worker| worker.pid));
        panic!("the caller's own");
    }));
    assert!(panicked.is_err());
    assert!(
        pids.lock()
            .expect("not while it was held")
            .iter()
            .all(|pid| !runs(*pid))
    );
}
