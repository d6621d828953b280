//! Runs one proof of recovery; `--help` lists them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stress::{controls, every_instruction, roles};

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand)]
enum Proof {
    EveryInstruction(every_instruction::Args),
    Controls(controls::Args),
}

fn main() -> ExitCode {
    swathe::init();
    roles::init();
    match Cli::parse().proof {
        Proof::EveryInstruction(args) => every_instruction::main(&args),
        Proof::Controls(args) => controls::main(&args),
    }
}
