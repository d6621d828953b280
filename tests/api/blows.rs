//! Blows from outside, and ends at odd moments: the process that forks workers dies or stands still, pools are closed from
//! callbacks, dropped by others, ended twice.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand_pcg::{
    Pcg64,
    rand_core::{RngCore, SeedableRng},
};
use swathe::{ArrayMut, Error, Pool, Result};
use swathe_tests::{Process, pool, runs, until, watch, watched};

const MS: Duration = Duration::from_millis(1);

fn nap(x: u64) -> u64 {
    thread::sleep(MS / 5);
    x + 1000
}

fn sleep_long(_: u8) {
    thread::sleep(Duration::from_secs(3600));
}

fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

/// The process that forks the workers, once there are workers.
fn zygote<S>(pool: &Pool<S>) -> u32 {
    let parent = || {
        let pids = pool.workers().into_iter().map(|worker| worker.pid);
        // A worker without its zygote belongs to somebody else.
        let parents = pids.filter_map(|pid| Process::read(Process::read(pid)?.parent));
        parents
            .map(|zygote| (zygote.parent, zygote.pid))
            .find(|(of, _)| *of == std::process::id())
    };
    until("a worker is there", || parent().is_some());
    parent().map(|(_, pid)| pid).expect("a worker was there")
}

fn family<S>(pool: &Pool<S>) -> Vec<u32> {
    until("all workers are there", || {
        pool.workers().len() == pool.processes()
    });
    let workers = pool.workers().into_iter().map(|worker| worker.pid);
    workers.chain([zygote(pool)]).collect()
}

/// Kills the process that forks workers, alone or with all of them, three times at moments drawn from the seed, while a
/// job runs.
fn kill_some<S>(pool: &Pool<S>, draws: &mut Pcg64, is_over: impl Fn() -> bool) {
    for _ in 0..3 {
        let zygote = zygote(pool);
        thread::sleep(Duration::from_micros(u64::from(draws.next_u32() % 8000)));
        if is_over() {
            return;
        }
        let workers = pool.workers().into_iter().map(|worker| worker.pid);
        let victims: Vec<u32> = match draws.next_u32() % 3 {
            0 => vec![zygote],
            1 => workers.chain([zygote]).collect(),
            _ => [zygote].into_iter().chain(workers).collect(),
        };
        victims.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
        until("they are gone", || victims.iter().all(|pid| !runs(*pid)));
    }
}

#[test]
fn jobs_outlive_the_process_that_forks_workers() -> Result<()> {
    for seed in 0..6 {
        let pool = pool(2);
        let mut draws = Pcg64::seed_from_u64(seed);
        let batch = || pool.batch().max_deaths(100);
        let numbers = batch().map_async(nap, 0..300)?;
        kill_some(&pool, &mut draws, || numbers.ready());
        assert!(numbers.get()?.iter().copied().eq(1000..1300), "seed {seed}");
        let texts = batch().map_async(|x: u64| nap(x).to_string(), 0..300)?;
        kill_some(&pool, &mut draws, || texts.ready());
        for (text, x) in texts.get()?.iter().zip(1000u64..1300) {
            assert_eq!(text, x.to_string(), "seed {seed}");
        }
        let (done, over) = mpsc::channel::<()>();
        let array = ArrayMut::from_range(0..300u64)?;
        let array = thread::scope(|scope| {
            let job = scope.spawn(|| {
                let _done = done;
                batch().map_in_place(nap, array)
            });
            let is_over = || over.try_recv() == Err(mpsc::TryRecvError::Disconnected);
            kill_some(&pool, &mut draws, is_over);
            job.join().expect("it does not panic")
        })?;
        assert!(array.iter().copied().eq(1000..1300), "seed {seed}: {array:?}");
        pool.close();
        pool.join()?;
    }
    Ok(())
}

/// Nobody hears of the death until the supervisor finds that the zygote is silent, and replaces it.
#[test]
fn a_zygote_that_stands_still_is_replaced() -> Result<()> {
    let pool = pool(2);
    let before = family(&pool);
    let zygote = before[2];
    let pending = pool.batch().chunk_size(1).map_async(nap, 0..300)?;
    send(zygote, Signal::SIGSTOP);
    send(before[0], Signal::SIGKILL);
    assert!(pending.get()?.iter().copied().eq(1000..1300));
    until("all are replaced", || before.iter().all(|pid| !runs(*pid)));
    assert!(pool.map(nap, 0..10)?.iter().copied().eq(1000..1010));
    let after = family(&pool);
    pool.close();
    pool.join()?;
    assert!(after.iter().all(|pid| !runs(*pid)));
    Ok(())
}

