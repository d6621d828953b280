//! The `swathe` command: measures process pools on the user's own machine (`bench`), says what this machine and this
//! job allow (`doctor`), and shows running pools from outside (`top`).

mod args;
mod bench;
mod doctor;
mod failure;
mod machine;
mod output;
mod tables;
mod top;
mod units;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use swathe_os::text::shown;

/// What the process ends with when the command line makes no sense (EX_USAGE of sysexits.h), for all commands.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    swathe::init(); // a worker starts here and never returns
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print(); // nobody is left to tell if that fails
            return ExitCode::from(code);
        }
    };
    let done = match cli.command {
        Command::Bench(args) => bench::bench(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Top(args) => top::top(&args),
    };
    done.unwrap_or_else(|failure| {
        if !failure.is_unheard() {
            eprintln!("swathe: {}", shown(&failure.to_string()));
        }
        failure.exit_code()
    })
}
