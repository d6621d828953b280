//! Shapes of arrays.

use std::fmt;

use crate::error::MemoryError;

/// Most axes an array can have.
pub const MAX_AXES: usize = 8;

/// Lengths of the axes of an array in C order: the last axis is contiguous.
///
/// The product of all lengths that are not zero fits an `isize`, so that no index arithmetic overflows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    axes: usize,
    lengths: [usize; MAX_AXES],
}

impl Shape {
    pub(crate) fn new(lengths: &[usize]) -> Result<Shape, MemoryError> {
        let refused = |reason: String| MemoryError::Shape {
            shape: lengths.to_vec(),
            reason,
        };
        if lengths.len() > MAX_AXES {
            return Err(refused(format!(
                "has {} axes; at most {MAX_AXES} are possible",
                lengths.len()
            )));
        }
        let extent = lengths
            .iter()
            .filter(|&&length| length != 0)
            .try_fold(1_usize, |product, &length| {
                product
                    .checked_mul(length)
                    .filter(|&extent| isize::try_from(extent).is_ok())
            });
        if extent.is_none() {
            return Err(refused(
                "has more elements than this machine can address".to_owned(),
            ));
        }
        let mut shape = Shape {
            axes: lengths.len(),
            lengths: [0; MAX_AXES],
        };
        shape.lengths[..lengths.len()].copy_from_slice(lengths);
        Ok(shape)
    }

    /// The shape with these axes, if it has exactly `count` elements.
    pub(crate) fn of(lengths: &[usize], count: usize) -> Result<Shape, MemoryError> {
        let shape = Shape::new(lengths)?;
        if shape.count() != count {
            return Err(MemoryError::Shape {
                shape: lengths.to_vec(),
                reason: format!("has {} elements, but the array has {count}", shape.count()),
            });
        }
        Ok(shape)
    }

    /// One axis.
    pub(crate) fn flat(count: usize) -> Result<Shape, MemoryError> {
        Shape::new(&[count])
    }

    /// Lengths of the axes.
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths[..self.axes]
    }

    /// Number of elements; 1 for an array without axes.
    pub(crate) fn count(&self) -> usize {
        self.lengths().iter().product()
    }

    /// Elements in one step along the first axis; 1 for an array without axes.
    pub(crate) fn row_len(&self) -> usize {
        self.lengths().iter().skip(1).product()
    }

    /// The same with another length of the first axis, which must not be longer.
    pub(crate) fn with_rows(mut self, rows: usize) -> Shape {
        debug_assert!(self.axes > 0 && rows <= self.lengths[0]);
        self.lengths[0] = rows;
        self
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.lengths(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rows() {
        let shape = Shape::new(&[3, 4, 5]).unwrap();
        assert_eq!((shape.count(), shape.row_len()), (60, 20));
        assert_eq!(shape.with_rows(2).lengths(), [2, 4, 5]);
        let scalar = Shape::new(&[]).unwrap();
        assert_eq!((scalar.count(), scalar.row_len()), (1, 1));
        assert_eq!(Shape::new(&[0, usize::MAX >> 1]).unwrap().count(), 0);
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let text = |lengths: &[usize]| Shape::new(lengths).unwrap_err().to_string();
        assert!(text(&[2; 9]).contains("has 9 axes; at most 8"));
        assert!(text(&[usize::MAX, 2]).contains("more elements"));
        assert!(
            text(&[0, 1 << 40, 1 << 40]).contains("more elements"),
            "zero lengths do not hide an overflow"
        );
        let text = Shape::of(&[2, 3], 5).unwrap_err().to_string();
        assert_eq!(text, "the shape [2, 3] has 6 elements, but the array has 5");
    }
}
