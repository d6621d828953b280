//! What it costs to wake somebody, and to find that nobody need be woken.

use std::{
    hint::{black_box, spin_loop},
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Relaxed, Release},
    },
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
    c.bench_function("doorbell: ring, nobody waits", |b| {
        b.iter(|| black_box(&bell).ring());
    });
}

/// Something that happens once, and its bell.
#[derive(Default)]
struct Event {
    happened: AtomicBool,
    bell: Bell,
}

impl Event {
    fn ring(&self) {
        self.happened.store(true, Release);
        if self.bell.ring() {
            futex::wake(self.bell.word(), u32::MAX);
        }
    }

    /// Waits asleep, as a caller does whose job takes long.
    fn sleep(&self) {
        while !self.happened.load(Acquire) {
            let waited = self.bell.prepare();
            if !self.happened.load(Acquire) {
                futex::wait(self.bell.word(), waited, Duration::from_secs(1));
            }
        }
        self.happened.store(false, Relaxed);
    }

    /// Waits awake, as a caller does at first.
    fn spin(&self) {
        while !self.happened.load(Acquire) {
            spin_loop();
        }
        self.happened.store(false, Relaxed);
    }
}

/// Two threads ring each other. The futexes are those of the engine, shared between processes; that the two sides are
/// threads here spares their sleep no system call.
fn round_trip(c: &mut Criterion) {
    for (name, wait) in [
        (
            "doorbell: round trip of two that sleep",
            Event::sleep as fn(&Event),
        ),
        ("doorbell: round trip of two that spin", Event::spin),
    ] {
        let (there, back, over) = (Event::default(), Event::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    wait(&there);
                    if over.load(Relaxed) {
                        return;
                    }
                    back.ring();
                }
            });
            c.bench_function(name, |b| {
                b.iter(|| {
                    there.ring();
                    wait(&back);
                });
            });
            over.store(true, Relaxed);
            there.ring();
        });
    }
}

criterion_group!(benches, nobody_sleeps, round_trip);
criterion_main!(benches);
