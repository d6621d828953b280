//! What the protocol's steps cost, mostly in one thread: the floor under everything else.

use std::{
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use criterion::{Criterion, criterion_group, criterion_main};
use swathe_protocol::{Descriptor, JobKey, Lane, RingCell, RingEnds, RingView, Span, StatusWord, Tag};

fn ring(c: &mut Criterion) {
    let (ends, cells) = (
        RingEnds::default(),
        (0..64).map(|_| RingCell::default()).collect::<Vec<_>>(),
    );
    let ring = RingView::new(&ends, &cells);
    let run = Descriptor {
        job: JobKey::new(1, 1),
        epoch: 0,
        first: 0,
        chunks: 8,
        careful: false,
    };
    c.bench_function("ring push and pop", |b| {
        b.iter(|| {
            ring.push(black_box(run)).expect("the ring is empty");
            black_box(ring.pop())
        });
    });
}

fn lane(c: &mut Criterion) {
    let lane = Lane::default();
    c.bench_function("lane take and count, one chunk", |b| {
        b.iter(|| {
            let hand = lane.take(1).unwrap_or_else(|| {
                lane.fill(Span::new(0, u32::MAX));
                lane.take(1).expect("was just filled")
            });
            lane.count(black_box(hand));
        });
    });
    let thief = Lane::default();
    c.bench_function("lane fill and steal", |b| {
        b.iter(|| {
            thief.fill(Span::new(0, 64));
            black_box(thief.steal())
        });
    });
}

fn publish(c: &mut Criterion) {
    let words: Vec<StatusWord> = (0..1024).map(|_| StatusWord::default()).collect();
    c.bench_function("publish 1024 chunks", |b| {
        b.iter(|| {
            black_box(&words)
                .iter()
                .for_each(|word| word.publish_final(Tag::NONE));
        });
    });
}

/// The owner takes chunk by chunk while a thief keeps halving what it has: the line of the lane goes back and forth.
fn contended(c: &mut Criterion) {
    let (lane, over) = (Lane::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                black_box(lane.steal());
                // As often as a worker comes that is out of work, not as often as it could.
                (0..200).for_each(|_| spin_loop());
            }
        });
        c.bench_function("lane take and count, one chunk, beside a thief", |b| {
            b.iter(|| {
                let hand = loop {
                    match lane.take(1) {
                        Some(hand) => break hand,
                        None => lane.fill(Span::new(0, u32::MAX)),
                    }
                };
                lane.count(black_box(hand));
            });
        });
        over.store(true, Relaxed);
    });
}

criterion_group!(benches, ring, lane, contended, publish);
criterion_main!(benches);
