//! One argument of a task for all positions of a job, as a worker reads it.
#![allow(
    unnameable_types,
    reason = "they are in hidden methods of traits that are sealed by that: nobody outside can name them"
)]

use std::{any::type_name, marker::PhantomData, ops::Range};

use bytemuck::Pod;
use ndarray::ArrayViewD;
use rkyv::util::AlignedVec;
use swathe_memory::Array;

use crate::{
    cross::{
        arg::{self, Arg, Args},
        datum::Datum,
        digest::Digest,
        input::Countable,
    },
    lower::{RecordRef, Vouch, wire::Decoder},
};

/// One argument of a task for all positions of a job. A worker attaches it once, then reads strip by strip.
#[doc(hidden)]
pub trait Column: Sized + 'static {
    /// What the task is given.
    type Arg: Arg;
    /// Some consecutive positions.
    type Strip<'s>;

    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String>;
    fn strip(&mut self, positions: Range<usize>) -> Result<Self::Strip<'_>, String>;
    /// Adds what it holds to a fingerprint; `lends` if its elements hold arrays.
    fn digest(self, lends: bool, digest: &mut Digest) -> Result<(), String>;
    /// Element `i` of the strip, `i` below its length.
    fn read<'r>(strip: &'r mut Self::Strip<'_>, i: usize) -> Result<<Self::Arg as Arg>::Of<'r>, String>;
}

/// All arguments of a task: a tuple of columns.
#[doc(hidden)]
pub trait Columns: Sized + 'static {
    type Args: Args;
    type Strips<'s>;

    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String>;
    fn strips(&mut self, positions: Range<usize>) -> Result<Self::Strips<'_>, String>;
    fn digest(self, lends: bool, digest: &mut Digest) -> Result<(), String>;
    fn read<'r>(
        strips: &'r mut Self::Strips<'_>,
        i: usize,
    ) -> Result<<Self::Args as Args>::Values<'r>, String>;
}

macro_rules! columns {
    ($($C:ident $c:ident),*) => {
        impl<$($C: Column),*> Columns for ($($C,)*) {
            type Args = ($($C::Arg,)*);
            type Strips<'s> = ($($C::Strip<'s>,)*);

            #[allow(unused_variables, reason = "no columns use no arguments")]
            fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
                Ok(($($C::attach(wire)?,)*))
            }

            #[inline]
            #[allow(unused_variables, reason = "no columns use no arguments")]
            fn strips(&mut self, positions: Range<usize>) -> Result<Self::Strips<'_>, String> {
                let ($($c,)*) = self;
                Ok(($($c.strip(positions.clone())?,)*))
            }

            #[allow(unused_variables, reason = "no columns use no arguments")]
            fn digest(self, lends: bool, digest: &mut Digest) -> Result<(), String> {
                let ($($c,)*) = self;
                $($c.digest(lends, digest)?;)*
                Ok(())
            }

            #[inline(always)]
            #[allow(unused_variables, reason = "no columns use no arguments")]
            fn read<'r>(strips: &'r mut Self::Strips<'_>, i: usize) -> Result<<Self::Args as Args>::Values<'r>, String> {
                let ($($c,)*) = strips;
                Ok(($($C::read($c, i)?,)*))
            }
        }
    };
}

columns!();
columns!(C0 c0);
columns!(C0 c0, C1 c1);
columns!(C0 c0, C1 c1, C2 c2);
columns!(C0 c0, C1 c1, C2 c2, C3 c3);
columns!(C0 c0, C1 c1, C2 c2, C3 c3, C4 c4);
columns!(C0 c0, C1 c1, C2 c2, C3 c3, C4 c4, C5 c5);
columns!(C0 c0, C1 c1, C2 c2, C3 c3, C4 c4, C5 c5, C6 c6);
columns!(C0 c0, C1 c1, C2 c2, C3 c3, C4 c4, C5 c5, C6 c6, C7 c7);

/// Part of a slice; a job never asks for positions that its input has not, so the error means damaged parameters.
pub(crate) fn part<T>(all: &[T], positions: Range<usize>) -> Result<&[T], String> {
    let len = all.len();
    let (first, end) = (positions.start, positions.end);
    all.get(positions)
        .ok_or_else(|| format!("positions {first} to {end} of an input of {len} were asked for"))
}

/// Plain values, read where they lie.
#[derive(Debug)]
pub struct Sliced<T>(Array<T>)
where
    T: Pod;

impl<T: Pod + Send + Sync> Sliced<T> {
    pub(crate) fn attach_array(wire: &mut Decoder<'_>) -> Result<Array<T>, String> {
        wire.array()
    }
}

impl<T: Pod + Send + Sync> Column for Sliced<T> {
    type Arg = arg::ByValue<T>;
    type Strip<'s> = &'s [T];

    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
        Self::attach_array(wire).map(Self)
    }

    #[inline]
    fn strip(&mut self, positions: Range<usize>) -> Result<&[T], String> {
        part(&self.0, positions)
    }

    fn digest(self, _: bool, digest: &mut Digest) -> Result<(), String> {
        digest.array(&self.0);
        Ok(())
    }

    #[inline(always)]
    fn read(strip: &mut &[T], i: usize) -> Result<T, String> {
        Ok(strip[i])
    }
}

/// Consecutive integers, computed.
#[derive(Debug)]
pub struct Counting<T>(T);

