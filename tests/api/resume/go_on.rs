//! What is run, and what is not run again.

use std::{fs, path::Path, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swathe::{Array, Context, Error, Result, Status};
use swathe_tests::{pool, until};

use super::{PAGE, Place, Published, root, root_or_not};

fn double(x: i64) -> i64 {
    2 * x
}

/// No element is run when all are done, and no input at all is fine.
#[test]
fn a_complete_output_is_returned_at_once() -> Result<()> {
    let pool = pool(2);
    let place = Place::new();
    let run = || {
        pool.batch()
            .output_file(place.output())
            .with(&place.runs())?
            .map(root, 0..500)
    };
    let first = run()?;
    let (bytes, counts) = (place.bytes(), place.counts(500));
    assert_eq!(counts, [1; 500]);
    let again = run()?;
    assert_eq!((again, place.bytes(), place.counts(500)), (first, bytes, counts));
    // A boot changes nothing: the last checkpoint is of the whole.
    place.boot_again();
    run()?;
    assert_eq!(place.counts(500), [1; 500]);

    let empty = Place::new();
    for _ in 0..2 {
        assert!(
            pool.batch()
                .output_file(empty.output())
                .map(double, 0..0)?
                .is_empty()
        );
    }
    assert!(Array::<i64>::from_npy_path(empty.output())?.is_empty());
    Ok(())
}

#[test]
fn failed_positions_alone_are_run_again() -> Result<()> {
    let pool = pool(2);
    let place = Place::new();
    let run = || {
        let batch = pool
            .batch()
            .output_file(place.output())
            .chunk_size(7)
            .with(&place.runs())?;
        batch.collect_errors().try_map(root_or_not, 0..100)
    };
    let fails = |position: usize| position % 10 == 3;
    for round in 1..4 {
        let partial = run()?;
        assert_eq!(partial.failures().len(), 10);
        for position in 0..100 {
            let status = if fails(position) {
                Status::Failed
            } else {
                Status::Done
            };
            assert_eq!(partial.status(position), status);
            let count = if fails(position) { round } else { 1 };
            assert_eq!(
                place.counts(100)[position],
                count,
                "position {position}, round {round}"
            );
        }
        assert_eq!(
            Published::read(&place, 100).failed,
            (0..100).map(fails).collect::<Vec<_>>()
        );
    }
    place.go();
    let partial = run()?;
    assert!(partial.is_complete());
    let roots = partial.to_vec_or(f64::NAN)?;
    drop(partial);
    assert!((0..100).all(|x| roots[x] == (x as f64).sqrt()));
    assert!(Published::read(&place, 100).failed.iter().all(|&failed| !failed));
    let expected: Vec<u8> = (0..100).map(|x| if fails(x) { 4 } else { 1 }).collect();
    assert_eq!(place.counts(100), expected);
    run()?;
    assert_eq!(place.counts(100), expected);
    Ok(())
}

/// A chunk that failed is run again as a whole, also after a boot; and finds zeros where it has written.
#[test]
fn failed_chunks_alone_are_run_again() -> Result<()> {
    fn roots(runs: &String, x: &[u32], y: &mut [f64]) -> Result<(), String> {
        assert_eq!(x.len(), if x[0] == 98 { 2 } else { 7 }, "a part of a chunk");
        assert!(y.iter().all(|&y| y == 0.0), "{y:?}");
        let results = x.iter().zip(y).map(|(&x, y)| {
            *y = root_or_not(runs, x)?;
            Ok(())
        });
        results.collect::<Vec<Result<(), String>>>().into_iter().collect()
    }
    let pool = pool(2);
    let place = Place::new();
    let x = Array::from_fn(100, |i| i as u32)?;
    let run = || {
        let batch = pool.batch().output_file(place.output()).chunk_size(7);
        batch
            .with(&place.runs())?
            .collect_errors()
            .try_map_chunks(roots, &x)
    };
    let fails = |position: usize| (position / 7 * 7..position / 7 * 7 + 7).any(|i| i < 100 && i % 10 == 3);
    let counts = |times: u8| {
        (0..100)
            .map(|i| if fails(i) { times } else { 1 })
            .collect::<Vec<u8>>()
    };
    for round in 1..4 {
        let partial = run()?;
        assert_eq!(partial.failures().len(), 10);
        assert!((0..100).all(|i| (partial.status(i) == Status::Failed) == fails(i)));
        assert_eq!(place.counts(100), counts(round));
        assert_eq!(
            Published::read(&place, 100).failed,
            (0..100).map(fails).collect::<Vec<_>>()
        );
        if round == 2 {
            place.boot_again();
        }
    }
    place.go();
    let partial = run()?;
    assert!(partial.is_complete() && partial.into_values()[99] == 99_f64.sqrt());
    assert_eq!(place.counts(100), counts(4));
    // A word that says that a part of a chunk is done is of no use.
    place.write_progress(2 * PAGE, &3_u32.to_ne_bytes());
    assert!(run()?.is_complete());
    Ok(())
}

/// While a result with holes is there, nobody fills the holes behind its back.
#[test]
fn a_partial_result_keeps_the_lock() -> Result<()> {
    let pool = pool(2);
    let place = Place::new();
    let run = || {
        let batch = pool.batch().output_file(place.output()).with(&place.runs())?;
        batch.collect_errors().try_map(root_or_not, 0..100)
    };
    let partial = run()?;
    let text = run().unwrap_err().to_string();
    assert!(text.contains("out.npy is being written by another job"), "{text}");
    drop(partial);
    run()?;
    Ok(())
}

/// After a power failure the last checkpoint counts: it ends before the first failure of a chunk.
#[test]
fn another_boot_goes_on_from_the_checkpoint() -> Result<()> {
    let pool = pool(2);
    let place = Place::new();
    let run = || {
        let batch = pool
            .batch()
            .output_file(place.output())
            .chunk_size(25)
            .with(&place.runs())?;
        batch.collect_errors().try_map(root_or_not, 0..100)
    };
    run()?;
    place.go();
    place.boot_again();
    assert!(run()?.is_complete());
    for position in 0..100 {
        // The first position that fails is 3, 33, 53, 83; the chunks begin at 0, 25, 50, 75.
        let again = [3..25, 33..50, 53..75, 83..100]
            .iter()
            .any(|part| part.contains(&position));
        assert_eq!(
            place.counts(100)[position],
            1 + u8::from(again),
            "position {position}"
        );
    }
    Ok(())
}

/// Without a checkpoint nothing of another boot counts; with a damaged one, the one before.
#[test]
fn without_a_checkpoint_another_boot_begins_anew() -> Result<()> {
    let pool = pool(2);
    let place = Place::new();
    let run = || {
        pool.batch()
            .output_file(place.output())
            .with(&place.runs())?
            .map(root, 0..100)
    };
    let first = run()?;
    let slots = fs::metadata(place.progress()).expect("it is there").len() as usize - 2 * PAGE;
    place.write_progress(slots, &vec![0xaa; 2 * PAGE]);
    place.boot_again();
    assert_eq!(run()?, first);
    assert_eq!(place.counts(100), [2; 100]);
    Ok(())
}

/// A job that is cancelled goes on later, with chunks as long as they were.
#[test]
fn a_cancelled_job_goes_on() -> Result<()> {
    fn slow(runs: &String, x: u32) -> f64 {
        thread::sleep(Duration::from_millis(1));
        root(runs, x)
    }
    let pool = pool(2);
    let place = Place::new();
    for round in 0..3 {
        let batch = pool
            .batch()
            .output_file(place.output())
            .chunk_size(5 + round)
            .with(&place.runs())?;
        let pending = batch.map_async(slow, 0..400)?;
        until("a part is done", || {
            pending.ready() || pending.progress().0 >= 50 * (round as u64 + 1)
        });
        pending.cancel_within(Duration::MAX);
        let Err(Error::Job(error)) = pending.get() else {
            panic!("it was cancelled")
        };
        let partial = error.into_partial::<Array<f64>>().expect("these are floats");
        let published = Published::read(&place, 400);
        for position in 0..400 {
            assert_eq!(partial.status(position) == Status::Done, published.done[position]);
        }
    }
    let roots = pool
        .batch()
        .output_file(place.output())
        .chunk_size(1)
        .with(&place.runs())?
        .map(slow, 0..400)?;
    assert!((0..400).all(|x| roots[x] == (x as f64).sqrt()));
    assert_eq!(place.counts(400), [1; 400]);
    Ok(())
}

/// Positions that failed before and were not run again, because the job was cancelled, still have no value.
#[test]
fn a_cancelled_second_try_leaves_failures_failed() -> Result<()> {
    fn hang(runs: &String, x: u32) -> Result<f64, String> {
        if x % 10 == 3 && Path::new(&format!("{runs}.hang")).exists() {
            thread::sleep(Duration::from_secs(3600));
        }
        root_or_not(runs, x)
    }
    let pool = pool(2);
    let place = Place::new();
    let batch = || pool.batch().output_file(place.output()).with(&place.runs());
    assert_eq!(
        batch()?.collect_errors().try_map(hang, 0..100)?.failures().len(),
        10
    );
    fs::write(format!("{}.hang", place.runs()), "").expect("the directory is there");
    let pending = batch()?.collect_errors().try_map_async(hang, 0..100)?;
    thread::sleep(Duration::from_millis(100));
    pending.cancel();
    let partial = pending.get()?;
    for position in (0..100).filter(|position| position % 10 == 3) {
        assert_ne!(partial.status(position), Status::Done, "position {position}");
    }
    drop((partial, pending));
    fs::remove_file(format!("{}.hang", place.runs())).expect("it is there");
    place.go();
    let roots = batch()?.try_map(hang, 0..100)?;
    assert!((0..100).all(|x| roots[x] == (x as f64).sqrt()));
    Ok(())
}

/// Deaths of workers are recovered as without a file; a lost position is one more to be run again.
#[test]
fn workers_die_as_without_a_file() -> Result<()> {
    fn poison(runs: &String, x: u32) -> f64 {
        let poisonous = x == 41 && !Path::new(&format!("{runs}.go")).exists();
        let root = root(runs, x);
        thread::sleep(Duration::from_micros(200));
        if poisonous {
            std::process::abort();
        }
        root
    }
    let pool = pool(2);
    let place = Place::new();
    let batch = || {
        pool.batch()
            .output_file(place.output())
            .max_deaths(2)
            .with(&place.runs())
    };
    let pending = batch()?.max_deaths(5).map_async(poison, 0..1000)?;
    until("a part is done", || pending.ready() || pending.progress().0 > 200);
    if let Some(worker) = pool.workers().first() {
        let _ = kill(Pid::from_raw(worker.pid as i32), Signal::SIGKILL);
    }
    let Err(Error::Job(error)) = pending.get() else {
        panic!("41 is lost")
    };
    assert_eq!(error.failures().len(), 1);
    assert_eq!(
        (error.failures()[0].position(), error.failures()[0].status()),
        (41, Status::Lost)
    );
    let mut expected = place.counts(1000);
    drop((error, pending));
    place.go();
    let roots = batch()?.map(poison, 0..1000)?;
    assert!((0..1000).all(|x| roots[x] == (x as f64).sqrt()));
    expected[41] += 1;
    assert_eq!(place.counts(1000), expected);
    Ok(())
}

/// A failure that was written down, and then not published because its worker died, is made good with the rest of its
/// strip.
#[test]
fn a_failure_that_did_not_count_is_forgotten() -> Result<()> {
    fn once(name: &str) -> bool {
        fs::File::create_new(name).is_ok()
    }
    fn harm(runs: &String, x: u32) -> Result<u32, String> {
        match x {
            60_000 if once(&format!("{runs}.failed")) => Err("once".into()),
            60_001 if once(&format!("{runs}.died")) => std::process::abort(),
            _ => Ok(x),
        }
    }
    let pool = pool(1);
    let place = Place::new();
    let run = || {
        let batch = pool.batch().output_file(place.output()).chunk_size(100_000);
        batch.with(&place.runs())?.try_map(harm, 0..100_000)
    };
    let first = run();
    assert!(Path::new(&format!("{}.died", place.runs())).exists());
    let failed = Published::read(&place, 100_000).failed;
    // Where the two were in different strips the failure counts.
    assert_eq!(failed.iter().any(|&failed| failed), first.is_err());
    drop(first);
    assert!(run()?.iter().copied().eq(0..100_000));
    Ok(())
}

/// A position that succeeds when it is tried again in the same run has not failed.
#[test]
fn a_retry_is_no_failure() -> Result<()> {
    fn second(runs: &String, context: &Context, x: u32) -> Result<f64, String> {
        let root = root(runs, x);
        if x % 10 == 3 && context.attempt() == 1 {
            return Err("the first time".into());
        }
        Ok(root)
    }
    let pool = pool(2);
    let place = Place::new();
    for _ in 0..2 {
        let batch = pool.batch().output_file(place.output()).retries(1);
        batch.with(&place.runs())?.try_map(second, 0..100)?;
        assert!(Published::read(&place, 100).failed.iter().all(|&failed| !failed));
        let expected: Vec<u8> = (0..100).map(|x| if x % 10 == 3 { 2 } else { 1 }).collect();
        assert_eq!(place.counts(100), expected);
    }
    Ok(())
}
