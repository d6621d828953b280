//! A worker dies while it claims, so all claims of the job are made anew: what others had begun lies in the middle of runs.

use std::{thread, time::Duration};

use swathe::{
    ArrayMut, Pool, Result,
    chaos::{Chaos, Fault, Injection, Point},
};
use swathe_tests::watched;

const CHUNK: u64 = 8;
const POSITIONS: u64 = 3 * 64 * CHUNK;

/// The chunks that the three workers begin with take long, so they are in them when one of the workers dies; the others
/// are soon done, so many are taken at once.
fn change(x: u64) -> u64 {
    assert!(x < POSITIONS, "{x} was changed before");
    if x % (POSITIONS / 3) < CHUNK {
        thread::sleep(Duration::from_millis(3));
    }
    x + POSITIONS
}

#[test]
fn what_was_begun_before_a_rebuild_is_not_done_again() -> Result<()> {
    let chaos = Chaos::seeded(0).inject(Injection {
        point: Point::Claimed,
        fault: Fault::Kill,
        worker: Some(2),
        incarnation: Some(1),
        nth: 1,
    });
    let pool = watched(Pool::builder().processes(3).chaos(chaos).build());
    let has_died = || {
        let mut workers = pool.workers().into_iter();
        workers.any(|worker| worker.index == 2 && worker.incarnation > 1)
    };
    // It may be too late for a job.
    while !has_died() {
        let array = ArrayMut::from_range(0..POSITIONS)?;
        let changed = pool
            .batch()
            .chunk_size(CHUNK as usize)
            .map_in_place(change, array)?;
        assert!(changed.iter().copied().eq(POSITIONS..2 * POSITIONS));
    }
    Ok(())
}