impl<T: Countable> Column for Counting<T> {
    type Arg = arg::ByValue<T>;
    type Strip<'s> = T;

    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
        wire.pod().map(Self)
    }

    #[inline]
    fn strip(&mut self, positions: Range<usize>) -> Result<T, String> {
        Ok(self.0.plus(positions.start as u64))
    }

    fn digest(self, _: bool, digest: &mut Digest) -> Result<(), String> {
        digest.bytes(type_name::<Self>().as_bytes());
        digest.bytes(bytemuck::bytes_of(&self.0));
        Ok(())
    }

    #[inline(always)]
    fn read(first: &mut T, i: usize) -> Result<T, String> {
        Ok(first.plus(i as u64))
    }
}

/// Bytes of variable length: a range each in one array.
#[derive(Debug)]
struct Ranges {
    ranges: Array<RecordRef>,
    bytes: Array<u8>,
}

impl Ranges {
    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
        Ok(Self {
            ranges: Sliced::attach_array(wire)?,
            bytes: Sliced::attach_array(wire)?,
        })
    }

    fn digest(&self, digest: &mut Digest) {
        digest.array(&self.ranges);
        digest.array(&self.bytes);
    }
}

fn bytes_of<'s>(bytes: &'s [u8], range: &RecordRef) -> Result<&'s [u8], String> {
    let start = usize::try_from(range.offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(range.len as usize);
    bytes
        .get(start..end)
        .ok_or_else(|| "an input record lies outside its block".to_owned())
}

/// Records, decoded from private copies.
#[derive(Debug)]
pub struct Decoded<T, K> {
    ranges: Ranges,
    scratch: AlignedVec,
    kind: PhantomData<fn() -> (T, K)>,
}

/// Some positions of [`Decoded`].
#[derive(Debug)]
pub struct DecodedStrip<'s> {
    ranges: &'s [RecordRef],
    bytes: &'s [u8],
    scratch: &'s mut AlignedVec,
}

impl<T: Datum<K>, K: 'static> Column for Decoded<T, K> {
    type Arg = arg::ByValue<T>;
    type Strip<'s> = DecodedStrip<'s>;

    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
        Ok(Self {
            ranges: Ranges::attach(wire)?,
            scratch: AlignedVec::new(),
            kind: PhantomData,
        })
    }

    fn strip(&mut self, positions: Range<usize>) -> Result<DecodedStrip<'_>, String> {
        let ranges = part(&self.ranges.ranges, positions)?;
        Ok(DecodedStrip {
            ranges,
            bytes: &self.ranges.bytes,
            scratch: &mut self.scratch,
        })
    }

    fn digest(mut self, lends: bool, digest: &mut Digest) -> Result<(), String> {
        digest.bytes(type_name::<T>().as_bytes());
        if !lends {
            self.ranges.digest(digest);
            return Ok(());
        }
        let len = self.ranges.ranges.len();
        let mut strip = self.strip(0..len)?;
        (0..len).try_for_each(|i| digest.value(&Self::read(&mut strip, i)?))
    }

    fn read(strip: &mut DecodedStrip<'_>, i: usize) -> Result<T, String> {
        T::decode_shared(
            bytes_of(strip.bytes, &strip.ranges[i])?,
            strip.scratch,
            Vouch::OURS,
        )
    }
}

/// Text, checked in a private copy.
#[derive(Debug)]
pub struct Texts {
    ranges: Ranges,
    scratch: Vec<u8>,
}

/// Some positions of [`Texts`].
#[derive(Debug)]
pub struct TextStrip<'s> {
    ranges: &'s [RecordRef],
    bytes: &'s [u8],
    scratch: &'s mut Vec<u8>,
}

impl Column for Texts {
    type Arg = arg::ByStr;
    type Strip<'s> = TextStrip<'s>;

    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
        Ok(Self {
            ranges: Ranges::attach(wire)?,
            scratch: Vec::new(),
        })
    }

    fn strip(&mut self, positions: Range<usize>) -> Result<TextStrip<'_>, String> {
        let ranges = part(&self.ranges.ranges, positions)?;
        Ok(TextStrip {
            ranges,
            bytes: &self.ranges.bytes,
            scratch: &mut self.scratch,
        })
    }

    fn digest(self, _: bool, digest: &mut Digest) -> Result<(), String> {
        self.ranges.digest(digest);
        Ok(())
    }

    fn read<'r>(strip: &'r mut TextStrip<'_>, i: usize) -> Result<&'r str, String> {
        strip.scratch.clear();
        strip
            .scratch
            .extend_from_slice(bytes_of(strip.bytes, &strip.ranges[i])?);
        std::str::from_utf8(strip.scratch).map_err(|e| format!("a text of the input was damaged: {e}"))
    }
}

/// Rows of an array along one of its axes.
#[derive(Debug)]
pub struct RowsOf<T: Pod> {
    array: Array<T>,
    axis: usize,
}

impl<T: Pod + Send + Sync> Column for RowsOf<T> {
    type Arg = arg::Row<T>;
    type Strip<'s> = (&'s Self, usize);

    fn attach(wire: &mut Decoder<'_>) -> Result<Self, String> {
        let array = Sliced::attach_array(wire)?;
        let axis = wire.pod::<u64>()? as usize;
        Ok(Self { array, axis })
    }

    fn strip(&mut self, positions: Range<usize>) -> Result<(&Self, usize), String> {
        Ok((self, positions.start))
    }

    fn digest(self, _: bool, digest: &mut Digest) -> Result<(), String> {
        digest.array(&self.array);
        digest.bytes(&self.axis.to_le_bytes());
        Ok(())
    }

    fn read<'r>(strip: &'r mut (&Self, usize), i: usize) -> Result<ArrayViewD<'r, T>, String> {
        let (rows, first) = *strip;
        rows.array
            .index_axis(rows.axis, first + i)
            .map_err(|e| e.to_string())
    }
}
