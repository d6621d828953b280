//! Code of users that runs in the parent: callbacks, wakers, destructors, iterators. It may take its time, panic, and use
//! the pool; nobody else waits for it, and no thread of the pool is lost by it.

use std::{
    fs,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use swathe::{Array, Error, Pool, Record, Result, Status};
use swathe_tests::{pool, until, watch};

use crate::asynchronous::block_on;

const LONG: Duration = Duration::from_secs(60);

fn next(x: u64) -> u64 {
    x + 1
}

fn slow(x: u64) -> u64 {
    thread::sleep(Duration::from_millis(10));
    x + 1
}

/// Waits as long as a test does at most, but for this.
fn wait_for(flag: &AtomicBool) {
    while !flag.load(SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
}

type Hook = Arc<dyn Fn() + Send + Sync>;

/// What the destructors of the one test do that has set it.
static ON_DROP: Mutex<Option<Hook>> = Mutex::new(None);
/// One test at a time uses it.
static DROPPING: Mutex<()> = Mutex::new(());

/// A parameter that lends an array, so that the job keeps a copy of it, and that runs [`ON_DROP`] when it is dropped.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Noted {
    values: Array<u64>,
}

impl Record for Noted {}

impl Drop for Noted {
    fn drop(&mut self) {
        let hook = ON_DROP
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        if let Some(hook) = hook {
            hook();
        }
    }
}

fn noted_sum(noted: &Noted, x: u64) -> u64 {
    thread::sleep(Duration::from_millis(2));
    noted.values[0] + x
}

fn noted_for_ever(_: &Noted, x: u64) -> u64 {
    thread::sleep(Duration::from_secs(3600));
    x
}

/// Sets the hook, runs jobs that keep values with it in each way that a job can end, and sees that they and the pool go
/// on.
fn with_hook(hook: impl Fn(&Pool) + Send + Sync + 'static) -> Result<()> {
    let _alone = DROPPING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _watch = watch();
    let pool = Arc::new(Pool::builder().processes(2).build()?);
    // The one that is looked at is what the jobs keep.
    let noted = ManuallyDrop::new(Noted {
        values: Array::from_vec(vec![40])?,
    });
    let (drops, weak) = (Arc::new(AtomicUsize::new(0)), Arc::downgrade(&pool));
    let count = drops.clone();
    let hook = move || {
        count.fetch_add(1, SeqCst);
        weak.upgrade().iter().for_each(|pool| hook(pool));
    };
    *ON_DROP.lock().expect("nobody panics with it") = Some(Arc::new(hook));
    let batch = || pool.batch().with(&*noted);
    for _ in 0..20 {
        assert_eq!(batch()?.map(noted_sum, 0..3)?, [40, 41, 42]);
    }
    let pending = batch()?.on_success(|_: &[u64]| ()).map_async(noted_sum, 0..3)?;
    assert_eq!(pending.get()?, [40, 41, 42]);
    let streamed: Result<Vec<u64>, _> = batch()?.imap_unordered(noted_sum, 0..3).collect();
    assert_eq!(streamed.map_err(Error::from)?.len(), 3);
    let stuck = batch()?.map_async(noted_for_ever, 0..4)?;
    stuck.cancel();
    assert!(stuck.get().is_err());
    until("what the jobs have kept is dropped", || drops.load(SeqCst) >= 23);
    assert_eq!(pool.map(next, 0..3)?, [1, 2, 3]);
    pool.close();
    pool.join()?;
    pool.terminate();
    *ON_DROP.lock().expect("nobody panics with it") = None;
    Ok(())
}

#[test]
fn destructors_of_what_a_job_keeps_may_ask_the_pool() -> Result<()> {
    with_hook(|pool| {
        pool.workers();
        pool.processes();
        let _ = pool.map(next, 0..3);
    })
}

#[test]
fn destructors_of_what_a_job_keeps_may_panic() -> Result<()> {
    with_hook(|_| panic!("a destructor's own fault"))
}

/// A payload that panics when it is dropped.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Bomb(self.0 - 1));
        }
    }
}

