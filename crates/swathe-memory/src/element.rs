//! What the element types must be able to do.

use std::fmt::{self, Debug};
use std::ops::{Bound, RangeBounds};

use bytemuck::Pod;
use ndarray_npy::WritableElement;

use crate::error::MemoryError;

/// Integers, which can fill an array from a range.
pub trait Integer: Pod + Debug + private::Integer {
    /// `self + steps`, which the caller knows to be representable.
    #[doc(hidden)]
    fn plus(self, steps: usize) -> Self;

    /// The value, widened.
    #[doc(hidden)]
    fn widen(self) -> i128;
}

#[expect(unnameable_types, reason = "what seals the traits of the same names")]
mod private {
    pub trait Integer {}
    pub trait Element {}
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl private::Integer for $integer {}

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

/// What the elements of a `.npy` file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementType {
    /// `f`, `i` or `u`.
    kind: char,
    /// Bytes of one element.
    size: usize,
}

impl ElementType {
    /// The type that NumPy calls `descr`, in whatever byte order.
    pub(crate) fn parse(descr: &str) -> Option<ElementType> {
        let order = descr.chars().next().filter(|order| "<>=|".contains(*order))?;
        let mut rest = descr.strip_prefix(order)?.chars();
        let kind = rest.next()?;
        let size = rest.as_str();
        let known = match kind {
            'f' => ["4", "8"].contains(&size),
            'i' | 'u' => ["1", "2", "4", "8"].contains(&size),
            _ => false,
        };
        let size = size.parse().ok().filter(|_| known)?;
        Some(ElementType { kind, size })
    }

    /// Whether `descr` is this type in this machine's byte order.
    pub(crate) fn matches(self, descr: &str) -> bool {
        let in_order = self.size == 1 || descr.starts_with([native_order(), '=']);
        in_order && ElementType::parse(descr) == Some(self)
    }

    /// NumPy's name for the type in this machine's byte order.
    pub(crate) fn native_descr(self) -> String {
        let order = if self.size == 1 { '|' } else { native_order() };
        format!("{order}{}{}", self.kind, self.size)
    }
}

fn native_order() -> char {
    if cfg!(target_endian = "little") { '<' } else { '>' }
}

/// Rust's name for the type.
impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, self.size * 8)
    }
}

/// Types that `.npy` files hold: `f32`, `f64`, and integers of 8 to 64 bits.
pub trait Element: Pod + WritableElement + private::Element {
    /// The type as the file's header names it.
    #[doc(hidden)]
    const ELEMENT_TYPE: ElementType;
}

/// What one element of an output file can be: a number that a `.npy` file holds ([`Element`]), an array of such things, or a
/// struct of them (`swathe::npy_fields!`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of an output file",
    note = "it can be a number (`swathe::Element`), an array of numbers such as `[f64; 3]`, or a plain struct of these, which \
            `swathe::npy_fields!` describes"
)]
pub trait OutputElement: Pod + Send + Sync {
    /// The type as the file's header names it.
    #[doc(hidden)]
    fn dtype() -> Dtype;
}

/// The type of an element: of a number or of fields, and how many of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dtype {
    kind: ElementKind,
    /// Lengths of the axes that an element has by itself.
    shape: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ElementKind {
    Number(ElementType),
    Fields(Vec<(&'static str, Dtype)>),
}

impl Dtype {
    /// Of a struct with these fields, without gaps between them.
    pub fn of_fields(fields: Vec<(&'static str, Dtype)>) -> Dtype {
        Dtype {
            kind: ElementKind::Fields(fields),
            shape: Vec::new(),
        }
    }

    /// Lengths of the axes that an element has by itself.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// NumPy's literal for the type, but for its axes.
    pub(crate) fn descr(&self) -> String {
        match &self.kind {
            ElementKind::Number(number) => format!("'{}'", number.native_descr()),
            ElementKind::Fields(fields) => {
                let field = |(name, dtype): &(&str, Dtype)| {
                    let axes: String = dtype.shape.iter().map(|length| format!("{length},")).collect();
                    let axes = if axes.is_empty() {
                        axes
                    } else {
                        format!(", ({axes})")
                    };
                    format!("('{}', {}{axes})", name.trim_start_matches("r#"), dtype.descr())
                };
                let fields: Vec<String> = fields.iter().map(field).collect();
                format!("[{}]", fields.join(", "))
            }
        }
    }
}

/// As Rust writes it.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shape.iter().try_for_each(|_| f.write_str("["))?;
        match &self.kind {
            ElementKind::Number(number) => write!(f, "{number}")?,
            ElementKind::Fields(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, dtype)| format!("{name}: {dtype}"))
                    .collect();
                write!(f, "{{ {} }}", fields.join(", "))?;
            }
        }
        self.shape
            .iter()
            .rev()
            .try_for_each(|length| write!(f, "; {length}]"))
    }
}

impl<T: OutputElement, const N: usize> OutputElement for [T; N] {
    fn dtype() -> Dtype {
        let mut dtype = T::dtype();
        dtype.shape.insert(0, N);
        dtype
    }
}

macro_rules! elements {
    ($($element:ty: $kind:literal),*) => {$(
        impl private::Element for $element {}

        impl OutputElement for $element {
            fn dtype() -> Dtype {
                Dtype {
                    kind: ElementKind::Number(Self::ELEMENT_TYPE),
                    shape: Vec::new(),
                }
            }
        }

        impl Element for $element {
            const ELEMENT_TYPE: ElementType = ElementType { kind: $kind, size: size_of::<$element>() };
        }
    )*};
}
elements!(f32: 'f', f64: 'f', i8: 'i', i16: 'i', i32: 'i', i64: 'i', u8: 'u', u16: 'u', u32: 'u', u64: 'u');

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
    fn element_types_have_numpy_names() {
        assert!(f64::ELEMENT_TYPE.matches(&f64::ELEMENT_TYPE.native_descr()));
        assert_eq!(u8::ELEMENT_TYPE.native_descr(), "|u1");
        assert_eq!(i64::ELEMENT_TYPE.to_string(), "i64");
        for descr in ["<i1", ">i1", "|i1", "=i1"] {
            assert!(i8::ELEMENT_TYPE.matches(descr), "one byte has no order: {descr}");
        }
        assert!(!f64::ELEMENT_TYPE.matches(">f8") || !f64::ELEMENT_TYPE.matches("<f8"));
        for unknown in [
            "", "<", "f8", "<f2", "<f", "<f08", "<f+8", "<U8", "<i16", "\u{e9}f8", "<f8 ",
        ] {
            assert_eq!(ElementType::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn types_of_several_numbers_are_numpys() {
        let dtype = <[[f64; 3]; 2]>::dtype();
        assert_eq!(dtype.shape(), [2, 3]);
        assert_eq!(
            (dtype.descr().as_str(), dtype.to_string().as_str()),
            ("'<f8'", "[[f64; 3]; 2]")
        );
        let fields = Dtype::of_fields(vec![("time", f64::dtype()), ("r#in", <[u8; 4]>::dtype())]);
        assert_eq!(fields.descr(), "[('time', '<f8'), ('in', '|u1', (4,))]");
        assert_eq!(fields.to_string(), "{ time: f64, r#in: [u8; 4] }");
    }

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
