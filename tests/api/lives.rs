//! How pools and workers begin and end: close, join, terminate, drop, resize, recycling, replacement.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swathe::{
    Array, ArrayMut, ChunkSize, Context, Error, Memory, Pool, Result, Status,
    chaos::{Chaos, Fault, Injection, Point},
};
use swathe_tests::{Process, pool, runs, until, watched};

fn nap(x: u64) -> u64 {
    thread::sleep(Duration::from_millis(2));
    x
}

fn pids<S>(pool: &Pool<S>) -> Vec<u32> {
    until("all workers are there", || {
        pool.workers().len() == pool.processes()
    });
    pool.workers().iter().map(|worker| worker.pid).collect()
}

/// The workers and the process that forks them.
fn family<S>(pool: &Pool<S>) -> Vec<u32> {
    let workers = pids(pool);
    let zygote = Process::read(workers[0]).expect("it runs").parent;
    assert_ne!(zygote, std::process::id());
    [workers, vec![zygote]].concat()
}

#[test]
fn close_and_join_finish_the_work_and_leave_no_process() -> Result<()> {
    let pool = pool(2);
    let family = family(&pool);
    let pending: Vec<_> = (0..10)
        .map(|_| pool.map_async(nap, 0..20))
        .collect::<Result<_>>()?;
    pool.close();
    pool.close();
    pool.join()?;
    assert!(family.into_iter().all(|pid| !runs(pid)));
    for job in pending {
        assert!(job.ready() && job.successful()?);
        assert!(job.get()?.iter().copied().eq(0..20));
    }
    pool.join()?;
    pool.terminate();
    pool.join()
}

#[test]
fn terminate_kills_what_runs_and_leaves_no_process() -> Result<()> {
    let pool = pool(2);
    let family = family(&pool);
    let pending = pool.map_async(|_: u8| thread::sleep(Duration::from_secs(3600)), [0; 4])?;
    pool.terminate();
    pool.terminate();
    assert!(family.into_iter().all(|pid| !runs(pid)));
    let text = pending.get().unwrap_err().to_string();
    assert_eq!(text, "the pool was terminated: 0 of 4 positions were done");
    pool.close();
    pool.join()
}

/// SIGTERM alone would not do.
#[test]
fn terminate_kills_workers_that_ignore_signals() -> Result<()> {
    fn ignore() {
        #[expect(unsafe_code, reason = "a signal is ignored by a system call")]
        // SAFETY: ignoring a signal installs no handler.
        let old = unsafe { nix::sys::signal::signal(Signal::SIGTERM, nix::sys::signal::SigHandler::SigIgn) };
        old.expect("SIGTERM may be ignored");
    }
    let pool = watched(Pool::builder().processes(2).initializer(ignore, ()).build());
    pool.run_per_worker(|| ())?;
    let family = family(&pool);
    let pending = pool.map_async(|_: u8| thread::sleep(Duration::from_secs(3600)), [0; 4])?;
    pool.terminate();
    assert!(family.into_iter().all(|pid| !runs(pid)));
    assert!(pending.get().is_err());
    Ok(())
}

#[test]
fn a_drop_terminates_and_leaves_no_process() -> Result<()> {
    let pool = pool(2);
    let family = family(&pool);
    let pending = pool.map_async(|_: u8| thread::sleep(Duration::from_secs(3600)), [0; 4])?;
    drop(pool);
    assert!(family.into_iter().all(|pid| !runs(pid)));
    let Err(Error::Job(error)) = pending.get() else {
        panic!("it cannot have succeeded")
    };
    assert!(error.is_stopped());
    let cancelled = error
        .failures()
        .iter()
        .filter(|none| none.status() == Status::Cancelled);
    assert_eq!(cancelled.map(|none| none.span()).sum::<u64>(), 4);
    let partial = error.into_partial::<Array<()>>().expect("these are nothings");
    assert_eq!(partial.status(3), Status::Cancelled);
    Ok(())
}

#[test]
fn results_outlive_their_pool() -> Result<()> {
    let (squares, texts) = {
        let pool = pool(2);
        (
            pool.map(|x: u64| x * x, 0..1000)?,
            pool.map(|x: u64| x.to_string(), 0..1000)?,
        )
    };
    assert_eq!((squares[999], texts.value(999)?), (998_001, "999".to_owned()));
    Ok(())
}

