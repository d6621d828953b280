//! What the element types must be able to do.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};

use bytemuck::Pod;

use crate::error::MemoryError;

/// Integers, which can fill an array from a range.
pub trait Integer: Pod + Debug + private::Sealed {
    /// `self + steps`, which the caller knows to be representable.
    #[doc(hidden)]
    fn plus(self, steps: usize) -> Self;

    /// The value, widened.
    #[doc(hidden)]
    fn widen(self) -> i128;
}

mod private {
    pub trait Sealed {}
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl private::Sealed for $integer {}

        impl Integer for $integer {
            fn plus(self, steps: usize) -> Self {
                // Modulo 2^bits both steps are exact, and the sum is representable.
                self.wrapping_add(steps as $integer)
            }

            fn widen(self) -> i128 {
                self as i128
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

/// First value and number of values of a range.
pub(crate) fn range_extent<T: Integer>(range: &impl RangeBounds<T>) -> Result<(T, usize), MemoryError> {
    let refused = |reason| MemoryError::Range {
        range: format!("{:?} to {:?}", range.start_bound(), range.end_bound()),
        reason,
    };
    let first = match range.start_bound() {
        Bound::Included(&first) => first,
        Bound::Excluded(_) | Bound::Unbounded => return Err(refused("it has no first value")),
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.widen() + 1,
        Bound::Excluded(end) => end.widen(),
        Bound::Unbounded => return Err(refused("it has no last value")),
    };
    let len = usize::try_from((end - first.widen()).max(0));
    Ok((first, len.map_err(|_| refused("it has too many values"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_measured_without_overflow() {
        assert_eq!(range_extent(&(-3..4_i8)).unwrap(), (-3, 7));
        assert_eq!(range_extent(&(i8::MIN..=i8::MAX)).unwrap(), (-128, 256));
        assert_eq!((-128_i8).plus(255), 127);
        assert_eq!(range_extent(&(5..5_u64)).unwrap(), (5, 0));
        #[expect(
            clippy::reversed_empty_ranges,
            reason = "backwards ranges are empty, as everywhere in Rust"
        )]
        let backwards = range_extent(&(9..5_u64)).unwrap();
        assert_eq!(backwards, (9, 0));
        let text = range_extent(&(1_u8..)).unwrap_err().to_string();
        assert!(text.ends_with("it has no last value"), "{text}");
        let text = range_extent(&(0..=u64::MAX)).unwrap_err().to_string();
        assert!(text.ends_with("it has too many values"), "{text}");
    }
}
