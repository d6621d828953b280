//! Lives and deaths of the engine's processes: the zygote's, the parent's, workers' by order and by resize; jobs that are
//! cancelled, queued beyond the cells, and waited for by many. `harness = false`, as in `untyped.rs`.

mod common;

use std::{
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::*;
use swathe_protocol::{Header, JobCell, RingCell, RingEnds, WorkerSlot};
use swathe_runtime::{Call, Chunking, End, EngineError};

fn square(call: &mut Call<'_>) {
    square_unless(call, |_| {});
}

fn nap(call: &mut Call<'_>) {
    square_unless(call, |_| std::thread::sleep(Duration::from_millis(2)));
}

fn sleep_long(call: &mut Call<'_>) {
    square_unless(call, |_| std::thread::sleep(Duration::from_secs(1000)));
}

/// Position `w` must be run by worker `w`.
fn at_home(call: &mut Call<'_>) {
    let me = u64::from(call.worker.index);
    square_unless(call, |i| assert_eq!(i, me, "position {i} ran in worker {me}"));
}

fn the_zygote_is_killed_and_the_job_ends_right() {
    let engine = pool(2);
    let (job, slab) = job(&engine, nap, 300);
    let handle = engine.submit(job).unwrap();
    for _ in 0..3 {
        until("two workers are there", || engine.workers().len() == 2);
        std::thread::sleep(Duration::from_millis(30));
        let Some(worker) = engine.workers().first().copied() else {
            continue;
        };
        if let Some(zygote) = parent_of(worker.pid) {
            assert_ne!(zygote, std::process::id());
            kill(zygote);
        }
        until("the worker is gone", || !runs(worker.pid));
    }
    wait(&engine, &handle);
    assert_eq!(handle.outcome().unwrap().failures, []);
    check(&slab, false);
}

fn idle_workers_are_killed_and_replaced() {
    let engine = pool(2);
    for round in 0..10 {
        let (job, slab) = job(&engine, square, 100);
        let handle = engine.submit(job).unwrap();
        wait(&engine, &handle);
        check(&slab, true);
        until("a worker is there", || !engine.workers().is_empty());
        engine
            .workers()
            .iter()
            .filter(|w| round % 2 == 0 || w.index == 0)
            .for_each(|w| kill(w.pid));
    }
}

fn many_threads_submit_more_jobs_than_there_are_cells() {
    let engine = pool(3);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                let jobs: Vec<_> = (0..200)
                    .map(|i| {
                        let (mut job, slab) = job(engine, square, 1 + (i * 7 + thread) % 50);
                        job.traits.attended = i % 2 == 0;
                        job.chunking = Chunking::Size(1 + i % 3);
                        (engine.submit(job).unwrap(), slab)
                    })
                    .collect();
                for (handle, slab) in jobs {
                    wait(engine, &handle);
                    check(&slab, true);
                }
            });
        }
    });
}

fn every_worker_runs_its_own_position() {
    let engine = pool(3);
    for round in 0..20 {
        let (mut job, slab) = job(&engine, at_home, 3);
        job.traits.pinned = true;
        let handle = engine.submit(job).unwrap();
        if round % 4 == 3 {
            engine.workers().iter().for_each(|w| kill(w.pid));
        }
        wait(&engine, &handle);
        assert_eq!(handle.outcome().unwrap().failures, []);
        check(&slab, round % 4 != 3);
    }
}

fn a_live_pool_grows_and_shrinks() {
    let engine = pool(1);
    for processes in [3, 1, 4, 2] {
        engine.resize(processes).unwrap();
        let (job, slab) = job(&engine, nap, 40);
        let handle = engine.submit(job).unwrap();
        wait(&engine, &handle);
        check(&slab, true);
        until("the number of workers is right", || {
            engine.workers().len() == processes
        });
    }
    assert!(matches!(engine.resize(0), Err(EngineError::NoProcesses)));
    assert!(matches!(
        engine.resize(100_000),
        Err(EngineError::TooManyProcesses { .. })
    ));
}

fn cancelled_and_terminated_jobs_end() {
    let engine = pool(2);
    let (job1, _slab1) = job(&engine, nap, 1_000_000);
    let running = engine.submit(job1).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    running.cancel(Duration::MAX);
    wait(&engine, &running);
    let outcome = running.outcome().unwrap();
    assert_eq!(outcome.end, End::Cancelled);
    assert!(!outcome.finals.is_empty() && !outcome.is_final(999_999));

    let (job2, _slab2) = job(&engine, sleep_long, 2);
    let stuck = engine.submit(job2).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let (mut job3, _slab3) = job(&engine, square, 10);
    let tell = told.clone();
    job3.on_done = Some(Box::new(move |outcome| {
        assert_eq!(outcome.end, End::Terminated);
        tell.fetch_add(1, Ordering::SeqCst);
    }));
    let queued = engine.submit(job3).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let pids: Vec<u32> = engine.workers().iter().map(|w| w.pid).collect();
    assert_eq!(pids.len(), 2);
    engine.terminate();
    engine.terminate();
    assert!(pids.iter().all(|pid| !runs(*pid)));
    assert_eq!(stuck.outcome().unwrap().end, End::Terminated);
    assert_eq!(queued.outcome().unwrap().end, End::Terminated);
    engine.join().unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert!(matches!(
        engine.submit(job(&engine, square, 1).0),
        Err(EngineError::Terminated)
    ));
}

