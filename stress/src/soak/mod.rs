//! Random jobs under random kills, each checked position by position.
//!
//! What is run is a function of the seed; when somebody dies is not. So a seed and the number of a job repeat the job,
//! and a failure of it as far as it does not depend on the moment of a death.

mod deaths;
mod draw;
mod hosts;
mod leaks;
mod plan;
mod pools;
mod programs;
mod shared;
mod summary;
mod tasks;
mod verbs;
mod watch;

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use swathe::Memory;
use swathe_tests::report;

/// In a program of the soak this plays its part and does not return. Call it on the first line of `main`.
pub fn init() {
    programs::init();
    hosts::init();
}

pub use summary::Summary;

use deaths::Obituary;
use leaks::Holdings;
use watch::Board;

/// Pools at a time.
const YARDS: usize = 2;

/// Runs random jobs under random kills, and checks every position of every result.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How long, in seconds; jobs that have begun are finished.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Draws pools, jobs and troubles.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Workers to be killed a second, all pools together.
    #[arg(long, default_value_t = 20.0)]
    pub kill_rate: f64,
    /// Only this job, again and again.
    #[arg(long)]
    pub only: Option<u64>,
    /// Prints the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// After how many seconds a job is said to hang.
    #[arg(long, default_value_t = 120)]
    pub patience: u64,
    /// Whether this program is a host that does strange things to itself.
    #[arg(skip)]
    pub host: bool,
}

/// A soak at work.
struct Soak {
    seed: u64,
    only: Option<u64>,
    host: bool,
    until: Instant,
    next: AtomicU64,
    board: Board,
    summary: Mutex<Summary>,
}

impl Soak {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn sum<R>(&self, change: impl FnOnce(&mut Summary) -> R) -> R {
        change(&mut self.summary.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether an error is what a host has brought upon itself.
    fn is_own_fault(&self, error: &swathe::Error) -> bool {
        const NO_FILES: &str = "os error 24";
        self.host && error.to_string().contains(NO_FILES)
    }

    /// Something is wrong that is no result's fault.
    fn complain(&self, what: String) {
        let what = format!("{what} (--seed {})", self.seed);
        eprintln!("{what}");
        self.sum(|summary| {
            summary.wrong += 1;
            summary.complaints.push(what);
        });
    }

    /// One pool after the other.
    fn run_pools(&self, kills: f64) {
        while !self.is_over() {
            let number = match self.only {
                Some(job) => job / plan::JOBS_A_POOL,
                None => self.next.fetch_add(1, Ordering::Relaxed),
            };
            self.run_pool(number, kills);
            leaks::reap_orphans("swathe-w");
        }
    }

    /// Ends the program if something hangs; returns when everything is over.
    fn watch(&self, patience: Duration, over: &std::sync::mpsc::Receiver<()>) {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        while over.recv_timeout(Duration::from_millis(500)) == Err(Timeout) {
            let stuck = self.board.older_than(patience);
            if stuck.is_empty() {
                continue;
            }
            let summary = self.sum(|summary| {
                summary.hangs = stuck.len() as u64;
                summary.seed = self.seed;
                summary.clone()
            });
            eprintln!("hanging (--seed {}):\n{}", self.seed, stuck.join("\n"));
            eprintln!(
                "in work:\n{}\n{}\n{summary}",
                self.board.all().join("\n"),
                report()
            );
            std::process::exit(1);
        }
    }
}

/// Runs a soak.
///
/// # Errors
/// If memory cannot be had at all.
pub fn run(args: &Args) -> swathe::Result<Summary> {
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let obituary = Obituary::listen();
    let before = Holdings::now(&Memory::global()?); // The arena stays for good.
    let rescued_before = swathe::chaos::rescued_naps();
    let start = Instant::now();
    let soak = Soak {
        seed: args.seed,
        only: args.only,
        host: args.host,
        until: start + Duration::from_secs(args.seconds),
        next: AtomicU64::new(0),
        board: Board::default(),
        summary: Mutex::default(),
    };
    let kills = args.kill_rate.max(0.0) / YARDS as f64;
    thread::scope(|scope| {
        let (over, hear) = std::sync::mpsc::channel();
        let soak = &soak;
        let watch = scope.spawn(move || soak.watch(Duration::from_secs(args.patience), &hear));
        let mut yards: Vec<_> = (0..YARDS)
            .map(|_| scope.spawn(|| soak.run_pools(kills)))
            .collect();
        if args.only.is_none() && kills > 0.0 && !args.host {
            yards.push(scope.spawn(|| soak.kill_programs(kills)));
            yards.push(scope.spawn(|| soak.run_hosts(kills)));
        }
        for yard in yards {
            if yard.join().is_err() {
                soak.complain("a thread of the soak panicked".to_owned());
            }
        }
        drop(over);
        let _ = watch.join();
    });
    let mut summary = soak.summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    (summary.seed, summary.seconds) = (args.seed, start.elapsed().as_secs());
    if let Some(obituary) = obituary {
        summary.add_deaths(&obituary.told());
    }
    summary.rescued = swathe::chaos::rescued_naps() - rescued_before;
    let leaks = before.leaks();
    summary.leaks += leaks.len() as u64;
    summary
        .complaints
        .extend(leaks.into_iter().map(|what| format!("left behind: {what}")));
    Ok(summary)
}

/// The subcommand.
pub fn main(args: &Args) -> ExitCode {
    let summary = match run(args) {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("the soak could not be run: {error}");
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        summary.complaints.iter().for_each(|what| eprintln!("{what}"));
        println!("{}", summary.to_json());
    } else {
        println!("{summary}");
    }
    match summary.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
