//! Leases count for the whole process, so this test has one of its own.

use swathe_memory::lease::{Lease, count_from_now, held, lent, note_lent};

#[test]
fn handles_are_counted_from_the_moment_on() {
    let before = Lease::new();
    count_from_now();
    let counted = Lease::new();
    let clone = counted.clone();
    assert_eq!(held(), 1);
    drop((before, counted));
    assert_eq!(held(), 1, "the clone holds it");
    drop(clone);
    assert_eq!(held(), 0);
    let mark = lent();
    note_lent();
    assert_eq!(lent() - mark, 1);
}
