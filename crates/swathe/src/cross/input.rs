//! What a pool's verbs take as input.

use std::{
    ops::{Range, RangeInclusive},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytemuck::Pod;
use swathe_memory::{Array, Memory};
use swathe_runtime::user_code::{discard, panic_text};

use crate::{
    Error,
    cross::{
        column::{Column, Columns, Counting, Sliced},
        item::{Item, ItemRef, Lowered, Rows, RowsRef},
        kind::{ByColumn, ByRow, Counted, Plain},
        seal::Sealed,
    },
    lower::wire::Encoder,
};

/// The input of [`Pool::map`](crate::Pool::map): one element for each call of the task. `K` is inferred.
///
/// | input | what happens | the task gets |
/// |---|---|---|
/// | `0..n`, `a..=b` of integers | nothing is stored; workers count | the integer |
/// | [`Array<T>`](Array), `&Array<T>` | nothing is copied | `T` |
/// | `Vec<T>`, `&Vec<T>`, `&[T]`, `[T; N]`, `&[T; N]` of plain data | copied once | `T` |
/// | the same of `&str`, and borrowed ones of `String` | copied once | `&str` |
/// | the same of other values | encoded once | `T` |
/// | [`items`]`(iterator)` | collected first | as for a `Vec` |
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the input of a pool",
    note = "give a range of integers, an `Array`, a `Vec`, a slice or an array of elements that may cross between \
            processes, or `swathe::items(iterator)`"
)]
pub trait Input<K> {
    /// How workers read it.
    #[doc(hidden)]
    type Column: Column;

    #[doc(hidden)]
    fn lower(self, memory: &Memory) -> Result<Lowered, Error>;
}

/// The input of [`Pool::starmap`](crate::Pool::starmap): several arguments for each call of the task. `K` is inferred.
///
/// A tuple of columns, each an [`Input`] of the same length, is the fast form: `(&prices, &strikes)`, `(0..n, &names)`.
/// A `Vec`, array or slice of tuples is taken apart into columns first.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the input of `starmap`",
    note = "give a tuple of columns, such as `(&prices, &strikes)`, or a `Vec`, slice or array of tuples"
)]
pub trait StarInput<K> {
    /// How workers read it.
    #[doc(hidden)]
    type Columns: Columns;

    #[doc(hidden)]
    fn lower(self, memory: &Memory) -> Result<Lowered, Error>;
}

/// Integers that a worker can count by itself. The trait is sealed.
pub trait Countable: Sealed + Pod + PartialOrd + Send + Sync {
    #[doc(hidden)]
    fn plus(self, steps: u64) -> Self;
    #[doc(hidden)]
    fn widened(self) -> i128;
}

macro_rules! countable {
    ($($T:ty)*) => {
        $(impl Sealed for $T {}

        impl Countable for $T {
            #[inline(always)]
            fn plus(self, steps: u64) -> Self {
                // The sum is in the range, so cutting the steps off changes nothing modulo the type.
                self.wrapping_add(steps as $T)
            }

            fn widened(self) -> i128 {
                self as i128
            }
        })*
    };
}

countable!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

fn lower_range<T: Countable>(start: T, len: i128) -> Result<Lowered, Error> {
    let len = u64::try_from(len.max(0))
        .ok()
        .filter(|&len| usize::try_from(len).is_ok())
        .ok_or(Error::TooLong)?;
    let mut wire = Encoder::default();
    wire.pod(&start);
    Ok(Lowered {
        len,
        wire,
        ..Lowered::default()
    })
}

impl<T: Countable> Input<Counted> for Range<T> {
    type Column = Counting<T>;

    fn lower(self, _: &Memory) -> Result<Lowered, Error> {
        lower_range(self.start, self.end.widened() - self.start.widened())
    }
}

impl<T: Countable> Input<Counted> for RangeInclusive<T> {
    type Column = Counting<T>;

    fn lower(self, _: &Memory) -> Result<Lowered, Error> {
        let len = if self.is_empty() {
            0
        } else {
            self.end().widened() - self.start().widened() + 1
        };
        lower_range(*self.start(), len)
    }
}

impl<T: Pod + Send + Sync> Input<Plain> for Array<T> {
    type Column = Sliced<T>;

    fn lower(self, _: &Memory) -> Result<Lowered, Error> {
        Lowered::array(self)
    }
}

impl<T: Pod + Send + Sync> Input<Plain> for &Array<T> {
    type Column = Sliced<T>;

    fn lower(self, _: &Memory) -> Result<Lowered, Error> {
        Lowered::array(self.clone())
    }
}

/// An iterator as an input; see [`items`].
#[derive(Clone, Debug)]
pub struct Items<I>(I);

/// Makes an iterator the input of a verb that needs to know its length: the elements are collected first.
///
/// If the iterator panics, the verb returns [`Error::Iterator`], which names the position. (For streams, or iterators
/// that never end, there is [`Pool::imap`](crate::Pool::imap).)
///
/// ```
/// use swathe::Pool;
///
/// fn main() -> swathe::Result<()> {
///     swathe::init();
///     let pool = Pool::builder().processes(2).build()?;
///     let odd = (1..10).filter(|x| x % 2 == 1);
///     let squares = pool.map(|x: i64| x * x, swathe::items(odd))?;
///     assert_eq!(squares, [1, 9, 25, 49, 81]);
///     Ok(())
/// }
/// ```
pub fn items<I: IntoIterator>(items: I) -> Items<I::IntoIter> {
    Items(items.into_iter())
}

