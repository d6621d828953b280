//! The command line.

use std::{fmt, num::NonZeroUsize, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use swathe::ChunkSize;

/// Process pools over shared memory: measure them here, see what this machine allows, watch them run.
#[derive(Debug, Parser)]
#[command(name = "swathe", version, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done; 64 the command line makes no sense; the others are listed by `swathe COMMAND --help`."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Bench(BenchArgs),
    Doctor(DoctorArgs),
    Top(TopArgs),
}

/// Measure a pool on this machine, side by side with what else one could use.
///
/// All contenders take turns in every round, their results are compared, and medians are reported; what counts is the
/// ratio of two lines of one run.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 measured; 1 it could not be measured (a file, memory, the pool); 3 contenders differ in \
                  their results; 64 the command line makes no sense."
)]
pub(crate) struct BenchArgs {
    /// What is done to every element: stream (x * x, f64), compute (about 200 ns of arithmetic), irregular (rows of a
    /// Mandelbrot set), tiny (nothing), or the squares of the numbers in a .npy file, which is read before anything is measured
    #[arg(long, value_name = "NAME|FILE.npy", default_value = "stream")]
    pub(crate) kernel: KernelName,

    /// How many elements [default: 16 M for stream, 1 M for compute and tiny, 2000 rows; a .npy file has all of its own]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) len: Option<NonZeroUsize>,

    /// Numbers of worker processes (and of threads), in turn [default: 1, 2, 4, ... up to the cores of this job]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count)]
    pub(crate) processes: Vec<NonZeroUsize>,

    /// Elements a chunk: auto, pool (as Python's Pool does), or a number; in turn [default: auto; 1 for tiny]
    #[arg(long, value_name = "auto|pool|N,...", value_delimiter = ',')]
    pub(crate) chunk_size: Vec<Chunk>,

    /// What else does the same work in every round
    #[arg(
        long,
        value_enum,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "threads,serial"
    )]
    pub(crate) against: Vec<Peer>,

    /// How often every contender has its turn, after one that is not timed
    #[arg(long, value_name = "R", default_value = "5", value_parser = count)]
    pub(crate) rounds: NonZeroUsize,

    /// Write the figures as JSON, to standard output (in place of the table) or to a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,

    /// Write the figures as comma-separated values, a line a contender
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Measure more (the machine's limit, chunk sizes, a timeline) and write a page of plots, DIR/index.html
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,

    /// Say where the workers' time went in one more run of each pool
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Say what this machine and this job allow a pool, who decided so, and what to do about what is bad.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all is well (there may be notes); 1 there are warnings; 2 a pool cannot be run; 64 the \
                  command line makes no sense."
)]
pub(crate) struct DoctorArgs {
    /// Give the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show the pools of a running program of yours, from outside.
///
/// The numbers are read from the pool's shared memory; its workers do not notice. Ends when the program ends, or on
/// Ctrl-C.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 shown, or the program has ended; 1 there is no such process, it is not yours, or it has \
                  no pool; 64 the command line makes no sense."
)]
pub(crate) struct TopArgs {
    /// Process id of the program that made the pool
    pub(crate) pid: u32,

    /// Look once (twice, an interval apart, for the rates) and end
    #[arg(long)]
    pub(crate) once: bool,

    /// Give every look as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Time between two looks, in milliseconds
    #[arg(long, value_name = "MS", default_value = "500", value_parser = count)]
    pub(crate) interval: NonZeroUsize,
}

/// What else can do a kernel's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// rayon's threads in this process, `par_iter().map().collect()`
    Threads,
    /// A plain loop in this process
    Serial,
    /// Python's `multiprocessing.Pool`, over every k-th element where all would take long
    Python,
    /// The machine's limit: as many threads, each writing its own part of memory that was used before
    Limit,
    /// Nobody
    None,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KernelName {
    Stream,
    Compute,
    Irregular,
    Tiny,
    File(PathBuf),
}

impl FromStr for KernelName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "stream" => Ok(Self::Stream),
            "compute" => Ok(Self::Compute),
            "irregular" => Ok(Self::Irregular),
            "tiny" => Ok(Self::Tiny),
            file if file.ends_with(".npy") => Ok(Self::File(file.into())),
            _ => Err(
                "there is no such kernel: name stream, compute, irregular or tiny, or a file that ends in .npy"
                    .into(),
            ),
        }
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream => f.write_str("stream"),
            Self::Compute => f.write_str("compute"),
            Self::Irregular => f.write_str("irregular"),
            Self::Tiny => f.write_str("tiny"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Elements a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    Auto,
    Pool,
    Fixed(usize),
}

impl FromStr for Chunk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "pool" => Ok(Self::Pool),
            number => count(number)
                .map(|n| Self::Fixed(n.get()))
                .map_err(|_| "a chunk size is auto, pool, or a whole number of at least 1".into()),
        }
    }
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Pool => f.write_str("pool"),
            Self::Fixed(n) => n.fmt(f),
        }
    }
}

impl From<Chunk> for ChunkSize {
    fn from(chunk: Chunk) -> Self {
        match chunk {
            Chunk::Auto => Self::Auto,
            Chunk::Pool => Self::Pool,
            Chunk::Fixed(n) => Self::Fixed(n),
        }
    }
}

fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "this must be a whole number of at least 1".into())
}
