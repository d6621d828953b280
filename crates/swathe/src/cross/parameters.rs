//! Parameters that a call broadcasts to its workers.

use std::{any::type_name, marker::PhantomData};

use rkyv::util::AlignedVec;

use crate::{
    cross::{datum::Datum, digest::Digest},
    lower::Vouch,
};

/// The parameters of a call: none, or one value that every task of it sees as `&P`.
pub trait Parameters: 'static {
    /// What the task sees.
    type Value: 'static;

    /// In the worker, once a job.
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> Result<Self::Value, String>;

    /// In the parent, to compare them with those of another run; `lends` if they hold arrays.
    #[doc(hidden)]
    fn digest(bytes: &[u8], lends: bool, digest: &mut Digest) -> Result<(), String>;
}

/// A call without parameters.
#[derive(Debug)]
pub enum Without {}

/// A call with parameters `P`; see [`Batch::with`](crate::Batch::with).
#[derive(Debug)]
pub struct With<P, K>(PhantomData<fn() -> (P, K)>);

impl Parameters for Without {
    type Value = ();

    fn decode(_: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn digest(_: &[u8], _: bool, _: &mut Digest) -> Result<(), String> {
        Ok(())
    }
}

impl<P: Datum<K>, K: 'static> Parameters for With<P, K> {
    type Value = P;

    fn decode(bytes: &[u8]) -> Result<P, String> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        P::decode(&aligned, Vouch::OURS)
    }

    fn digest(bytes: &[u8], lends: bool, digest: &mut Digest) -> Result<(), String> {
        digest.bytes(type_name::<P>().as_bytes());
        if lends {
            digest.value(&Self::decode(bytes)?)?;
        } else {
            digest.bytes(bytes);
        }
        Ok(())
    }
}