#[test]
fn a_pool_grows_and_shrinks_while_it_works() -> Result<()> {
    let pool = pool(1);
    for processes in [3, 1, 4, 2] {
        let pending = pool.batch().chunk_size(1).map_async(nap, 0..30)?;
        pool.resize(processes)?;
        assert!(pending.get()?.iter().copied().eq(0..30));
        assert_eq!(pool.processes(), processes);
        until("the number of workers is right", || {
            pool.workers().len() == processes
        });
        assert_eq!(
            pool.run_per_worker(|context: &Context| context.worker())?.len(),
            processes
        );
    }
    Ok(())
}

/// Position `w` is worker `w`'s, in every try.
fn at_home(context: &Context) -> usize {
    thread::sleep(Duration::from_millis(1));
    assert!(context.attempt() > 1 || context.worker() != 2, "again");
    context.worker()
}

#[test]
fn several_calls_for_every_worker_do_not_disturb_each_other() -> Result<()> {
    let pool = pool(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let found = pool.batch().retries(1).run_per_worker(at_home);
                    assert_eq!(found.expect("the second try succeeds"), [0, 1, 2]);
                }
            });
        }
    });
    Ok(())
}

#[test]
fn a_call_for_every_worker_reaches_those_that_are_one_too_many() -> Result<()> {
    let pool = pool(4);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for processes in (1..=4).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                pool.resize(processes).expect("it is running");
                thread::sleep(Duration::from_micros(300));
            }
        });
        for _ in 0..100 {
            let found = pool.run_per_worker(|context: &Context| context.worker());
            let found = found.expect("everybody is there");
            assert!(found.iter().copied().eq(0..found.len()), "{found:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
    until("the number of workers is right", || {
        pool.workers().len() == pool.processes()
    });
    Ok(())
}

/// Each death makes the claims of all open jobs anew; the old ones must not lie in the way of the new.
#[test]
fn many_jobs_end_though_every_worker_dies_claiming() -> Result<()> {
    let death = Injection {
        point: Point::Claimed,
        fault: Fault::Kill,
        worker: None,
        incarnation: None,
        nth: 3,
    };
    let chaos = Chaos::seeded(1).inject(death);
    let pool = watched(Pool::builder().processes(1).chaos(chaos).build());
    let batch = || pool.batch().chunk_size(1).max_deaths(1000);
    let jobs: Vec<_> = (0..40)
        .map(|_| batch().map_async(|x: u64| x + 1, 0..5))
        .collect::<Result<_>>()?;
    for job in jobs {
        assert_eq!(job.get()?, [1, 2, 3, 4, 5]);
    }
    Ok(())
}

/// The deaths of starting workers that are meant to die break no pool.
#[test]
fn chaos_is_not_held_against_the_initializer() -> Result<()> {
    fn settle(milliseconds: u64) {
        thread::sleep(Duration::from_millis(milliseconds));
    }
    let builder = Pool::builder().processes(1).initializer(settle, 20);
    let pool = watched(builder.chaos(Chaos::seeded(3).kill(100.0)).build());
    assert!(
        pool.batch()
            .max_deaths(1000)
            .map(|x: u64| x, 0..100)?
            .iter()
            .copied()
            .eq(0..100)
    );
    Ok(())
}

/// Nobody takes the work of a job whose elements have deadlines: then nobody is alive.
#[test]
fn workers_that_are_stopped_while_they_have_nothing_to_do_are_replaced() -> Result<()> {
    let pool = pool(2);
    pool.run_per_worker(|| ())?;
    for pid in pids(&pool) {
        until("it has nothing to do", || {
            Process::read(pid).is_some_and(|p| p.state == 'S')
        });
        kill(Pid::from_raw(pid as i32), Signal::SIGSTOP).expect("it runs");
    }
    let doubled = pool
        .batch()
        .timeout(Duration::from_millis(50))
        .map(|x: u64| 2 * x, 0..4)?;
    assert_eq!(doubled, [0, 2, 4, 6]);
    Ok(())
}

#[test]
fn workers_are_replaced_after_so_many_elements() -> Result<()> {
    fn who(context: &Context, _: u64) -> (u32, usize, u32) {
        (std::process::id(), context.worker(), context.incarnation())
    }
    let pool = watched(Pool::builder().processes(2).max_tasks_per_child(5).build());
    let runs = pool.batch().chunk_size(1).map(who, 0..60)?;
    let lives: BTreeSet<_> = runs.iter().collect();
    assert!(lives.len() >= 12, "60 elements need 12 lives of 5: {lives:?}");
    for life in &lives {
        assert!(runs.iter().filter(|run| run == life).count() <= 5, "{life:?}");
        assert!(life.1 < 2);
    }
    let distinct: BTreeSet<_> = lives
        .iter()
        .map(|(_, worker, incarnation)| (worker, incarnation))
        .collect();
    assert_eq!(distinct.len(), lives.len(), "each life has a number of its own");
    Ok(())
}

/// SIGKILL from outside, again and again, while a job runs: all values come.
#[test]
fn a_killed_worker_is_replaced() -> Result<()> {
    let pool = pool(2);
    let pending = pool.batch().max_deaths(1000).map_async(nap, 0..300)?;
    for _ in 0..5 {
        // One that has come to work: a worker that dies before, again and again, is the initializer's fault.
        let at_work = || pool.workers().into_iter().find(|worker| worker.elements > 0);
        until("somebody works", || pending.ready() || at_work().is_some());
        let Some(victim) = at_work().map(|worker| worker.pid) else {
            continue;
        };
        let _ = kill(Pid::from_raw(victim as i32), Signal::SIGKILL);
        until("the victim is gone", || !runs(victim));
    }
    assert!(pending.get()?.iter().copied().eq(0..300));
    Ok(())
}

/// The element that kills its worker every time is given up; all others have their values.
#[test]
fn only_the_culprit_fails() -> Result<()> {
    fn poison(x: u64) -> u64 {
        match x {
            7 => std::process::abort(),
            30 => std::process::exit(3),
            _ => x,
        }
    }
    let pool = pool(2);
    let partial = pool.batch().max_deaths(2).collect_errors().map(poison, 0..50)?;
    for i in 0..50 {
        let lost = i == 7 || i == 30;
        assert_eq!(partial.status(i), if lost { Status::Lost } else { Status::Done });
        assert_eq!(partial.value(i)?, (!lost).then_some(i as u64));
    }
    let texts: Vec<String> = partial.failures().iter().map(ToString::to_string).collect();
    assert!(
        texts[0].starts_with("position 7 was lost: its worker was killed by signal 6 (SIGABRT), 2 times"),
        "{texts:?}"
    );
    assert!(
        texts[1].starts_with("position 30 was lost: its worker exited with code 3, 2 times"),
        "{texts:?}"
    );
    let failure = &partial.failures()[0];
    assert_eq!(
        (failure.attempts(), failure.cause()),
        (2, Some(swathe::ExitCause::Signal(6)))
    );
    assert!(failure.worker().is_some() && failure.pid().is_some());
    Ok(())
}

/// A panic is no death: the worker goes on.
#[test]
fn a_panic_costs_one_element_and_no_worker() -> Result<()> {
    fn odd(x: u64) -> u64 {
        assert!(x % 2 == 1, "{x} is even");
        x
    }
    let pool = pool(2);
    let before: BTreeSet<u32> = pids(&pool).into_iter().collect();
    let partial = pool.batch().collect_errors().map(odd, 0..100)?;
    assert_eq!(partial.failures().len(), 50);
    for i in 0..100 {
        assert_eq!(partial.value(i)?, (i % 2 == 1).then_some(i as u64));
    }
    let first = &partial.failures()[0];
    assert!(first.message().starts_with("0 is even, at "), "{first}");
    assert_eq!(pids(&pool).into_iter().collect::<BTreeSet<_>>(), before);
    Ok(())
}

#[test]
fn two_pools_do_not_know_of_each_other() -> Result<()> {
    let (one, two) = (pool(2), pool(1));
    let slow = one.map_async(nap, 0..50)?;
    let text = two
        .map(
            |x: u8| {
                if x == 9 {
                    std::process::exit(9)
                }
            },
            [9],
        )
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("position 0 was lost: its worker exited with code 9, 3 times"),
        "{text}"
    );
    drop(two);
    assert!(slow.get()?.iter().copied().eq(0..50));
    Ok(())
}

