//! Swathe beside its peers and beside the machine's own limits, in one run; see the README beside the manifest.

mod cases;
mod floors;
mod harness;
mod json;
mod machine;
mod openmp;
mod peer;
mod python;
mod table;

// The main job as the example has it, not a copy of it.
#[path = "../../../examples/matched_filter/bank.rs"]
mod bank;
#[allow(dead_code, reason = "the example reports more than is measured here")]
#[path = "../../../examples/matched_filter/filter.rs"]
mod filter;
#[allow(dead_code, reason = "the example reports more than is measured here")]
#[path = "../../../examples/matched_filter/psd.rs"]
mod psd;
#[allow(dead_code, reason = "the example also reads strain from files")]
#[path = "../../../examples/matched_filter/strain.rs"]
mod strain;

use std::{path::PathBuf, process::ExitCode};

use swathe_picture::figures;

use harness::Setup;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "\
usage: compare [--case NAME[,NAME...]] [--workers N[,N...]] [--rounds N] [--json FILE] [--peers FILE] [--quick] [--list]

  --case NAME    only these cases; --list names them
  --workers N    processes, threads and teams of this size, one after the other [default: 2]
  --rounds N     measured turns of each contender [default: as the case says]
  --json FILE    write all figures there
  --peers FILE   figures of benches/compare/peers/run.sh to show beside
  --quick        a fiftieth of the work: shows that everything runs, not how fast";

/// What the command line asks for.
struct Arguments {
    cases: Vec<String>,
    workers: Vec<usize>,
    rounds: Option<usize>,
    json: Option<PathBuf>,
    peers: Option<PathBuf>,
    quick: bool,
    list: bool,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            cases: Vec::new(),
            workers: vec![2],
            rounds: None,
            json: None,
            peers: None,
            quick: false,
            list: false,
        };
        let count = |text: &str| match text.parse() {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(format!("{text} is no number of workers or rounds")),
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} needs a value\n{USAGE}"))
            };
            match word.as_str() {
                "--case" => parsed.cases.extend(value()?.split(',').map(str::to_owned)),
                "--workers" => {
                    let counts = value()?
                        .split(',')
                        .map(count)
                        .collect::<std::result::Result<_, _>>();
                    parsed.workers = counts?;
                }
                "--rounds" => parsed.rounds = Some(count(&value()?)?),
                "--json" => parsed.json = Some(value()?.into()),
                "--peers" => parsed.peers = Some(value()?.into()),
                "--quick" => parsed.quick = true,
                "--list" => parsed.list = true,
                "--help" | "-h" => return Err(USAGE.into()),
                _ => return Err(format!("{word} is no option\n{USAGE}").into()),
            }
        }
        if let Some(name) = parsed
            .cases
            .iter()
            .find(|name| cases::ALL.iter().all(|case| case.name != **name))
        {
            return Err(format!("there is no case {name}; --list names them").into());
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    swathe::init();
    if let Some(code) = floors::child() {
        return code;
    }
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| compare(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        cases::ALL
            .iter()
            .for_each(|case| println!("{:<18} {}", case.name, case.what));
        return Ok(());
    }
    let peers = arguments
        .peers
        .as_deref()
        .map(figures::read)
        .transpose()?
        .unwrap_or_default();
    table::header(&arguments.workers, arguments.quick);
    let mut all = Vec::new();
    for &workers in &arguments.workers {
        let setup = Setup {
            workers,
            rounds: arguments.rounds,
            quick: arguments.quick,
        };
        let asked =
            |name: &str| arguments.cases.is_empty() || arguments.cases.iter().any(|case| case == name);
        for case in cases::ALL.iter().filter(|case| asked(case.name)) {
            match (case.run)(&setup) {
                Ok(measured) => {
                    table::print(case, &setup, &measured, &peers);
                    all.push((case.name, workers, measured));
                }
                Err(error) => return Err(format!("{} with {workers} workers: {error}", case.name).into()),
            }
            // Whatever was measured until now is not lost when a later case fails.
            if let Some(path) = &arguments.json {
                json::write(path, &all)?;
            }
        }
    }
    table::scaling(&all, &arguments.workers);
    table::summary(&all);
    Ok(())
}
