//! The engine without the typed front end: squares by hand, deaths included. `harness = false`: workers are this very
//! executable, so `main` must begin with `init`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swathe_memory::{Memory, SegmentId, SharedSlice, registry};
use swathe_runtime::{
    Call, Chunking, End, Engine, EngineConfig, EngineError, ExitCause, FailureKind, Job, JobTraits, Outcome, TaskRef,
    Trampoline,
};

fn output(params: &[u8]) -> Result<SharedSlice<AtomicU64>, String> {
    let word = |i: usize| u64::from_le_bytes(params[i * 8..i * 8 + 8].try_into().unwrap());
    let segment = registry::resolve(SegmentId::from_bits(word(0))).map_err(|e| e.to_string())?;
    SharedSlice::at(&segment, word(1) as usize, word(2) as usize).map_err(|e| e.to_string())
}

fn square_unless(call: &mut Call<'_>, poison: impl Fn(u64)) {
    let (first, len) = (call.first, call.len);
    let (slab, rest) = call.cached(output).unwrap();
    for i in 0..len {
        rest.set_cursor(i);
        poison(first + i);
        slab[(first + i) as usize].fetch_add((first + i) * (first + i) + 1, Ordering::Relaxed);
    }
}

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
    let block = Arc::new(engine.memory().alloc_zeroed((n as usize * 8).max(64), 64).unwrap());
    let slab: SharedSlice<AtomicU64> = SharedSlice::in_block(&block, 0, n as usize).unwrap();
    let params =
        [block.segment().id().to_bits(), block.offset() as u64, n].iter().flat_map(|w| w.to_le_bytes()).collect();
    let job = Job {
        task: TaskRef::trampoline(task).unwrap(),
        heap_hint: 0,
        positions: n,
        chunking,
        chunk_align: 8,
        params,
        traits: JobTraits::default(),
        seed: 0,
        base: 0,
        max_deaths: 3,
        keep: Box::new(block),
        on_done: None,
    };
    let handle = engine.submit(job).unwrap();
    assert!(handle.wait(Some(Duration::from_secs(30))), "watchdog: {:?} {:?}", handle.progress(), engine.workers());
    (handle.outcome().unwrap(), slab.iter().map(|v| v.load(Ordering::Relaxed)).collect())
}

fn check(values: &[u64], except: &[u64]) {
    for (i, v) in (0..).zip(values) {
        if !except.contains(&i) {
            assert_eq!((*v) % (i * i + 1), 0, "position {i}");
            assert!(*v > 0, "position {i} was not run");
        }
    }
}

fn main() {
    swathe_runtime::init();
    let engine = Engine::start(EngineConfig { processes: Some(2), ..Default::default() }).unwrap();
    for n in [0, 1, 2, 7, 1000, 100_000] {
        for chunking in [Chunking::Auto, Chunking::Pool, Chunking::Size(1), Chunking::Size(3)] {
            let (outcome, values) = run(&engine, square, n, chunking);
            assert_eq!((outcome.end.clone(), outcome.failures.len()), (End::Complete, 0));
            for (i, v) in (0..).zip(&values) {
                assert_eq!(*v, i * i + 1, "position {i} of {n} under {chunking:?}: once each");
            }
        }
    }
    let (outcome, values) = run(&engine, panics_at_77, 1000, Chunking::Auto);
    assert_eq!(outcome.failures.len(), 1);
    assert_eq!((outcome.failures[0].position, &outcome.failures[0].kind), (77, &FailureKind::Panic));
    assert!(outcome.failures[0].message.starts_with("position 77 is unlucky, at "), "{outcome:?}");
    check(&values, &[77]);

    let (outcome, values) = run(&engine, aborts_at_1234, 5000, Chunking::Auto);
    assert_eq!(outcome.failures.len(), 1, "{outcome:?}");
    assert_eq!(outcome.failures[0].position, 1234);
    assert_eq!(outcome.failures[0].kind, FailureKind::Lost(ExitCause::Signal(6)));
    check(&values, &[1234]);

    let (outcome, values) = run(&engine, exits_at_3, 10, Chunking::Size(5));
    assert_eq!(outcome.failures[0].kind, FailureKind::Lost(ExitCause::Code(0)), "{outcome:?}");
    check(&values, &[3]);

    // Kill workers from outside, again and again, while they work: nobody's fault, nothing lost.
    let killer = {
        let engine = engine.clone();
        std::thread::spawn(move || {
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(20));
                if let Some(worker) = engine.workers().first() {
                    std::process::Command::new("kill").args(["-9", &worker.pid.to_string()]).status().unwrap();
                }
            }
        })
    };
    let (outcome, values) = run(&engine, naps, 200, Chunking::Auto);
    killer.join().unwrap();
    assert_eq!((outcome.end.clone(), outcome.failures.len()), (End::Complete, 0), "{outcome:?}");
    check(&values, &[]);

    assert!(matches!(engine.join(), Err(EngineError::StillRunning)));
    engine.close();
    engine.join().unwrap();
    assert!(engine.workers().is_empty());

    let limited =
        Engine::start(EngineConfig { processes: Some(2), max_tasks_per_child: Some(10), ..Default::default() }).unwrap();
    let (outcome, values) = run(&limited, square, 1000, Chunking::Auto);
    assert_eq!(outcome.failures.len(), 0);
    check(&values, &[]);
    limited.terminate();
    let small = Memory::with_capacity(1 << 20).unwrap();
    assert!(Engine::start(EngineConfig { processes: Some(0), memory: Some(small), ..Default::default() }).is_err());
    println!("untyped: all passed");
}
