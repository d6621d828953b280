//! How much address space the arena of a process reserves.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use swathe_os::memory_limits;

use crate::error::MemoryError;

/// The environment variable that sets the capacity of [`Memory::global`](super::Memory::global), as `8G`.
pub const VARIABLE: &str = "SWATHE_ARENA";

/// Smallest capacity of [`Memory::global`](super::Memory::global).
pub(super) const LEAST: usize = 64 << 20;

/// What the program asked for; 0 if it did not.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// A capacity, and whether less will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    /// Wanted by program or user.
    Exactly(usize),
    /// Our own wish.
    AtMost(usize),
}

/// The program's wish, taken at its word when the arena is made.
pub(super) fn ask(bytes: usize) {
    // Relaxed: the number stands alone.
    ASKED.store(bytes.max(LEAST), Ordering::Relaxed);
}

/// What the program asked for, as the environment of a process that it starts.
pub fn for_children() -> Option<(&'static str, String)> {
    match ASKED.load(Ordering::Relaxed) {
        0 => None,
        bytes => Some((VARIABLE, bytes.to_string())),
    }
}

/// The user's word goes before the program's.
pub(super) fn choose() -> Result<Capacity, MemoryError> {
    if let Some(value) = std::env::var_os(VARIABLE) {
        let bytes = parse(&value).filter(|&bytes| bytes >= LEAST);
        return match bytes {
            Some(bytes) => Ok(Capacity::Exactly(bytes)),
            None => Err(MemoryError::CapacityVariable { value }),
        };
    }
    Ok(match ASKED.load(Ordering::Relaxed) {
        0 => Capacity::AtMost(by_itself()),
        bytes => Capacity::Exactly(bytes),
    })
}

/// Four times the physical memory, at least 16 GiB, at most half of the address space that a limit leaves.
fn by_itself() -> usize {
    let wanted = memory_limits::physical_memory().saturating_mul(4).max(16 << 30);
    let allowed = memory_limits::address_space_headroom().map_or(wanted, |room| room.bytes / 2);
    usize::try_from(wanted.min(allowed))
        .unwrap_or(usize::MAX)
        .max(LEAST)
}

/// `8589934592`, `512M`, `8G`, `8GiB`, `1T`, in either case.
fn parse(value: &OsStr) -> Option<usize> {
    let text = value.to_str()?.trim().to_ascii_uppercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.trim_end().parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units() {
        let parse = |text: &str| parse(OsStr::new(text));
        for (text, bytes) in [
            ("67108864", 64 << 20),
            (" 64m ", 64 << 20),
            ("8G", 8 << 30),
            ("8GiB", 8 << 30),
            ("8 GB", 8 << 30),
            ("1T", 1 << 40),
            ("100000k", 100_000 << 10),
            ("5b", 5),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "G",
            "8X",
            "8.5G",
            "-1",
            "1e9",
            "99999999999G",
            "8 G 1",
            "0x10",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
