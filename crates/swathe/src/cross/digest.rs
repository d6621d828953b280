//! Fingerprints of what a job is made of, to compare it with another run of the program.
#![allow(
    unnameable_types,
    reason = "they are in hidden methods of traits that are sealed by that: nobody outside can name them"
)]

use std::any::type_name;

use bytemuck::Pod;
use rkyv::util::AlignedVec;
use swathe_memory::{Array, array_ref::by_content};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::cross::datum::Datum;

/// 128 bits of XXH3: equal for equal content, and against mistakes, not against forgery.
#[derive(Clone)]
pub struct Digest(Xxh3);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(Xxh3::new())
    }

    /// Adds bytes; their number too, so that what follows cannot be taken for a part of them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds an array: the type of its elements, its shape, and its elements.
    pub(crate) fn array<T: Pod>(&mut self, array: &Array<T>) {
        self.bytes(type_name::<T>().as_bytes());
        let shape: Vec<u64> = array.shape().iter().map(|&length| length as u64).collect();
        self.bytes(bytemuck::cast_slice(&shape));
        if size_of::<T>() > 0 {
            self.bytes(bytemuck::cast_slice(array));
        }
    }

    /// Adds a value; arrays in it by what they hold, because where they lie differs from run to run.
    pub(crate) fn value<T: Datum<K>, K>(&mut self, value: &T) -> Result<(), String> {
        let mut bytes = AlignedVec::new();
        by_content(of, || value.encode(&mut bytes))?;
        self.bytes(&bytes);
        Ok(())
    }

    pub(crate) fn finish(&self) -> [u64; 2] {
        words(self.0.digest128())
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

/// The fingerprint of some bytes.
pub(crate) fn of(bytes: &[u8]) -> [u64; 2] {
    words(xxh3_128(bytes))
}

fn words(hash: u128) -> [u64; 2] {
    [hash as u64, (hash >> 64) as u64]
}
