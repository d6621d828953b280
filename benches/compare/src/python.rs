//! The peer `python_pool`: Python's `multiprocessing.Pool`, a child process a case.

use std::{env, process::Command};

use crate::{
    Result,
    harness::{Setup, Turn},
    peer::Peer,
};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/pool.py");

/// A contender: `case` of size `n`, `calls` calls a turn. `None`, and a sentence, if this machine cannot run it.
pub(crate) fn pool(
    setup: &Setup,
    case: &str,
    n: usize,
    calls: usize,
) -> Result<Option<impl FnMut() -> Result<Turn> + use<>>> {
    let python = env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let started = Peer::start(
        Command::new(&python)
            .arg(PROGRAM)
            .arg(case)
            .args([n, calls, setup.workers].map(|number| number.to_string())),
    );
    let Ok(mut peer) = started else {
        println!("\n{python} cannot be started: Python's Pool stays out of {case}");
        return Ok(None);
    };
    match peer.line()?.as_str() {
        "ready" => {}
        "no numpy" => {
            println!("\n{python} has no numpy: Python's Pool stays out of {case}");
            return Ok(None);
        }
        other => return Err(format!("{PROGRAM} greets with {other:?}").into()),
    }
    Ok(Some(move || match peer.turn()?[..] {
        [seconds] => Ok(seconds.into()),
        [seconds, digest] => Ok((seconds, digest).into()),
        ref other => Err(format!("{PROGRAM} answers {other:?}").into()),
    }))
}
