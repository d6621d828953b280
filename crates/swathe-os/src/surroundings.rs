//! What a process inherits besides its memory and its descriptors, recorded at one moment and restored in another process.

use std::io;

use rustix::{
    fs::{Mode, OFlags},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    cores,
    descriptors::{Descriptor, above_standard},
    kernel_files,
};

/// The limits that are recorded.
const LIMITS: [Resource; 15] = [
    Resource::As,
    Resource::Core,
    Resource::Cpu,
    Resource::Data,
    Resource::Fsize,
    Resource::Locks,
    Resource::Memlock,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Nofile,
    Resource::Nproc,
    Resource::Rtprio,
    Resource::Rttime,
    Resource::Sigpending,
    Resource::Stack,
];

/// Whether a variable is one by which a launcher of MPI programs tells a process which rank it is, and how to speak to it. A
/// worker is no rank: a task that initialized MPI with them would speak in the name of its parent.
pub fn is_launchers(variable: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "OMPI_",
        "PMIX_",
        "PMI_",
        "PMI2_",
        "PRTE_",
        "HYD",
        "MPI_LOCAL",
        "MPIEXEC_",
    ];
    PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
}

/// Mask of created files, niceness, limits and allowed cores of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    umask: Option<u32>,
    nice: i32,
    /// Soft and hard, in the order of the list above.
    limits: Vec<(Option<u64>, Option<u64>)>,
    cores: Vec<usize>,
}

/// Stands for no limit in a message.
const NO_LIMIT: u64 = u64::MAX;
/// Stands for what is not known.
const UNKNOWN: u64 = u64::MAX;

impl Surroundings {
    /// Those of this process now. Its cores are those of all of its threads: one that is bound to a core of its own, as
    /// OpenMP does with the main thread, binds no worker.
    pub fn of_this_process() -> Self {
        Self {
            umask: umask(),
            nice: rustix::process::getpriority_process(None).unwrap_or(0),
            limits: LIMITS
                .iter()
                .map(|resource| getrlimit(*resource))
                .map(|limit| (limit.current, limit.maximum))
                .collect(),
            cores: cores::process_affinity(),
        }
    }

    /// Makes them this process's own, as far as it may: a limit that was lowered below what it was cannot be raised again
    /// without privileges, nor can the niceness.
    pub fn restore(&self) {
        if let Some(umask) = self.umask {
            rustix::process::umask(Mode::from_raw_mode(umask));
        }
        for (resource, (soft, hard)) in LIMITS.into_iter().zip(&self.limits) {
            restore_limit(resource, *soft, *hard);
        }
        if rustix::process::getpriority_process(None) != Ok(self.nice) {
            let _ = rustix::process::setpriority_process(None, self.nice);
        }
        if cores::affinity() != self.cores {
            let _ = cores::pin_to(&self.cores);
        }
    }

    /// One bit a core: a machine may have thousands, and a message is short.
    fn core_bits(&self) -> Vec<u64> {
        let mut bits = vec![0; self.cores.iter().max().map_or(0, |last| last / 64 + 1)];
        for core in &self.cores {
            bits[core / 64] |= 1 << (core % 64);
        }
        bits
    }

    /// As bytes, for another process of this program.
    pub fn encode(&self) -> Vec<u8> {
        let limits = self.limits.iter().flat_map(|(soft, hard)| [*soft, *hard]);
        let words = [self.umask.map_or(UNKNOWN, u64::from), self.nice as u64]
            .into_iter()
            .chain(limits.map(|limit| limit.unwrap_or(NO_LIMIT)))
            .chain(self.core_bits());
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// From those bytes; `None` if they are not such.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let limit = |word: u64| (word != NO_LIMIT).then_some(word);
        Some(Self {
            umask: words
                .next()
                .filter(|word| *word != UNKNOWN)
                .map(|word| word as u32),
            nice: words.next()? as i32,
            limits: (0..LIMITS.len())
                .map(|_| Some((limit(words.next()?), limit(words.next()?))))
                .collect::<Option<_>>()?,
            cores: words
                .enumerate()
                .flat_map(|(at, word)| {
                    (0..64)
                        .filter(move |bit| word & 1 << bit != 0)
                        .map(move |bit| 64 * at + bit)
                })
                .collect(),
        })
    }
}

fn restore_limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) {
    let now = getrlimit(resource);
    if (now.current, now.maximum) == (soft, hard) {
        return;
    }
    let whole = Rlimit {
        current: soft,
        maximum: hard,
    };
    if setrlimit(resource, whole).is_err() {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let as_far_as_possible = Rlimit {
            current: least(soft, now.maximum),
            maximum: now.maximum,
        };
        let _ = setrlimit(resource, as_far_as_possible);
    }
}

/// Asking by `umask` would change it for the other threads of a moment.
fn umask() -> Option<u32> {
    let status = kernel_files::text("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// The current directory of this process, to be entered again even if its name is another's by then.
///
/// # Errors
/// If it may not be opened, or no descriptor is left.
pub fn current_directory() -> io::Result<Descriptor> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(above_standard(|| rustix::fs::open(".", flags, Mode::empty()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_survives_the_message() {
        let here = Surroundings::of_this_process();
        assert!(!here.cores.is_empty() && here.umask.is_some());
        let wide = Surroundings {
            cores: (0..8192).step_by(3).collect(),
            ..here.clone()
        };
        let bytes = wide.encode();
        assert!(bytes.len() < 2000);
        assert_eq!(Surroundings::decode(&bytes), Some(wide));
        let bytes = here.encode();
        assert_eq!(Surroundings::decode(&bytes), Some(here));
        assert_eq!(Surroundings::decode(&bytes[..8]), None);
        assert_eq!(Surroundings::decode(&bytes[1..]), None);
    }
}
