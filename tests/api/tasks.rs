//! What tasks can ask for, and what workers do besides them: context, state, initializer, exit hook, output, nested pools.

use std::{collections::BTreeSet, process::Command};

use rand_pcg::rand_core::RngCore;
use swathe::{Array, Context, Pool, Result, cores};
use swathe_tests::{pool, watched};

#[test]
fn a_context_tells_where_a_task_runs() -> Result<()> {
    let pool = pool(3);
    let positions = pool.map(|context: &Context, _: u8| context.position(), vec![0; 500])?;
    assert!(positions.iter().copied().eq(0..500));
    let facts = pool.run_per_worker(|context: &Context| {
        (
            context.worker(),
            context.worker_name(),
            context.incarnation(),
            context.processes(),
            context.is_rerun(),
        )
    })?;
    for (number, (worker, name, incarnation, processes, rerun)) in facts.iter().enumerate() {
        assert_eq!((worker, name), (number, format!("swathe-w{number}")));
        assert_eq!((incarnation, processes, rerun), (1, 3, false));
    }
    let names = pool
        .run_per_worker(|| std::fs::read_to_string("/proc/self/comm").unwrap_or_default())?
        .to_vec()?;
    assert_eq!(names, ["swathe-w0\n", "swathe-w1\n", "swathe-w2\n"]);
    Ok(())
}

/// The generator is a function of seed and position.
#[test]
fn random_numbers_do_not_depend_on_the_workers() -> Result<()> {
    fn draw(context: &Context, _: u32) -> [u64; 2] {
        let mut rng = context.rng();
        [rng.next_u64(), rng.next_u64()]
    }
    let draws = |processes, chunk: usize, seed| {
        pool(processes)
            .batch()
            .chunk_size(chunk)
            .seed(seed)
            .map(draw, 0..1000)
    };
    let expected = draws(1, 1, 7)?;
    assert_eq!(draws(2, 10, 7)?, expected);
    assert_eq!(draws(5, 333, 7)?, expected);
    assert_ne!(draws(1, 1, 8)?, expected);
    let distinct: BTreeSet<u64> = expected.iter().flatten().copied().collect();
    assert_eq!(distinct.len(), 2000);
    Ok(())
}

#[test]
fn a_death_makes_a_rerun_that_draws_the_same_numbers() -> Result<()> {
    fn die_once(context: &Context, x: u64) -> (u64, bool, u64) {
        if x == 20 && !context.is_rerun() {
            std::process::abort();
        }
        (x, context.is_rerun(), context.rng().next_u64())
    }
    let pool = pool(2);
    let rough = pool.batch().chunk_size(1).map(die_once, 0..50)?;
    let smooth = pool.map(|context: &Context, _: u64| context.rng().next_u64(), 0..50)?;
    for (i, (x, rerun, number)) in rough.iter().enumerate() {
        assert_eq!((x, number), (i as u64, smooth[i]));
        assert!(rerun || x != 20);
    }
    Ok(())
}

/// Every combination of state, parameters and context, in this order.
#[test]
fn tasks_take_what_they_name() -> Result<()> {
    let pool = watched(Pool::builder().processes(1).state(|| 100_i64, ()).build());
    let input = || 1..3_i64;
    assert_eq!(pool.map(|x: i64| x, input())?, [1, 2]);
    assert_eq!(pool.map(|s: &mut i64, x: i64| *s + x, input())?, [101, 102]);
    assert_eq!(
        pool.map(|c: &Context, x: i64| c.position() as i64 * 10 + x, input())?,
        [1, 12]
    );
    assert_eq!(
        pool.map(
            |s: &mut i64, c: &Context, x: i64| *s + c.position() as i64 * 10 + x,
            input()
        )?,
        [101, 112]
    );
    assert_eq!(pool.map_with(&5_i64, |p: &i64, x: i64| p * x, input())?, [5, 10]);
    assert_eq!(
        pool.map_with(&5_i64, |s: &mut i64, p: &i64, x: i64| *s + p * x, input())?,
        [105, 110]
    );
    let with_context = |p: &i64, c: &Context, x: i64| p * x + c.position() as i64;
    assert_eq!(pool.map_with(&5_i64, with_context, input())?, [5, 11]);
    let with_all = |s: &mut i64, p: &i64, c: &Context, x: i64| *s + p * x + c.position() as i64;
    assert_eq!(pool.map_with(&5_i64, with_all, input())?, [105, 111]);
    Ok(())
}

/// The state may hold what cannot cross between processes, and is built anew in every replacement.
#[test]
fn a_state_is_built_once_in_every_worker() -> Result<()> {
    struct Table {
        values: Array<f64>,
        calls: std::rc::Rc<std::cell::Cell<u64>>,
    }
    fn load(values: Array<f64>, first: u64) -> Table {
        Table {
            values,
            calls: std::rc::Rc::new(first.into()),
        }
    }
    fn look_up(table: &mut Table, i: usize) -> (f64, u64) {
        table.calls.set(table.calls.get() + 1);
        (table.values[i], table.calls.get())
    }
    let values = Array::from_fn(50, |i| i as f64 / 2.0)?;
    let pool = watched(
        Pool::builder()
            .processes(1)
            .state(load, (values.clone(), 1000_u64))
            .build(),
    );
    assert_eq!(pool.map(look_up, [3, 49])?, [(1.5, 1001), (24.5, 1002)]);
    drop(pool);
    let pool = watched(
        Pool::builder()
            .processes(1)
            .max_tasks_per_child(2)
            .state(load, (values, 1000_u64))
            .build(),
    );
    let calls = pool.batch().chunk_size(1).map(look_up, [0; 6])?;
    assert!(
        calls.iter().all(|(_, calls)| (1001..=1002).contains(&calls)),
        "{calls:?}"
    );
    Ok(())
}

