//! `map_in_place`: results over their inputs.

use std::sync::Arc;

use bytemuck::Pod;
use swathe_memory::ArrayMut;
use swathe_runtime::{JobTraits, Outcome};

use crate::{
    Batch, Error, Pool, Result,
    call::{
        callbacks::OnSuccess,
        mode::{Mode, Strict},
        plan::{Plan, align_of_chunks},
        ready::Ready,
    },
    cross::{arg::ByValue, parameters::Parameters, task::Task},
    lower::{self, Direct, Fallible, Finish, InPlace, wire::Encoder},
};

impl<S: 'static, W: Parameters, C> Batch<'_, S, W, Strict, C> {
    /// As [`Pool::map_in_place`], with the options of this batch.
    pub fn map_in_place<F, T, M>(self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod + Send + Sync,
        F: Task<S, W::Value, (ByValue<T>,), M, Output = T>,
        C: OnSuccess<[T]>,
    {
        self.run_in_place::<F, T, M, Direct>(task, array)
    }

    /// As [`Pool::try_map_in_place`], with the options of this batch.
    pub fn try_map_in_place<F, T, M, X>(self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod + Send + Sync,
        F: Task<S, W::Value, (ByValue<T>,), M, Output = Result<T, X>>,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<[T]>,
    {
        self.run_in_place::<F, T, M, Fallible>(task, array)
    }

    fn run_in_place<F, T, M, N>(self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod + Send + Sync,
        F: Task<S, W::Value, (ByValue<T>,), M>,
        N: Finish<F::Output, Value = T>,
        C: OnSuccess<[T]>,
    {
        let task = lower::in_place_task::<F, S, W, T, M, N>(task)?;
        let positions = array.len() as u64;
        let mut wire = Encoder::default();
        wire.bytes(&self.parameters.bytes);
        let region = InPlace::region(&array);
        let array = InPlace::new(array, &mut wire);
        let plan = Plan {
            task,
            positions,
            chunk_align: align_of_chunks::<T>(),
            wire,
            traits: JobTraits::default(),
            in_place: Some(region),
            durable: None,
            base: 0,
            heap_hint: 0,
            bytes: 2 * region.bytes(),
            lends: self.parameters.lends,
            keep: Box::new((self.parameters.keep, array.clone())),
        };
        // The verb waits, so this runs once.
        let conclude = move |outcome: &Arc<Outcome>| match array.when_over(outcome) {
            Some(array) => Strict::conclude(outcome, array),
            None => Err(Error::NotReady),
        };
        Ready::new(
            self.engine,
            self.options,
            plan,
            conclude,
            self.on_success,
            self.on_error,
        )
        .wait(|array: &ArrayMut<T>| &array[..])
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
    pub fn map_in_place<F, T, M>(&self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod + Send + Sync,
        F: Task<S, (), (ByValue<T>,), M, Output = T>,
    {
        self.batch().map_in_place(task, array)
    }

    /// As [`map_in_place`](Self::map_in_place), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// As [`map_in_place`](Self::map_in_place).
    pub fn try_map_in_place<F, T, M, X>(&self, task: F, array: ArrayMut<T>) -> Result<ArrayMut<T>>
    where
        T: Pod + Send + Sync,
        F: Task<S, (), (ByValue<T>,), M, Output = Result<T, X>>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_map_in_place(task, array)
    }
}