#[test]
fn what_a_panic_brings_may_panic() -> Result<()> {
    with_hook(|_| std::panic::panic_any(Bomb(3)))?;
    let pool = pool(2);
    let pending = pool
        .batch()
        .on_success(|_: &[u64]| std::panic::panic_any(Bomb(3)))
        .map_async(next, 0..3)?;
    assert_eq!(pending.get()?, [1, 2, 3]);
    let bad = (0..3).inspect(|x| {
        if *x == 2 {
            std::panic::panic_any(Bomb(1))
        }
    });
    assert!(matches!(
        pool.map(next, swathe::items(bad.clone())),
        Err(Error::Iterator { position: 2, .. })
    ));
    assert_eq!(pool.imap(next, bad).filter(|item| item.is_ok()).count(), 2);
    pool.close();
    pool.join()
}

/// One that waits for ever holds up neither other jobs, nor futures, nor the end of the pool.
#[test]
fn a_destructor_may_wait() -> Result<()> {
    static LET_GO: AtomicBool = AtomicBool::new(false);
    let _alone = DROPPING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pool = pool(2);
    let noted = ManuallyDrop::new(Noted {
        values: Array::from_vec(vec![40])?,
    });
    let waits = Arc::new(AtomicBool::new(false));
    let seen = waits.clone();
    let batch = pool.batch().with(&*noted)?;
    *ON_DROP.lock().expect("nobody panics with it") = Some(Arc::new(move || {
        seen.store(true, SeqCst);
        wait_for(&LET_GO);
    }));
    let pending = batch.map_async(noted_sum, 0..3)?;
    wait_for(&waits);
    assert_eq!(block_on(pending)?, [40, 41, 42]);
    assert_eq!(block_on(pool.map_async(next, 0..3)?)?, [1, 2, 3]);
    assert_eq!(pool.imap_unordered(next, 0..100).count(), 100);
    let (told, heard) = mpsc::channel();
    let tell = move |_: &[u64]| told.send(()).expect("the test waits");
    drop(pool.batch().on_success(tell).map_async(next, 0..3)?);
    heard.recv_timeout(LONG).expect("callbacks do not wait for it");
    pool.close();
    pool.join()?;
    LET_GO.store(true, SeqCst);
    *ON_DROP.lock().expect("nobody panics with it") = None;
    Ok(())
}

/// What a callback made of `f` gives.
fn in_callback<R: Send + 'static>(
    pool: &Arc<Pool>,
    f: impl FnOnce(&Pool) -> R + Send + 'static,
) -> Result<R> {
    let (told, heard) = mpsc::channel();
    let mine = Arc::downgrade(pool);
    let callback = move |_: &[u64]| {
        let pool = mine.upgrade().expect("the test holds it");
        told.send(f(&pool)).expect("the test waits");
    };
    drop(pool.batch().on_success(callback).map_async(next, 0..10)?);
    Ok(heard.recv_timeout(LONG).expect("the callback comes to its end"))
}

#[test]
fn a_callback_may_use_the_pool_in_every_way() -> Result<()> {
    let _watch = watch();
    let pool = Arc::new(Pool::builder().processes(2).build()?);
    assert_eq!(
        in_callback(&pool, |pool| pool.imap_unordered(next, 0..100).count())?,
        100
    );
    assert_eq!(in_callback(&pool, |pool| pool.imap(next, 0..100).count())?, 100);
    let awaited = |pool: &Pool| Ok::<_, Error>(block_on(pool.map_async(next, 0..10)?)?.len());
    assert_eq!(in_callback(&pool, awaited)??, 10);
    let got =
        |pool: &Pool| Ok::<_, Error>(pool.map_async(next, 0..10)?.get()?.len() + pool.map(next, 0..5)?.len());
    assert_eq!(in_callback(&pool, got)??, 15);
    let cancelled = |pool: &Pool| {
        let pending = pool.map_async(|_: u64| thread::sleep(LONG), 0..4)?;
        pending.cancel();
        Ok::<_, Error>(pending.get().is_err())
    };
    assert!(in_callback(&pool, cancelled)??);
    let resized = |pool: &Pool| pool.resize(3).and_then(|()| pool.resize(2));
    in_callback(&pool, resized)??;
    let joined = |pool: &Pool| {
        pool.close();
        pool.join()
    };
    in_callback(&pool, joined)??;
    pool.join()
}

