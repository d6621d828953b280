//! The column of returned errors: they come from whatever returns something at a stage.

use std::fs::{self, File};

use swathe::{Array, ArrayMut, Context, Error, Memory, Partial, Pool, Result, Status, Value};
use swathe_tests::{pool, runs, until, watched};

use crate::{
    shape::{Options, POSITIONS, Shape},
    table::{FaultKind, Outcome, outcome},
};

fn statuses<O>(partial: &Partial<O>) -> Vec<Status> {
    (0..partial.len()).map(|i| partial.status(i)).collect()
}

/// The pool has the workers that it had, and they work.
fn assert_unharmed<S: 'static>(pool: &Pool<S>, pids: &[u32]) -> Result<()> {
    assert!(pids.iter().all(|pid| runs(*pid)));
    assert!(
        pool.map(|x: u64| x + 1, 0..POSITIONS)?
            .iter()
            .copied()
            .eq(1..=POSITIONS)
    );
    Ok(())
}

fn pids<S>(pool: &Pool<S>) -> Vec<u32> {
    until("all workers are there", || {
        pool.workers().len() == pool.processes()
    });
    pool.workers().iter().map(|worker| worker.pid).collect()
}

#[test]
fn of_an_initializer() -> Result<()> {
    fn enter(context: &Context, births: Value<u32>) -> Result<(), String> {
        if context.worker() == 0 && context.incarnation() == 1 {
            return Err("not yet".into());
        }
        births.fetch_add(1);
        Ok(())
    }
    assert_eq!(outcome("in the initializer", FaultKind::Error), Outcome::Again);
    let births = Value::new(0)?;
    let pool = watched(
        Pool::builder()
            .processes(2)
            .try_state(enter, births.clone())
            .build(),
    );
    for shape in Shape::ALL {
        assert!(shape.run(&pool, &Options::default())?.is_empty());
    }
    until("both have come to work", || births.load() == 2);
    pool.close();
    pool.join()
}

/// An argument that cannot be read: its file has become too short.
#[test]
fn of_reading_input() -> Result<()> {
    fn cut(path: &String, array: Array<f64>) -> f64 {
        let file = File::options().write(true).open(path).expect("it is there");
        file.set_len(128).expect("it can be cut");
        array[0]
    }
    assert_eq!(outcome("reading input", FaultKind::Error), Outcome::Fails);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cut.npy");
    Array::from_fn(1 << 10, |i| i as f64)?.to_npy(&path)?;
    #[expect(unsafe_code, reason = "what happens where a promise is not kept is tested")]
    // SAFETY: the file is cut off, and what is cut off is not looked at afterwards: the worker refuses the array.
    let cut_off = unsafe { Array::<f64>::map_npy_path(&path) }?;
    let whole = Array::from_fn(3, |i| i as f64)?;
    let pool = pool(1);
    let pids = pids(&pool);
    let path = path.display().to_string();
    let batch = pool.batch().with(&path)?.collect_errors();
    let partial = batch.map(cut, [whole.clone(), cut_off, whole])?;
    assert_eq!(statuses(&partial), [Status::Done, Status::Failed, Status::Done]);
    assert!(fs::exists(&path).expect("it can be asked"));
    assert_unharmed(&pool, &pids)
}

#[test]
fn of_a_task() -> Result<()> {
    fn refuse(x: u64) -> Result<u64, String> {
        if x == 7 { Err("seven".into()) } else { Ok(x) }
    }
    fn refuse_chunk(from: &[u64], to: &mut [u64]) -> Result<(), String> {
        to.copy_from_slice(from);
        if from.contains(&7) {
            Err("seven".into())
        } else {
            Ok(())
        }
    }
    assert_eq!(outcome("running", FaultKind::Error), Outcome::Fails);
    let pool = pool(2);
    let pids = pids(&pool);
    let one: Vec<Status> = (0..20)
        .map(|i| if i == 7 { Status::Failed } else { Status::Done })
        .collect();
    assert_eq!(
        statuses(&pool.batch().collect_errors().try_map(refuse, 0..20)?),
        one
    );
    let texts = pool
        .batch()
        .collect_errors()
        .try_map(|x: u64| refuse(x).map(|x| x.to_string()), 0..20)?;
    assert_eq!(statuses(&texts), one);
    let Err(Error::Job(error)) = pool.try_map_in_place(refuse, ArrayMut::from_range(0..20)?) else {
        panic!("seven must fail")
    };
    let array = error
        .into_partial::<ArrayMut<u64>>()
        .expect("the array comes back");
    assert_eq!(statuses(&array), one);
    let input: Vec<u64> = (0..20).collect();
    let chunks = pool
        .batch()
        .chunk_size(5)
        .collect_errors()
        .try_map_chunks(refuse_chunk, input)?;
    let chunk = (0..20).map(|i| {
        if (5..10).contains(&i) {
            Status::Failed
        } else {
            Status::Done
        }
    });
    assert_eq!(statuses(&chunks), chunk.collect::<Vec<_>>());
    assert_unharmed(&pool, &pids)
}

/// A result that the arena has no room for.
#[test]
fn of_writing_results() -> Result<()> {
    assert_eq!(outcome("writing results", FaultKind::Error), Outcome::Fails);
    let memory = Memory::with_capacity(8 << 20)?;
    let pool = watched(Pool::builder().processes(2).memory(memory).build());
    let pids = pids(&pool);
    let grow = |x: u64| "x".repeat(if x == 3 { 64 << 20 } else { 10 });
    let partial = pool.batch().collect_errors().map(grow, 0..10u64)?;
    let one: Vec<Status> = (0..10)
        .map(|i| if i == 3 { Status::Failed } else { Status::Done })
        .collect();
    assert_eq!(statuses(&partial), one);
    assert_unharmed(&pool, &pids)
}

/// The copies that make it safe have no room: nothing is changed.
#[test]
fn of_writing_results_in_place() -> Result<()> {
    type Block = [u64; 1 << 17];
    assert_eq!(
        outcome("writing results, in place", FaultKind::Error),
        Outcome::Fails
    );
    let memory = Memory::with_capacity(8 << 20)?;
    let pool = watched(Pool::builder().processes(2).memory(memory.clone()).build());
    let pids = pids(&pool);
    let mut array = ArrayMut::<Block>::zeros_in(&memory, 6)?;
    let _rest = ArrayMut::<u8>::zeros_in(&memory, 3 << 19)?;
    array.iter_mut().for_each(|block| block[0] = 5);
    let Err(Error::Job(error)) = pool.map_in_place(
        |mut block: Block| {
            block[0] += 1;
            block
        },
        array,
    ) else {
        panic!("there is no room")
    };
    let text = error.to_string();
    assert!(text.contains("do not fit into the arena"), "{text}");
    let partial = error
        .into_partial::<ArrayMut<Block>>()
        .expect("the array comes back");
    assert_eq!(statuses(&partial), [Status::Failed; 6]);
    assert!(partial.into_values().iter().all(|block| block[0] == 5));
    assert_unharmed(&pool, &pids)
}
