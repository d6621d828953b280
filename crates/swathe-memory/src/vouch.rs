//! Which archived bytes are believed.
//!
//! An archive says of an array only where it lies, and the bytes that say so can be made by anybody. In the process that made
//! the arena this is no harm: there every live array is known. In any other process nobody can tell an input, which stays as
//! it is, from memory that is written at this moment. There the bytes themselves must be known to be honest, and only who has
//! written them knows that. So whoever reads such bytes says it of them, by [`read`], which is unsafe; anywhere else, reading
//! a reference to memory of another process is an error.
//!
//! What is believed is bound to the place of the bytes and to the moment. Code of users runs while values are made of an
//! archive (their own `Deserialize`), and could bring bytes of its own to be read meanwhile; but a handle is believed only
//! where it lies in the archive, and only if it was found there when the archive was checked, which runs no code of users.

use std::cell::Cell;

/// An archive that is read at this moment, on this thread.
#[derive(Clone, Copy)]
struct Archive {
    start: usize,
    end: usize,
    /// Whether the types of what lies in it have been checked, and values are being made of it.
    is_checked: bool,
}

thread_local! {
    static NOW: Cell<Option<Archive>> = const { Cell::new(None) };
}

/// Reads an archive whose handles may lead to memory of other processes: `check` finds the archived value in it, `make` makes
/// a value of that.
///
/// # Safety
/// - The bytes are what serialising a value of the type that is read has written, in a process of this program that was
///   given each of the value's handles.
/// - Whoever sent them keeps what the handles lead to, and has it written by nobody, until the last handle that is made
///   here is gone.
/// - `check` validates (`rkyv::access` and its kin), and runs no code that could be a user's.
///
/// # Errors
/// Those of `check` and `make`.
pub unsafe fn read<A, R, E>(
    archive: &[u8],
    check: impl FnOnce() -> Result<A, E>,
    make: impl FnOnce(A) -> Result<R, E>,
) -> Result<R, E> {
    /// Also after a panic.
    struct Restore(Option<Archive>);
    impl Drop for Restore {
        fn drop(&mut self) {
            NOW.set(self.0);
        }
    }
    let bytes = archive.as_ptr_range();
    let mut now = Archive {
        start: bytes.start.addr(),
        end: bytes.end.addr(),
        is_checked: false,
    };
    let _restore = Restore(NOW.replace(Some(now)));
    let checked = check()?;
    now.is_checked = true;
    NOW.set(Some(now));
    make(checked)
}

/// Whether a handle lies in an archive that is believed at this moment.
pub fn is_given_for<H>(handle: &H) -> bool {
    NOW.get().is_some_and(|now| now.is_checked && now.holds(handle))
}

/// Whether the type of a handle may be checked at this place. It may not where values are being made of the archive already:
/// whoever then takes bytes of it for a handle takes them for something that was not serialised as one.
pub fn may_be_checked<H>(handle: *const H) -> bool {
    NOW.get().is_none_or(|now| !now.is_checked || !now.holds(handle))
}

impl Archive {
    /// Whether any byte of the value lies in the archive; a value lies in it whole or not at all.
    fn holds<H>(&self, value: *const H) -> bool {
        let start = value.addr();
        start < self.end && start.saturating_add(size_of::<H>()) > self.start
    }
}

/// Bytes of a record that were not serialised as a handle.
#[derive(Debug, thiserror::Error)]
#[error(
    "bytes of a record that are no handle were read as one while the record was; read what is archived inside of a record when \
     the record is there"
)]
pub struct NoHandle;
