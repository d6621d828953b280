//! Memory of another process.

use std::fs;

/// Resident memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Its own pages: heap, stacks, what it wrote to.
    pub(crate) private: u64,
    /// Pages that it shares with others, the pool's arrays among them.
    pub(crate) shared: u64,
}

/// What a process has; `None` if it is gone, or may not be looked at.
pub(crate) fn memory(pid: u32) -> Option<Memory> {
    rollup(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn rollup(text: &str) -> Option<Memory> {
    let sum = |kind: &str| -> u64 {
        let fields = text
            .lines()
            .filter_map(|line| line.strip_prefix(kind)?.split_once(':'));
        fields
            .filter(|(name, _)| matches!(*name, "Clean" | "Dirty"))
            .filter_map(|(_, value)| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .sum::<u64>()
            * 1024
    };
    text.contains("Rss:").then(|| Memory {
        private: sum("Private_"),
        shared: sum("Shared_"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_shared_pages_are_told_apart() {
        let text = "Rss: 100 kB\nShared_Clean:  8 kB\nShared_Dirty:  2 kB\nPrivate_Clean:  1 kB\nPrivate_Dirty:  4 kB\n\
                    Private_Hugetlb: 64 kB\n";
        let memory = Memory {
            private: 5 << 10,
            shared: 10 << 10,
        };
        assert_eq!(rollup(text), Some(memory));
        assert_eq!(rollup(""), None);
        assert!(super::memory(std::process::id()).is_some_and(|memory| memory.private > 0));
    }
}
