//! Arrays from and to `.npy` files, NumPy's own format.

mod header;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::ArrayViewD;
use ndarray_npy::WriteNpyExt;
use swathe_os::file::{Place, open_input};
use swathe_os::text::quoted;

use crate::arena::Memory;
use crate::array::Array;
use crate::array_mut::ArrayMut;
use crate::element::{Element, ElementType, OutputElement};
use crate::error::{MemoryError, Size};
use crate::read::Input;
use crate::segment::{Origin, Segment};
use crate::shape::Shape;

use header::Header;

/// What the header of a `.npy` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NpyInfo {
    /// Element type as NumPy writes it, for example `<f8`.
    pub descr: String,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Whether the first axis is contiguous instead of the last.
    pub fortran_order: bool,
    /// Format version, major and minor.
    pub version: (u8, u8),
    /// Position of the first element in the file, in bytes.
    pub data_offset: usize,
}

/// Reads the header of a `.npy` file, to learn its element type and shape. The data are not looked at.
///
/// # Errors
/// When the file cannot be read, or its header is not that of a `.npy` file.
pub fn npy_info(path: impl AsRef<Path>) -> Result<NpyInfo, MemoryError> {
    let path = path.as_ref();
    let file = open_input(path).map_err(|source| failed("open", path, source))?;
    let header = read_header(&file, path)?;
    Ok(NpyInfo {
        descr: header.descr,
        shape: header.shape,
        fortran_order: header.fortran_order,
        version: header.version,
        data_offset: header.data_offset,
    })
}

/// The header of a `.npy` file that holds so many elements of this type, each with its own axes behind the first. The data
/// follow in C order and in this machine's byte order; they start at a multiple of 64 bytes.
pub fn npy_header<T: OutputElement>(count: usize) -> Vec<u8> {
    let dtype = T::dtype();
    header::bytes(&dtype.descr(), &[&[count], dtype.shape()].concat())
}

impl<T: Element> Array<T> {
    /// Reads a `.npy` file.
    ///
    /// The elements are copied once, so the file may change afterwards. One that others write while it is read gives some of
    /// the old elements and some of the new. [`map_npy_path`](Self::map_npy_path) copies nothing. Bytes behind the array are
    /// ignored, as NumPy does.
    ///
    /// # Errors
    /// When the file cannot be read or is no regular file, is no `.npy` file, holds another element type or byte order, ends
    /// before its last element, or becomes shorter while it is read; when memory is short, which is asked for when all else
    /// is known to fit. The text names the file, what was found, what was expected and what to do.
    pub fn from_npy_path(path: impl AsRef<Path>) -> Result<Array<T>, MemoryError> {
        Stored::<T>::find(path.as_ref())?.read(Memory::global)
    }

    /// As [`from_npy_path`](Self::from_npy_path), in `memory`.
    ///
    /// # Errors
    /// As [`from_npy_path`](Self::from_npy_path).
    pub fn from_npy_path_in(memory: &Memory, path: impl AsRef<Path>) -> Result<Array<T>, MemoryError> {
        Stored::<T>::find(path.as_ref())?.read(|| Ok(memory.clone()))
    }

    /// Maps a `.npy` file. The data are not copied and not even read until they are used.
    ///
    /// They are read, as by [`from_npy_path`](Self::from_npy_path), in two cases only: when they do not start at a multiple of
    /// the alignment of `T` (NumPy aligns them, some other writers do not), or when they lie in Fortran order along more than
    /// one axis. Bytes behind the array are ignored, as NumPy does.
    ///
    /// # Safety
    /// Nobody writes the file, truncates it or replaces its bytes in place, from now until the array and all that was made
    /// from it (clones, parts, references that are attached, a pool or a job that was given it) are gone: bytes that change
    /// under a `&[T]` are undefined behaviour, and a page that is cut off is a SIGBUS. Replacing the file as a whole (write a
    /// new one, rename it, as [`to_npy`](Self::to_npy) does) is fine, and so is removing it. [`verify`](Array::verify) notices
    /// a file that has shrunk; nothing notices bytes that change.
    ///
    /// # Errors
    /// As [`from_npy_path`](Self::from_npy_path), or when the file cannot be mapped.
    pub unsafe fn map_npy_path(path: impl AsRef<Path>) -> Result<Array<T>, MemoryError> {
        let path = path.as_ref();
        let stored = Stored::<T>::find(path)?;
        if !stored.can_be_mapped() {
            return stored.read(Memory::global);
        }
        let origin = Origin::File {
            path: path.to_owned(),
        };
        let segment = Segment::map_input(stored.file.into(), origin)?;
        Array::in_segment(&segment, stored.data_offset, stored.shape, 0)
    }

