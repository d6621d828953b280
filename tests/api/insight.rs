//! What can be seen of a job and of a pool: reports, and looks from outside.

use std::{process::Command, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swathe::{
    Array, Context, Result, Value,
    observe::{self, JobState, ObserveError, ObservedPool, Phase},
};
use swathe_tests::{pool, runs, until};

fn nap(x: u64) -> u64 {
    thread::sleep(Duration::from_millis(1));
    x
}

/// Of the parent and of a worker: what both map is in no core dump of either.
#[test]
fn shared_memory_is_in_no_core_dump() -> Result<()> {
    let pool = pool(1);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("swathe-input.npy");
    Array::from_vec(vec![1.0; 1000])?.to_npy(&path)?;
    #[expect(unsafe_code, reason = "a file is mapped")]
    // SAFETY: nobody writes the file.
    let input = unsafe { Array::<f64>::map_npy_path(&path) }?;
    let count = Value::new(0_u64)?;
    let add = |count: &Value<u64>, x: f64| count.fetch_add(x as u64);
    pool.batch().with(&count)?.map(add, &input)?;
    for pid in [std::process::id(), pool.workers()[0].pid] {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it runs");
        let mut found = 0;
        let mut lines = smaps.lines();
        while let Some(area) =
            lines.find(|line| line.contains("memfd:swathe") || line.contains("swathe-input"))
        {
            let flags = lines
                .find_map(|line| line.strip_prefix("VmFlags:"))
                .expect("each area has flags");
            assert!(
                flags.split_whitespace().any(|flag| flag == "dd"),
                "{pid}: {area}: {flags}"
            );
            found += 1;
        }
        assert!(found >= 4, "arena, control, value, file: {found} in {pid}");
    }
    Ok(())
}

#[test]
fn a_report_says_where_the_time_went() -> Result<()> {
    let pool = pool(2);
    let pending = pool.batch().chunk_size(4).map_async(nap, 0..40)?;
    assert!(pending.report().is_none() || pending.ready());
    pending.get()?;
    let report = pending.report().expect("it is over");
    assert_eq!((report.elements, report.bytes, report.deaths), (40, 320, 0));
    assert_eq!(report.workers.iter().map(|w| w.elements).sum::<u64>(), 40);
    let work: Duration = report.workers.iter().map(|w| w.work).sum();
    assert!(work >= Duration::from_millis(40), "40 naps of 1 ms took {work:?}");
    for worker in &report.workers {
        let times = worker.start + worker.work + worker.wait + worker.recovery;
        assert_eq!(times, report.elapsed);
        assert_eq!(worker.recovery, Duration::ZERO);
    }
    let slowest = &report.slowest[0];
    assert!(slowest.took >= Duration::from_millis(1) && slowest.positions.end <= 40);
    assert!(report.to_string().contains("40 elements"), "{report}");
    Ok(())
}

#[test]
fn a_report_counts_the_dead_and_what_they_cost() -> Result<()> {
    let pool = pool(2);
    let die_once = |context: &Context, x: u64| {
        thread::sleep(Duration::from_millis(1));
        if x == 7 && context.attempt() == 1 {
            std::process::abort();
        }
        x
    };
    let pending = pool.map_async(die_once, 0..20)?;
    assert!(pending.get()?.iter().copied().eq(0..20));
    let report = pending.report().expect("it is over");
    assert_eq!(report.deaths, 1);
    let recovery: Duration = report.workers.iter().map(|w| w.recovery).sum();
    assert!(recovery >= Duration::from_millis(1), "{report}");
    Ok(())
}

#[test]
fn bytes_are_those_of_inputs_and_output() -> Result<()> {
    let pool = pool(2);
    let (x, y) = (
        Array::from_fn(1000, |i| i as f64)?,
        Array::from_fn(1000, |i| i as f32)?,
    );
    let pending = pool.starmap_async(|x: f64, y: f32| x as f32 * y, (&x, &y))?;
    pending.get()?;
    assert_eq!(pending.report().expect("it is over").bytes, 1000 * (8 + 4 + 4));
    Ok(())
}

#[test]
fn a_pool_can_be_watched_from_outside() -> Result<()> {
    let pool = pool(2);
    let go_on = Value::new(0u32)?;
    let wait = |go_on: &Value<u32>, x: u64| {
        while go_on.load() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        x
    };
    let pending = pool.batch().chunk_size(1).with(&go_on)?.map_async(wait, 0..10)?;
    // Other tests of this program have pools as well.
    let seen = || {
        let pids: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
        let pools = observe::pools(std::process::id()).expect("there are pools");
        let mut views = pools.iter().map(ObservedPool::look);
        views.find(|view| view.workers.iter().any(|worker| pids.contains(&worker.pid)))
    };
    until("both workers are seen at work", || {
        seen().is_some_and(|view| view.workers.iter().all(|worker| worker.strip.is_some()))
    });
    let view = seen().expect("seen before");
    assert_eq!((view.processes, view.is_closing), (2, false));
    assert!(view.workers.iter().all(|worker| worker.phase == Phase::Working));
    assert_eq!(view.jobs.len(), 1);
    assert_eq!(
        (view.jobs[0].state, view.jobs[0].positions),
        (JobState::Running, 10)
    );
    assert!(view.jobs[0].chunks_done < 10);

    // A worker's descriptors show the same pool, and who looks does not disturb.
    let from_worker = observe::pools(view.workers[0].pid).expect("a worker has its pool's segment");
    assert_eq!(from_worker.len(), 1);
    go_on.store(1);
    assert!(pending.get()?.iter().copied().eq(0..10));
    let after = from_worker[0].look();
    assert_eq!(
        after.workers.iter().map(|worker| worker.elements).sum::<u64>(),
        10
    );
    kill(Pid::from_raw(view.workers[0].pid as i32), Signal::SIGKILL).expect("it runs");
    until("the successor is seen", || {
        from_worker[0].look().workers[0].incarnation > view.workers[0].incarnation
    });
    Ok(())
}

#[test]
fn what_is_no_pool_is_said_to_be_none() {
    let mut sleep = Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("there is a `sleep`");
    let none = observe::pools(sleep.id()).expect_err("sleep has no pool");
    assert!(matches!(none, ObserveError::NoPool(_)), "{none}");
    sleep.kill().expect("it runs");
    sleep.wait().expect("it was started here");
    let nobody = observe::pools(sleep.id()).expect_err("it is gone");
    assert!(matches!(nobody, ObserveError::NoProcess(_)), "{nobody}");
    assert!(matches!(
        observe::pools(u32::MAX),
        Err(ObserveError::NoProcess(_))
    ));
}

#[test]
fn a_partial_says_why_the_rest_was_not_run() -> Result<()> {
    let pool = pool(2);
    let partial = pool
        .batch()
        .chunk_size(1)
        .fail_fast()
        .collect_errors()
        .try_map(|x: u64| if x == 3 { Err("three") } else { Ok(nap(x)) }, 0..1000)?;
    assert_eq!(
        partial.why_stopped(),
        Some("the job stopped at its first failure")
    );
    let partial = pool
        .batch()
        .collect_errors()
        .try_map(|x: u64| if x == 3 { Err("three") } else { Ok(x) }, 0..9)?;
    assert_eq!((partial.why_stopped(), partial.failures().len()), (None, 1));
    let pending = pool.batch().collect_errors().map_async(nap, 0..1_000_000)?;
    pool.terminate();
    let partial = pending.get()?;
    assert_eq!(partial.why_stopped(), Some("the pool was terminated"));
    Ok(())
}

/// Each element waits for the other, so they must be in work at once; the worker that is awake must not keep both.
#[test]
fn elements_that_take_long_run_beside_each_other_at_once() -> Result<()> {
    let pool = pool(2);
    let meet = |there: &Value<u64>, x: u64| {
        let before = there.fetch_add(1);
        let both = before / 2 * 2 + 2;
        while there.load() < both {
            thread::sleep(Duration::from_micros(200));
        }
        x
    };
    let there = Value::new(0u64)?;
    for round in 0..20 {
        // A worker is awake now, and the other may sleep.
        pool.map(|x: u64| x + 1, 0..1000)?;
        if round % 2 == 1 {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(pool.map_with(&there, meet, 0..2)?, [0, 1]);
        pool.map(|x: u64| x + 1, 0..1000)?;
        assert_eq!(pool.batch().with(&there)?.map_async(meet, 0..2)?.get()?, [0, 1]);
        pool.map(|x: u64| x + 1, 0..1000)?;
        let calls: Vec<_> = (0..2)
            .map(|x| pool.batch().with(&there)?.apply_async(meet, x))
            .collect::<Result<_>>()?;
        // Nobody waits for them: they must find both workers by themselves.
        until("both calls are over", || calls.iter().all(swathe::Pending::ready));
        pool.map(|x: u64| x + 1, 0..1000)?;
        let stream = pool.batch().chunk_size(1).with(&there)?.imap(meet, 0..6);
        assert_eq!(stream.collect::<Result<Vec<_>, _>>()?, [0, 1, 2, 3, 4, 5]);
    }
    Ok(())
}

/// Nobody is there any more: neither awake, nor asleep, nor idle.
#[test]
fn a_slot_without_a_process_is_nobody() -> Result<()> {
    let pool = pool(2);
    pool.run_per_worker(|| ())?;
    let surplus = pool.workers()[1].pid;
    // Stopped, so that it does not leave by itself, and killed while it has nothing to do.
    let send = |signal| kill(Pid::from_raw(surplus as i32), signal).expect("it runs");
    until("it has nothing to do", || {
        swathe_tests::Process::read(surplus).is_some_and(|process| process.state == 'S')
    });
    send(Signal::SIGSTOP);
    pool.resize(1)?;
    send(Signal::SIGKILL);
    until("it is gone", || !runs(surplus) && pool.workers().len() == 1);
    let mine = observe::pools(std::process::id()).expect("there is one");
    let ghost = |view: &observe::PoolView| {
        let seen = view.workers.get(1).map(|w| (w.pid, w.phase, w.is_asleep, w.job));
        view.workers.len() == 2 && seen == Some((0, Phase::Starting, false, None))
    };
    assert!(
        mine.iter().any(|pool| ghost(&pool.look())),
        "{:?}",
        mine.iter().map(ObservedPool::look).collect::<Vec<_>>()
    );
    assert_eq!(pool.map(|x: u64| x + 1, [1])?, [2]);
    Ok(())
}