/// Neither `close` nor `drop` waits for a zygote for ever.
#[test]
fn a_pool_whose_zygote_stands_still_can_be_ended() -> Result<()> {
    let dropped = pool(2);
    let closed = pool(2);
    let family = [family(&dropped), family(&closed)].concat();
    send(family[2], Signal::SIGSTOP);
    send(family[5], Signal::SIGSTOP);
    drop(dropped);
    closed.close();
    closed.join()?;
    until("all are gone", || family.iter().all(|pid| !runs(*pid)));
    Ok(())
}

#[test]
fn a_pool_may_be_ended_by_its_callbacks() -> Result<()> {
    type Ending = fn(&Pool);
    let endings: [Ending; 3] = [
        |pool| pool.close(),
        |pool| {
            pool.close();
            pool.join().expect("it was closed");
        },
        |pool| pool.terminate(),
    ];
    for ending in endings {
        let _watch = watch();
        let pool = Arc::new(Pool::builder().processes(2).build()?);
        let family = family(&pool);
        let (tell, told) = mpsc::channel();
        let mine = pool.clone();
        let pending = pool
            .batch()
            .on_success(move |values: &[u64]| {
                ending(&mine);
                let _ = tell.send(values.len());
            })
            .map_async(nap, 0..20)?;
        assert_eq!(told.recv().expect("it is called"), 20);
        pool.join()?;
        assert!(family.iter().all(|pid| !runs(*pid)));
        assert!(pending.get()?.iter().copied().eq(1000..1020));
    }
    Ok(())
}

/// The last handle of a pool may be a callback's own.
#[test]
fn a_pool_may_be_dropped_by_its_callback() -> Result<()> {
    let _watch = watch();
    let pool = Arc::new(Pool::builder().processes(2).build()?);
    let family = family(&pool);
    let (keep, kept) = mpsc::channel::<Arc<Pool>>();
    let (tell, told) = mpsc::channel();
    let pending = pool
        .batch()
        .on_success(move |_: &[u64]| {
            let last = kept.recv().expect("it comes");
            assert_eq!(Arc::strong_count(&last), 1);
            drop(last);
            let _ = tell.send(());
        })
        .map_async(nap, 0..20)?;
    keep.send(pool).expect("the callback waits for it");
    told.recv().expect("it is called");
    until("all are gone", || family.iter().all(|pid| !runs(*pid)));
    assert!(pending.get()?.iter().copied().eq(1000..1020));
    Ok(())
}

/// Who waits for a job is told when its pool is dropped elsewhere.
#[test]
fn a_pool_may_be_dropped_by_another_thread() -> Result<()> {
    let _watch = watch();
    let pool = Pool::builder().processes(2).build()?;
    let family = family(&pool);
    let pending = pool.map_async(sleep_long, [0; 4])?;
    let dropping = thread::spawn(move || {
        thread::sleep(5 * MS);
        drop(pool);
    });
    let Err(Error::Job(error)) = pending.get() else {
        panic!("nobody sleeps so long")
    };
    assert_eq!(
        error.to_string(),
        "the pool was terminated: 0 of 4 positions were done"
    );
    dropping.join().expect("it does not panic");
    assert!(family.iter().all(|pid| !runs(*pid)));
    Ok(())
}

/// By many threads at the same time, in several ways, while jobs run, are started, and are waited for.
#[test]
fn a_pool_may_be_ended_many_times() -> Result<()> {
    for round in 0..10 {
        let pool = watched(Pool::builder().processes(2).build());
        let family = family(&pool);
        let pending = pool.map_async(sleep_long, [0; 4])?;
        thread::scope(|scope| {
            scope.spawn(|| pool.terminate());
            scope.spawn(|| {
                pool.close();
                pool.terminate();
            });
            scope.spawn(|| pending.cancel());
            scope.spawn(|| pending.get().expect_err("nobody sleeps so long"));
            scope.spawn(|| {
                if let Ok(values) = pool.map(nap, 0..3) {
                    assert_eq!(values[2], 1002);
                }
            });
        });
        assert!(family.iter().all(|pid| !runs(*pid)), "round {round}");
        pool.join()?;
        drop(pool);
        assert!(pending.get().is_err());
    }
    Ok(())
}
