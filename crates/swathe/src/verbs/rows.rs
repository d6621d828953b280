//! `map_rows`: the task gets one row of an array.

use bytemuck::Pod;
use swathe_memory::Array;

use crate::{
    Batch, Pool, Result,
    call::mode::{Mode, Strict},
    cross::{
        datum::Collection,
        over::{EachRow, Fallible, TaskOver},
        parameters::Parameters,
    },
};

impl<S: 'static, P: Parameters, E: Mode> Batch<'_, S, P, E> {
    /// As [`Pool::map_rows`], with the options of this batch.
    pub fn map_rows<F, T, X, R>(self, task: F, array: &Array<T>, axis: usize) -> Result<E::Of<R>>
    where
        T: Pod,
        F: TaskOver<EachRow<T>, X, S, P, Values = R>,
        R: Collection,
    {
        let rows = EachRow {
            array: array.clone(),
            axis,
        };
        self.prepare(task, rows)?.wait(E::show)
    }

    /// As [`Pool::try_map_rows`], with the options of this batch.
    pub fn try_map_rows<F, T, X, R>(self, task: F, array: &Array<T>, axis: usize) -> Result<E::Of<R>>
    where
        T: Pod,
        F: TaskOver<Fallible<EachRow<T>>, X, S, P, Values = R>,
        R: Collection,
    {
        let rows = EachRow {
            array: array.clone(),
            axis,
        };
        self.prepare(task, Fallible(rows))?.wait(E::show)
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
    /// As [`map`](Self::map), and [`Error::Axis`](crate::Error::Axis) if there is no such axis.
    pub fn map_rows<F, T, X, R>(&self, task: F, array: &Array<T>, axis: usize) -> Result<R>
    where
        T: Pod,
        F: TaskOver<EachRow<T>, X, S, Values = R>,
        R: Collection,
    {
        let rows = EachRow {
            array: array.clone(),
            axis,
        };
        self.batch().prepare(task, rows)?.wait(Strict::show)
    }

    /// As [`map_rows`](Self::map_rows), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows).
    pub fn try_map_rows<F, T, X, R>(&self, task: F, array: &Array<T>, axis: usize) -> Result<R>
    where
        T: Pod,
        F: TaskOver<Fallible<EachRow<T>>, X, S, Values = R>,
        R: Collection,
    {
        let rows = EachRow {
            array: array.clone(),
            axis,
        };
        self.batch().prepare(task, Fallible(rows))?.wait(Strict::show)
    }
}
