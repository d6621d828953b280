//! The layout of the file that says how far a job has come.
//!
//! | where | what | written |
//! |---|---|---|
//! | page 0 | [`Head`]: what the job is, with a checksum | once, before the file has its name |
//! | page 1 | [`Session`]: the boot of the machine within which what follows is exact | when a run begins |
//! | then | a status word for each chunk | by workers, in place |
//! | then | a bit for each position: final, without a value | by workers, in place |
//! | then | two [`Slot`]s in turn: a copy of the status words, with a checksum | after the values were synced |
//!
//! Numbers have the byte order of the machine; the head says which.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use swathe_os::text;

use super::error::Difference;
use crate::cross::digest::{self, Digest};

pub(crate) const PAGE: usize = 4096;
const MAGIC: [u8; 16] = *b"swathe progress\n";
const VERSION: u32 = 1;
const BYTE_ORDER: u32 = 0x0102_0304;
const NAME: usize = 1024;
const REST: usize = 512;

/// What the job is.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Head {
    magic: [u8; 16],
    version: u32,
    byte_order: u32,
    pub(crate) positions: u64,
    pub(crate) chunk_len: u64,
    element: [u8; 8],
    seed: u64,
    input: [u64; 2],
    parameters: [u64; 2],
    /// Of the task's whole name, and of its version or its place in the executable.
    task: [u64; 2],
    /// 1 if the task has a version of its own.
    versioned: u64,
    task_name: [u8; NAME],
    task_version: [u8; NAME],
    /// What of the element's type has no room above.
    element_rest: [u8; REST],
    unused: [u8; PAGE - 2 * NAME - 128 - REST],
    checksum: [u64; 2],
}

/// What a job is made of.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) positions: u64,
    /// The type of the results.
    pub(crate) element: &'a str,
    pub(crate) seed: u64,
    pub(crate) input: [u64; 2],
    pub(crate) parameters: [u64; 2],
    pub(crate) task_name: &'a str,
    pub(crate) task_version: Option<&'a str>,
    /// The build of the program, and where in it the task is.
    pub(crate) code: &'a [u8],
}

impl Head {
    pub(crate) fn new(identity: &Identity<'_>, chunk_len: u64) -> Self {
        let element = abbreviated(identity.element);
        let first = text::beginning(&element, 8).len();
        let mut task = Digest::new();
        task.bytes(identity.task_name.as_bytes());
        task.bytes(identity.task_version.map_or(identity.code, str::as_bytes));
        let mut head = Self {
            magic: MAGIC,
            version: VERSION,
            byte_order: BYTE_ORDER,
            positions: identity.positions,
            chunk_len,
            element: padded(&element[..first]),
            element_rest: padded(&element[first..]),
            seed: identity.seed,
            input: identity.input,
            parameters: identity.parameters,
            task: task.finish(),
            versioned: u64::from(identity.task_version.is_some()),
            task_name: padded(identity.task_name),
            task_version: padded(identity.task_version.unwrap_or("")),
            ..Self::zeroed()
        };
        head.checksum = head.sum();
        head
    }

    /// With the checksum that it must have.
    #[cfg(any(test, feature = "_untrusted"))]
    pub(crate) fn sealed(mut self) -> Self {
        self.checksum = self.sum();
        self
    }

    fn sum(&self) -> [u64; 2] {
        let bytes = bytemuck::bytes_of(self);
        digest::of(&bytes[..PAGE - size_of_val(&self.checksum)])
    }

    /// The head in the first page of a file, or what is wrong with it.
    pub(crate) fn read(page: &[u8]) -> Result<Self, Unreadable> {
        if !page.starts_with(&MAGIC) {
            return Err(Unreadable::Foreign);
        }
        let head: Self = page
            .get(..PAGE)
            .map(bytemuck::pod_read_unaligned)
            .ok_or_else(|| Unreadable::Damaged("it ends inside its head".to_owned()))?;
        if head.byte_order != BYTE_ORDER {
            return Err(Unreadable::Damaged(
                "it was written on a machine of the other byte order".to_owned(),
            ));
        }
        if head.checksum != head.sum() {
            return Err(Unreadable::Damaged(
                "the checksum of its head does not fit".to_owned(),
            ));
        }
        match head.version {
            VERSION => Ok(head),
            other => Err(Unreadable::Damaged(format!(
                "it has the format {other}, and this version of Swathe knows {VERSION}"
            ))),
        }
    }

