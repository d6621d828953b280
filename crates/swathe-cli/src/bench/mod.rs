//! `swathe bench`: a pool and its alternatives, side by side on this machine.

mod export;
mod kernel;
mod limit;
mod plot;
mod python;
mod report;
mod run;
mod sweep;
mod table;
mod timeline;
mod turn;

use std::{num::NonZeroUsize, path::Path, process::ExitCode};

use swathe_memory::npy_info;
use swathe_os::{
    memory_limits::headroom,
    text::{self, quoted},
};

use crate::{
    args::{BenchArgs, Chunk, KernelName, Peer},
    failure::{Failure, Result},
    output, units,
};
use kernel::{Kernel, Square, Step};

/// Measures, and shows the figures in all the ways that were asked for.
pub(crate) fn bench(args: &BenchArgs) -> Result<ExitCode> {
    let len = |default: usize| args.len.map_or(default, NonZeroUsize::get);
    match &args.kernel {
        KernelName::Stream => bench_kernel(args, Chunk::Auto, len(1 << 24), Kernel::stream),
        KernelName::Compute => bench_kernel(args, Chunk::Auto, len(1_000_000), Kernel::compute),
        KernelName::Irregular => bench_kernel(args, Chunk::Auto, len(2000), Kernel::irregular),
        KernelName::Tiny => bench_kernel(args, Chunk::Fixed(1), len(1_000_000), Kernel::tiny),
        KernelName::File(path) => bench_file(args, path),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn bench_file(args: &BenchArgs, path: &Path) -> Result<()> {
    if args.len.is_some() {
        return Err(Failure::new(
            "a .npy file is measured as a whole: leave out --len, or name another kernel",
        ));
    }
    let info = npy_info(path)?;
    let len = info
        .shape
        .iter()
        .fold(1_usize, |len, &axis| len.saturating_mul(axis));
    match info.descr.trim_start_matches(['<', '=', '|']) {
        "f8" => bench_kernel(args, Chunk::Auto, len, |_| Kernel::<Square<f64>>::file(path)),
        "f4" => bench_kernel(args, Chunk::Auto, len, |_| Kernel::<Square<f32>>::file(path)),
        "i8" => bench_kernel(args, Chunk::Auto, len, |_| Kernel::<Square<i64>>::file(path)),
        "i4" => bench_kernel(args, Chunk::Auto, len, |_| Kernel::<Square<i32>>::file(path)),
        other => Err(Failure::new(format!(
            "{} holds elements of type {}: numbers that can be squared here are f8, f4, i8 and i4, little-endian",
            path.display(),
            quoted(other)
        ))),
    }
}

fn bench_kernel<S: Step>(
    args: &BenchArgs,
    chunk: Chunk,
    len: usize,
    kernel: impl FnOnce(usize) -> Result<Kernel<S>>,
) -> Result<()> {
    let plan = run::BenchPlan::new(args, chunk);
    check_memory::<S>(&plan, len)?;
    check_outputs(args)?;
    let kernel = kernel(len)?;
    let measured = run::run(&kernel, &plan)?;
    if args.json.as_deref() != Some(Path::new("-")) {
        output::print(&table::table(&measured))?;
    }
    if let Some(file) = &args.json {
        export::json(&measured, file)?;
    }
    for report in &measured.reports {
        eprintln!("{}\n", report.trim_end());
    }
    if let Some(file) = &args.csv {
        export::csv(&measured, file)?;
    }
    if let Some(folder) = &args.report {
        report::write(&kernel, &plan, &measured, folder)?;
        eprintln!("the plots are in {}", text::path(&report::index(folder)));
    }
    Ok(())
}

/// What cannot be written is better known before.
fn check_outputs(args: &BenchArgs) -> Result<()> {
    let json = args.json.as_deref().filter(|file| *file != Path::new("-"));
    json.into_iter()
        .chain(args.csv.as_deref())
        .try_for_each(output::check)?;
    args.report.as_deref().map_or(Ok(()), |folder| {
        output::check_folder(folder, &report::index(folder))
    })
}

/// A Vec that cannot be had ends the program, so it is asked for here.
fn check_memory<S: Step>(plan: &run::BenchPlan, len: usize) -> Result<()> {
    // The results of the pool, of another contender, and those that all are compared with; and what is written again
    // and again for the limit.
    let limits = if plan.against.contains(&Peer::Limit) {
        plan.processes.len()
    } else {
        0
    };
    let outputs = 3 + limits as u64;
    let per_element = size_of::<S::In>() as u64 + outputs * size_of::<S::Out>() as u64;
    let needed = (len as u64).saturating_mul(per_element);
    let free = headroom();
    if needed > free.bytes / 10 * 9 {
        return Err(Failure::new(format!(
            "{len} elements need {} of memory with all their copies, and {} are left by {}: use a smaller --len, or {}",
            units::bytes(needed),
            units::bytes(free.bytes),
            free.limited_by,
            free.limited_by.remedy()
        )));
    }
    Ok(())
}