#[test]
fn a_callback_may_end_its_own_pool() -> Result<()> {
    let _watch = watch();
    let pool = Arc::new(Pool::builder().processes(2).build()?);
    in_callback(&pool, |pool| {
        pool.terminate();
        pool.join()
    })??;
    assert!(pool.map(next, 0..3).is_err());
    // It drops the last handle.
    let pool = Arc::new(Pool::builder().processes(2).build()?);
    let (mine, (told, heard)) = (pool.clone(), mpsc::channel());
    let (go, gone) = mpsc::channel::<()>();
    let pending = pool
        .batch()
        .on_success(move |_: &[u64]| {
            let _ = gone.recv();
            drop(mine);
            told.send(()).expect("the test waits");
        })
        .map_async(next, 0..10)?;
    assert_eq!(pending.get()?.len(), 10);
    drop(pool);
    drop(go);
    heard
        .recv_timeout(LONG)
        .expect("the pool ends on the callback's thread");
    Ok(())
}

/// `join` knows its own pool's callbacks, and waits for those of another.
#[test]
fn joining_another_pool_in_a_callback_waits_for_its_callbacks() -> Result<()> {
    let _watch = watch();
    let (a, b) = (
        Arc::new(Pool::builder().processes(1).build()?),
        Arc::new(Pool::builder().processes(1).build()?),
    );
    let told = Arc::new(AtomicBool::new(false));
    let (set, entered, seen) = (told.clone(), Arc::new(AtomicBool::new(false)), told);
    let begun = entered.clone();
    let late = move |_: &[u64]| {
        begun.store(true, SeqCst);
        thread::sleep(Duration::from_millis(100));
        set.store(true, SeqCst);
    };
    drop(a.batch().on_success(late).map_async(next, 0..3)?);
    let other = a.clone();
    let joined = in_callback(&b, move |_| {
        wait_for(&entered);
        other.close();
        (other.join().is_ok(), seen.load(SeqCst))
    })?;
    assert_eq!(joined, (true, true));
    Ok(())
}

#[test]
fn nobody_waits_for_a_slow_callback() -> Result<()> {
    let _watch = watch();
    let pool = Pool::builder().processes(2).build()?;
    let (begun, let_go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (seen, waits) = (begun.clone(), let_go.clone());
    let slow_one = move |_: &[u64]| {
        seen.store(true, SeqCst);
        wait_for(&waits);
    };
    drop(pool.batch().on_success(slow_one).map_async(next, 0..3)?);
    wait_for(&begun);
    assert_eq!(pool.imap_unordered(slow, 0..20).count(), 20);
    let pending = pool.map_async(next, 0..3)?;
    until("it is ready", || pending.ready());
    assert_eq!(block_on(pool.map_async(next, 0..3)?)?, [1, 2, 3]);
    let directory = tempfile::tempdir().expect("a directory can be made");
    let output = pool.batch().output_file(directory.path().join("out.npy"));
    assert_eq!(
        block_on(output.map_async(next, 0..3)?)?,
        [1, 2, 3],
        "nor does a file"
    );
    let other = Pool::builder().processes(1).build()?;
    other.close();
    other.join()?;
    let_go.store(true, SeqCst);
    pool.close();
    pool.join()
}

/// `join` waits for the callback of a job whose results lie in a file, too.
#[test]
fn callbacks_of_a_file_are_called_when_it_is_written() -> Result<()> {
    let pool = pool(2);
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("out.npy");
    let (told, heard) = mpsc::channel();
    let read = path.clone();
    let tell = move |all: &[u64]| {
        told.send((all.len(), Array::<u64>::from_npy_path(&read).is_ok()))
            .expect("the test waits");
    };
    drop(
        pool.batch()
            .output_file(&path)
            .on_success(tell)
            .map_async(slow, 0..50)?,
    );
    pool.close();
    pool.join()?;
    assert_eq!(heard.try_recv(), Ok((50, true)));
    Ok(())
}

/// A waker that does something when it wakes and when it is dropped.
struct Odd(fn(), fn());

impl Wake for Odd {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        (self.1)();
    }
}

