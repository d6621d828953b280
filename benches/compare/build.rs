//! Builds the OpenMP peer as a program of its own, if there is a C compiler that can.
//!
//! Twice: for this machine's processor, as HPC users do, and for the processor that rustc assumes unless told otherwise,
//! so that what a faster instruction set gives can be told apart from what the scheduling costs.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=openmp/kernels.c");
    println!("cargo::rerun-if-env-changed=OPENMP_CC");
    let compiler = env::var("OPENMP_CC").unwrap_or_else(|_| "gcc".to_owned());
    let folder = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    for (variable, program, flags) in [
        ("OPENMP_NATIVE", "openmp_native", &["-march=native"][..]),
        ("OPENMP_GENERIC", "openmp_generic", &[]),
    ] {
        let program = Path::new(&folder).join(program);
        let built = Command::new(&compiler)
            .args(["-std=c17", "-O3", "-Wall", "-fopenmp"])
            .args(flags)
            .arg("-o")
            .arg(&program)
            .args(["openmp/kernels.c", "-lm"])
            .status()
            .is_ok_and(|status| status.success());
        if built {
            println!("cargo::rustc-env={variable}={}", program.display());
        } else {
            println!("cargo::warning={compiler} -fopenmp does not work here: OpenMP stays out of the tables");
            println!("cargo::rustc-env={variable}=");
        }
    }
}
