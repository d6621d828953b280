//! Recovery under loom when more than one worker dies in a job: the second while the supervisor makes good what the first
//! has left, or both before it has begun, as when they die with their zygote. Each is killed before any one of its changes.
#![cfg(loom)]

mod pool;
mod recovery;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use loom::thread;
use recovery::{CHUNKS, Scene};
use swathe_protocol::{
    Span,
    sync::{
        AtomicU32, Ordering,
        mortal::{dies_before, explore},
    },
};

/// The two workers. The first is replaced.
const FIRST: usize = 0;
const SECOND: usize = 1;

/// A run for each, and a run that is only to be had by theft.
const TWO_RUNS: &[Span] = &[Span::new(0, 1), Span::new(1, 2)];
const ONE_RUN: &[Span] = &[Span::new(0, 2)];

/// A model in which one worker is killed before its change `a` and another before its change `b`; it tells who died.
type Model = fn(a: u32, b: u32) -> [bool; 2];

/// Explores a model for all pairs of numbers that kill; with a `stride` above 1, for every `a`, and for every `stride`-th
/// `b` from one on that depends on `a`.
fn explore_two_deaths(preemptions: usize, stride: usize, model: Model) {
    static DIED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
    for a in 0.. {
        let mut first_died = false;
        for b in (a * 11 % stride as u32..).step_by(stride) {
            DIED.iter().for_each(|died| died.store(false, Relaxed));
            explore(preemptions, move || {
                for (note, died) in DIED.iter().zip(model(a, b)) {
                    note.fetch_or(died, Relaxed);
                }
            });
            first_died |= DIED[0].load(Relaxed);
            if !DIED[1].load(Relaxed) {
                break;
            }
        }
        if !first_died {
            return;
        }
    }
}

fn work(scene: &Scene, me: usize) {
    for _ in 0..2 {
        let _ = scene.pop_and_run(me) || scene.steal_and_run(me);
    }
}

fn check(scene: &Scene, runs: &[Span]) {
    assert!(scene.rebuild_if_ready(), "nobody lives, and somebody is inside");
    scene.replace(FIRST);
    scene.finish(FIRST);
    let covered: Vec<u32> = (0..CHUNKS as u32)
        .map(|c| runs.iter().any(|r| (r.first..r.end).contains(&c)).into())
        .collect();
    assert_eq!(
        scene.notes.lock().unwrap().finals.to_vec(),
        covered,
        "times each chunk became final"
    );
}

/// The first dies alone. The second lives, and dies, while the supervisor closes, waits, hands on or rebuilds.
fn one_after_the_other(a: u32, b: u32, chunk_len: u32, runs: &[Span]) -> [bool; 2] {
    let scene = Scene::open(chunk_len, runs);
    let first_died = dies_before(a, || work(&scene, FIRST));
    let over = Arc::new(AtomicU32::new(0));
    let second = thread::spawn({
        let (scene, over) = (Arc::clone(&scene), Arc::clone(&over));
        move || {
            let died = dies_before(b, || work(&scene, SECOND));
            over.store(1, Ordering::Release);
            died
        }
    });
    scene.recover(FIRST);
    while !scene.rebuild_if_ready() && over.load(Ordering::Acquire) == 0 {
        thread::yield_now();
    }
    let second_died = second.join().unwrap();
    scene.recover(SECOND);
    check(&scene, runs);
    [first_died, second_died]
}

/// Both die, and then the recovery runs for one after the other.
fn both_at_once(a: u32, b: u32, runs: &[Span]) -> [bool; 2] {
    let scene = Scene::open(1, runs);
    let workers = [(FIRST, a), (SECOND, b)].map(|(me, nth)| {
        let scene = Arc::clone(&scene);
        thread::spawn(move || dies_before(nth, || work(&scene, me)))
    });
    let died = workers.map(|worker| worker.join().unwrap());
    scene.recover(FIRST);
    scene.recover(SECOND);
    check(&scene, runs);
    died
}

#[test]
fn a_second_death_while_two_runs_are_made_good() {
    explore_two_deaths(1, 1, |a, b| one_after_the_other(a, b, 1, TWO_RUNS));
}

#[test]
fn a_second_death_while_a_theft_is_made_good() {
    explore_two_deaths(1, 1, |a, b| one_after_the_other(a, b, 1, ONE_RUN));
}

#[test]
fn a_second_death_inside_a_chunk() {
    explore_two_deaths(1, 1, |a, b| one_after_the_other(a, b, 2, &[Span::new(0, 1)]));
}

/// All pairs of places, where one worker comes to its place after the other.
#[test]
fn all_die_with_their_zygote_in_turn() {
    explore_two_deaths(0, 1, |a, b| both_at_once(a, b, TWO_RUNS));
    explore_two_deaths(0, 1, |a, b| both_at_once(a, b, ONE_RUN));
}

/// All places of the first and some of the second, where both come to their places at the same time. (All pairs take
/// minutes.)
#[test]
fn all_die_with_their_zygote_at_once() {
    explore_two_deaths(1, 29, |a, b| both_at_once(a, b, ONE_RUN));
}
