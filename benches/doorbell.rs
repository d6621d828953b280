//! What it costs to wake somebody, and to find that nobody need be woken.

use std::{
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use swathe_os::futex;
use swathe_protocol::{Bell, ParkWord, bell::publish_fence};

/// The price of a wake that is not owed: what every submission pays while the workers are awake.
fn nobody_sleeps(c: &mut Criterion) {
    let worker = ParkWord::default();
    worker.unpark_self();
    c.bench_function("doorbell: fence and look, the worker is awake", |b| {
        b.iter(|| {
            publish_fence();
            black_box(&worker).claim_wake()
        });
    });
    let bell = Bell::default();
    c.bench_function("doorbell: ring and reset, nobody waits", |b| {
        b.iter(|| {
            let owed = black_box(&bell).ring();
            bell.reset();
            owed
        });
    });
}

fn ring(bell: &Bell) {
    if bell.ring() {
        futex::wake(bell.word(), u32::MAX);
    }
}

/// Waits asleep, as a caller does whose job takes long.
fn sleep(bell: &Bell) {
    while !bell.has_rung() {
        if bell.prepare() {
            futex::wait(bell.word(), Bell::WAITED, Duration::from_secs(1));
        }
    }
    bell.reset();
}

/// Waits awake, as a caller does at first.
fn spin(bell: &Bell) {
    while !bell.has_rung() {
        spin_loop();
    }
    bell.reset();
}

/// Two threads ring each other. The futexes are those of the engine, shared between processes; that the two sides are
/// threads here spares their sleep no system call.
fn round_trip(c: &mut Criterion) {
    for (name, wait) in [
        ("doorbell: round trip of two that sleep", sleep as fn(&Bell)),
        ("doorbell: round trip of two that spin", spin),
    ] {
        let (there, back, over) = (Bell::default(), Bell::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    wait(&there);
                    if over.load(Relaxed) {
                        return;
                    }
                    ring(&back);
                }
            });
            c.bench_function(name, |b| {
                b.iter(|| {
                    ring(&there);
                    wait(&back);
                });
            });
            over.store(true, Relaxed);
            ring(&there);
        });
    }
}

criterion_group!(benches, nobody_sleeps, round_trip);
criterion_main!(benches);
