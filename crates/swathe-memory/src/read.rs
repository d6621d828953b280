//! Elements of files, read into memory of this process's own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytemuck::Pod;

use crate::arena::Memory;
use crate::array_mut::ArrayMut;
use crate::error::MemoryError;

/// What is asked of the kernel at once.
const PIECE: usize = 16 << 20;

/// A file that is read, and how it is called.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) file: &'a File,
    pub(crate) path: &'a Path,
}

impl Input<'_> {
    pub(crate) fn failed(self, source: io::Error) -> MemoryError {
        MemoryError::File {
            action: "read",
            path: self.path.to_owned(),
            source,
        }
    }

    /// Bytes in the file now.
    pub(crate) fn len(self) -> Result<usize, MemoryError> {
        let len = self.file.metadata().map_err(|source| self.failed(source))?.len();
        usize::try_from(len).map_err(|_| self.failed(io::ErrorKind::FileTooLarge.into()))
    }

    /// `count` elements from byte `offset` on. The caller has found that the file is long enough.
    pub(crate) fn elements<T: Pod>(
        self,
        memory: &Memory,
        offset: usize,
        count: usize,
    ) -> Result<ArrayMut<T>, MemoryError> {
        let mut elements = ArrayMut::unwritten(memory, count)?;
        if size_of::<T>() > 0 {
            self.fill(offset as u64, bytemuck::cast_slice_mut(&mut elements))?;
        }
        Ok(elements)
    }

    /// As [`elements`](Self::elements), a piece at a time.
    pub(crate) fn for_each_piece<T: Pod>(
        self,
        offset: usize,
        count: usize,
        mut show: impl FnMut(&[T]),
    ) -> Result<(), MemoryError> {
        let most = (PIECE / size_of::<T>().max(1)).max(1);
        let mut piece = vec![T::zeroed(); count.min(most)];
        for first in (0..count).step_by(most) {
            let part = &mut piece[..most.min(count - first)];
            if size_of::<T>() > 0 {
                let start = offset + first * size_of::<T>();
                self.fill(start as u64, bytemuck::cast_slice_mut(part))?;
            }
            show(part);
        }
        Ok(())
    }

    fn fill(self, offset: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let mut filled = 0;
        while filled < bytes.len() {
            let end = bytes.len().min(filled + PIECE);
            let at = offset + filled as u64;
            match self.file.read_at(&mut bytes[filled..end], at) {
                Ok(0) => {
                    return Err(MemoryError::CutOff {
                        path: self.path.to_owned(),
                        expected: offset + bytes.len() as u64,
                        found: at,
                    });
                }
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when somebody cuts it off after its length was asked.
    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_an_error_that_names_it() {
        let named = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(named.path(), [7; 800]).unwrap();
        let file = File::open(named.path()).unwrap();
        let input = Input {
            file: &file,
            path: named.path(),
        };
        let memory = Memory::with_capacity(4 << 20).unwrap();
        named.as_file().set_len(500).unwrap();
        let expected = format!(
            "{} became shorter while it was read: it had 816 bytes, and ended after 500; read it again, and let the program \
             that writes it replace the file (write a new one, then rename) instead of truncating it",
            named.path().display()
        );
        let text = input.elements::<u64>(&memory, 16, 100).unwrap_err().to_string();
        assert_eq!(text, expected);
        let text = input
            .for_each_piece::<u64>(16, 100, |_| {})
            .unwrap_err()
            .to_string();
        assert_eq!(text, expected);
        assert_eq!(memory.stats().in_use, 0, "what was read of it is given back");
    }

    #[test]
    fn pieces_are_all_elements_in_order() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let count = PIECE / 8 + 3;
        let numbers: Vec<u64> = (0..count as u64).collect();
        std::fs::write(named.path(), bytemuck::cast_slice(&numbers)).unwrap();
        let file = File::open(named.path()).unwrap();
        let input = Input {
            file: &file,
            path: named.path(),
        };
        let mut seen = Vec::new();
        let mut pieces = 0;
        let show = |piece: &[u64]| {
            pieces += 1;
            seen.extend_from_slice(piece);
        };
        input.for_each_piece(8, count - 1, show).unwrap();
        assert_eq!(pieces, 2);
        assert!(seen == numbers[1..]);
        input
            .for_each_piece(0, 7, |units: &[()]| assert_eq!(units.len(), 7))
            .unwrap();
    }
}
