//! The verbs with one call of the task for each element.

use crate::{
    Batch, Pending, Pool, Result,
    call::mode::{Mode, Strict},
    cross::{
        datum::{Collection, Datum},
        over::{Each, Fallible, Star, TaskOver},
        parameters::{Parameters, With},
    },
};

/// One call of the task for each element.
impl<S: 'static, P: Parameters, E: Mode> Batch<'_, S, P, E> {
    /// As [`Pool::map`], with the options of this batch.
    pub fn map<F, I, X, R>(self, task: F, input: I) -> Result<E::Of<R>>
    where
        F: TaskOver<Each<I>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Each(input))?.wait(E::show)
    }

    /// As [`Pool::map_async`], with the options of this batch.
    pub fn map_async<F, I, X, R>(self, task: F, input: I) -> Result<Pending<E::Of<R>>>
    where
        F: TaskOver<Each<I>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Each(input))?.start(E::show)
    }

    /// As [`Pool::try_map`], with the options of this batch.
    pub fn try_map<F, I, X, R>(self, task: F, input: I) -> Result<E::Of<R>>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Fallible(Each(input)))?.wait(E::show)
    }

    /// As [`Pool::try_map_async`], with the options of this batch.
    pub fn try_map_async<F, I, X, R>(self, task: F, input: I) -> Result<Pending<E::Of<R>>>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Fallible(Each(input)))?.start(E::show)
    }

    /// As [`Pool::starmap`], with the options of this batch.
    pub fn starmap<F, I, X, R>(self, task: F, input: I) -> Result<E::Of<R>>
    where
        F: TaskOver<Star<I>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Star(input))?.wait(E::show)
    }

    /// As [`Pool::starmap_async`], with the options of this batch.
    pub fn starmap_async<F, I, X, R>(self, task: F, input: I) -> Result<Pending<E::Of<R>>>
    where
        F: TaskOver<Star<I>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Star(input))?.start(E::show)
    }

    /// As [`Pool::try_starmap`], with the options of this batch.
    pub fn try_starmap<F, I, X, R>(self, task: F, input: I) -> Result<E::Of<R>>
    where
        F: TaskOver<Fallible<Star<I>>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Fallible(Star(input)))?.wait(E::show)
    }

    /// As [`Pool::try_starmap_async`], with the options of this batch.
    pub fn try_starmap_async<F, I, X, R>(self, task: F, input: I) -> Result<Pending<E::Of<R>>>
    where
        F: TaskOver<Fallible<Star<I>>, X, S, P, Values = R>,
        R: Collection,
    {
        self.prepare(task, Fallible(Star(input)))?.start(E::show)
    }
}

