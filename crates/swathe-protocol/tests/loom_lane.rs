//! A lane under loom: every chunk goes to exactly one taker, and after a death at any operation the lane says exactly
//! what is left.
#![cfg(loom)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use loom::thread;
use swathe_protocol::{
    ChunkStatus, Hand, Lane, Span, StatusWord, Tag,
    sync::mortal::{dies_before, explore, explore_deaths},
};

fn chunks(spans: impl IntoIterator<Item = Span>) -> Vec<u32> {
    spans.into_iter().flat_map(|span| span.first..span.end).collect()
}

/// Every chunk of `0..all` is in exactly one of the parts.
fn assert_partition(all: u32, parts: [Vec<u32>; 4]) {
    let mut sorted = parts.concat();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        (0..all).collect::<Vec<_>>(),
        "counted, held, left and stolen: {parts:?}"
    );
}

#[test]
fn an_owner_and_two_thieves_share_a_run() {
    explore(2, || {
        let lanes = Arc::new([Lane::default(), Lane::default()]);
        lanes[0].fill(Span::new(0, 4));
        // The first thief works from its own lane, where the second robs it.
        let first = thread::spawn({
            let lanes = Arc::clone(&lanes);
            move || {
                let stolen = lanes[0].steal()?;
                lanes[1].fill(stolen);
                lanes[1].take(1)
            }
        });
        let second = thread::spawn({
            let lanes = Arc::clone(&lanes);
            move || lanes[1].steal()
        });
        let mine = std::iter::from_fn(|| {
            let hand = lanes[0].take(2)?;
            lanes[0].count(hand);
            Some(hand)
        });
        let (mine, first, second) = (
            chunks(mine),
            chunks(first.join().unwrap()),
            chunks(second.join().unwrap()),
        );
        assert_eq!(lanes[0].counted(), mine.len() as u64);
        assert_partition(
            4,
            [mine, first, second, chunks([lanes[0].drain(), lanes[1].drain()])],
        );
    });
}

#[test]
fn a_thief_sees_what_came_before_the_fill() {
    // The progress that a dead worker made reaches whoever ends up with the chunk.
    explore(3, || {
        let shared = Arc::new(([Lane::default(), Lane::default()], StatusWord::default()));
        let thief = |from: usize, to: Option<usize>| {
            let shared = Arc::clone(&shared);
            move || {
                let (lanes, status) = &*shared;
                if let Some(stolen) = lanes[from].steal() {
                    assert_eq!(status.load(Tag::NONE), ChunkStatus::Progress(1));
                    if let Some(to) = to {
                        lanes[to].fill(stolen);
                    }
                }
            }
        };
        let robbers = [thread::spawn(thief(0, Some(1))), thread::spawn(thief(1, None))];
        shared.1.publish_progress(Tag::NONE, 1);
        shared.0[0].fill(Span::new(0, 1));
        robbers.into_iter().for_each(|robber| robber.join().unwrap());
    });
}

/// The owner of a lane: two runs one after the other, each taken to the end.
fn own(lane: &Lane, finals: &Mutex<BTreeSet<u32>>, runs: [Span; 2], want: u32) {
    for run in runs {
        lane.fill(run);
        while let Some(hand) = lane.take(want) {
            finals.lock().unwrap().extend(hand.first..hand.end);
            lane.count(hand);
        }
    }
}

/// Kills the owner before its `nth` change while a thief steals twice; the lane must account for every chunk.
fn account(nth: u32, runs: [Span; 2], want: u32) -> bool {
    let shared = Arc::new((Lane::default(), Mutex::new(BTreeSet::new())));
    let owner = thread::spawn({
        let shared = Arc::clone(&shared);
        move || dies_before(nth, || own(&shared.0, &shared.1, runs, want))
    });
    let thief = thread::spawn({
        let shared = Arc::clone(&shared);
        move || chunks([shared.0.steal(), shared.0.steal()].into_iter().flatten())
    });
    let died = owner.join().unwrap();

    // The supervisor; the thief may still be at it.
    let (lane, finals) = &*shared;
    let hand = lane.hand();
    let rest = lane.drain();
    let stolen = thief.join().unwrap();

    let held = match hand {
        Hand::Empty => Vec::new(),
        Hand::Held(span) => chunks([span]),
    };
    let counted: Vec<u32> = finals
        .lock()
        .unwrap()
        .iter()
        .copied()
        .filter(|c| !held.contains(c))
        .collect();
    assert_eq!(lane.counted(), counted.len() as u64);
    // A run that was not yet filled in when the owner died is the ring's to account for.
    let filled = runs.iter().filter(|run| {
        let mut known = counted.iter().chain(&held).chain(&stolen);
        known.any(|c| (run.first..run.end).contains(c))
            || (run.first..run.end).contains(&rest.first) && !rest.is_empty()
    });
    assert_partition(
        filled.map(|run| run.len()).sum(),
        [counted, held, stolen, chunks([rest])],
    );
    died
}

#[test]
fn a_death_of_the_owner_at_any_operation_one_chunk_at_a_time() {
    explore_deaths(2, |nth| account(nth, [Span::new(0, 2), Span::new(2, 4)], 1));
}

#[test]
fn a_death_of_the_owner_at_any_operation_two_chunks_at_a_time() {
    explore_deaths(2, |nth| account(nth, [Span::new(0, 3), Span::new(3, 5)], 2));
}

#[test]
fn a_successor_in_the_lane_of_the_dead_owes_nothing_of_theirs() {
    // The predecessor's hand must not be taken for the successor's, whose run starts elsewhere.
    explore_deaths(2, |nth| {
        let shared = Arc::new((Lane::default(), Mutex::new(BTreeSet::new())));
        let owner = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                dies_before(nth, || {
                    own(&shared.0, &shared.1, [Span::new(0, 1), Span::new(1, 3)], 2);
                })
            }
        });
        let died = owner.join().unwrap();
        let (lane, _) = &*shared;
        if let Hand::Held(_) = lane.hand() {
            lane.settle(0);
        }
        lane.drain();
        lane.fill(Span::new(7, 9));
        assert_eq!(lane.hand(), Hand::Empty);
        let hand = lane.take(1).unwrap();
        assert_eq!(lane.hand(), Hand::Held(hand));
        lane.count(hand);
        assert_eq!(lane.hand(), Hand::Empty);
        died
    });
}
