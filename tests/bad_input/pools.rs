//! Pools that cannot be built, and pools that cannot be used.

use std::process::Command;

use swathe::{EngineError, Error, Memory, Pool, Result};
use swathe_tests::{pool, runs, watch, watched};

use crate::text;

#[test]
fn no_processes() {
    assert_eq!(
        text(Pool::builder().processes(0).build()),
        "a pool has at least 1 process, and 0 were asked for"
    );
    assert_eq!(
        text(pool(1).resize(0)),
        "a pool has at least 1 process, and 0 were asked for"
    );
}

#[test]
fn too_many_processes() {
    let refused = text(Pool::builder().processes(1_000_000).build());
    assert!(
        refused.starts_with("a pool has at most ") && refused.ends_with(", and 1000000 were asked for"),
        "{refused}"
    );
    let pool = pool(1);
    let refused = text(pool.resize(1_000_000));
    assert!(
        refused.starts_with("a pool has at most ") && refused.ends_with(", and 1000000 were asked for"),
        "{refused}"
    );
    assert_eq!(pool.processes(), 1);
}

#[test]
fn max_tasks_per_child_of_0() {
    let expected = "a worker runs at least 1 element before it is replaced: max_tasks_per_child(0) would replace it for ever";
    assert_eq!(text(Pool::builder().max_tasks_per_child(0).build()), expected);
}

#[test]
fn a_program_that_forgot_init() {
    let output = Command::new(env!("CARGO_BIN_EXE_uninitialized"))
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.starts_with("this program never called `swathe::init()`: worker processes are started from"),
        "{said}"
    );
    assert!(said.contains("fn main() {\n        swathe::init();\n"), "{said}");
    assert!(said.contains("`swathe::init_before_main!();`"), "{said}");
}

