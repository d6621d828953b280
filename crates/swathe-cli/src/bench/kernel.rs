//! What is done to every element, and the elements.

use std::{hint::black_box, path::Path};

use bytemuck::Pod;
use swathe::Array;
use swathe_memory::npy_info;
use swathe_os::text;

use crate::failure::{Failure, Result};

/// One element's work. It is a type, so that each contender gets a loop of its own around it.
pub(crate) trait Step: Copy + Send + Sync + 'static {
    /// What is read.
    type In: Pod + Send + Sync;
    /// What is written; results are compared bit by bit.
    type Out: Pod + Send + Sync;

    /// The work.
    fn step(x: Self::In) -> Self::Out;

    /// Whether moving bytes is what takes the time, so that GB/s say something.
    const MOVES_BYTES: bool;

    /// `step` for Python, and the type code of its results in Python's `array` (empty: there are none).
    const PYTHON: (&'static str, &'static str);
}

/// A kernel with its input.
pub(crate) struct Kernel<S: Step> {
    pub(crate) name: String,
    pub(crate) input: Array<S::In>,
    /// A Python expression for element `i` of `n`.
    pub(crate) python_input: String,
    /// Python does at most about this many elements: more would take minutes.
    pub(crate) python_len: usize,
}

impl<S: Step> Kernel<S> {
    /// Bytes read and written for an element.
    pub(crate) fn bytes_per_element(&self) -> usize {
        size_of::<S::In>() + size_of::<S::Out>()
    }
}

/// x * x.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream;

impl Step for Stream {
    type In = f64;
    type Out = f64;

    #[inline(always)]
    fn step(x: f64) -> f64 {
        x * x
    }

    const MOVES_BYTES: bool = true;

    const PYTHON: (&'static str, &'static str) = ("def step(x):\n    return x * x\n", "d");
}

/// Steps of the logistic map, each of which needs the one before. (At 2.7 ns each these are about 200 ns.)
const LOGISTIC_STEPS: usize = 75;

/// The logistic map y <- 3.7 y (1 - y), iterated: chaotic, so that a rounding that differs anywhere is seen in the result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compute;

impl Step for Compute {
    type In = f64;
    type Out = f64;

    #[inline(always)]
    fn step(x: f64) -> f64 {
        // Hidden from the compiler, which would do several elements at once: that is what `stream` is for.
        let steps = black_box(LOGISTIC_STEPS);
        let mut y = x;
        for _ in 0..steps {
            y = 3.7 * y * (1.0 - y);
        }
        y
    }

    const MOVES_BYTES: bool = false;

    const PYTHON: (&'static str, &'static str) = (
        "def step(x):\n    y = x\n    for _ in range(75):\n        y = 3.7 * y * (1.0 - y)\n    return y\n",
        "d",
    );
}

/// Points of a row of the Mandelbrot set, and iterations after which a point is taken to belong to it.
const WIDTH: u32 = 256;
const ITERATIONS: u32 = 500;

/// A row of the Mandelbrot set: the sum of all iterations. Rows through the middle take some hundred times as long as
/// those at the edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Irregular;

impl Step for Irregular {
    type In = f64;
    type Out = u32;

    #[inline(always)]
    fn step(im: f64) -> u32 {
        (0..WIDTH)
            .map(|i| iterations(-2.0 + 2.5 * f64::from(i) / f64::from(WIDTH), im))
            .sum()
    }

    const MOVES_BYTES: bool = false;

    const PYTHON: (&'static str, &'static str) = (
        "def step(im):
    total = 0
    for i in range(256):
        re = -2.0 + 2.5 * i / 256
        x = y = 0.0
        n = 0
        while n < 500 and x * x + y * y <= 4.0:
            x, y = x * x - y * y + re, 2.0 * x * y + im
            n += 1
        total += n
    return total
",
        "I",
    );
}

