//! The layout of what lies in a control segment and on boards, as it was when its version was last counted up.
#![cfg(not(loom))]

use std::fmt::{Debug, Write as _};

use swathe_protocol::{
    Header, JobCell, JobTerms, Lane, ParkWord, RingCell, RingEnds, StatusWord, Tally, WorkerSlot,
    header::MAGIC,
};

/// Size and alignment of a type, and the names of its fields in order: it is `repr(C)`.
fn write<T: Debug + Default>(text: &mut String) {
    let (size, align) = (size_of::<T>(), align_of::<T>());
    let value = format!("{:?}", T::default());
    let (name, _) = value.split_once(['(', ' ']).expect("a struct with fields");
    writeln!(text, "{name}: {size} bytes, aligned to {align}").expect("it is a string");
    writeln!(text, "{value}").expect("it is a string");
}

#[test]
fn a_new_layout_has_a_new_version() {
    let mut now = String::new();
    write::<Header>(&mut now);
    write::<RingEnds>(&mut now);
    write::<RingCell>(&mut now);
    write::<WorkerSlot>(&mut now);
    write::<ParkWord>(&mut now);
    write::<JobCell>(&mut now);
    write::<JobTerms>(&mut now);
    write::<Lane>(&mut now);
    write::<StatusWord>(&mut now);
    write::<Tally>(&mut now);
    let version = MAGIC.to_le_bytes()[6];
    let path = format!("{}/tests/layout/{version}.txt", env!("CARGO_MANIFEST_DIR"));
    let then = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        now == then,
        "the words that processes share are not laid out as {path} says. If that is meant, count the version in MAGIC up \
         (crates/swathe-protocol/src/header.rs), and put this into a file of that number:\n{now}"
    );
}
