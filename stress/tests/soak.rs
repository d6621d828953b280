//! The short form of the soak: some seconds of random jobs under random kills.
//!
//! Without the harness: nobody else may have pools or processes here, and programs with a pool start before anything
//! else.

use stress::soak::{self, Args};

fn main() {
    swathe::init();
    soak::init();
    let args = Args {
        seconds: 3,
        seed: 1,
        kill_rate: 60.0,
        only: None,
        json: false,
        patience: 90,
        host: false,
    };
    let summary = soak::run(&args).expect("memory can be had");
    println!("{summary}");
    assert!(summary.is_good());
    assert!(summary.jobs > 0 && summary.workers_killed > 0 && summary.programs_killed > 0);
    assert!(summary.hosts > 0 && summary.host_jobs > 0);
}
