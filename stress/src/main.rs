//! Runs one proof of recovery; `--help` lists them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stress::{controls, every_instruction, faults, promptness, roles, soak, system_calls};

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
    Faults(faults::Args),
    Promptness(promptness::Args),
    Soak(soak::Args),
    /// Counts the system calls that jobs make on a warm pool
    SystemCalls,
}

fn main() -> ExitCode {
    swathe::init();
    roles::init();
    soak::init();
    system_calls::init();
    match Cli::parse().proof {
        Proof::EveryInstruction(args) => every_instruction::main(&args),
        Proof::Controls(args) => controls::main(&args),
        Proof::Faults(args) => faults::main(&args),
        Proof::Promptness(args) => promptness::main(&args),
        Proof::Soak(args) => soak::main(&args),
        Proof::SystemCalls => system_calls::main(),
    }
}