/// How many iterations z <- z^2 + c stays within radius 2.
fn iterations(re: f64, im: f64) -> u32 {
    let (mut x, mut y, mut n) = (0.0, 0.0, 0);
    while n < ITERATIONS && x * x + y * y <= 4.0 {
        (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
        n += 1;
    }
    n
}

/// Nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiny;

impl Step for Tiny {
    type In = u8;
    type Out = ();

    #[inline(always)]
    fn step(x: u8) {
        black_box(x); // or there would be no loop at all
    }

    const MOVES_BYTES: bool = false;

    const PYTHON: (&'static str, &'static str) = ("def step(x):\n    pass\n", "");
}

/// A number of a file, as f64.
pub(crate) trait Number: swathe::Element + Send + Sync {
    fn to_f64(self) -> f64;
    /// Its type code in Python's `array`.
    const CODE: &'static str;
}

macro_rules! number {
    ($($T:ty => $code:literal),*) => {
        $(impl Number for $T {
            fn to_f64(self) -> f64 {
                self as f64
            }
            const CODE: &'static str = $code;
        })*
    };
}

number!(f64 => "d", f32 => "f", i64 => "q", i32 => "i");

/// The square of a number, as f64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Square<T>(std::marker::PhantomData<T>);

impl<T: Number> Step for Square<T> {
    type In = T;
    type Out = f64;

    #[inline(always)]
    fn step(x: T) -> f64 {
        let x = x.to_f64();
        x * x
    }

    const MOVES_BYTES: bool = true;

    const PYTHON: (&'static str, &'static str) = ("def step(x):\n    x = float(x)\n    return x * x\n", "d");
}

/// 1000 different numbers in (0, 1), over and over; Python makes the same.
fn numbers(len: usize) -> Result<Array<f64>> {
    Ok(Array::from_fn(len, |i| (i % 1000 + 1) as f64 / 1001.0)?)
}

const PYTHON_NUMBERS: &str = "(i % 1000 + 1) / 1001.0";

impl Kernel<Stream> {
    pub(crate) fn stream(len: usize) -> Result<Self> {
        Ok(Self {
            name: "stream".into(),
            input: numbers(len)?,
            python_input: PYTHON_NUMBERS.into(),
            python_len: 1_000_000,
        })
    }
}

impl Kernel<Compute> {
    pub(crate) fn compute(len: usize) -> Result<Self> {
        Ok(Self {
            name: "compute".into(),
            input: numbers(len)?,
            python_input: PYTHON_NUMBERS.into(),
            python_len: 100_000,
        })
    }
}

impl Kernel<Irregular> {
    pub(crate) fn irregular(rows: usize) -> Result<Self> {
        let n = rows as f64;
        Ok(Self {
            name: "irregular".into(),
            input: Array::from_fn(rows, |i| -1.25 + 2.5 * i as f64 / n)?,
            python_input: "-1.25 + 2.5 * i / n".into(),
            python_len: 100,
        })
    }
}

impl Kernel<Tiny> {
    pub(crate) fn tiny(len: usize) -> Result<Self> {
        Ok(Self {
            name: "tiny".into(),
            input: Array::zeros(len)?,
            python_input: "0".into(),
            python_len: 100_000,
        })
    }
}

impl<T: Number> Kernel<Square<T>> {
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let info = npy_info(path)?;
        if info.fortran_order && info.shape.iter().filter(|&&len| len > 1).count() > 1 {
            return Err(Failure::new(format!(
                "{} lies in Fortran order, in which Python would read other numbers: save it with numpy.ascontiguousarray",
                path.display()
            )));
        }
        let stored = Array::<T>::from_npy_path(path)?;
        let input = stored.reshape(&[stored.len()])?;
        if input.is_empty() {
            return Err(Failure::new(format!(
                "{} holds an array without elements: there is nothing to measure",
                path.display()
            )));
        }
        let quoted = serde_json::to_string(&path.display().to_string())?; // as Python quotes
        Ok(Self {
            name: format!("squares of {}", text::path(path)),
            input,
            python_input: format!("stored({quoted}, {:?}, {})[i]", T::CODE, info.data_offset),
            python_len: 1_000_000,
        })
    }
}
