//! Random jobs, compared with a loop, position by position: every verb, any length and chunk size, 1 to 4 workers, and
//! elements that return errors, panic, abort or exit, while workers are killed from outside.
//!
//! The same few dozen cases every time; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` make them more, or others.

swathe::init_before_main!();

mod job;

use std::collections::BTreeMap;

use job::{Harm, Job, Verb};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use swathe::{Pool, Result};
use swathe_tests::watch;

/// Cases of each property, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 40;

fn config() -> Config {
    let given = |name| std::env::var_os(name).is_some();
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    if !given("PROPTEST_CASES") {
        config.cases = CASES;
    }
    if !given("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(0x0057_a7e0);
    }
    config
}

fn pools() -> Vec<Pool> {
    let pool = |processes| Pool::builder().processes(processes).build();
    (1..=4)
        .map(pool)
        .collect::<Result<_>>()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Mostly short jobs, some long ones; a chunk size below, at or above the length, or none.
fn lengths() -> impl Strategy<Value = (usize, Option<usize>)> {
    let len = prop_oneof![6 => 0..40_usize, 2 => 40..600_usize, 1 => 600..20_000_usize];
    len.prop_flat_map(|len| (Just(len), prop::option::of(1..len + 3)))
}

fn jobs(verbs: impl Strategy<Value = Verb>, harms: usize) -> impl Strategy<Value = Job> {
    let harm = prop_oneof![
        4 => Just(Harm::Error),
        3 => Just(Harm::Panic),
        1 => Just(Harm::Abort),
        1 => Just(Harm::Exit),
    ];
    let harms = prop::collection::vec((any::<prop::sample::Index>(), harm), 0..=harms);
    let kills = prop_oneof![3 => Just(0), 1 => 1..=2_u32];
    (verbs, lengths(), 0..4_usize, harms, kills).prop_map(|(verb, (len, chunk_size), pool, harms, kills)| {
        let harms: BTreeMap<u64, Harm> = harms
            .into_iter()
            .filter(|_| len > 0)
            .map(|(at, harm)| (at.index(len) as u64, harm))
            .collect();
        Job {
            verb,
            len,
            chunk_size,
            pool,
            harms,
            kills,
        }
    })
}

fn check(verbs: impl Strategy<Value = Verb>, harms: usize) {
    let pools = pools();
    let outcome = TestRunner::new(config()).run(&jobs(verbs, harms), |job| {
        let _watch = watch();
        job.run(&pools[job.pool])
            .map_err(|difference| TestCaseError::fail(difference.to_string()))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn whole_results_are_those_of_a_loop() {
    check(
        prop::sample::select(vec![Verb::Map, Verb::Starmap, Verb::Texts, Verb::InPlace]),
        4,
    );
}

#[test]
fn chunks_fail_as_one() {
    check(Just(Verb::Chunks), 3);
}

#[test]
fn streams_give_what_a_loop_gives() {
    check(prop::sample::select(vec![Verb::Imap, Verb::ImapUnordered]), 3);
}

#[test]
fn reductions_are_those_of_a_loop() {
    check(Just(Verb::Reduce), 1);
}
