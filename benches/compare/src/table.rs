//! The figures for people.

use std::fs;

use swathe_picture::figures::Figure;

use crate::{
    cases::{Case, DIVISIBLE},
    harness::{Bound, Measured, Setup, Verdict},
    machine,
};

/// Says what the figures were taken on.
pub(crate) fn header(workers: &[usize], quick: bool) {
    let (model, cores) = (machine::processor(), machine::cores());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    let vectors = if cfg!(target_feature = "avx512f") {
        "AVX-512"
    } else if cfg!(target_feature = "avx2") {
        "AVX2"
    } else {
        "no vectors beyond the architecture's first"
    };
    println!("{model}, {cores} cores, load {load} at the start; Rust compiled for {vectors}");
    if load.parse().is_ok_and(|load: f64| load > 0.5) {
        println!("others use this machine: what spins (OpenMP above all) looks worse than it is");
    }
    if let Some(workers) = workers.iter().find(|&&workers| workers > cores) {
        println!("{workers} workers are more than this machine has cores: nothing can be said of speed");
    }
    if quick {
        println!("--quick: a fiftieth of the work; the figures say that it runs, not how fast");
    }
}

/// A figure of any magnitude in few characters.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Prints a case.
pub(crate) fn print(case: &Case, setup: &Setup, measured: &Measured, peers: &[Figure]) {
    let unit = measured.unit;
    println!("\n{} ({} workers): {}", case.name, setup.workers, case.what);
    let rate = measured.rate.map_or("", |(unit, _)| unit);
    println!(
        "  {:<26} {:>10} {:>10} {:>10}   {:>8} {rate:>12}",
        "",
        format!("median {unit}"),
        "min",
        "max",
        "relative"
    );
    let first = measured.rows.first().map_or(f64::NAN, |row| row.spread.median);
    let line = |contender: &str, median: f64, min: f64, max: f64| {
        let rate = measured
            .rate
            .map_or(String::new(), |(_, amount)| short(amount / median));
        println!(
            "  {contender:<26} {:>10} {:>10} {:>10}   {:>8} {rate:>12}",
            short(median),
            short(min),
            short(max),
            short(median / first)
        );
    };
    for row in &measured.rows {
        line(row.contender, row.spread.median, row.spread.min, row.spread.max);
    }
    let comparable = |figure: &&Figure| {
        figure.case == case.name
            && figure.unit == unit
            && figure.workers.is_none_or(|workers| workers == setup.workers)
    };
    for figure in peers.iter().filter(comparable) {
        line(&figure.contender, figure.median, figure.min, figure.max);
    }
    for verdict in &measured.verdicts {
        println!("  {}", sentence(verdict));
    }
}

fn sentence(verdict: &Verdict) -> String {
    let (asked, met) = match (verdict.bound, verdict.met()) {
        (Bound::AtMost(bound), met) => (format!("target <= {bound}: "), met),
        (Bound::AtLeast(bound), met) => (format!("target >= {bound}: "), met),
        (Bound::Shown, met) => (String::new(), met),
    };
    let met = met.map_or("", |met| if met { "met" } else { "MISSED" });
    let doubt = if verdict.doubtful() {
        ", but not by the minima"
    } else {
        ""
    };
    format!(
        "{} = {} (of minima {}; by round {}, {} to {})  {asked}{met}{doubt}",
        verdict.what,
        short(verdict.of_medians),
        short(verdict.of_minima),
        short(verdict.by_round.median),
        short(verdict.by_round.min),
        short(verdict.by_round.max)
    )
}

/// Says how many targets are met, and which are not.
pub(crate) fn summary(all: &[(&str, usize, Measured)]) {
    let judged = all.iter().flat_map(|(case, workers, measured)| {
        let judged = measured
            .verdicts
            .iter()
            .filter_map(|verdict| Some((verdict, verdict.met()?)));
        judged.map(move |(verdict, met)| (*case, *workers, verdict, met))
    });
    let (met, missed): (Vec<_>, Vec<_>) = judged.partition(|(.., met)| *met);
    if met.is_empty() && missed.is_empty() {
        return; // Cases without a target.
    }
    println!("\n{} of {} targets met", met.len(), met.len() + missed.len());
    for (case, workers, verdict, _) in missed {
        println!("  missed: {case} ({workers} workers): {}", sentence(verdict));
    }
    for (case, workers, verdict, _) in met.iter().filter(|(.., verdict, _)| verdict.doubtful()) {
        println!("  doubtful: {case} ({workers} workers): {}", sentence(verdict));
    }
}

/// Says how what more workers take compares with what the first number of them took.
pub(crate) fn scaling(all: &[(&str, usize, Measured)], workers: &[usize]) {
    let (Some(&first), true) = (workers.first(), workers.len() > 1) else {
        return;
    };
    println!("\nparallel efficiency, against {first} of the same");
    print!("  {:<34}", "");
    workers.iter().for_each(|workers| print!(" {workers:>8}"));
    println!();
    for case in DIVISIBLE {
        let of = |workers| {
            let found = all
                .iter()
                .find(|(name, many, _)| name == case && *many == workers);
            found.map(|(.., measured)| measured)
        };
        let Some(base) = of(first) else { continue };
        for row in base
            .rows
            .iter()
            .filter(|row| ["swathe", "rayon", "openmp"].contains(&row.contender))
        {
            print!("  {:<34}", format!("{case} {}", row.contender));
            for &workers in workers {
                let same = of(workers)
                    .and_then(|more| more.rows.iter().find(|other| other.contender == row.contender));
                let ideal = row.spread.median * first as f64 / workers as f64;
                let shown = same.map_or("-".to_owned(), |same| {
                    format!("{:.3}", ideal / same.spread.median)
                });
                print!(" {shown:>8}");
            }
            println!();
        }
    }
}