/// Polls a job once with such a waker, and gives it for what comes after.
fn polled_by(pool: &Pool, odd: Odd) -> Result<swathe::Pending<Array<u64>>> {
    let mut pending = pool.map_async(slow, 0..10)?;
    let waker = Waker::from(Arc::new(odd));
    let poll = Pin::new(&mut pending).poll(&mut Context::from_waker(&waker));
    assert!(matches!(poll, Poll::Pending));
    // Its last handle is the engine's.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
    Ok(pending)
}

#[test]
fn wakers_may_panic() -> Result<()> {
    let pool = pool(2);
    let (fine, panics): (fn(), fn()) = (|| (), || panic!("a waker's own fault"));
    for (wake, drop) in [(panics, fine), (fine, panics), (panics, fine)] {
        let pending = polled_by(&pool, Odd(wake, drop))?;
        assert_eq!(pending.get()?.len(), 10);
        assert_eq!(block_on(pool.map_async(next, 0..3)?)?, [1, 2, 3]);
    }
    pool.close();
    pool.join()
}

/// It holds up other wakers of its pool, which wakers must not do, and nothing else.
#[test]
fn a_waker_may_wait() -> Result<()> {
    static LET_GO: AtomicBool = AtomicBool::new(false);
    static WAITS: AtomicBool = AtomicBool::new(false);
    let pool = pool(2);
    let wake = || {
        WAITS.store(true, SeqCst);
        wait_for(&LET_GO);
    };
    let pending = polled_by(&pool, Odd(wake, || ()))?;
    wait_for(&WAITS);
    assert_eq!(pending.get()?.len(), 10);
    assert_eq!(pool.imap_unordered(slow, 0..20).count(), 20);
    let later = pool.map_async(next, 0..3)?;
    until("it is ready", || later.ready());
    let (told, heard) = mpsc::channel();
    let tell = move |_: &[u64]| told.send(()).expect("the test waits");
    drop(pool.batch().on_success(tell).map_async(next, 0..3)?);
    heard.recv_timeout(LONG).expect("callbacks do not wait for it");
    pool.close();
    pool.join()?;
    LET_GO.store(true, SeqCst);
    Ok(())
}

/// A waker is the one of the last poll; the ends of many jobs that were polled wake all of them.
#[test]
fn many_futures_are_woken() -> Result<()> {
    struct Counted(AtomicU64);
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let pool = pool(2);
    let counted = Arc::new(Counted(AtomicU64::new(0)));
    let waker = Waker::from(counted.clone());
    let mut all = Vec::new();
    for _ in 0..50 {
        let mut pending = pool.map_async(slow, 0..2)?;
        let mut polls = (0..3).map(|_| Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)));
        let expected = u64::from(polls.all(|poll| poll.is_pending()));
        all.push((pending, expected));
    }
    let expected: u64 = all.iter().map(|(_, expected)| expected).sum();
    until("every future that waited is woken", || {
        counted.0.load(SeqCst) >= expected
    });
    assert!(all.iter().all(|(pending, _)| pending.ready()));
    Ok(())
}

/// Whatever was under way, everything comes to its end, and says why.
#[test]
fn a_fault_in_the_supervisor_breaks_the_pool_and_hangs_nobody() -> Result<()> {
    let pool = pool(2);
    let workers: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    let (told, heard) = mpsc::channel();
    let tell = move |error: &Error| told.send(error.to_string()).expect("the test waits");
    let stuck = pool
        .batch()
        .on_error(tell)
        .map_async(|_: u64| thread::sleep(LONG), 0..300)?;
    let waiting: Vec<_> = (0..300)
        .map(|_| pool.map_async(slow, 0..3))
        .collect::<Result<_>>()?;
    let mut stream = pool.imap_unordered(|_: u64| thread::sleep(LONG), 0..);
    thread::scope(|scope| {
        let caller = scope.spawn(|| pool.map(|_: u64| thread::sleep(LONG), 0..4).map(|_| ()));
        let awaited =
            scope.spawn(|| block_on(pool.map_async(|_: u64| thread::sleep(LONG), 0..4)?).map(|_| ()));
        thread::sleep(Duration::from_millis(20));
        pool.panic_supervisor();
        for ended in [caller.join(), awaited.join()] {
            let text = ended.expect("no panic").unwrap_err().to_string();
            assert!(
                text.contains("the supervisor panicked: as it was told to"),
                "{text}"
            );
        }
    });
    assert!(stream.next().is_some_and(|item| item.is_err()));
    drop(stream);
    assert!(
        stuck
            .get()
            .unwrap_err()
            .to_string()
            .contains("the supervisor panicked")
    );
    for pending in waiting {
        let _ = pending.get();
    }
    let text = heard.recv_timeout(LONG).expect("callbacks are called");
    assert!(text.contains("the supervisor panicked"), "{text}");
    assert!(
        pool.map(next, 0..3)
            .unwrap_err()
            .to_string()
            .starts_with("the pool is broken: the supervisor panicked")
    );
    pool.close();
    assert!(
        pool.join()
            .unwrap_err()
            .to_string()
            .contains("the supervisor panicked")
    );
    pool.terminate();
    until("its workers are gone", || {
        !workers.iter().any(|pid| swathe_tests::runs(*pid))
    });
    Ok(())
}

