//! The strip in work under loom: whoever looks never sees the start of one strip beside the positions of another, so no
//! strip is late, or blamed, for what another one did.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use swathe_protocol::{
    Strip, WorkerSlot,
    sync::mortal::{dies_before, explore, explore_deaths},
};

/// Every field follows from `i`.
fn strip(i: u64) -> Strip {
    Strip {
        first: 10 * i,
        len: 1,
        started: 100 * i,
    }
}

fn is_one_of_them(seen: Strip) -> bool {
    !seen.is_in_work() || (1..=3).any(|i| seen == strip(i))
}

fn announce(slot: &WorkerSlot) {
    (1..=3).for_each(|i| slot.announce_strip(strip(i)));
}

#[test]
fn an_onlooker_sees_a_strip_as_a_whole_or_none() {
    explore(2, || {
        let slot = Arc::new(WorkerSlot::default());
        let worker = thread::spawn({
            let slot = Arc::clone(&slot);
            move || announce(&slot)
        });
        for _ in 0..2 {
            let seen = slot.strip();
            assert!(is_one_of_them(seen), "{seen:?}");
        }
        worker.join().unwrap();
        assert_eq!(slot.strip(), strip(3));
    });
}

#[test]
fn a_death_between_two_strips_blames_none() {
    explore_deaths(2, |nth| {
        let slot = Arc::new(WorkerSlot::default());
        let worker = thread::spawn({
            let slot = Arc::clone(&slot);
            move || dies_before(nth, || announce(&slot))
        });
        let died = worker.join().unwrap();
        let seen = slot.strip();
        assert!(is_one_of_them(seen), "{seen:?}");
        died
    });
}