/// One call of the task for each element.
impl<S: 'static> Pool<S> {
    /// Calls the task with each element and waits for all results, in the order of the input: an [`Array`] of plain
    /// values, or [`Records`] of others. See [`Input`](crate::Input) for what an input can be.
    ///
    /// ```
    /// use swathe::{Array, Pool};
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let squares = pool.map(|x: i64| x * x, 0..10)?;
    ///     let roots: Array<f64> = pool.map(|x: i64| (x as f64).sqrt(), &squares)?; // nothing is copied
    ///     assert_eq!(roots[9], 9.0);
    ///     let lengths = pool.map(|word: &str| word.len(), ["swathe", "strip"])?;
    ///     assert_eq!(lengths, [6, 5]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Job`] if an element failed, when all others are done: it names the lowest position that failed and
    /// holds all values there are. Other errors if the call could not be made.
    ///
    /// [`Array`]: crate::Array
    /// [`Records`]: crate::Records
    /// [`Error::Job`]: crate::Error::Job
    pub fn map<F, I, X, R>(&self, task: F, input: I) -> Result<R>
    where
        F: TaskOver<Each<I>, X, S, Values = R>,
        R: Collection,
    {
        self.batch().prepare(task, Each(input))?.wait(Strict::show)
    }

    /// As [`map`](Self::map), and does not wait.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let squares = pool.map_async(|x: i64| x * x, 1..=3)?;
    ///     let cubes = pool.map_async(|x: i64| x * x * x, 1..=3)?;
    ///     assert_eq!((squares.get()?[2], cubes.get()?[2]), (9, 27));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// If the call could not be made. Failures of elements are errors of [`Pending::get`].
    pub fn map_async<F, I, X, R>(&self, task: F, input: I) -> Result<Pending<R>>
    where
        F: TaskOver<Each<I>, X, S, Values = R>,
        R: Collection,
    {
        self.batch().prepare(task, Each(input))?.start(Strict::show)
    }

    /// As [`map`](Self::map), for a task that returns a `Result`: its error is the failure of that element, and the
    /// text of the error, with its causes, is kept.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let parse = |text: &str| text.parse::<i32>();
    ///     assert_eq!(pool.try_map(parse, ["1", "-2"])?, [1, -2]);
    ///     let error = pool.try_map(parse, ["1", "two"]).unwrap_err();
    ///     assert!(error.to_string().starts_with("position 1 failed: invalid digit"), "{error}");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn try_map<F, I, X, R>(&self, task: F, input: I) -> Result<R>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, Values = R>,
        R: Collection,
    {
        self.batch()
            .prepare(task, Fallible(Each(input)))?
            .wait(Strict::show)
    }

    /// As [`try_map`](Self::try_map), and does not wait; see [`map_async`](Self::map_async).
    ///
    /// # Errors
    /// If the call could not be made.
    pub fn try_map_async<F, I, X, R>(&self, task: F, input: I) -> Result<Pending<R>>
    where
        F: TaskOver<Fallible<Each<I>>, X, S, Values = R>,
        R: Collection,
    {
        self.batch()
            .prepare(task, Fallible(Each(input)))?
            .start(Strict::show)
    }

    /// As [`map`](Self::map), with parameters that every call of the task sees by reference. They cross once a worker.
    ///
    /// ```
    /// use swathe::{Array, Pool};
    ///
    /// fn interpolate(table: &Array<f64>, x: f64) -> f64 {
    ///     let i = (x as usize).min(table.len() - 2);
    ///     table[i] + (x - i as f64) * (table[i + 1] - table[i])
    /// }
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let table = Array::from_fn(10, |i| (i * i) as f64)?;
    ///     assert_eq!(pool.map_with(&table, interpolate, [0.5, 3.0])?, [0.5, 9.0]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map), or if the parameters cannot be encoded.
    pub fn map_with<D, K, F, I, X, R>(&self, parameters: &D, task: F, input: I) -> Result<R>
    where
        D: Datum<K>,
        K: 'static,
        F: TaskOver<Each<I>, X, S, With<D, K>, Values = R>,
        R: Collection,
    {
        self.batch()
            .with(parameters)?
            .prepare(task, Each(input))?
            .wait(Strict::show)
    }

    /// As [`map`](Self::map), for a task of several arguments. See [`StarInput`](crate::StarInput) for what an input can be; columns are
    /// the fast form.
    ///
    /// ```
    /// use swathe::Pool;
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let prices = [99.0, 105.0, 113.0];
    ///     let strikes = vec![100.0; 3];
    ///     let payoff = |price: f64, strike: f64| (price - strike).max(0.0);
    ///     assert_eq!(pool.starmap(payoff, (&prices, &strikes))?, [0.0, 5.0, 13.0]);
    ///     assert_eq!(pool.starmap(payoff, [(99.0, 90.0), (1.0, 2.0)])?, [9.0, 0.0]);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`map`](Self::map), and [`Error::Columns`](crate::Error::Columns) if the columns are not equally long.
    pub fn starmap<F, I, X, R>(&self, task: F, input: I) -> Result<R>
    where
        F: TaskOver<Star<I>, X, S, Values = R>,
        R: Collection,
    {
        self.batch().prepare(task, Star(input))?.wait(Strict::show)
    }

    /// As [`starmap`](Self::starmap), and does not wait; see [`map_async`](Self::map_async).
    ///
    /// # Errors
    /// If the call could not be made.
    pub fn starmap_async<F, I, X, R>(&self, task: F, input: I) -> Result<Pending<R>>
    where
        F: TaskOver<Star<I>, X, S, Values = R>,
        R: Collection,
    {
        self.batch().prepare(task, Star(input))?.start(Strict::show)
    }

    /// As [`starmap`](Self::starmap), for a task that returns a `Result`; see [`try_map`](Self::try_map).
    ///
    /// # Errors
    /// As [`starmap`](Self::starmap).
    pub fn try_starmap<F, I, X, R>(&self, task: F, input: I) -> Result<R>
    where
        F: TaskOver<Fallible<Star<I>>, X, S, Values = R>,
        R: Collection,
    {
        self.batch()
            .prepare(task, Fallible(Star(input)))?
            .wait(Strict::show)
    }

    /// As [`try_starmap`](Self::try_starmap), and does not wait; see [`map_async`](Self::map_async).
    ///
    /// # Errors
    /// If the call could not be made.
    pub fn try_starmap_async<F, I, X, R>(&self, task: F, input: I) -> Result<Pending<R>>
    where
        F: TaskOver<Fallible<Star<I>>, X, S, Values = R>,
        R: Collection,
    {
        self.batch()
            .prepare(task, Fallible(Star(input)))?
            .start(Strict::show)
    }

    /// As [`starmap`](Self::starmap), with parameters; see [`map_with`](Self::map_with).
    ///
    /// # Errors
    /// As [`starmap`](Self::starmap), or if the parameters cannot be encoded.
    pub fn starmap_with<D, K, F, I, X, R>(&self, parameters: &D, task: F, input: I) -> Result<R>
    where
        D: Datum<K>,
        K: 'static,
        F: TaskOver<Star<I>, X, S, With<D, K>, Values = R>,
        R: Collection,
    {
        self.batch()
            .with(parameters)?
            .prepare(task, Star(input))?
            .wait(Strict::show)
    }
}