/// Of the threads of pools; each of them must.
fn names_of_threads_that_block_all_signals() -> Vec<String> {
    let mut names = Vec::new();
    for task in fs::read_dir("/proc/self/task").expect("/proc is there").flatten() {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let (name, status) = (read("comm").trim().to_owned(), read("status"));
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        if let Some(mask) = mask.filter(|_| name.starts_with("swathe-")) {
            let mask = u64::from_str_radix(mask.trim(), 16).expect("the kernel writes a number");
            // All but KILL and STOP, which cannot be blocked, and the two that the C library keeps for itself.
            assert_eq!(mask | 0x1_8004_0100, u64::MAX, "{name}: {mask:x}");
            names.push(name);
        }
    }
    names
}

/// Signals are the program's own: no thread of ours takes one.
#[test]
fn threads_of_a_pool_block_all_signals() -> Result<()> {
    let pool = pool(1);
    let directory = tempfile::tempdir().expect("a directory can be made");
    let (told, heard) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let wait = move |_: &[u64]| {
        told.send(()).expect("the test waits");
        let _ = gone.recv();
    };
    drop(pool.batch().on_success(wait).map_async(next, 0..3)?);
    heard.recv_timeout(LONG).expect("the callback is called");
    let file = pool
        .batch()
        .output_file(directory.path().join("out.npy"))
        .chunk_size(1);
    let slow_file = file.map_async(slow, 0..50)?;
    let all = [
        "swathe-super",
        "swathe-courier",
        "swathe-callback",
        "swathe-resume",
    ];
    until("each thread has said its name", || {
        let names = names_of_threads_that_block_all_signals();
        all.iter().all(|name| names.iter().any(|there| there == name))
    });
    let mine = fs::read_to_string("/proc/thread-self/status").expect("/proc is there");
    assert!(
        mine.contains("SigBlk:\t0000000000000000"),
        "a caller's mask is as it was: {mine}"
    );
    assert_eq!(slow_file.get()?.len(), 50);
    drop(go);
    Ok(())
}

fn long_error(len: &u32, x: u64) -> Result<u64, String> {
    match x % 4 {
        3 => Ok(x),
        _ => Err(format!("{x:0$}", *len as usize)),
    }
}

/// They are read where nobody else waits for it, and all are there.
#[test]
fn many_failures_are_all_reported() -> Result<()> {
    let pool = pool(2);
    let run = |retries| -> Result<_> {
        let batch = pool
            .batch()
            .retries(retries)
            .backoff(Duration::ZERO, Duration::ZERO)
            .collect_errors();
        batch.with(&12_u32)?.try_map(long_error, 0..20_000)
    };
    for retries in [0, 1] {
        let partial = run(retries)?;
        let failures = partial.failures();
        assert_eq!(failures.len(), 15_000);
        assert!(
            failures
                .iter()
                .zip((0..).filter(|x| x % 4 != 3))
                .all(|(failure, x)| {
                    failure.position() == x
                        && failure.message() == format!("{x:12}")
                        && failure.attempts() == retries + 1
                })
        );
        assert_eq!(partial.value(7)?, Some(7));
    }
    let (told, heard) = mpsc::channel();
    let tell = move |error: &Error| told.send(error.to_string()).expect("the test waits");
    let pending = pool
        .batch()
        .on_error(tell)
        .try_map_async(|x: u64| if x > 0 { Err("odd") } else { Ok(x) }, 0..20_000)?;
    assert!(
        block_on(pending)
            .unwrap_err()
            .to_string()
            .contains("; 19998 other positions failed too")
    );
    heard.recv_timeout(LONG).expect("the callback is called");
    let mixed = pool.imap_unordered(|x: u64| assert!(!x.is_multiple_of(3)), 0..3000);
    assert_eq!(mixed.filter(|item| item.is_err()).count(), 1000);
    Ok(())
}

