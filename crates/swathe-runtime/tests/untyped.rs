//! The engine without the typed front end: squares by hand, deaths included. `harness = false`: workers are this very
//! executable, so `main` must begin with `init`.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{pool, square_unless};
use swathe_runtime::{
    Call, Chunking, End, Engine, EngineConfig, EngineError, ExitCause, FailureKind, Outcome, Trampoline,
};

fn square(call: &mut Call<'_>) {
    square_unless(call, |_| {});
}

fn panics_at_77(call: &mut Call<'_>) {
    square_unless(call, |i| assert!(i != 77, "position {i} is unlucky"));
}

fn aborts_at_1234(call: &mut Call<'_>) {
    square_unless(call, |i| {
        if i == 1234 {
            std::process::abort()
        }
    });
}

fn exits_at_3(call: &mut Call<'_>) {
    square_unless(call, |i| {
        if i == 3 {
            std::process::exit(0)
        }
    });
}

fn naps(call: &mut Call<'_>) {
    square_unless(call, |_| std::thread::sleep(Duration::from_millis(5)));
}

fn run(engine: &Engine, task: Trampoline, n: u64, chunking: Chunking) -> (Arc<Outcome>, Vec<u64>) {
    let (mut job, slab) = common::job(engine, task, n);
    job.chunking = chunking;
    let handle = engine.submit(job).unwrap();
    common::wait(engine, &handle);
    (
        handle.outcome().unwrap(),
        slab.iter()
            .map(|v: &AtomicU64| v.load(Ordering::Relaxed))
            .collect(),
    )
}

fn check(values: &[u64], except: &[u64]) {
    for (i, v) in (0..).zip(values) {
        if !except.contains(&i) {
            assert_eq!((*v) % (i * i + 1), 0, "position {i}");
            assert!(*v > 0, "position {i} was not run");
        }
    }
}

fn every_size_and_chunking(engine: &Engine) {
    for n in [0, 1, 2, 7, 1000, 100_000] {
        for chunking in [
            Chunking::Auto,
            Chunking::Pool,
            Chunking::Size(1),
            Chunking::Size(3),
        ] {
            let (outcome, values) = run(engine, square, n, chunking);
            assert_eq!((outcome.end.clone(), outcome.failures.len()), (End::Complete, 0));
            for (i, v) in (0..).zip(&values) {
                assert_eq!(*v, i * i + 1, "position {i} of {n} under {chunking:?}: once each");
            }
        }
    }
}

fn the_culprit_alone_fails(engine: &Engine) {
    let (outcome, values) = run(engine, panics_at_77, 1000, Chunking::Auto);
    assert_eq!(outcome.failures.len(), 1);
    assert_eq!(
        (outcome.failures[0].position, &outcome.failures[0].kind),
        (77, &FailureKind::Panic)
    );
    assert!(
        outcome.failures[0]
            .message
            .starts_with("position 77 is unlucky, at "),
        "{outcome:?}"
    );
    check(&values, &[77]);

    let (outcome, values) = run(engine, aborts_at_1234, 5000, Chunking::Auto);
    assert_eq!(outcome.failures.len(), 1, "{outcome:?}");
    assert_eq!(outcome.failures[0].position, 1234);
    assert_eq!(outcome.failures[0].kind, FailureKind::Lost(ExitCause::Signal(6)));
    check(&values, &[1234]);

    let (outcome, values) = run(engine, exits_at_3, 10, Chunking::Size(5));
    assert_eq!(
        outcome.failures[0].kind,
        FailureKind::Lost(ExitCause::Code(0)),
        "{outcome:?}"
    );
    check(&values, &[3]);
}

/// Workers are killed from outside, again and again, while they work: nobody's fault, nothing lost.
fn kills_from_outside_lose_nothing(engine: &Engine) {
    let killer = engine.clone();
    let killer = std::thread::spawn(move || {
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(20));
            if let Some(worker) = killer.workers().first() {
                common::kill(worker.pid);
            }
        }
    });
    let (outcome, values) = run(engine, naps, 200, Chunking::Auto);
    killer.join().unwrap();
    assert_eq!(
        (outcome.end.clone(), outcome.failures.len()),
        (End::Complete, 0),
        "{outcome:?}"
    );
    check(&values, &[]);
}

fn recycled_workers_lose_nothing() {
    let config = EngineConfig {
        processes: Some(2),
        max_tasks_per_child: Some(10),
        ..Default::default()
    };
    let engine = Engine::start(config).unwrap();
    let (outcome, values) = run(&engine, square, 1000, Chunking::Auto);
    assert_eq!(outcome.failures.len(), 0);
    for (i, v) in (0..).zip(&values) {
        assert_eq!(*v, i * i + 1, "position {i} was run once");
    }
    assert!(
        engine.workers().iter().all(|worker| worker.elements <= 10),
        "{:?}",
        engine.workers()
    );
    engine.terminate();
}

fn main() {
    swathe_runtime::init();
    let engine = pool(2);
    every_size_and_chunking(&engine);
    the_culprit_alone_fails(&engine);
    kills_from_outside_lose_nothing(&engine);
    assert!(matches!(engine.join(), Err(EngineError::StillRunning)));
    engine.close();
    engine.join().unwrap();
    assert!(engine.workers().is_empty());
    recycled_workers_lose_nothing();
    let none = EngineConfig {
        processes: Some(0),
        ..Default::default()
    };
    assert!(matches!(Engine::start(none), Err(EngineError::NoProcesses)));
    println!("untyped: all passed");
}
