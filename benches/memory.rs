//! What it costs to have memory again that was used before: the arena's ranges, and the arrays in them.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use swathe_memory::{ArrayMut, Memory};

/// Room for what the benchmarks hold at a time.
const CAPACITY: usize = 1 << 30;

/// Takes a range that is warm after the first time, and gives it back.
fn arena(c: &mut Criterion) {
    let memory = Memory::with_capacity(CAPACITY).expect("the address space has room");
    let mut group = c.benchmark_group("arena: alloc and free, warm");
    for bytes in [64, 4 << 10, 1 << 20, 64 << 20] {
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &bytes, |b, &bytes| {
            b.iter(|| black_box(memory.alloc(bytes, 64).expect("the arena has room")));
        });
    }
    group.finish();

    // Free ranges that cannot be joined, among which the right one must be found.
    let mut all: Vec<_> = (0..4096)
        .map(|_| memory.alloc(64 << 10, 64).expect("the arena has room"))
        .collect();
    let mut odd = false;
    all.retain(|_| {
        odd = !odd;
        odd
    });
    c.bench_function("arena: alloc and free among 2048 holes", |b| {
        b.iter(|| black_box(memory.alloc(128 << 10, 64).expect("the arena has room")));
    });
}

/// An output as a job gets it: room, filled, frozen, read, dropped.
fn slab(c: &mut Criterion) {
    let memory = Memory::with_capacity(CAPACITY).expect("the address space has room");
    let mut group = c.benchmark_group("slab: scratch, freeze and drop");
    for len in [1000usize, 1 << 20] {
        group.bench_with_input(BenchmarkId::from_parameter(len), &len, |b, &len| {
            b.iter(|| {
                let slab = ArrayMut::<f64>::scratch_in(&memory, len).expect("the arena has room");
                black_box(slab.freeze())
            });
        });
    }
    group.finish();

    let numbers = vec![1.5f64; 1 << 20];
    let mut group = c.benchmark_group("slab: copy of a slice");
    group.throughput(Throughput::Bytes(size_of_val(&numbers[..]) as u64));
    group.bench_function("8 MiB", |b| {
        b.iter(|| {
            black_box(ArrayMut::from_slice_in(&memory, black_box(&numbers)).expect("the arena has room"))
        });
    });
    group.finish();
}

criterion_group!(benches, arena, slab);
criterion_main!(benches);
