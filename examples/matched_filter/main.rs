//! Searches 32 s of gravitational-wave strain for merging black holes: a bank of matched filters, one template an element,
//! each worker with its own spectra and FFT plans.
//!
//! ```text
//! cargo run --release -p swathe-examples --example matched_filter -- --strain H1.npy --plot peaks.svg
//! ```

mod bank;
mod filter;
mod plot;
mod psd;
mod strain;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::Array2;

use bank::Grid;
use filter::{Filter, Peak};
use strain::SAMPLE_RATE;
use swathe::{Array, Pool};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Find merging black holes in gravitational-wave strain with a bank of matched filters.
#[derive(Debug, Parser)]
struct Arguments {
    /// Strain at 4096 samples a second, a one-dimensional float64 .npy file [default: synthetic noise with a merger in it]
    #[arg(long, value_name = "FILE.npy")]
    strain: Option<PathBuf>,

    /// Masses to pair, in solar masses: every m1 >= m2 of LO, LO + STEP, ... HI
    #[arg(
        long,
        value_name = "LO:HI:STEP",
        default_value = "4:60:2",
        allow_hyphen_values = true
    )]
    bank: Grid,

    /// GPS time of the first sample, in seconds
    #[arg(long, value_name = "T", default_value = "1126259446", allow_hyphen_values = true, value_parser = finite)]
    gps_start: f64,

    /// Worker processes [default: one a core]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = count)]
    processes: Option<NonZeroUsize>,

    /// Write every peak here: a float64 array with a row (m1, m2, SNR, GPS time) a template
    #[arg(long, value_name = "peaks.npy")]
    out: Option<PathBuf>,

    /// Draw the SNR over the plane of the masses here
    #[arg(long, value_name = "peaks.svg")]
    plot: Option<PathBuf>,
}

fn finite(text: &str) -> std::result::Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or("a time is a finite number of seconds".into())
}

fn count(text: &str) -> std::result::Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "a number of processes is a whole number above 0".into())
}

fn main() -> ExitCode {
    swathe::init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => error.exit(), // --help
        Err(error) => {
            eprintln!("{}", error.to_string().lines().next().unwrap_or_default());
            return ExitCode::from(2);
        }
    };
    match search(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn search(arguments: &Arguments) -> Result<()> {
    [&arguments.out, &arguments.plot]
        .into_iter()
        .flatten()
        .try_for_each(|path| check_folder(path))?;
    let strain = match &arguments.strain {
        Some(path) => strain::read(path)?,
        None => Array::from_vec(strain::synthetic()?)?,
    };
    let (longest, available) = (
        filter::duration(arguments.bank.low, arguments.bank.low),
        strain.len() as f64 / SAMPLE_RATE,
    );
    if longest > available {
        let low = arguments.bank.low;
        return Err(format!(
            "the signal of {low} + {low} solar masses lasts {longest:.0} s, longer than the strain ({available:.0} s): raise LO of the bank"
        )
        .into());
    }
    let noise = psd::density(&strain, SAMPLE_RATE)?;
    let (m1s, m2s) = arguments.bank.pairs();
    let (m1s, m2s) = (Array::from_vec(m1s)?, Array::from_vec(m2s)?);
    let noise = Array::from_vec(noise)?;
    let peaks = run_bank(
        arguments.processes,
        (strain, noise, arguments.gps_start),
        &m1s,
        &m2s,
    )?;

    let loudest = (0..peaks.len())
        .max_by(|&a, &b| peaks[a].snr.total_cmp(&peaks[b].snr))
        .ok_or("the bank is empty")?;
    if let Some(path) = &arguments.out {
        write(path, &m1s, &m2s, &peaks)?;
    }
    if let Some(path) = &arguments.plot {
        plot::draw(path, &arguments.bank, &peaks, loudest)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let (m1, m2, Peak { snr, time }) = (m1s[loudest], m2s[loudest], peaks[loudest]);
    writeln!(
        std::io::stdout(),
        "loudest of {} templates: {m1} + {m2} solar masses, SNR {snr:.4} at GPS {time:.6}, chirp mass {:.2} solar masses",
        peaks.len(),
        filter::chirp_mass(m1, m2),
    )?;
    Ok(())
}

/// The state of a worker: plans and spectra, made once. The strain and its noise are mapped, not copied.
fn load(strain: Array<f64>, noise: Array<f64>, gps_start: f64) -> std::result::Result<Filter, String> {
    Filter::load(&strain, &noise, SAMPLE_RATE, gps_start).map_err(|error| error.to_string())
}

/// The peak of every template `(m1s[i], m2s[i])`, in their order.
fn run_bank(
    processes: Option<NonZeroUsize>,
    data: (Array<f64>, Array<f64>, f64),
    m1s: &Array<f64>,
    m2s: &Array<f64>,
) -> Result<Array<Peak>> {
    let mut builder = Pool::builder();
    if let Some(processes) = processes {
        builder = builder.processes(processes.get());
    }
    let pool = builder.try_state(load, data).build()?;
    let peaks = pool.starmap_async(
        |filter: &mut Filter, m1: f64, m2: f64| filter.peak(m1, m2),
        (m1s, m2s),
    )?;
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} templates, {per_sec}, {eta} left")?;
    let bar = ProgressBar::new(m1s.len() as u64).with_style(style); // draws on a terminal only
    while !peaks.wait(Duration::from_millis(50)) {
        bar.set_position(peaks.progress().0);
    }
    bar.finish_and_clear();
    Ok(peaks.get()?)
}

/// A long search should not end with a file that cannot be written.
fn check_folder(path: &Path) -> Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        return Err(format!(
            "cannot write {}: name a file in a folder that exists",
            path.display()
        )
        .into());
    }
    Ok(())
}

fn write(path: &Path, m1s: &[f64], m2s: &[f64], peaks: &[Peak]) -> Result<()> {
    let rows = Array2::from_shape_fn((peaks.len(), 4), |(i, column)| {
        [m1s[i], m2s[i], peaks[i].snr, peaks[i].time][column]
    });
    ndarray_npy::write_npy(path, &rows)
        .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}
