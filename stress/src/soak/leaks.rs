//! What must be the same at the end as at the beginning: processes, descriptors, names in `/dev/shm`, memory in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};
use swathe::Memory;
use swathe_tests::pool_processes;

/// How long what was left may take to go when everything is over.
const PATIENCE: Duration = Duration::from_secs(20);

/// What there is.
pub(super) struct Holdings {
    memory: Memory,
    in_use: usize,
    /// Descriptors by what they refer to.
    files: BTreeMap<String, usize>,
    names: BTreeSet<String>,
}

impl Holdings {
    pub(super) fn now(memory: &Memory) -> Self {
        let mut files = BTreeMap::new();
        for file in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(file.path()) {
                // `socket:[1234]` without its number, which says nothing.
                let target = target
                    .to_string_lossy()
                    .split(":[")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                *files.entry(target).or_insert(0) += 1;
            }
        }
        let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        Self {
            memory: memory.clone(),
            in_use: memory.stats().in_use,
            files,
            names: names
                .map(|name| name.file_name().to_string_lossy().into_owned())
                .collect(),
        }
    }

    /// Waits until nothing more is there than was then. Gives what stays, in words.
    pub(super) fn leaks(&self) -> Vec<String> {
        let start = Instant::now();
        loop {
            reap_orphans("swathe-"); // Some died before they had a name of their own.
            let left = self.left();
            if left.is_empty() || start.elapsed() > PATIENCE {
                return left;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn left(&self) -> Vec<String> {
        let now = Self::now(&self.memory);
        let processes = pool_processes()
            .into_iter()
            .map(|process| format!("process {process}"));
        let files = now.files.iter().filter_map(|(file, count)| {
            let before = self.files.get(file).copied().unwrap_or(0);
            (*count > before).then(|| format!("{count} descriptors of {file}, {before} before"))
        });
        let names = now.names.difference(&self.names).filter(|name| is_ours(name));
        let memory = (now.in_use != self.in_use).then(|| {
            format!(
                "{} bytes of the arena are in use, {} before",
                now.in_use, self.in_use
            )
        });
        processes
            .chain(files)
            .chain(names.map(|name| format!("/dev/shm/{name}")))
            .chain(memory)
            .collect()
    }
}

/// Other programs make names as well; theirs do not say who made them.
fn is_ours(name: &str) -> bool {
    name.contains("swathe") || name.contains(&std::process::id().to_string())
}

/// Workers whose zygote was killed are adopted by this process. Zygotes are reaped by their pools, while there are any.
pub(super) fn reap_orphans(name: &str) {
    for process in pool_processes() {
        if process.state == 'Z' && process.name.starts_with(name) {
            let _ = waitpid(Pid::from_raw(process.pid as i32), Some(WaitPidFlag::WNOHANG));
        }
    }
}
