//! The words through which a parent and its worker processes share work, and every transition on them.
//!
//! Nothing here blocks or calls the operating system, and a worker's moves allocate nothing. The crate holds atomics, the
//! rules of who may change them, and the moves that are made of them: a worker's ([`Member`]), the parent's ([`Parent`]) and
//! those after a death ([`Reaped`]). Loom runs the same code that works on a shared segment. Each transition is one atomic
//! operation; a process may die between any two of them, and what it leaves behind has a written recovery rule (see
//! `README.md` beside this file, included below).
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
pub mod parent;
pub mod queue;
pub mod recovery;
pub mod ring;
pub mod slot;
pub mod status;
pub mod sync;
pub mod tally;
mod wakes;
pub mod words;
pub mod worker;

pub use bell::{Bell, DoorbellView, ParkWord, ParkWordState};
pub use header::Header;
pub use job::{Gate, GateState, JobCell, JobKey, JobPhase, JobTerms};
pub use lane::{Hand, Lane, Span};
pub use order::{Order, OrderWord};
pub use parent::{Epoch, Opening, Parent, Standing, Unoccupied, VacantCell};
pub use recovery::{Claims, Closed, HandOn, Left, Reaped, Rebuild, Taken};
pub use ring::{Descriptor, RingCell, RingEnds, RingView};
pub use slot::{InPlaceCopy, PanickedAt, SlotPhase, Strip, Unused, UnusedWords, WorkerSlot};
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
