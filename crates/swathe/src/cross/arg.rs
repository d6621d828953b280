//! What a task is given for one element of its input.

use std::{fmt::Debug, marker::PhantomData};

use ndarray::ArrayViewD;

/// What a task is given for one element: `ByValue<T>` means `T`, [`ByStr`] means `&str`, and so on.
pub trait Arg: 'static {
    /// The type of the task's argument; `'a` is the time of one call.
    type Of<'a>;
}

/// `T`, by value.
#[derive(Debug)]
pub struct ByValue<T>(PhantomData<T>);

/// `&str`.
#[derive(Debug)]
pub enum ByStr {}

/// `&[T]`: a chunk of the input.
#[derive(Debug)]
pub struct Chunk<T>(PhantomData<T>);

/// `&mut [T]`: the output of a chunk.
#[derive(Debug)]
pub struct ChunkMut<T>(PhantomData<T>);

/// `ArrayViewD<'_, T>`: one row of an array.
#[derive(Debug)]
pub struct Row<T>(PhantomData<T>);

impl<T: 'static> Arg for ByValue<T> {
    type Of<'a> = T;
}

impl Arg for ByStr {
    type Of<'a> = &'a str;
}

impl<T: 'static> Arg for Chunk<T> {
    type Of<'a> = &'a [T];
}

impl<T: 'static> Arg for ChunkMut<T> {
    type Of<'a> = &'a mut [T];
}

impl<T: 'static> Arg for Row<T> {
    type Of<'a> = ArrayViewD<'a, T>;
}

/// All arguments of a task: a tuple of [`Arg`]s.
pub trait Args: 'static {
    /// The arguments themselves.
    type Values<'a>;
}
