//! The ring under loom: every run is delivered exactly once and in one piece, over a wrap-around.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use swathe_protocol::{Descriptor, JobKey, RingCell, RingEnds, RingView, sync::mortal::explore};

#[derive(Default)]
struct Ring {
    ends: RingEnds,
    cells: [RingCell; 2],
}

impl Ring {
    fn view(&self) -> RingView<'_> {
        RingView::new(&self.ends, &self.cells)
    }
}

/// Every field follows from `i`, so that a torn run differs from all of them.
fn run(i: u32) -> Descriptor {
    Descriptor {
        job: JobKey::new(i, i + 1),
        epoch: i,
        first: i,
        chunks: i + 1,
        careful: i % 2 == 1,
    }
}

/// Pushes `pushes` runs, the first two before the consumers start; `pops[c]` attempts by consumer `c`.
fn deliver(pushes: u32, pops: [u32; 2]) {
    let ring = Arc::new(Ring::default());
    ring.view().push(run(0)).unwrap();
    ring.view().push(run(1)).unwrap();
    let consumers = pops.map(|attempts| {
        let ring = Arc::clone(&ring);
        thread::spawn(move || {
            (0..attempts)
                .filter_map(|_| ring.view().pop())
                .collect::<Vec<_>>()
        })
    });
    let mut late = Vec::new();
    for i in 2..pushes {
        // A full ring gives the run back; it is pushed again when the consumers are done.
        late.extend(if late.is_empty() {
            ring.view().push(run(i)).err()
        } else {
            Some(run(i))
        });
    }
    let mut seen: Vec<_> = consumers.into_iter().flat_map(|c| c.join().unwrap()).collect();
    seen.extend(std::iter::from_fn(|| ring.view().pop()));
    for run in late {
        ring.view().push(run).unwrap();
        seen.extend(ring.view().pop());
    }
    seen.sort_by_key(|run| run.first);
    assert_eq!(seen, (0..pushes).map(run).collect::<Vec<_>>());
}

#[test]
fn two_consumers_and_a_wrapping_producer() {
    explore(2, || deliver(4, [2, 1]));
}

#[test]
fn one_slow_consumer_is_lapped() {
    explore(2, || deliver(4, [1, 3]));
}