#[test]
fn a_fallible_state_is_a_state() -> Result<()> {
    fn build(text: &str) -> Result<i64, std::num::ParseIntError> {
        text.parse()
    }
    let pool = watched(Pool::builder().processes(2).try_state(build, "17").build());
    assert_eq!(pool.map(|state: &mut i64, x: i64| *state * x, 0..3)?, [0, 17, 34]);
    Ok(())
}

/// An initializer runs once a process; what it returns is dropped.
#[test]
fn an_initializer_runs_in_every_worker() -> Result<()> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static GREETED: AtomicU32 = AtomicU32::new(0);
    fn greet(main_id: u32, times: u32) -> String {
        GREETED.fetch_add(main_id + times, Ordering::Relaxed);
        "dropped".to_owned()
    }
    let main_id = std::process::id();
    let pool = watched(
        Pool::builder()
            .processes(2)
            .initializer(greet, (main_id, 1_u32))
            .build(),
    );
    let greeted = |_: u8| GREETED.load(Ordering::Relaxed);
    assert_eq!(pool.map(greeted, [0; 100])?, [main_id + 1; 100]);
    assert_eq!(GREETED.load(Ordering::Relaxed), 0, "not in this process");
    Ok(())
}

/// Not in workers that are killed: that is told by `a_killed_worker_is_replaced` of `lives`.
#[test]
fn an_exit_hook_sees_the_state_when_a_worker_leaves() -> Result<()> {
    struct Log {
        directory: String,
        calls: u64,
    }
    fn open(directory: String) -> Log {
        Log { directory, calls: 0 }
    }
    fn count(log: &mut Log, x: u64) -> u64 {
        log.calls += 1;
        x
    }
    fn close(log: &mut Log) {
        let path = format!("{}/{}", log.directory, std::process::id());
        std::fs::write(path, log.calls.to_string()).expect("the directory is there");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display().to_string();
    let pool = watched(
        Pool::builder()
            .processes(2)
            .max_tasks_per_child(10)
            .state(open, path)
            .exit_hook(close)
            .build(),
    );
    pool.batch().chunk_size(1).map(count, 0..45)?;
    pool.close();
    pool.join()?;
    let logs: Vec<u64> = std::fs::read_dir(directory.path())
        .expect("it is there")
        .map(|file| {
            std::fs::read_to_string(file.expect("a file").path())
                .expect("text")
                .parse()
                .expect("a number")
        })
        .collect();
    assert_eq!(logs.iter().sum::<u64>(), 45, "{logs:?}");
    assert!(
        logs.len() >= 5 && logs.iter().all(|&calls| calls <= 10),
        "{logs:?}"
    );
    Ok(())
}

/// A task may have a pool of its own; by default it has as many processes as the worker may use cores.
#[test]
fn a_nested_pool_stays_within_its_share_of_the_cores() -> Result<()> {
    fn nested(x: u64) -> (usize, usize, u64) {
        let pool = Pool::new().unwrap_or_else(|error| panic!("{error}"));
        let squares = pool
            .map(|x: u64| x * x, 0..x)
            .unwrap_or_else(|error| panic!("{error}"));
        (cores().count, pool.processes(), squares.iter().sum())
    }
    let all = cores().count;
    for processes in [1, 2, 3] {
        let share = (all / processes).max(1);
        let results = pool(processes).batch().chunk_size(1).map(nested, 3..7)?;
        assert_eq!(
            results,
            [
                (share, share, 5),
                (share, share, 14),
                (share, share, 30),
                (share, share, 55)
            ]
        );
    }
    Ok(())
}

/// Thread pools inside numeric libraries are told the same share.
#[test]
fn libraries_are_told_the_share_of_the_cores() -> Result<()> {
    let share = (cores().count / 2).max(1).to_string();
    let told = pool(2).run_per_worker(|| std::env::var("OMP_NUM_THREADS").unwrap_or_default())?;
    let expected = std::env::var("OMP_NUM_THREADS").unwrap_or(share);
    assert_eq!(told, [expected.clone(), expected]);
    Ok(())
}

/// What a worker prints goes where the program's own output goes, and none of it is lost when the pool ends, even if the
/// line has no end.
#[test]
fn prints_of_workers_reach_the_terminal() {
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .arg("prints")
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    for x in 0..20 {
        assert_eq!(
            text.lines()
                .filter(|line| *line == format!("worker got {x}"))
                .count(),
            1,
            "{text}"
        );
    }
    assert_eq!(text.matches("no newline").count(), 1, "{text}");
    assert!(text.ends_with("the parent is last\n"), "{text}");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(errors.matches("error stream").count(), 1, "{errors}");
}