    /// What makes another job of it.
    pub(crate) fn difference(&self, now: &Self) -> Option<Difference> {
        if self.positions != now.positions {
            return Some(Difference::Length {
                begun: self.positions,
                now: now.positions,
            });
        }
        if (self.element, self.element_rest) != (now.element, now.element_rest) {
            let element = |head: &Self| text(&head.element) + &text(&head.element_rest);
            return Some(Difference::Type {
                begun: element(self),
                now: element(now),
            });
        }
        if self.task_name != now.task_name {
            return Some(Difference::Task {
                begun: text(&self.task_name),
                now: text(&now.task_name),
            });
        }
        if (self.versioned, self.task_version) != (now.versioned, now.task_version) {
            let version = |head: &Self| match head.versioned {
                0 => "no version".to_owned(),
                _ => format!("version {:?}", text(&head.task_version)),
            };
            return Some(Difference::Version {
                begun: version(self),
                now: version(now),
            });
        }
        let seeds = Difference::Seed {
            begun: self.seed,
            now: now.seed,
        };
        let others = [
            (self.task == now.task, Difference::Build),
            (self.input == now.input, Difference::Input),
            (self.parameters == now.parameters, Difference::Parameters),
            (self.seed == now.seed, seeds),
        ];
        others
            .into_iter()
            .find_map(|(same, difference)| (!same).then_some(difference))
    }
}

/// Why a page is no head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Foreign,
    Damaged(String),
}

/// The name of a type, or the start of a long one with a fingerprint of all of it.
fn abbreviated(name: &str) -> String {
    if name.len() <= REST {
        return name.to_owned();
    }
    let [first, second] = digest::of(name.as_bytes());
    format!("{}... {first:016x}{second:016x}", text::beginning(name, REST / 2))
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Within which boot the status words and the bits are exact. One that no kernel gave is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Session {
    magic: [u8; 8],
    boot: [u8; 16],
}

impl Session {
    pub(crate) fn now() -> Self {
        Self {
            magic: *b"session\n",
            boot: swathe_os::file::boot_id().unwrap_or_default(),
        }
    }

    /// Whether a session was ever begun: the file of values is laid out then.
    pub(crate) fn was_begun(&self) -> bool {
        self.magic == Self::now().magic
    }

    /// Whether it is this boot's.
    pub(crate) fn is_now(&self) -> bool {
        *self == Self::now() && self.boot != [0; 16]
    }

    /// As [`now`](Self::now), for when the status words are not to be trusted.
    pub(crate) fn of_no_boot() -> Self {
        Self {
            boot: [0; 16],
            ..Self::now()
        }
    }
}

/// Where everything is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) positions: u64,
    pub(crate) chunk_len: u64,
    pub(crate) chunks: usize,
    pub(crate) status: usize,
    pub(crate) failed: usize,
    /// 64 bits each.
    pub(crate) failed_words: usize,
    pub(crate) slots: [usize; 2],
    pub(crate) len: usize,
}

impl Layout {
    /// `None` if it is longer than addresses are.
    pub(crate) fn of(positions: u64, chunk_len: u64) -> Option<Self> {
        let chunks = usize::try_from(positions.div_ceil(chunk_len.max(1))).ok()?;
        let failed_words = usize::try_from(positions.div_ceil(64)).ok()?;
        let status = 2 * PAGE;
        let words = chunks.checked_mul(4)?;
        let failed = status.checked_add(words)?.checked_next_multiple_of(64)?;
        let first = failed
            .checked_add(failed_words.checked_mul(8)?)?
            .checked_next_multiple_of(PAGE)?;
        let slot = size_of::<Slot>()
            .checked_add(words)?
            .checked_next_multiple_of(PAGE)?;
        let second = first.checked_add(slot)?;
        Some(Self {
            positions,
            chunk_len,
            chunks,
            status,
            failed,
            failed_words,
            slots: [first, second],
            len: second.checked_add(slot)?,
        })
    }

    /// The positions of a chunk.
    pub(crate) fn positions_of(&self, chunk: usize) -> Range<u64> {
        let start = chunk as u64 * self.chunk_len;
        start..(start + self.chunk_len).min(self.positions)
    }
}

/// What stands in front of a copy of the status words.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Slot {
    /// Counts checkpoints, from 1.
    sequence: u64,
    checksum: [u64; 2],
}

/// A copy of the status words: how many positions at the start of each chunk have their values on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) sequence: u64,
    pub(crate) done: Vec<u32>,
}

impl Checkpoint {
    pub(crate) fn to_bytes(&self, head: &Head) -> Vec<u8> {
        let words = bytemuck::cast_slice(&self.done);
        let slot = Slot {
            sequence: self.sequence,
            checksum: self.sum(head, words),
        };
        [bytemuck::bytes_of(&slot), words].concat()
    }

    /// The checkpoint in the bytes of a slot, if it is whole and of this job.
    pub(crate) fn read(bytes: &[u8], head: &Head, layout: &Layout) -> Option<Self> {
        let (slot, words) = bytes.split_at_checked(size_of::<Slot>())?;
        let slot: Slot = bytemuck::pod_read_unaligned(slot);
        let words = words.get(..4 * layout.chunks)?;
        let read = Self {
            sequence: slot.sequence,
            done: bytemuck::pod_collect_to_vec(words),
        };
        (read.sequence > 0 && slot.checksum == read.sum(head, words)).then_some(read)
    }

    fn sum(&self, head: &Head, words: &[u8]) -> [u64; 2] {
        let mut digest = Digest::new();
        digest.bytes(bytemuck::bytes_of(&head.checksum));
        digest.bytes(&self.sequence.to_ne_bytes());
        digest.bytes(words);
        digest.finish()
    }
}
