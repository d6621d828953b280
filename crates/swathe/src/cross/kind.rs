//! How a value crosses between processes. These types are never made and hardly ever written: the compiler infers them.

/// Plain old data: it lies in shared memory as it is ([`bytemuck::Pod`]).
#[derive(Debug)]
pub enum Plain {}

/// A type marked with [`Record`](crate::Record): it crosses as a checked `rkyv` record.
#[derive(Debug)]
pub enum Recorded {}

/// A tuple: it crosses as a checked `rkyv` record.
#[derive(Debug)]
pub enum Tuple {}

/// A `String`: as a result and by value it is a `String`; a task that gets it from a `&[String]` sees a `&str`.
#[derive(Debug)]
pub enum Owned {}

/// A `&str`, read in the worker from a private copy.
#[derive(Debug)]
pub enum Text {}

/// A range of integers, computed in the worker.
#[derive(Debug)]
pub enum Counted {}

/// One column per argument.
#[derive(Debug)]
pub struct ByColumn<K>(std::marker::PhantomData<K>);

/// One tuple per element.
#[derive(Debug)]
pub struct ByRow<K>(std::marker::PhantomData<K>);
