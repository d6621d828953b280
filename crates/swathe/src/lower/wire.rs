//! The parameter bytes of a job: plain values and byte strings, one after the other.
#![allow(
    unnameable_types,
    reason = "they are in hidden methods of traits that are sealed by that: nobody outside can name them"
)]

use bytemuck::Pod;
use swathe_memory::{Array, ArrayRef};

/// Writes parameter bytes.
#[derive(Debug)]
pub(crate) struct Encoder(Vec<u8>);

impl Default for Encoder {
    fn default() -> Self {
        // Room for a slab and an input: what a small job writes costs one allocation.
        Self(Vec::with_capacity(256))
    }
}

impl Encoder {
    pub(crate) fn pod<T: Pod>(&mut self, value: &T) {
        self.0.extend_from_slice(bytemuck::bytes_of(value));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.pod(&(bytes.len() as u64));
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn append(&mut self, other: &Encoder) {
        self.0.extend_from_slice(&other.0);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads them again, in the order they were written.
#[derive(Debug)]
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn pod<T: Pod>(&mut self) -> Result<T, String> {
        self.take(size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], String> {
        let len = self.pod::<u64>()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// An input of the job.
    pub(crate) fn array<T: Pod>(&mut self) -> Result<Array<T>, String> {
        let reference = self.pod::<ArrayRef>()?;
        // SAFETY: the parent has written the reference to an array that the job keeps until no worker is inside of it; what a
        // task keeps longer is counted (`lease`). Nobody writes an array. Bytes of parameters come from the engine only, which
        // has copied them out of what the parent wrote for this job.
        unsafe { reference.attach() }.map_err(|e| e.to_string())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or("the job's parameters end too early")?;
        self.0 = rest;
        Ok(taken)
    }
}
