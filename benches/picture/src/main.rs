//! The picture of the README: `cargo run -p swathe-picture -- docs/figures/compare.json` draws `compare.svg` beside the figures.

mod draw;

use std::{path::Path, process::ExitCode};

use swathe_picture::{Result, figures};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let drawn = match &arguments[..] {
        [figures] => draw::draw(Path::new(figures)),
        _ => Err(
            "give it one file, which `compare --json` wrote: swathe-picture docs/figures/compare.json".into(),
        ),
    };
    match drawn {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
