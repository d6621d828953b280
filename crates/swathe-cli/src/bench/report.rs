//! The page of plots.

use std::path::{Path, PathBuf};

use super::{
    kernel::{Kernel, Step},
    plot,
    run::{BenchPlan, Measured},
    sweep, table, timeline,
};
use crate::{failure::Result, machine, output};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;color:#22262e;background:#fff;max-width:1000px;margin:2em \
                     auto;padding:0 1em}h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}pre{font-size:12px;\
                     line-height:1.4;overflow-x:auto;background:#f5f6f8;padding:1em}svg{max-width:100%;height:auto}\
                     p{max-width:46em}@media print{pre{font-size:8px}}";

/// Measures what only the page shows, and writes it to `index.html` in a folder that is there.
pub(crate) fn write<S: Step>(
    kernel: &Kernel<S>,
    plan: &BenchPlan,
    measured: &Measured,
    folder: &Path,
) -> Result<()> {
    let sweep = sweep::sweep(kernel, plan)?;
    let timeline = timeline::timeline(kernel, plan)?;
    let pictures = [
        (
            "Throughput by workers",
            "Medians. The limit of the machine is as many threads that do the same work on memory which they have \
             written before: no allocation, no page touched for the first time.",
            plot::throughput(measured, plan)?,
        ),
        (
            "Time by chunk size",
            "Medians of three. Chunks that are too small cost time for each of them; chunks that are too large leave \
             workers idle at the end.",
            plot::chunk_sizes(&sweep)?,
        ),
        (
            "Timeline of the workers",
            "One more run, cut into about 300 chunks. A bar is a chunk, shades alternate; white is a worker without \
             work.",
            plot::timeline(&timeline)?,
        ),
    ];
    let page = page(measured, &pictures);
    output::write(&index(folder), page.as_bytes())
}

/// Where the page is.
pub(crate) fn index(folder: &Path) -> PathBuf {
    folder.join("index.html")
}

fn page(measured: &Measured, pictures: &[(&str, &str, String)]) -> String {
    let kernel = escaped(&measured.kernel);
    let figures = escaped(&table::table(measured));
    let machine = escaped(&machine::description());
    let sections: String = pictures
        .iter()
        .map(|(title, text, svg)| format!("<h2>{title}</h2>\n<p>{text}</p>\n{svg}\n"))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>swathe bench: {kernel}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>swathe bench: {kernel}</h1>\n<p>{machine}</p>\n<pre>{figures}</pre>\n{sections}</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
