//! How much memory there is, and with which pages.

use std::{env, fs};

use rustix::process::{Resource, getrlimit};
use swathe::{ArrayMut, Memory};
use swathe_memory::arena::capacity;
use swathe_os::mapping::pages_are_locked;
use swathe_os::memory_limits::{address_space_headroom, page_headroom, physical_memory};

use super::finding::{Finding, Severity};
use crate::units;

const SECTION: &str = "memory";
/// What is allocated to see on which pages it lies.
const TRIAL: usize = 64 << 20;
/// With less than this, few arrays fit.
const LITTLE: u64 = 1 << 30;

pub(super) fn examine() -> Vec<Finding> {
    vec![free(), address_space(), arena(), locked(), killer(), pages()]
}

/// What virtual sizes are made of. Its bounds are in the hands of user and program.
fn arena() -> Finding {
    const WHAT: &str = "address space of a process";
    let capacity = match Memory::global() {
        Ok(memory) => memory.stats().capacity as u64,
        Err(error) => {
            return Finding::ok(SECTION, WHAT, error.to_string()).but(
                Severity::Failure,
                "do what the error says: no pool runs without an arena",
            );
        }
    };
    let decided_by = match env::var(capacity::VARIABLE) {
        Ok(value) => format!("{}={value}", capacity::VARIABLE),
        Err(_) => "four times the memory of the machine, or what a limit leaves".to_owned(),
    };
    let value = format!(
        "{} reserved for arrays, in the parent and in each worker",
        units::bytes(capacity)
    );
    let finding = Finding::ok(SECTION, WHAT, value).by(decided_by);
    // Grid Engine and its kin may kill by the sum of virtual sizes; they set one of these.
    let counts_sizes = ["SGE_ROOT", "PBS_JOBID", "LSB_JOBID"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    match counts_sizes && env::var_os(capacity::VARIABLE).is_none() {
        true => finding.but(
            Severity::Note,
            "if this batch system counts virtual sizes (h_vmem, vmem), set SWATHE_ARENA to a little more than the \
             arrays take, as SWATHE_ARENA=8G: it is counted once a process",
        ),
        false => finding,
    }
}

/// A program that calls `mlockall` later, with a pool, has all of the arena taken.
fn locked() -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or("unlimited".to_owned(), units::bytes);
    let value = match pages_are_locked() {
        true => "all memory that is mapped (mlockall); arenas are not, and pools run",
        false => "none of what is mapped",
    };
    Finding::ok(SECTION, "locked memory", value).by(format!("RLIMIT_MEMLOCK (ulimit -l) is {limit}"))
}

/// Who dies when memory is short. The score of a worker is that of its parent and a thousand.
fn killer() -> Finding {
    const WHAT: &str = "OOM killer";
    let score = fs::read_to_string("/proc/self/oom_score_adj").ok();
    let Some(score) = score.and_then(|text| text.trim().parse::<i32>().ok()) else {
        return Finding::ok(SECTION, WHAT, "unknown").but(Severity::Note, "mount /proc to have it told");
    };
    let finding = Finding::ok(SECTION, WHAT, "takes a worker before this process")
        .by(format!("oom_score_adj is {score} here"));
    match score {
        500.. => Finding::ok(SECTION, WHAT, "may take this process before its workers")
            .by(format!("oom_score_adj is {score} here"))
            .but(
                Severity::Note,
                "start the program with a lower score (`choom -n 0`): a worker's cannot be more than 1000, and without the \
                 parent all is lost",
            ),
        _ => finding,
    }
}

fn free() -> Finding {
    let room = page_headroom();
    let finding = Finding::ok(
        SECTION,
        "free",
        format!(
            "{} of {} in the machine",
            units::bytes(room.bytes),
            units::bytes(physical_memory())
        ),
    )
    .by(room.limited_by.to_string());
    match room.bytes {
        bytes if bytes < LITTLE => finding.but(Severity::Warning, room.limited_by.remedy()),
        _ => finding,
    }
}

/// An arena is reserved at several times the physical memory, and takes less where it must.
fn address_space() -> Finding {
    const WHAT: &str = "address space (RLIMIT_AS)";
    let Some(room) = address_space_headroom() else {
        return Finding::ok(SECTION, WHAT, "unlimited");
    };
    let finding = Finding::ok(SECTION, WHAT, format!("{} left", units::bytes(room.bytes))).by("ulimit -v");
    match room.bytes {
        bytes if bytes < physical_memory() => finding.but(Severity::Warning, room.limited_by.remedy()),
        _ => finding,
    }
}

/// Asked of the kernel by trying.
fn pages() -> Finding {
    const WHAT: &str = "huge pages obtained";
    let tried = Memory::with_capacity(2 * TRIAL).and_then(|memory| {
        let array = ArrayMut::<u64>::zeros_in(&memory, TRIAL / size_of::<u64>())?;
        let stats = memory.stats();
        drop(array);
        Ok(stats)
    });
    let huge = match tried {
        Ok(stats) => stats.huge_page_bytes as u64,
        Err(error) => {
            return Finding::ok(
                SECTION,
                WHAT,
                format!("an array of 64 MiB cannot be had: {error}"),
            )
            .but(
                Severity::Warning,
                "do what the error says: results of that size cannot be had",
            );
        }
    };
    let value = format!("{} of {}", units::bytes(huge), units::bytes(TRIAL as u64));
    let finding =
        Finding::ok(SECTION, WHAT, value).by("the kernel, asked with MADV_COLLAPSE; read from smaps");
    if huge >= TRIAL as u64 / 10 * 9 {
        return finding;
    }
    finding.but(
        Severity::Note,
        "first touches of memory are about half as fast: use Linux 6.1 or newer with CONFIG_TRANSPARENT_HUGEPAGE, and \
         memory that is not fragmented",
    )
}