/// The panic at 0 was reported before the death at 1, in the same chunk: it stays reported when the chunk is run again.
#[test]
fn a_failure_outlives_a_death_in_its_chunk() -> Result<()> {
    fn harm(x: u64) -> u64 {
        match x {
            0 => panic!("nothing"),
            1 => std::process::abort(),
            _ => x,
        }
    }
    for processes in [1, 3] {
        let pool = pool(processes);
        let batch = pool.batch().chunk_size(3).max_deaths(1).collect_errors();
        let partial = batch.map(harm, 0..12)?;
        let statuses: Vec<Status> = (0..12).map(|i| partial.status(i)).collect();
        let done = [Status::Done; 10];
        assert_eq!(statuses, [&[Status::Panicked, Status::Lost][..], &done].concat());
        assert_eq!(partial.to_vec_or(99)?[..4], [99, 99, 2, 3]);
    }
    Ok(())
}

/// What stands in the array before a panic are results already: they must not become inputs when a death makes the rest
/// be run again.
#[test]
fn results_in_place_are_not_mapped_twice() -> Result<()> {
    fn harm(x: u64) -> u64 {
        match x {
            10 => panic!("ten"),
            11 => std::process::exit(1),
            _ => 1000 + x,
        }
    }
    let pool = pool(1);
    for chunk in [ChunkSize::Auto, ChunkSize::Fixed(13), ChunkSize::Fixed(26)] {
        let array = ArrayMut::from_range(0..26)?;
        let Err(Error::Job(error)) = pool
            .batch()
            .chunk_size(chunk)
            .max_deaths(1)
            .map_in_place(harm, array)
        else {
            panic!("two must fail")
        };
        let partial = error
            .into_partial::<ArrayMut<u64>>()
            .expect("the array comes back");
        for i in (0..26).filter(|i| !(10..12).contains(i)) {
            assert_eq!(
                partial.value(i)?,
                Some(1000 + i as u64),
                "position {i}, {chunk:?}"
            );
        }
        assert_eq!(
            (partial.status(10), partial.status(11)),
            (Status::Panicked, Status::Lost)
        );
    }
    Ok(())
}

