//! Jobs of every shape, whose every position is looked at.

use std::{fmt, thread, time::Duration};

use swathe::{
    ArrayMut, Batch, ChunkSize, Collection, Error, ItemError, Partial, Pool, Result, Status, chaos::Point,
};

/// How many positions a job has.
pub(crate) const POSITIONS: u64 = 200;

/// What a job does with its positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Numbers,
    Texts,
    InPlace,
    Chunks,
    PerWorker,
}

impl Shape {
    pub(crate) const ALL: [Self; 5] = [
        Self::Numbers,
        Self::Texts,
        Self::InPlace,
        Self::Chunks,
        Self::PerWorker,
    ];

    /// Whether a job of this shape passes the point in the row of jobs that are in place, or in the other.
    pub(crate) fn passes(self, point: Point, in_place: bool) -> bool {
        match point {
            // A task that takes a chunk writes by itself: to the engine it runs.
            Point::Writing => self != Self::Chunks && in_place == (self == Self::InPlace),
            Point::Written => in_place == (self == Self::InPlace),
            _ => true,
        }
    }

    /// Runs a job, and checks that what is done is right and what is not done is untouched. Gives what failed: an
    /// element each, or a chunk.
    pub(crate) fn run<S: 'static>(self, pool: &Pool<S>, options: &Options) -> Result<Vec<ItemError>> {
        match self {
            Self::Numbers => check(
                &options.of(pool).collect_errors().map(number, 0..POSITIONS)?,
                to_number,
            ),
            Self::Texts => {
                let texts = options.of(pool).collect_errors().map(text, 0..POSITIONS)?;
                check(&texts, |i| to_number(i).to_string())
            }
            Self::InPlace => in_place(options.of(pool)),
            Self::Chunks => {
                let input: Vec<u64> = (0..POSITIONS).collect();
                let batch = options.of(pool).collect_errors().chunk_size(7);
                check(&batch.map_chunks(chunk, input)?, to_number)
            }
            Self::PerWorker => check(&options.of(pool).collect_errors().run_per_worker(|| 1u64)?, |_| 1),
        }
    }
}

/// Options of a job.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) chunk: ChunkSize,
    pub(crate) timeout: Option<Duration>,
    /// Whether one death is enough to give an element up.
    pub(crate) strict: bool,
}

impl Options {
    fn of<'p, S: 'static>(&self, pool: &'p Pool<S>) -> Batch<'p, S> {
        let mut batch = pool.batch().chunk_size(self.chunk);
        if let Some(each) = self.timeout {
            batch = batch.timeout(each);
        }
        if self.strict {
            batch = batch.max_deaths(1);
        }
        batch
    }
}

fn to_number(i: u64) -> u64 {
    3 * i + 1
}

/// Long enough that two workers share a job, short enough that some strips have several elements.
fn rest(x: u64) {
    if x.is_multiple_of(4) {
        thread::sleep(Duration::from_micros(50));
    }
}

pub(crate) fn number(x: u64) -> u64 {
    rest(x);
    to_number(x)
}

fn text(x: u64) -> String {
    number(x).to_string()
}

fn chunk(from: &[u64], to: &mut [u64]) {
    to.iter_mut().zip(from).for_each(|(y, x)| *y = number(*x));
}

/// What is changed in place shows whatever is done twice: the second time it is not in range.
fn in_place<S: 'static>(batch: Batch<'_, S>) -> Result<Vec<ItemError>> {
    fn change(x: u64) -> u64 {
        assert!(x < POSITIONS, "{x} was changed before");
        POSITIONS + number(x)
    }
    let expected = |i| POSITIONS + to_number(i);
    let array = ArrayMut::from_range(0..POSITIONS)?;
    let error = match batch.map_in_place(change, array) {
        Ok(array) => {
            assert!(
                array.iter().copied().eq((0..POSITIONS).map(expected)),
                "{array:?}"
            );
            return Ok(Vec::new());
        }
        Err(Error::Job(error)) => error,
        Err(other) => return Err(other),
    };
    let partial = error
        .into_partial::<ArrayMut<u64>>()
        .expect("the array comes back");
    let failed = check(&partial, expected)?;
    let statuses: Vec<Status> = (0..partial.len()).map(|i| partial.status(i)).collect();
    let array = partial.into_values();
    for (i, (value, status)) in array.iter().zip(statuses).enumerate() {
        let untouched = *value == i as u64;
        // A copy that was made on behalf of the dead may have come too late for the status, not for the value.
        let whole = untouched || *value == expected(i as u64);
        assert!(
            whole && (status == Status::Done) <= !untouched,
            "position {i}: {value}, {status:?}"
        );
    }
    Ok(failed)
}

/// Every position is done and right, or belongs to a failure.
fn check<O>(partial: &Partial<O>, expected: impl Fn(u64) -> O::Item) -> Result<Vec<ItemError>>
where
    O: Collection<Item: PartialEq + fmt::Debug>,
{
    let failures = partial.failures();
    let missing = (0..partial.len()).filter(|i| partial.status(*i) != Status::Done);
    let failed: u64 = failures.iter().map(ItemError::span).sum();
    assert_eq!(missing.count() as u64, failed, "{failures:?}");
    for i in 0..partial.len() {
        let done = partial.status(i) == Status::Done;
        let value = partial.value(i)?;
        assert_eq!(value, done.then(|| expected(i as u64)), "position {i}");
    }
    Ok(failures)
}
