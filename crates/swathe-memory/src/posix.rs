//! Named POSIX segments that *other* programs made, as read-only inputs (feature `posix-shm`).
//!
//! Such a segment is a file in `/dev/shm` that anyone may have put there, so owner, permissions and size are checked on
//! the very descriptor that is then mapped. The `shared_memory` crate is not used for that: it maps by name, for
//! writing, without any check, keeps its descriptor to itself (a worker needs one), and a check made beside it would
//! look at another opening of the name. It serves the tests, as the other program. Python's
//! `multiprocessing.shared_memory` is the usual one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Pod;
use swathe_os::file::{NotOurs, check_ours};
use swathe_os::text;

use crate::arena::Memory;
use crate::array::Array;
use crate::error::MemoryError;
use crate::overlay::byte_len;
use crate::read::Input;
use crate::segment::{Origin, Segment};
use crate::shape::Shape;

/// Where Linux keeps named segments; `shm_open` of the C library opens files here.
const DIRECTORY: &str = "/dev/shm";

impl Segment {
    /// Maps the named segment of another program read-only. A leading slash in the name makes no difference.
    ///
    /// This gives an address and no more, so it asks for no promise. Who makes an array of it does
    /// ([`Array::map_posix`]).
    ///
    /// # Errors
    /// When there is no such segment, it belongs to another user, or others than its owner can write it.
    pub fn map_posix(name: &str) -> Result<Arc<Segment>, MemoryError> {
        let file = open_checked(name)?;
        Segment::map_input(
            file.into(),
            Origin::Posix {
                name: name.to_owned(),
            },
        )
    }
}

impl<T: Pod> Array<T> {
    /// Reads the array of this shape at the start of the named segment of another program; bytes behind it are ignored (some
    /// systems round the size of a segment up to whole pages).
    ///
    /// The elements are copied once, so the other program may go on to write or remove the segment. One that it writes while
    /// it is read gives some of the old elements and some of the new. [`map_posix`](Self::map_posix) copies nothing.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), swathe_memory::MemoryError> {
    /// // Python: shm = shared_memory.SharedMemory(name="strain", create=True, size=8 * 4096)
    /// let strain = swathe_memory::Array::<f64>::from_posix("strain", &[4096])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Segment::map_posix`]; when the segment is too small, or becomes shorter while it is read; when memory is short.
    pub fn from_posix(name: &str, shape: &[usize]) -> Result<Array<T>, MemoryError> {
        let shape = Shape::new(shape)?;
        let file = open_checked(name)?;
        let path = path_of(name);
        let input = Input {
            file: &file,
            path: &path,
        };
        check_room::<T>(name, shape, input.len()?)?;
        let elements = input.elements(&Memory::global()?, 0, shape.count())?;
        Ok(elements.reshape(shape.lengths())?.freeze())
    }

    /// Maps the array of this shape at the start of the named segment of another program. Nothing is copied; bytes behind
    /// the array are ignored.
    ///
    /// # Safety
    /// The other program, and everybody else, neither writes nor truncates the segment, from now until the array and all that
    /// was made from it (clones, parts, references that are attached, a pool or a job that was given it) are gone: bytes that
    /// change under a `&[T]` are undefined behaviour, and a page that is cut off is a SIGBUS. Removing the name is fine.
    /// [`verify`](Array::verify) notices a segment that has shrunk; nothing notices bytes that change.
    ///
    /// # Errors
    /// As [`Segment::map_posix`], and when the segment is too small.
    pub unsafe fn map_posix(name: &str, shape: &[usize]) -> Result<Array<T>, MemoryError> {
        let shape = Shape::new(shape)?;
        let segment = Segment::map_posix(name)?;
        check_room::<T>(name, shape, segment.len())?;
        Array::in_segment(&segment, 0, shape, 0)
    }
}

/// That a segment of so many bytes has room for the shape.
fn check_room<T>(name: &str, shape: Shape, len: usize) -> Result<(), MemoryError> {
    let needed = byte_len::<T>(shape.count())?;
    if needed > len {
        return Err(unusable(
            name,
            format!(
                "the shape {shape:?} needs {needed} bytes, but the segment has {len}; check shape and element type, and \
                 whether the other program has finished making it"
            ),
        ));
    }
    Ok(())
}

/// Where the segment lies.
fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name.strip_prefix('/').unwrap_or(name))
}

fn open_checked(name: &str) -> Result<File, MemoryError> {
    let file_name = name.strip_prefix('/').unwrap_or(name);
    if file_name.is_empty() || matches!(file_name, "." | "..") || file_name.contains(['/', '\0']) {
        return Err(unusable(
            name,
            "a name has no slash but a leading one, and is not empty".to_owned(),
        ));
    }
    let path = path_of(name);
    let opened = OpenOptions::new()
        .read(true)
        // Not through a symbolic link that someone planted, and without waiting if it is a pipe.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => unusable(
            name,
            format!(
                "there is no {}; check the name, and whether the program that makes it runs",
                text::path(&path)
            ),
        ),
        _ => unusable(name, format!("{} cannot be opened: {error}", text::path(&path))),
    })?;
    check_ours(&file).map_err(|wrong| {
        let remedy = match wrong {
            NotOurs::Owner { .. } => "; have the same user make it",
            NotOurs::Writable { .. } => "; have it made with mode 0600",
            _ => "",
        };
        unusable(name, format!("{wrong}{remedy}"))
    })?;
    Ok(file)
}

