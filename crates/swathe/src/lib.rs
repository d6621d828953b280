//! A pool of worker *processes* with the verbs of Python's `multiprocessing.Pool`, over shared memory.
//!
//! A swathe is the strip of a field that one mower cuts in one pass. A [`Pool`] cuts an input into strips, lets worker
//! processes mow them, and finds every result lying where it belongs.
//!
//! ```
//! use swathe::Pool;
//!
//! fn main() -> swathe::Result<()> {
//!     swathe::init();                                  // a worker starts here and never returns
//!     let pool = Pool::new()?;                         // one process a core that this job may use
//!     let squares = pool.map(|x: i64| x * x, 0..10)?;  // also an Array, a Vec, a slice, a mapped file
//!     println!("{squares:?}");                         // derefs to &[i64]
//!     # assert_eq!(squares[9], 81);
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! - **No copies.** Inputs and outputs lie in memory that all workers map; only descriptors of strips pass between
//!   processes. Results are [`Array`]s that deref to slices, or [`Records`] for values of variable length.
//! - **No result lost, none twice.** What a worker had not finished when it died is run again elsewhere. A task that
//!   kills its worker again and again is the only element that fails; all others are delivered. (So a task may *start*
//!   more than once.)
//! - **No hang.** Panics, returned errors, signals and exits of workers become errors that name the position.
//! - **No leak.** The memory has no name in any file system, and workers do not outlive the program, however it ends.
//!
//! # What a task is
//!
//! A `fn` or a closure that captures nothing, see [`Task`]. What it needs beyond its element comes as columns of
//! [`Pool::starmap`], as parameters of [`Pool::map_with`], or as a state that each worker builds once, see
//! [`Builder::state`].
//!
//! # Tests and benchmarks
//!
//! Workers are started from the program's own executable, and [`init`] must be the first thing in `main`. A test
//! harness has no `main` of yours: write [`init_before_main!`] at the top of the file instead.

mod call;
mod cross;
mod error;
mod lower;
mod macros;
mod pool;
mod results;
mod resume;
mod shared;
#[cfg(any(test, feature = "_untrusted"))]
#[doc(hidden)]
pub mod untrusted;
mod verbs;

pub mod task {
    //! How a task fits an input, for functions of one's own over pools: see [`TaskOver`].
    //!
    //! # Names in messages of the compiler
    //!
    //! | name | stands for |
    //! |---|---|
    //! | `Each<I>`, `Star<I>`, `Once<A>`, `EachRow<T>`, `EachWorker` | what the task is called with: each element of `I` (`map`), each row of columns or tuples (`starmap`), one set of arguments (`apply`), each row of an array (`map_rows`), each worker (`run_per_worker`) |
    //! | `Fallible<..>` | the same, in a `try_` verb: the task returns a `Result` |
    //! | `ByValue<T>`, `ByStr`, `Chunk<A>`, `ChunkMut<B>`, `Row<T>` | an argument of the task: `T`, `&str`, `&[A]`, `&mut [B]`, `ArrayViewD<'_, T>` |
    //! | `Form<(TakesState, ..), R>`, `Nullary<..>` | which of state, parameters and context the task takes, and that it returns `R` |
    //! | `With<P, ..>`, `Without` | the call has parameters of type `P`, or none |
    //! | `Plain`, `Recorded`, `Tuple`, `Owned`, `Text`, `Counted`, `ByColumn<..>`, `ByRow<..>` | how a value or an input crosses: as it lies in memory, as a record, as a tuple of values, a `String`, a `&str`, a counted range, columns, tuples taken apart |
    //! | `Datum<_>`, `Item<_>`, `Input<_>` | what may cross as a result or parameter, as an element, as an input |
    //!
    //! "Type annotations needed" at a call of a verb mostly means that the closure's argument has no type: `|x: f64| ..`, and not
    //! `|x| ..`. "Closure may outlive" and "borrowed data escapes" mean that it captures something, which `move` does not cure:
    //! give it as parameters ([`Pool::map_with`](crate::Pool::map_with)), columns ([`Pool::starmap`](crate::Pool::starmap)) or state
    //! ([`Builder::state`](crate::Builder::state)).
    pub use crate::cross::{
        arg,
        kind::{ByColumn, ByRow, Counted, Owned, Plain, Recorded, Text, Tuple},
        over::{
            ChunkTask, CombineTask, Each, EachRow, EachWorker, Fallible, InPlaceTask, Once, SetupTask, Star,
            TaskOver,
        },
        parameters::{Parameters, With, Without},
        task::{Form, Nullary, TakesContext, TakesParameters, TakesState, Task},
    };
}

#[cfg(feature = "chaos")]
pub mod chaos {
    //! What can be made to go wrong in a pool, to see what its tasks make of that (feature `chaos`).
    //!
    //! ```
    //! use swathe::{Pool, chaos::Chaos};
    //!
    //! fn main() -> swathe::Result<()> {
    //!     swathe::init();
    //!     let chaos = Chaos::seeded(7).kill(20.0); // workers a second
    //!     let pool = Pool::builder().processes(2).chaos(chaos).build()?;
    //!     let squares = pool.batch().max_deaths(1000).map(|x: u64| x * x, 0..100_000)?;
    //!     assert!(squares.iter().zip(0..).all(|(y, x)| *y == x * x));
    //!     Ok(())
    //! }
    //! ```
    pub use swathe_runtime::fault::{Chaos, Fault, Injection, Point};
    #[doc(hidden)] // For the soak.
    pub use swathe_runtime::rescued_naps;
}
pub use call::{
    batch::Batch,
    mode::{Collect, Mode, Strict},
    options::ChunkSize,
};
#[doc(hidden)]
pub use cross::kind;
pub use cross::{
    code::Code,
    datum::{Archivable, Collection, Datum, Record},
    input::{Countable, Input, Items, StarInput, items},
    item::{Arguments, Item, ItemRef, Rows, RowsRef},
    task::Task,
};
pub use error::{Error, ItemError, JobError, Result};
pub use pool::{Pool, builder::Builder, context::Context};
pub use results::{
    partial::{Partial, Status},
    pending::Pending,
    records::{Records, RecordsIter},
    stream::{Imap, Positions},
};
pub use resume::{Difference, InFile, InMemory, OutputError};
pub use shared::{Queue, QueueError, SharedArray, Value};

pub use swathe_memory::{
    Array, ArrayMut, Element, Memory, MemoryError, MemoryStats, OutputElement, Placement,
};
pub use swathe_os::{
    cores::{CoreSource, Cores, cores},
    file::{NotOurs, ReserveError},
    mapping::MappingError,
};
pub use swathe_protocol::queue::ShapeError;
pub use swathe_runtime::{
    EngineError, ExitCause, Host, Report, SlowStrip, WorkerInfo, WorkerReport, init, init_with,
    is_initialized, observe,
};

// Their types are in the signatures here, so their versions are this crate's: a program can do without naming its own.
pub use {bytemuck, ndarray, rand_pcg, rkyv};

#[doc(hidden)]
pub mod __private {
    pub use swathe_memory::Dtype;
    pub use swathe_os::constructors::{Constructor, Strings, call_before_main};
}