#[test]
fn a_program_that_calls_init_when_it_has_threads() {
    let output = Command::new(env!("CARGO_BIN_EXE_uninitialized"))
        .arg("late")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected =
        "`swathe::init()` was called too late: this program had started a thread (`early-bird`) by then.";
    assert!(said.starts_with(expected), "{said}");
    for line in [
        "fn main() {\n        swathe::init();\n",
        "`swathe::init_before_main!();`",
        "put `#[tokio::main]` on a function that `main` calls there",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

/// An error of the pool, after a few tries and not after none or for ever.
fn breaks_with<S>(pool: &Pool<S>) -> String
where
    S: 'static,
{
    let pending = pool.map_async(|x: u8| x, [1, 2, 3]);
    let broken = match pending {
        Ok(pending) => text(pending.get()),
        Err(error) => error.to_string(),
    };
    let again = text(pool.map(|x: u8| x, [1]));
    assert!(
        broken.contains(again.trim_start_matches("the pool is broken: ")),
        "{broken}\n{again}"
    );
    assert!(matches!(pool.join(), Err(Error::Engine(EngineError::Broken(_)))));
    again
}

#[test]
fn an_initializer_that_returns_an_error() {
    fn load(path: &str) -> Result<(), String> {
        Err(format!("{path} is not there"))
    }
    let pool = watched(
        Pool::builder()
            .processes(2)
            .try_initializer(load, "H1.npy")
            .build(),
    );
    let expected =
        "the pool is broken: the initializer failed 3 times in a row, last with: H1.npy is not there";
    assert_eq!(breaks_with(&pool), expected);
}

#[test]
fn an_initializer_that_panics() {
    fn load() {
        panic!("no plan for this size");
    }
    let pool = watched(Pool::builder().processes(1).initializer(load, ()).build());
    let broken = breaks_with(&pool);
    let expected = "the pool is broken: the initializer failed 3 times in a row, last with: it panicked: no plan for this \
                    size, at ";
    assert!(
        broken.starts_with(expected) && broken.contains(file!()),
        "{broken}"
    );
}

#[test]
fn an_initializer_that_kills_its_worker() {
    fn load() {
        std::process::abort();
    }
    let pool = watched(Pool::builder().processes(1).initializer(load, ()).build());
    let broken = breaks_with(&pool);
    let expected = "the pool is broken: worker 0 was killed by signal 6 (SIGABRT) before it came to work, 3 times in a row \
                    (last pid ";
    assert!(broken.starts_with(expected), "{broken}");
}

#[test]
fn a_state_that_cannot_be_built() {
    fn build(digits: &str) -> Result<u32, std::num::ParseIntError> {
        digits.parse()
    }
    let pool = watched(Pool::builder().processes(2).try_state(build, "ten").build());
    let broken = breaks_with(&pool);
    let expected = "the pool is broken: the initializer failed 3 times in a row, last with: invalid digit found in string";
    assert_eq!(broken, expected);
}

#[test]
fn use_after_close() -> Result<()> {
    let pool = pool(1);
    pool.close();
    let refused = "the pool is not running: it was closed";
    assert_eq!(text(pool.map(|x: u8| x, [1])), refused);
    assert_eq!(text(pool.map_async(|x: u8| x, [1])), refused);
    assert_eq!(text(pool.starmap(|x: u8, y: u8| x + y, [(1, 2)])), refused);
    assert_eq!(text(pool.apply(|| 1_u8, ())), refused);
    assert_eq!(
        text(pool.map_chunks(|x: &[u8], y: &mut [u8]| y.copy_from_slice(x), [1])),
        refused
    );
    assert_eq!(
        text(pool.map_reduce(|x: u8| x, |a: u8, b: u8| a + b, [1])),
        refused
    );
    assert_eq!(text(pool.run_per_worker(|| 1_u8)), refused);
    assert_eq!(text(pool.resize(2)), refused);
    let first = text(pool.imap(|x: u8| x, [1]).next().expect("an error"));
    assert_eq!(first, format!("position 0 was not run: {refused}"));
    pool.join()
}

#[test]
fn use_after_terminate() -> Result<()> {
    let pool = pool(1);
    pool.terminate();
    let refused = "the pool is not running: it was terminated";
    assert_eq!(text(pool.map(|x: u8| x, [1])), refused);
    assert_eq!(text(pool.apply_async(|| 1_u8, ())), refused);
    assert_eq!(
        text(pool.map(|x: u8| x, Vec::<u8>::new())),
        refused,
        "an empty input is no exception"
    );
    assert_eq!(text(pool.resize(2)), refused);
    let first = text(pool.imap_unordered(|x: u8| x, [1]).next().expect("an error"));
    assert_eq!(first, format!("position 0 was not run: {refused}"));
    pool.close();
    pool.join()
}

#[test]
fn join_of_a_pool_that_runs() {
    assert_eq!(
        text(pool(1).join()),
        "the pool is still running: call `close()` or `terminate()` before `join()`"
    );
}

/// The child gets errors and a pool of its own; the parent's pool does not notice.
#[test]
fn a_pool_in_a_forked_child() {
    let _watch = watch();
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .arg("forked")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let refused = "this pool belongs to the process that built it, and this process was forked from that one: build a \
                   pool of its own here";
    for line in [
        &format!("map: {refused}"),
        &format!("apply_async: {refused}"),
        &format!("resize: {refused}"),
        &format!("join: {refused}"),
        "the old result: [1, 2, 3]",
        "a pool of its own: [1, 2, 3]",
        "the parent's pool: [2, 3, 4]",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}\n{said}");
    }
    assert!(said.contains("child: Exited(") && said.contains(", 0)"), "{said}");
    assert!(output.status.success(), "{output:?}");
}

/// Whatever the child does with them, it does not hang, and the parent has every value.
#[test]
fn handles_in_a_forked_child() {
    let _watch = watch();
    let directory = tempfile::tempdir().expect("a directory can be made");
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .arg("forked_handles")
        .arg(directory.path())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let right = said
        .lines()
        .filter(|line| line.contains("Exited(") && line.ends_with(", 0), 40 items, 40 values, 40 in a file"));
    assert_eq!(right.count(), 20, "{output:?}");
    assert!(
        said.ends_with("\n7 Some(5) 3000\n") && output.status.success(),
        "{output:?}"
    );
}

#[test]
fn memory_that_the_arena_does_not_have() -> Result<()> {
    let memory = Memory::with_capacity(4 << 20)?;
    let pool = watched(Pool::builder().processes(1).memory(memory.clone()).build());
    let refused = text(pool.map(|x: u64| [x; 128], 0..10_000));
    assert!(
        refused.starts_with("9.8 MiB do not fit into the arena: its capacity is 4.0 MiB, "),
        "{refused}"
    );
    assert!(
        refused.ends_with("or make a larger arena with Memory::with_capacity"),
        "{refused}"
    );
    let refused = text(pool.map(|x: u8| x, vec![0; 8 << 20]));
    assert!(
        refused.starts_with("8.0 MiB do not fit into the arena"),
        "{refused}"
    );
    assert_eq!(pool.map(|x: u64| x + 1, 0..3)?, [1, 2, 3]);
    Ok(())
}

/// The results of some positions fit, those of others do not: these fail, and the worker lives.
#[test]
fn results_that_the_arena_has_no_room_for() -> Result<()> {
    let memory = Memory::with_capacity(8 << 20)?;
    let pool = watched(Pool::builder().processes(1).memory(memory).build());
    let sizes = [10_usize, 64 << 20, 20];
    let partial = pool
        .batch()
        .collect_errors()
        .map(|n: usize| vec![7_u8; n], sizes)?;
    assert_eq!(
        (partial.value(0)?, partial.value(1)?, partial.value(2)?),
        (Some(vec![7; 10]), None, Some(vec![7; 20]))
    );
    let failure = partial.failures()[0].to_string();
    assert!(failure.starts_with("position 1 failed: "), "{failure}");
    assert!(
        failure.contains("do not fit into the arena: its capacity is 8.0 MiB"),
        "{failure}"
    );
    assert!(runs(pool.workers()[0].pid));
    Ok(())
}

#[test]
fn memory_that_the_process_may_not_have() {
    let _watch = watch();
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .arg("little_address_space")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("small: [0, 1, 2]\n"), "{output:?}");
    assert!(said.ends_with("small again: [0, 1, 2]\n"), "{output:?}");
    let large = said
        .lines()
        .find_map(|line| line.strip_prefix("large: "))
        .expect("an error");
    assert!(large.starts_with("1.0 GiB "), "{large}");
    assert!(
        large.contains("; drop arrays that are no longer needed")
            || large.contains("work on less data at a time"),
        "{large}"
    );
    assert!(output.status.success(), "{output:?}");
}
