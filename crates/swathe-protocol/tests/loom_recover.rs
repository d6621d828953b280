//! Recovery under loom: a worker is killed before any one of its stores and exchanges, while another one goes on; the
//! supervisor follows the README. Every chunk becomes final exactly once, is never run by two at a time, and the bell rings.
#![cfg(loom)]

mod pool;
mod recovery;

use std::sync::Arc;

use loom::thread;
use recovery::{CHUNKS, Scene};
use swathe_protocol::{
    Span,
    sync::mortal::{dies_before, explore_deaths},
};

/// The worker that is killed, and the one that lives.
const MORTAL: usize = 0;
const SURVIVOR: usize = 1;

/// Kills one of two workers before its `nth` change. With a `successor`, the dead worker's slot takes up work again while
/// the survivor may still be running a chunk.
fn a_death(nth: u32, chunk_len: u32, runs: &[Span], successor: bool) -> bool {
    let scene = Scene::open(chunk_len, runs);
    let mortal = thread::spawn({
        let scene = Arc::clone(&scene);
        move || {
            dies_before(nth, || {
                scene.pop_and_run(MORTAL);
                scene.steal_and_run(MORTAL);
            })
        }
    });
    let survivor = thread::spawn({
        let scene = Arc::clone(&scene);
        move || {
            for _ in 0..2 {
                let _ = scene.pop_and_run(SURVIVOR) || scene.steal_and_run(SURVIVOR);
            }
        }
    });
    let died = mortal.join().unwrap();
    if died {
        scene.recover(MORTAL);
        // Who is inside lives, and will leave.
        while !scene.rebuild_if_ready() {
            thread::yield_now();
        }
        if successor {
            scene.replace(MORTAL);
            scene.pop_and_run(MORTAL);
        }
    }
    survivor.join().unwrap();
    scene.finish(MORTAL);
    let covered: Vec<u32> = (0..CHUNKS as u32)
        .map(|c| runs.iter().any(|r| (r.first..r.end).contains(&c)).into())
        .collect();
    assert_eq!(
        scene.notes.lock().unwrap().finals.to_vec(),
        covered,
        "times each chunk became final"
    );
    died
}

#[test]
fn a_death_among_two_runs() {
    explore_deaths(1, |nth| {
        a_death(nth, 1, &[Span::new(0, 1), Span::new(1, 2)], true)
    });
}

#[test]
fn a_death_around_a_theft() {
    explore_deaths(1, |nth| a_death(nth, 1, &[Span::new(0, 2)], false));
}

#[test]
fn a_death_inside_a_chunk() {
    explore_deaths(1, |nth| a_death(nth, 2, &[Span::new(0, 1)], true));
}
