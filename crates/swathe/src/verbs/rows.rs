//! `map_rows`: the task gets one row of an array.

use bytemuck::Pod;
use swathe_memory::Array;

use crate::{
    Batch, Error, Pool, Result,
    call::{callbacks::OnSuccess, mode::Mode},
    cross::{arg::Row, column::RowsOf, datum::Datum, item::Lowered, parameters::Parameters, task::Task},
    lower::{Direct, Fallible},
    verbs::map::Many,
};

/// The array, and the axis whose positions are the job's.
pub(crate) fn lower_rows<T: Pod + Send + Sync>(array: &Array<T>, axis: usize) -> Result<Lowered> {
    let axes = array.shape().len();
    let len = *array.shape().get(axis).ok_or(Error::Axis { axis, axes })?;
    let mut lowered = Lowered::array(array.clone())?;
    lowered.wire.pod(&(axis as u64));
    Ok(Lowered {
        len: len as u64,
        ..lowered
    })
}

impl<S: 'static, W: Parameters, E: Mode, C> Batch<'_, S, W, E, C> {
    /// As [`Pool::map_rows`], with the options of this batch.
    pub fn map_rows<F, T, M, B, KB>(
        self,
        task: F,
        array: &Array<T>,
        axis: usize,
    ) -> Result<E::Of<Many<B, KB>>>
    where
        T: Pod + Send + Sync,
        F: Task<S, W::Value, (Row<T>,), M, Output = B>,
        B: Datum<KB>,
        C: OnSuccess<E::Shown<Many<B, KB>>>,
    {
        self.prepare::<F, (RowsOf<T>,), M, Direct, KB>(task, |_| lower_rows(array, axis))?
            .wait(E::show)
    }

    /// As [`Pool::try_map_rows`], with the options of this batch.
    pub fn try_map_rows<F, T, M, B, KB, X>(
        self,
        task: F,
        array: &Array<T>,
        axis: usize,
    ) -> Result<E::Of<Many<B, KB>>>
    where
        T: Pod + Send + Sync,
        F: Task<S, W::Value, (Row<T>,), M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
        C: OnSuccess<E::Shown<Many<B, KB>>>,
    {
        self.prepare::<F, (RowsOf<T>,), M, Fallible, KB>(task, |_| lower_rows(array, axis))?
            .wait(E::show)
    }
}

impl<S: 'static> Pool<S> {
    /// Calls the task with each row of an n-dimensional array: everything at one position of `axis`, as a view with one
    /// axis less. Nothing is copied.
    ///
    /// ```
    /// use ndarray::ArrayViewD;
    /// use swathe::{Array, Pool};
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let table = Array::from_fn(6, |i| i as f64)?.reshape(&[2, 3])?; // 0 1 2 / 3 4 5
    ///     let sum = |row: ArrayViewD<'_, f64>| row.sum();
    ///     assert_eq!(pool.map_rows(sum, &table, 0)?, [3.0, 12.0]);
    ///     assert_eq!(pool.map_rows(sum, &table, 1)?, [3.0, 5.0, 7.0]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map), and [`Error::Axis`] if there is no such axis.
    pub fn map_rows<F, T, M, B, KB>(&self, task: F, array: &Array<T>, axis: usize) -> Result<Many<B, KB>>
    where
        T: Pod + Send + Sync,
        F: Task<S, (), (Row<T>,), M, Output = B>,
        B: Datum<KB>,
    {
        self.batch().map_rows(task, array, axis)
    }

    /// As [`map_rows`](Self::map_rows), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows).
    pub fn try_map_rows<F, T, M, B, KB, X>(
        &self,
        task: F,
        array: &Array<T>,
        axis: usize,
    ) -> Result<Many<B, KB>>
    where
        T: Pod + Send + Sync,
        F: Task<S, (), (Row<T>,), M, Output = Result<B, X>>,
        B: Datum<KB>,
        X: Into<Box<dyn std::error::Error>>,
    {
        self.batch().try_map_rows(task, array, axis)
    }
}