/// The parent is killed with SIGKILL: a second copy of this program plays it.
fn a_killed_parent_leaves_no_process() {
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .env("SWATHE_TEST_PARENT", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = parent.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3, "two workers and their zygote: {line}");
    assert!(pids.iter().all(|pid| runs(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("all processes of a killed parent are gone", || {
        pids.iter().all(|pid| !runs(*pid))
    });
}

fn play_the_parent() -> ! {
    let engine = pool(2);
    let handle = engine.submit(job(&engine, sleep_long, 2).0).unwrap();
    until("two workers are there", || engine.workers().len() == 2);
    let pids: Vec<u32> = engine.workers().iter().map(|w| w.pid).collect();
    println!("{} {} {}", pids[0], pids[1], parent_of(pids[0]).unwrap());
    handle.wait(None);
    unreachable!("the task sleeps longer than the test runs");
}

/// Changes a word of this worker's control segment, as C code may that has lost its way: so many bytes from its start.
fn overwrite(offset: impl Fn(&dyn Fn(u64) -> u64) -> u64, change: impl Fn(u64) -> u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("swathe-control")).unwrap();
    let base = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let memory = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/proc/self/mem")
        .unwrap();
    let read = |at: u64| {
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, base + at).unwrap();
        u64::from_le_bytes(word)
    };
    let at = offset(&read);
    memory
        .write_all_at(&change(read(at)).to_le_bytes(), base + at)
        .unwrap();
}

const ENDS: u64 = size_of::<Header>() as u64;

/// Overwrites the head of the ring.
fn wild_in_the_ring(call: &mut Call<'_>) {
    square_unless(call, |i| {
        if i % 100 == 7 {
            overwrite(|_| ENDS, |head| head.wrapping_add(1 << 40));
        }
    });
}

/// Makes every job look complete.
fn wild_at_the_gate(call: &mut Call<'_>) {
    let open_gate = |read: &dyn Fn(u64) -> u64| {
        let slots = read(8) & 0xffff_ffff;
        let line = |bytes: u64| bytes.next_multiple_of(128);
        let ring = line(ENDS + size_of::<RingEnds>() as u64 + 1024 * size_of::<RingCell>() as u64);
        let jobs = line(ring + slots * size_of::<WorkerSlot>() as u64 + slots * 4);
        let cells = (0..256).map(|cell| jobs + cell * size_of::<JobCell>() as u64);
        let open = cells.into_iter().find(|gate| read(*gate) & 0xff == 1);
        open.unwrap_or(jobs)
    };
    square_unless(call, |i| {
        if i % 100 == 7 {
            overwrite(open_gate, |gate| match gate & 0xff {
                1 => gate & !0xff | 3,
                _ => gate,
            });
        }
    });
}

fn squares(engine: &swathe_runtime::Engine) {
    let (job, slab) = job(engine, square, 100);
    let handle = engine.submit(job).unwrap();
    wait(engine, &handle);
    check(&slab, true);
}

fn what_a_worker_overwrites_is_not_believed() {
    let engine = pool(2);
    for task in [wild_in_the_ring as swathe_runtime::Trampoline, wild_at_the_gate] {
        for chunk in [1, 5, 300] {
            let (mut job, slab) = job(&engine, task, 300);
            job.chunking = Chunking::Size(chunk);
            let handle = engine.submit(job).unwrap();
            wait(&engine, &handle);
            let outcome = handle.outcome().unwrap();
            assert_eq!((&outcome.end, outcome.failures.len()), (&End::Complete, 0));
            check(&slab, false);
            // And the pool goes on as if nothing had been.
            squares(&engine);
        }
    }
}

fn main() {
    swathe_runtime::init();
    if std::env::var_os("SWATHE_TEST_PARENT").is_some() {
        play_the_parent();
    }
    let tests: [(&str, fn()); 8] = [
        (
            "the_zygote_is_killed_and_the_job_ends_right",
            the_zygote_is_killed_and_the_job_ends_right,
        ),
        (
            "idle_workers_are_killed_and_replaced",
            idle_workers_are_killed_and_replaced,
        ),
        (
            "many_threads_submit_more_jobs_than_there_are_cells",
            many_threads_submit_more_jobs_than_there_are_cells,
        ),
        (
            "every_worker_runs_its_own_position",
            every_worker_runs_its_own_position,
        ),
        ("a_live_pool_grows_and_shrinks", a_live_pool_grows_and_shrinks),
        (
            "cancelled_and_terminated_jobs_end",
            cancelled_and_terminated_jobs_end,
        ),
        (
            "what_a_worker_overwrites_is_not_believed",
            what_a_worker_overwrites_is_not_believed,
        ),
        (
            "a_killed_parent_leaves_no_process",
            a_killed_parent_leaves_no_process,
        ),
    ];
    for (name, test) in tests {
        let start = std::time::Instant::now();
        test();
        println!("{name}: passed in {:?}", start.elapsed());
    }
}
