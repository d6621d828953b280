//! The words through which a parent and its worker processes share work, and every transition on them.
//!
//! Nothing here blocks, allocates or calls the operating system: the crate holds atomics and the rules of who may
//! change them, so that loom can run the same code that later lies in a shared segment. Each transition is one atomic
//! operation; a process may die between any two of them, and what it leaves behind has a written recovery rule
//! (see `README.md` beside this file, included below).
//!
//! All types are `#[repr(C)]`, valid for every bit pattern, and *all zero words are the empty state*: fresh shared
//! memory is an empty ring, vacant job cells and idle worker slots.
#![doc = include_str!("README.md")]
#![forbid(unsafe_code)]

pub mod bell;
pub mod header;
pub mod job;
pub mod lane;
pub mod order;
pub mod queue;
pub mod ring;
pub mod slot;
pub mod status;
pub mod sync;
pub mod tally;
pub mod words;
pub mod worker;

pub use bell::{Bell, DoorbellView, ParkWord, ParkWordState};
pub use header::Header;
pub use job::{Gate, GateState, JobCell, JobKey, JobPhase, JobTerms};
pub use lane::{Hand, Lane, Span};
pub use order::{Order, OrderWord};
pub use ring::{Descriptor, RingCell, RingEnds, RingView};
pub use slot::{Copy, PanickedAt, SlotPhase, Strip, Unused, UnusedWords, WorkerSlot};
pub use status::{ChunkStatus, StatusWord, Tag};
pub use tally::Tally;
pub use words::{Outside, Place, Words};
pub use worker::{Found, Held, Inside, Member};

// What lies in shared memory: each a whole number of lines, or of words on one. (Loom's atomics are larger.)
#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() == 128);
    assert!(size_of::<RingEnds>() == 256);
    assert!(size_of::<RingCell>() == 24);
    assert!(size_of::<WorkerSlot>() == 768);
    assert!(size_of::<ParkWord>() == 4);
    assert!(size_of::<Bell>() == 4);
    assert!(size_of::<Gate>() == 8);
    assert!(size_of::<OrderWord>() == 8);
    assert!(size_of::<JobCell>() == 256);
    assert!(size_of::<Lane>() == 64);
    assert!(size_of::<StatusWord>() == 4);
    assert!(size_of::<Tally>() == 128);
};