/// The text of a failure goes to memory that is taken when it is needed, and be it the very first of the arena.
#[test]
fn a_failure_is_reported_wherever_its_text_lies() -> Result<()> {
    fn fail_late(go: &String, _: u8) -> Result<u8, String> {
        while !std::path::Path::new(go).exists() {
            thread::sleep(Duration::from_millis(1));
        }
        Err("late".into())
    }
    let directory = tempfile::tempdir().expect("a directory");
    let go = directory.path().join("go").display().to_string();
    let memory = Memory::with_capacity(16 << 20)?;
    let first = Array::<u8>::zeros_in(&memory, 1 << 20)?;
    let pool = watched(Pool::builder().processes(1).memory(memory).build());
    let pending = pool.batch().with(&go)?.try_map_async(fail_late, [0, 0])?;
    drop(first);
    std::fs::write(&go, "").expect("the directory is there");
    let text = pending.get().unwrap_err().to_string();
    assert!(
        text.starts_with("position 0 failed: late (worker 0, pid "),
        "{text}"
    );
    assert!(text.ends_with("; 1 other position failed too"), "{text}");
    Ok(())
}

/// What a worker has not used of its memory is its successor's.
#[test]
fn workers_that_live_for_one_element_take_no_block_each() -> Result<()> {
    const LEN: usize = 600;
    // 64 KiB for each would be 38 MiB.
    let memory = Memory::with_capacity(8 << 20)?;
    let recycled = Pool::builder().processes(2).max_tasks_per_child(1).memory(memory);
    let pool = watched(recycled.build());
    let texts = pool.batch().chunk_size(1).map(|x: usize| x.to_string(), 0..LEN)?;
    assert!((0..LEN).all(|i| texts.value(i).is_ok_and(|text| *text == *i.to_string())));
    let failing = |x: usize| Err::<u8, String>(format!("{x} has failed"));
    let partial = pool
        .batch()
        .chunk_size(1)
        .collect_errors()
        .try_map(failing, 0..LEN)?;
    let failures = partial.failures();
    assert!(
        failures
            .iter()
            .enumerate()
            .all(|(i, failure)| failure.message() == format!("{i} has failed"))
    );
    assert_eq!((failures.len(), partial.why_stopped()), (LEN, None));
    Ok(())
}
