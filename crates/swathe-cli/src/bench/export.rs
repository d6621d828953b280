//! The figures for other programs.

use std::path::Path;

use serde_json::{Value, json};

use super::run::{Line, Measured, Who};
use crate::{
    failure::{Failure, Result},
    output,
};

/// Writes all figures as one JSON object, to a file or (`-`) to standard output.
pub(crate) fn json(measured: &Measured, file: &Path) -> Result<()> {
    let cores = swathe::cores();
    let all = json!({
        "kernel": measured.kernel,
        "elements": measured.elements,
        "bytes_per_element": measured.bytes_per_element,
        "rounds": measured.rounds,
        "cores": cores.count,
        "cores_decided_by": cores.decided_by.to_string(),
        "notes": measured.notes,
        "lines": measured.lines.iter().map(|line| object(measured, line)).collect::<Vec<_>>(),
    });
    let text = format!("{all:#}\n");
    if file == Path::new("-") {
        return output::print(&text);
    }
    output::write(file, text.as_bytes())
}

fn object(measured: &Measured, line: &Line) -> Value {
    let (min, max) = line.extremes();
    let ratio = |peer| {
        (line.who == Who::Swathe)
            .then(|| measured.ratio(line, peer))
            .flatten()
    };
    json!({
        "contender": line.who.to_string(),
        "workers": line.workers,
        "chunk_size": line.chunk.map(|chunk| chunk.to_string()),
        "elements": line.elements,
        "median": line.median(),
        "min": min,
        "max": max,
        "unit": "s",
        "better": "lower",
        "elements_per_second": line.rate(),
        "gigabytes_per_second": measured.gigabytes(line),
        "speed_up": measured.speed_up(line),
        "times_threads": ratio(Who::Threads),
        "times_serial": ratio(Who::Serial),
        "times_python": ratio(Who::Python),
        "times_limit": ratio(Who::Limit),
    })
}

/// Writes a line a contender.
pub(crate) fn csv(measured: &Measured, file: &Path) -> Result<()> {
    let wrong = |error: csv::Error| Failure::new(format!("{} cannot be written: {error}", file.display()));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let heads = [
        "kernel",
        "contender",
        "workers",
        "chunk_size",
        "elements",
        "median_s",
        "min_s",
        "max_s",
        "elements_per_s",
        "gigabytes_per_s",
    ];
    writer.write_record(heads).map_err(wrong)?;
    for line in &measured.lines {
        let (min, max) = line.extremes();
        let record = [
            measured.kernel.clone(),
            line.who.to_string(),
            line.workers.to_string(),
            line.chunk.map_or(String::new(), |chunk| chunk.to_string()),
            line.elements.to_string(),
            line.median().to_string(),
            min.to_string(),
            max.to_string(),
            line.rate().to_string(),
            measured.gigabytes(line).to_string(),
        ];
        writer.write_record(record).map_err(wrong)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| wrong(error.into_error().into()))?;
    output::write(file, &bytes)
}