/// Texts may take a part of the memory; failures without room for theirs are failures all the same, and others do not
/// notice.
#[test]
fn texts_of_failures_are_dropped_when_they_take_too_much() -> Result<()> {
    let memory = swathe::Memory::with_capacity(32 << 20)?;
    let pool = swathe_tests::watched(Pool::builder().processes(2).memory(memory).build());
    let beside = pool.map_async(slow, 0..20)?;
    let partial = pool
        .batch()
        .collect_errors()
        .with(&60_000_u32)?
        .try_map(long_error, 0..2000)?;
    let failures = partial.failures();
    assert_eq!(failures.len(), 1500);
    assert!(failures.iter().all(|failure| failure.status() == Status::Failed));
    let dropped = failures
        .iter()
        .filter(|failure| failure.message().starts_with("(text dropped: "))
        .count();
    let whole = failures
        .iter()
        .filter(|failure| failure.message().len() == 60_000)
        .count();
    assert!(
        dropped + whole == 1500 && dropped > 1000 && whole > 10,
        "{dropped} dropped, {whole} whole"
    );
    assert_eq!(beside.get()?.len(), 20);
    drop(partial);
    assert_eq!(pool.map(next, 0..3)?, [1, 2, 3]);
    Ok(())
}

/// A job whose failures cannot even be counted for want of memory ends, alone.
#[test]
fn a_job_that_finds_no_memory_for_its_failures_ends_alone() -> Result<()> {
    let memory = swathe::Memory::with_capacity(4 << 20)?;
    let pool = swathe_tests::watched(Pool::builder().processes(2).memory(memory.clone()).build());
    assert_eq!(pool.map(next, 0..3)?, [1, 2, 3]);
    until("both workers are there", || pool.workers().len() == 2);
    let pids: Vec<_> = pool.workers().iter().map(|worker| worker.pid).collect();
    let beside = pool.map_async(slow, 0..50)?;
    let full = || {
        Vec::from_iter((6..21).rev().flat_map(|bits| {
            let memory = memory.clone();
            std::iter::from_fn(move || Array::<u8>::zeros_in(&memory, 1 << bits).ok())
        }))
    };
    let pending = pool.batch().chunk_size(1).try_map_async(
        |x: u64| {
            thread::sleep(Duration::from_millis(300));
            if x < 1000 { Err("no") } else { Ok(x) }
        },
        0..1000,
    )?;
    let hoard = full();
    let started = Instant::now();
    let error = pending.get().unwrap_err();
    let Error::Job(job) = &error else {
        panic!("{error}")
    };
    assert!(job.is_stopped(), "{error}");
    assert!(
        error
            .to_string()
            .contains("no memory was left to report the failures of this job: "),
        "{error} after {:?}",
        started.elapsed()
    );
    assert_eq!(beside.get()?.len(), 50);
    drop(hoard);
    assert_eq!(pool.map(next, 0..3)?, [1, 2, 3]);
    assert!(
        pool.workers().iter().all(|worker| pids.contains(&worker.pid)),
        "no worker has died of it"
    );
    Ok(())
}

/// Nothing that it gave is lost.
#[test]
fn the_input_of_a_stream_may_panic_when_it_is_dropped() -> Result<()> {
    struct Input(u64);
    impl Iterator for Input {
        type Item = u64;
        fn next(&mut self) -> Option<u64> {
            self.0 += 1;
            (self.0 <= 10).then_some(self.0)
        }
    }
    impl Drop for Input {
        fn drop(&mut self) {
            panic!("an input's own fault");
        }
    }
    let pool = pool(2);
    let all: std::result::Result<Vec<u64>, _> = pool.imap(next, Input(0)).collect();
    assert_eq!(all.map_err(Error::from)?, Vec::from_iter(2..12));
    Ok(())
}
