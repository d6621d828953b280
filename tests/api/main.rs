//! The typed API, verb by verb. A test of [`cpython`] has the name of the test of CPython's `multiprocessing.Pool` whose
//! twin it is.

swathe::init_before_main!();

mod asynchronous;
mod before_main;
mod blows;
mod cpython;
mod deadlines;
mod host;
mod hosted;
mod insight;
mod lives;
mod outcomes;
mod panics;
mod refused;
mod resume;
mod retries;
mod streams;
mod tasks;
mod terminal;
mod values;
mod verbs;
mod vouched;
