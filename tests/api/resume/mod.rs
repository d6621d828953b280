//! Output in a file: going on after the program was killed.
//!
//! - [`same`]: what is as it is without a file
//! - [`go_on`]: what is run, and what is not run again
//! - [`killed`]: the whole program is killed, again and again
//! - [`refused`]: other jobs, damaged files, full disks

mod go_on;
mod killed;
mod refused;
mod same;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

const PAGE: usize = 4096;

/// A directory with the two files of an output, and one byte a position that counts how often its task ran.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn output(&self) -> PathBuf {
        self.path().join("out.npy")
    }

    fn progress(&self) -> PathBuf {
        self.path().join("out.npy.progress")
    }

    /// Where tasks count their runs.
    fn runs(&self) -> String {
        self.path().join("runs").display().to_string()
    }

    /// How often the tasks of positions below `len` have started.
    fn counts(&self, len: usize) -> Vec<u8> {
        let mut counts = fs::read(self.runs()).unwrap_or_default();
        counts.resize(len, 0);
        counts
    }

    /// Everything that is in the two files.
    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let read = |path| fs::read(path).unwrap_or_default();
        (read(self.output()), read(self.progress()))
    }

    /// Overwrites some bytes of the progress.
    fn write_progress(&self, at: usize, bytes: &[u8]) {
        let file = File::options()
            .write(true)
            .open(self.progress())
            .expect("it is there");
        file.write_all_at(bytes, at as u64).expect("it can be written");
    }

    /// From now on nothing fails.
    fn go(&self) {
        fs::write(format!("{}.go", self.runs()), "").expect("the directory is there");
    }

    /// Says that the progress was written under another boot of the machine.
    fn boot_again(&self) {
        self.write_progress(PAGE + 8, &[7; 16]);
    }
}

/// Counts that the task of a position was started. No two workers are at one position.
fn count(runs: &str, position: u64) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(runs)?;
    let mut byte = [0];
    let _ = file.read_at(&mut byte, position)?;
    file.write_all_at(&[byte[0] + 1], position)
}

/// The root of a number, counted.
#[expect(clippy::ptr_arg, reason = "a task takes its parameters as they are")]
fn root(runs: &String, x: u32) -> f64 {
    count(runs, u64::from(x)).expect("it can be counted");
    f64::from(x).sqrt()
}

/// Fails unless a file is there, at every tenth position.
fn root_or_not(runs: &String, x: u32) -> Result<f64, String> {
    let root = root(runs, x);
    if x % 10 == 3 && !Path::new(&format!("{runs}.go")).exists() {
        return Err("not yet".into());
    }
    Ok(root)
}

/// What the progress of a job of `positions` says, read as its format is documented.
struct Published {
    done: Vec<bool>,
    failed: Vec<bool>,
}

impl Published {
    /// How many positions are done.
    fn count(&self) -> usize {
        self.done.iter().filter(|&&done| done).count()
    }

    fn read(place: &Place, positions: usize) -> Self {
        let bytes = fs::read(place.progress()).unwrap_or_default();
        let mut said = Self {
            done: vec![false; positions],
            failed: vec![false; positions],
        };
        if bytes.len() < 2 * PAGE || bytes[..PAGE].iter().all(|&byte| byte == 0) {
            return said; // Killed before there was anything to say.
        }
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let chunk_len = word(32) as usize;
        let chunks = positions.div_ceil(chunk_len);
        for chunk in 0..chunks {
            let at = 2 * PAGE + 4 * chunk;
            let status = u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            let all = chunk * chunk_len..((chunk + 1) * chunk_len).min(positions);
            let end = if status >> 31 == 1 {
                all.end
            } else {
                all.start + status as usize
            };
            said.done[all.start..end].fill(true);
        }
        let bits = (2 * PAGE + 4 * chunks).next_multiple_of(64);
        for (position, failed) in said.failed.iter_mut().enumerate() {
            *failed = word(bits + position / 64 * 8) >> (position % 64) & 1 == 1;
        }
        said
    }
}