    /// Writes the array, with its shape, to a `.npy` file that NumPy loads.
    ///
    /// The file appears at `path` only when it is complete: it is written beside it and then renamed, so that a
    /// reader, or a mapping, of an older file there is not disturbed.
    ///
    /// # Errors
    /// When the file cannot be written; an older one is as it was then.
    pub fn to_npy(&self, path: impl AsRef<Path>) -> Result<(), MemoryError> {
        write_npy(path.as_ref(), &self.view())
    }
}

impl<T: Element> ArrayMut<T> {
    /// As [`Array::to_npy`].
    ///
    /// # Errors
    /// As [`Array::to_npy`].
    pub fn to_npy(&self, path: impl AsRef<Path>) -> Result<(), MemoryError> {
        write_npy(path.as_ref(), &self.view())
    }
}

/// A header at the start of these bytes that is believed is one that the bytes hold.
#[cfg(any(test, feature = "_untrusted"))]
pub(crate) fn check_header(bytes: &[u8]) {
    if let Ok(header) = header::parse(bytes) {
        assert!(
            header.data_offset <= bytes.len() && header.shape.len() <= crate::MAX_AXES,
            "{header:?}"
        );
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> MemoryError {
    MemoryError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// An array as it lies in a `.npy` file that was found to be one, and long enough.
struct Stored<'a, T> {
    file: File,
    path: &'a Path,
    data_offset: usize,
    shape: Shape,
    /// Whether the elements follow each other along the first axis, and there is another.
    is_transposed: bool,
    elements: PhantomData<T>,
}

impl<'a, T: Element> Stored<'a, T> {
    fn find(path: &'a Path) -> Result<Self, MemoryError> {
        let file = open_input(path).map_err(|source| failed("open", path, source))?;
        let len = Input { file: &file, path }.len()?;
        let header = read_header(&file, path)?;
        check_element_type::<T>(&header, path)?;
        let shape = data_shape::<T>(&header, len, path)?;
        let long_axes = shape.lengths().iter().filter(|&&length| length > 1).count();
        Ok(Stored {
            file,
            path,
            data_offset: header.data_offset,
            shape,
            is_transposed: header.fortran_order && long_axes > 1,
            elements: PhantomData,
        })
    }

    fn can_be_mapped(&self) -> bool {
        !self.is_transposed && self.data_offset.is_multiple_of(align_of::<T>())
    }

    /// The elements in C order, in the memory that is asked for now.
    fn read(self, memory: impl FnOnce() -> Result<Memory, MemoryError>) -> Result<Array<T>, MemoryError> {
        let (path, count) = (self.path, self.shape.count());
        let input = Input {
            file: &self.file,
            path,
        };
        if !self.is_transposed {
            let elements = input.elements(&memory()?, self.data_offset, count)?;
            return Ok(elements.reshape(self.shape.lengths())?.freeze());
        }
        let mut array = ArrayMut::unwritten(&memory()?, count)?.reshape(self.shape.lengths())?;
        // With the axes the other way round the file's order is the order of the places.
        let mut places = array.view_mut().reversed_axes();
        let mut places = places.iter_mut();
        input.for_each_piece(self.data_offset, count, |piece: &[T]| {
            for (element, place) in piece.iter().zip(places.by_ref()) {
                *place = *element;
            }
        })?;
        Ok(array.freeze())
    }
}

fn read_header(file: &File, path: &Path) -> Result<Header, MemoryError> {
    // Real headers have about a hundred bytes; a file is read further only if it says that it is needed.
    let mut bytes = read_start(file, 4096).map_err(|source| failed("read", path, source))?;
    let mut header = header::parse(&bytes);
    if header.is_err() && bytes.len() == 4096 {
        bytes = read_start(file, header::READ_AHEAD).map_err(|source| failed("read", path, source))?;
        header = header::parse(&bytes);
    }
    header.map_err(|found| MemoryError::Format {
        path: path.to_owned(),
        expected: "a .npy file".to_owned(),
        found,
        remedy: "write it with numpy.save, or load a file without header with from_raw_file".to_owned(),
    })
}

/// The first `at_most` bytes of the file, fewer if it has fewer.
fn read_start(file: &File, at_most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; at_most];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn check_element_type<T: Element>(header: &Header, path: &Path) -> Result<(), MemoryError> {
    let descr = header.descr.as_str();
    let wanted = T::ELEMENT_TYPE;
    if wanted.matches(descr) {
        return Ok(());
    }
    let found = match ElementType::parse(descr) {
        Some(found) if found == wanted => {
            format!("its elements are {found} in the other byte order ({descr})")
        }
        Some(found) => format!("its elements are {found} ({descr})"),
        None => format!("its elements have the NumPy type {}", quoted(descr)),
    };
    let remedy = match ElementType::parse(descr) {
        Some(found) if found != wanted => format!(
            "load it as Array::<{found}>, or convert it with numpy: a.astype({:?})",
            wanted.native_descr()
        ),
        _ => format!("convert it with numpy: a.astype({:?})", wanted.native_descr()),
    };
    Err(MemoryError::Format {
        path: path.to_owned(),
        expected: format!("an array of {wanted}"),
        found,
        remedy,
    })
}

/// The shape of the data, which the file is long enough for.
fn data_shape<T: Element>(header: &Header, file_len: usize, path: &Path) -> Result<Shape, MemoryError> {
    let refused = |found, remedy: &str| MemoryError::Format {
        path: path.to_owned(),
        expected: "a .npy file".to_owned(),
        found,
        remedy: remedy.to_owned(),
    };
    let damaged = "the file is damaged; write it again";
    let shape = Shape::new(&header.shape).map_err(|error| refused(error.to_string(), damaged))?;
    let needed = shape.count().checked_mul(size_of::<T>()).ok_or_else(|| {
        refused(
            format!("its shape {shape:?} has more bytes than this machine can address"),
            damaged,
        )
    })?;
    let present = file_len.saturating_sub(header.data_offset);
    if needed > present {
        return Err(refused(
            format!(
                "its shape {shape:?} of {} needs {} of data, but the file has only {}",
                T::ELEMENT_TYPE,
                Size(needed as u64),
                Size(present as u64)
            ),
            "it was cut off; copy or write it again",
        ));
    }
    Ok(shape)
}

fn write_npy<T: Element>(path: &Path, view: &ArrayViewD<'_, T>) -> Result<(), MemoryError> {
    let refused = |error: io::Error| failed("write to", path, error);
    let place = Place::of(path).map_err(|error| refused(error.into()))?;
    let beside = place.beside(&unique_suffix());
    let file = beside.create().map_err(|error| refused(error.into()))?;
    let write = || -> io::Result<()> {
        let mut writer = BufWriter::new(&file);
        view.write_npy(&mut writer).map_err(|error| match error {
            ndarray_npy::WriteNpyError::Io(error) => error,
            other => io::Error::other(other),
        })?;
        writer.flush()?;
        Ok(beside.rename_over(&file, &place)?)
    };
    write().map_err(|error| {
        beside.remove(&file);
        refused(error)
    })
}

/// What makes a name in the same directory (renaming works within a file system only) that nobody else uses.
fn unique_suffix() -> String {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    format!(".{}-{number}.partial", std::process::id())
}

#[cfg(test)]
mod tests;