fn unusable(name: &str, reason: String) -> MemoryError {
    MemoryError::NamedSegment {
        name: name.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::process::{Command, Stdio};

    use shared_memory::ShmemConf;

    use super::*;

    /// A file in /dev/shm that is removed however the test ends.
    struct Planted(PathBuf);

    impl Planted {
        fn name(what: &str) -> String {
            format!("swathe-test-{}-{what}", std::process::id())
        }

        fn new(what: &str, mode: u32) -> (String, Planted) {
            let name = Planted::name(what);
            let planted = Planted(Path::new(DIRECTORY).join(&name));
            fs::write(&planted.0, [7; 16]).unwrap();
            fs::set_permissions(&planted.0, fs::Permissions::from_mode(mode)).unwrap();
            (name, planted)
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn refusal(name: &str) -> String {
        Array::<u8>::from_posix(name, &[16]).unwrap_err().to_string()
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", "/", ".", "..", "../etc/passwd", "a/b", "//a", "a\0b"] {
            assert!(refusal(name).contains("a name has no slash"), "{name:?}");
        }
        let text = refusal("swathe-test-no-such");
        assert!(
            text.ends_with("check the name, and whether the program that makes it runs"),
            "{text}"
        );
    }

    #[test]
    fn owner_mode_size_and_kind_are_checked() {
        let (name, planted) = Planted::new("mode", 0o622);
        let text = refusal(&name);
        assert!(text.contains("its mode 0622 lets other users write it"), "{text}");
        fs::set_permissions(&planted.0, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Array::<u8>::from_posix(&name, &[4, 4]).unwrap(), [7; 16]);
        assert_eq!(
            Array::<u64>::from_posix(&format!("/{name}"), &[1]).unwrap().len(),
            1
        );
        let text = Array::<u64>::from_posix(&name, &[3]).unwrap_err().to_string();
        assert!(
            text.contains("the shape [3] needs 24 bytes, but the segment has 16"),
            "{text}"
        );

        let link = Planted(Path::new(DIRECTORY).join(Planted::name("link")));
        symlink(&planted.0, &link.0).unwrap();
        assert!(refusal(&Planted::name("link")).contains("cannot be opened"));

        // Only root can give files away.
        if chown(&planted.0, Some(65_534), None).is_ok() {
            assert!(
                refusal(&name).contains("it belongs to user 65534"),
                "{}",
                refusal(&name)
            );
        }
    }

    #[test]
    fn a_segment_truncated_by_its_owner_is_noticed() {
        let (name, planted) = Planted::new("shrink", 0o600);
        // SAFETY: the segment is the test's own; what it cuts off below is not looked at.
        let array = unsafe { Array::<u8>::map_posix(&name, &[16]) }.unwrap();
        let copy = Array::<u8>::from_posix(&name, &[16]).unwrap();
        OpenOptions::new()
            .write(true)
            .open(&planted.0)
            .unwrap()
            .set_len(4)
            .unwrap();
        let text = array.verify().unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("the shared memory segment {name:?} shrank")),
            "{text}"
        );
        copy.verify().unwrap();
        assert_eq!(copy, [7; 16], "what was read is the reader's own");
    }

    #[test]
    fn segments_of_the_shared_memory_crate_are_mapped_and_not_removed() {
        let made = ShmemConf::new().size(4096).create().unwrap();
        // SAFETY: the segment is 4096 bytes long, page-aligned, and nobody else writes it.
        unsafe { made.as_ptr().cast::<[u32; 4]>().write([1, 2, 3, 4]) };
        let read = Array::<u32>::from_posix(made.get_os_id(), &[2, 2]).unwrap();
        assert_eq!(read, [1, 2, 3, 4]);
        // SAFETY: nobody writes the segment any more.
        let array = unsafe { Array::<u32>::map_posix(made.get_os_id(), &[2, 2]) }.unwrap();
        assert_eq!(array, read);
        // SAFETY: the array lives.
        assert_eq!(unsafe { array.to_ref().attach::<u32>() }.unwrap(), array);
        drop(array);
        assert!(Array::<u32>::from_posix(made.get_os_id(), &[4]).is_ok());
    }

    #[test]
    fn segments_of_python_are_mapped() {
        let program = "import sys, struct\n\
                       from multiprocessing import shared_memory\n\
                       shm = shared_memory.SharedMemory(create=True, size=800)\n\
                       shm.buf[:800] = struct.pack('=100d', *[i * 0.5 for i in range(100)])\n\
                       print(shm.name, flush=True)\n\
                       sys.stdin.read()\n\
                       shm.close()\n\
                       shm.unlink()\n";
        let spawned = Command::new("python3")
            .args(["-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut python) = spawned else {
            eprintln!("skipped: there is no python3 here");
            return;
        };
        let mut name = String::new();
        BufReader::new(python.stdout.take().unwrap())
            .read_line(&mut name)
            .unwrap();
        let copied = Array::<f64>::from_posix(name.trim(), &[10, 10]);
        // SAFETY: Python writes the segment no more.
        let array = unsafe { Array::<f64>::map_posix(name.trim(), &[10, 10]) };
        // Lets Python remove its segment, whatever was found in it.
        python.stdin.take().unwrap().write_all(b"done").unwrap();
        assert!(python.wait().unwrap().success());
        let array = array.unwrap();
        assert!(
            array.iter().enumerate().all(|(i, &x)| x == i as f64 * 0.5),
            "the mapping outlives the name"
        );
        assert_eq!(array, copied.unwrap());
        assert!(refusal(name.trim()).contains("there is no"));
    }
}
