//! `map_in_place`: results over their inputs.

use std::sync::Arc;

use bytemuck::Pod;
use swathe_memory::ArrayMut;
use swathe_runtime::{Job, Outcome};

use crate::{
    Batch, Error, Pool, Result,
    call::{
        batch::Call,
        job::align_of_chunks,
        mode::{Mode, Strict},
        ready::Ready,
    },
    cross::{
        over::{Each, Fallible, InPlaceTask},
        parameters::Parameters,
    },
    lower::{self, InPlace, wire::Encoder},
};

impl<S: 'static, P: Parameters> Batch<'_, S, P> {
    /// As [`Pool::map_in_place`], with the options of this batch.
    pub fn map_in_place<F, T, X>(self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod,
        F: InPlaceTask<Each<ArrayMut<T>>, X, S, P, Element = T>,
    {
        self.run_in_place(task, array)
    }

    /// As [`Pool::try_map_in_place`], with the options of this batch.
    pub fn try_map_in_place<F, T, X>(self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod,
        F: InPlaceTask<Fallible<Each<ArrayMut<T>>>, X, S, P, Element = T>,
    {
        self.run_in_place(task, array)
    }

    fn run_in_place<F, In, X>(self, task: F, array: ArrayMut<F::Element>) -> Result<ArrayMut<F::Element>>
    where
        F: InPlaceTask<In, X, S, P>,
    {
        let Call {
            engine,
            options,
            parameters,
            callbacks,
        } = self.call;
        let task = lower::in_place_task::<F, In, X, S, P>(task)?;
        let positions = array.len() as u64;
        let mut wire = Encoder::default();
        wire.bytes(&parameters.bytes);
        let region = InPlace::region(&array);
        let array = InPlace::new(array, &mut wire);
        let job = Job {
            params: wire.into_bytes(),
            chunk_align: align_of_chunks::<F::Element>(),
            in_place: Some(region),
            bytes: 2 * region.bytes(),
            lends: parameters.lends,
            keep: Box::new((parameters.keep, array.clone())),
            ..options.job(task, positions)?
        };
        // The verb waits, so this runs once.
        let conclude = move |outcome: &Arc<Outcome>| match array.when_over(outcome) {
            Some(array) => Strict::conclude(outcome, array),
            None => Err(Error::NotReady),
        };
        Ready::new(engine, job, callbacks, conclude).wait(|array: &ArrayMut<_>| &array[..])
    }
}

impl<S: 'static> Pool<S> {
    /// Replaces each element of an array by what the task makes of it, in the same memory.
    ///
    /// An element that fails keeps its old value. No element is mapped twice, whenever a worker dies: results are copied
    /// over their inputs by strips, and a copy that a death interrupts is finished by the pool.
    ///
    /// ```
    /// use swathe::{ArrayMut, Pool};
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let temperatures = ArrayMut::from_vec(vec![0.0, 37.0, 100.0])?;
    ///     let kelvin = pool.map_in_place(|celsius: f64| celsius + 273.15, temperatures)?;
    ///     assert_eq!(kelvin[0], 273.15);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map); [`JobError::into_partial`](crate::JobError::into_partial)`::<ArrayMut<T>>` gives the
    /// array back.
    pub fn map_in_place<F, T, X>(&self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod,
        F: InPlaceTask<Each<ArrayMut<T>>, X, S, Element = T>,
    {
        self.batch().map_in_place(task, array)
    }

    /// As [`map_in_place`](Self::map_in_place), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// As [`map_in_place`](Self::map_in_place).
    pub fn try_map_in_place<F, T, X>(&self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod,
        F: InPlaceTask<Fallible<Each<ArrayMut<T>>>, X, S, Element = T>,
    {
        self.batch().try_map_in_place(task, array)
    }
}
