//! How much memory there is, and with which pages.

use swathe::{ArrayMut, Memory};
use swathe_os::memory_limits::{address_space_headroom, page_headroom, physical_memory};

use super::finding::{Finding, Severity};
use crate::units;

const SECTION: &str = "memory";
/// What is allocated to see on which pages it lies.
const TRIAL: usize = 64 << 20;
/// With less than this, few arrays fit.
const LITTLE: u64 = 1 << 30;

pub(super) fn examine() -> Vec<Finding> {
    vec![free(), address_space(), pages()]
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
