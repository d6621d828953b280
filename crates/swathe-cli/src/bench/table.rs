//! The figures as a table.

use std::fmt::Write;

use super::run::{Line, Measured, Who};
use crate::{tables, units};

/// The table, with what must be known to read it above and below.
pub(crate) fn table(measured: &Measured) -> String {
    let mut text = String::new();
    let bytes = (measured.elements as u64).saturating_mul(measured.bytes_per_element as u64);
    let _ = writeln!(
        text,
        "{}: {} elements, {} in and out; rounds: {}, after a warm-up; {}",
        measured.kernel,
        measured.elements,
        units::bytes(bytes),
        measured.rounds,
        swathe::cores(),
    );
    let peers: Vec<Who> = [Who::Threads, Who::Serial, Who::Python, Who::Limit]
        .into_iter()
        .filter(|&peer| measured.lines.iter().any(|line| line.who == peer))
        .collect();
    let _ = writeln!(text, "{}", lines(measured, &peers));
    if !peers.is_empty() {
        let _ = writeln!(
            text,
            "× NAME: how many times as fast as NAME with as many workers"
        );
    }
    for note in &measured.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn lines(measured: &Measured, peers: &[Who]) -> String {
    let mut heads: Vec<String> = [
        "contender",
        "workers",
        "chunk",
        "median",
        "min",
        "max",
        "elements/s",
    ]
    .map(str::to_owned)
    .into();
    // Where the time goes elsewhere, bytes a second say nothing.
    heads.extend(measured.moves_bytes.then(|| "GB/s".to_owned()));
    heads.extend(["speed-up", "efficiency"].map(str::to_owned));
    heads.extend(peers.iter().map(|peer| format!("× {peer}")));
    let mut table = tables::table(heads);
    for line in &measured.lines {
        table.add_row(row(measured, line, peers));
    }
    tables::text(table, |column| column > 0)
}

fn row(measured: &Measured, line: &Line, peers: &[Who]) -> Vec<String> {
    let (min, max) = line.extremes();
    let mut cells = vec![
        line.who.to_string(),
        line.workers.to_string(),
        line.chunk.map_or(String::new(), |chunk| chunk.to_string()),
        units::seconds(line.median()),
        units::seconds(min),
        units::seconds(max),
        units::decimal(line.rate()),
    ];
    cells.extend(
        measured
            .moves_bytes
            .then(|| units::digits(measured.gigabytes(line))),
    );
    let speed_up = measured.speed_up(line);
    let efficiency = speed_up.map(|s| format!("{:.0} %", s / line.workers as f64 * 100.0));
    cells.push(speed_up.map_or(String::new(), units::digits));
    cells.push(efficiency.unwrap_or_default());
    cells.extend(peers.iter().map(|&peer| {
        let ratio = measured.ratio(line, peer).filter(|_| line.who == Who::Swathe);
        ratio.map_or(String::new(), units::digits)
    }));
    cells
}
