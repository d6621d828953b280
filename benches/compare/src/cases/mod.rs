//! What is measured. Every target is a ratio of two contenders of one run, or of one and a fixed figure.

mod compute;
mod flow;
mod footprint;
mod growth;
mod latency;
mod lives;
mod matched;
mod stream;
mod tiny;

use crate::{
    Result,
    harness::{Measured, Setup},
};

/// A row of the table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Setup) -> Result<Measured>,
}

const fn case(name: &'static str, what: &'static str, run: fn(&Setup) -> Result<Measured>) -> Case {
    Case { name, what, run }
}

/// The cases whose work more workers divide.
pub(crate) const DIVISIBLE: &[&str] = &[
    "tiny_chunks",
    "stream_square",
    "black_scholes",
    "mandelbrot_rows",
    "strings",
    "matched_filter",
];

/// All cases, in the order in which they are measured.
pub(crate) const ALL: &[Case] = &[
    case(
        "small_map",
        "map of 1000 f64, again and again",
        latency::small_map,
    ),
    case(
        "apply_hot",
        "one call to an idle, awake worker, and back",
        latency::apply_hot,
    ),
    case(
        "apply_parked",
        "one call to a sleeping worker, and back",
        latency::apply_parked,
    ),
    case(
        "tiny_chunks",
        "10^7 empty tasks, chunk size 1: time a chunk",
        tiny::tiny_chunks,
    ),
    case(
        "stream_square",
        "out = x * x over 2^27 f64, output fresh each time",
        stream::stream_square,
    ),
    case(
        "first_touch",
        "the same once, by a new pool into memory that nobody has touched",
        stream::first_touch,
    ),
    case(
        "black_scholes",
        "10^7 options: 5 columns in, call and put out",
        compute::black_scholes,
    ),
    case(
        "mandelbrot_rows",
        "2048 rows of 1024 pixels, some quick, some long",
        compute::mandelbrot_rows,
    ),
    case(
        "pool_start",
        "build a pool, take its first result, drop it",
        lives::pool_start,
    ),
    case(
        "recycle",
        "a new process for each of 2000 empty tasks: time a task",
        lives::recycle,
    ),
    case(
        "recover",
        "from the SIGKILL of a busy worker until another runs what it held",
        lives::recover,
    ),
    case(
        "imap_stream",
        "10^8 elements of an iterator: time an element",
        flow::imap_stream,
    ),
    case(
        "imap_work",
        "10^7 elements of an iterator that take about 100 ns each: time an element",
        flow::imap_work,
    ),
    case(
        "strings",
        "10^6 x (i64, String) -> String: time an element",
        flow::strings,
    ),
    case(
        "matched_filter",
        "the main job, 10^4 templates: time in all",
        matched::matched_filter,
    ),
    case(
        "memory",
        "what a pool keeps while nothing happens",
        footprint::memory,
    ),
    case("growth_elements", "map of so many f64", growth::elements),
    case(
        "growth_chunks",
        "map of 10^6 empty tasks in so many chunks",
        growth::chunks,
    ),
    case(
        "growth_workers",
        "map of 1000 f64 by so many workers",
        growth::workers,
    ),
    case(
        "growth_workers_at_work",
        "map of 10^6 elements of about 70 ns by so many workers",
        growth::workers_at_work,
    ),
];