impl<I: Iterator> Items<I> {
    fn collect(mut self) -> Result<Vec<I::Item>, Error> {
        let mut all = Vec::with_capacity(self.0.size_hint().0.min(1 << 16));
        loop {
            match pull_many(&mut self.0, &mut all, 1 << 16) {
                Ok(true) => {}
                Ok(false) => return Ok(all),
                Err(message) => {
                    return Err(Error::Iterator {
                        position: all.len(),
                        message,
                    });
                }
            }
        }
    }
}

/// Appends at most `count` items. `Ok(false)`: the iterator has ended. An error is what the iterator panicked with, and it
/// must not be used again after that; the items before are there.
pub(crate) fn pull_many<I: Iterator>(
    iterator: &mut I,
    items: &mut Vec<I::Item>,
    count: usize,
) -> Result<bool, String> {
    let wanted = items.len() + count;
    let pulled = catch_unwind(AssertUnwindSafe(|| {
        items.extend(iterator.by_ref().take(count));
    }));
    match pulled {
        Ok(()) => Ok(items.len() == wanted),
        Err(payload) => {
            let text = panic_text(&*payload);
            discard(payload);
            Err(text)
        }
    }
}

impl<I: Iterator<Item: Item<K>>, K> Input<K> for Items<I> {
    type Column = <I::Item as Item<K>>::Column;

    fn lower(self, memory: &Memory) -> Result<Lowered, Error> {
        I::Item::lower(self.collect()?, memory)
    }
}

impl<I: Iterator<Item: Rows<ByRow<K>>>, K> StarInput<ByRow<K>> for Items<I> {
    type Columns = <I::Item as Rows<ByRow<K>>>::Columns;

    fn lower(self, memory: &Memory) -> Result<Lowered, Error> {
        I::Item::lower_rows(self.collect()?, memory)
    }
}

/// Inputs that own their elements, and inputs that borrow them.
macro_rules! sequences {
    (owned [$($generics:tt)*] $Sequence:ty, $this:ident => $vec:expr) => {
        impl<T: Item<K>, K, $($generics)*> Input<K> for $Sequence {
            type Column = T::Column;

            fn lower($this, memory: &Memory) -> Result<Lowered, Error> {
                T::lower($vec, memory)
            }
        }

        impl<T: Rows<ByRow<K>>, K, $($generics)*> StarInput<ByRow<K>> for $Sequence {
            type Columns = T::Columns;

            fn lower($this, memory: &Memory) -> Result<Lowered, Error> {
                T::lower_rows($vec, memory)
            }
        }
    };
    (borrowed [$($generics:tt)*] $Sequence:ty) => {
        impl<T: ItemRef<K>, K, $($generics)*> Input<K> for &$Sequence {
            type Column = T::Column;

            fn lower(self, memory: &Memory) -> Result<Lowered, Error> {
                T::lower(self.iter(), memory)
            }
        }

        impl<T: RowsRef<ByRow<K>>, K, $($generics)*> StarInput<ByRow<K>> for &$Sequence {
            type Columns = T::Columns;

            fn lower(self, memory: &Memory) -> Result<Lowered, Error> {
                T::lower_rows(self, memory)
            }
        }
    };
}

sequences!(owned [] Vec<T>, self => self);
sequences!(owned [const N: usize] [T; N], self => self.into());
sequences!(borrowed [] Vec<T>);
sequences!(borrowed [] [T]);
sequences!(borrowed [const N: usize] [T; N]);

macro_rules! columns {
    ($($I:ident $K:ident $column:ident),*) => {
        impl<$($I: Input<$K>, $K),*> StarInput<ByColumn<($($K,)*)>> for ($($I,)*) {
            type Columns = ($($I::Column,)*);

            fn lower(self, memory: &Memory) -> Result<Lowered, Error> {
                let ($($column,)*) = self;
                lower_columns([$($column.lower(memory)?),*])
            }
        }
    };
}

columns!(A KA a);
columns!(A KA a, B KB b);
columns!(A KA a, B KB b, C KC c);
columns!(A KA a, B KB b, C KC c, D KD d);
columns!(A KA a, B KB b, C KC c, D KD d, E KE e);
columns!(A KA a, B KB b, C KC c, D KD d, E KE e, F KF f);
columns!(A KA a, B KB b, C KC c, D KD d, E KE e, F KF f, G KG g);
columns!(A KA a, B KB b, C KC c, D KD d, E KE e, F KF f, G KG g, H KH h);

fn lower_columns<const N: usize>(columns: [Lowered; N]) -> Result<Lowered, Error> {
    let mut columns = columns.into_iter();
    let mut all = columns.next().unwrap_or_default();
    for (column, next) in (1..).zip(columns) {
        if next.len != all.len {
            return Err(Error::Columns {
                column,
                len: next.len,
                first: all.len,
            });
        }
        all.join(next);
    }
    Ok(all)
}
