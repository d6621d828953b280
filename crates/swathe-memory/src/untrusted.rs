//! What this crate reads of bytes that others wrote, as functions of those bytes: for `cargo fuzz` and for the tests.

use std::{
    fs::File,
    io::Write,
    os::fd::AsRawFd,
    sync::{Arc, LazyLock},
};

use bytemuck::Zeroable;
use swathe_os::{AsFd, Descriptor, memfd};

use crate::{
    Access, Array, ArrayRef, Element, Memory, Segment, SegmentId, npy,
    npy::{NpyInfo, npy_info},
};

use swathe_os::untrusted::Reader;

/// The header of a `.npy` file, behind its magic bytes.
pub fn npy_header(data: &[u8]) {
    npy::check_header(&[b"\x93NUMPY", data].concat());
}

/// A whole `.npy` file.
pub fn npy_file(data: &[u8]) {
    let Ok(file) = memory_file(data) else { return };
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let Ok(info) = npy_info(&path) else {
        assert!(
            Array::<u8>::from_npy_path(&path).is_err(),
            "a file without a header was loaded"
        );
        return;
    };
    check_array::<u8>(&path, &info, data);
    check_array::<i16>(&path, &info, data);
    check_array::<u32>(&path, &info, data);
    check_array::<f64>(&path, &info, data);
}

fn memory_file(data: &[u8]) -> Result<Descriptor, Box<dyn std::error::Error>> {
    let memory = memfd::create("swathe-hostile", data.len() as u64)?;
    File::from(memory.as_fd().try_clone_to_owned()?).write_all(data)?;
    Ok(memory)
}

/// Whatever is loaded is what lies in the file.
fn check_array<T: Element>(path: &str, info: &NpyInfo, data: &[u8]) {
    let Ok(array) = Array::<T>::from_npy_path(path) else {
        return;
    };
    assert!(
        T::ELEMENT_TYPE.matches(&info.descr),
        "{info:?} was loaded as another type"
    );
    assert_eq!(array.shape(), info.shape, "{info:?}");
    let long_axes = info.shape.iter().filter(|&&length| length > 1).count();
    let stored = &data[info.data_offset..][..size_of_val::<[T]>(&array)];
    if info.fortran_order && long_axes > 1 {
        let (mut loaded, mut stored) = (bytemuck::cast_slice::<T, u8>(&array).to_vec(), stored.to_vec());
        loaded.sort_unstable();
        stored.sort_unstable();
        assert_eq!(loaded, stored, "{info:?}");
    } else {
        assert_eq!(bytemuck::cast_slice::<T, u8>(&array), stored, "{info:?}");
    }
}

/// What references can refer to.
struct Ground {
    /// This process's arena, and the one array in it that was ever sent anywhere: `0, 1, 2, ...`
    own: Array<u64>,
    /// Another process's arena, as a worker has it.
    foreign: Arc<Segment>,
    control: Arc<Segment>,
}

const OWN: u64 = 512;
const FOREIGN: usize = 4096;

static GROUND: LazyLock<Ground> = LazyLock::new(|| {
    let memory = Memory::with_capacity(4 << 20).expect("4 MiB are to be had");
    let own = Array::from_range_in(&memory, 0..OWN).expect("4 KiB are to be had");
    let _ = own.to_ref();
    let fd = memfd::create("swathe-hostile", FOREIGN as u64).expect("a memory file can be made");
    // SAFETY: the id is nobody else's, and nobody writes the file.
    let foreign = unsafe { Segment::attach(SegmentId::from_bits(7), fd, FOREIGN, Access::ReadWrite) };
    Ground {
        own,
        foreign: foreign.expect("it is sealed"),
        control: Segment::create("swathe-hostile", FOREIGN).expect("a memory file can be made"),
    }
});

/// A reference to an array: first where it says it lies, then its other words.
pub fn array_ref(data: &[u8]) {
    let mut reader = Reader(data);
    let mut reference: [u8; size_of::<ArrayRef>()] = bytemuck::cast(GROUND.own.to_ref());
    let segment = match reader.below(5) {
        0 => None,
        1 => Some(GROUND.foreign.id()),
        2 => Some(GROUND.control.id()),
        3 => Some(SegmentId::zeroed()),
        _ => Some(SegmentId::from_bits(reader.word())),
    };
    if let Some(segment) = segment {
        reference[..8].copy_from_slice(bytemuck::bytes_of(&segment));
    }
    while !reader.is_empty() {
        let word = 1 + reader.below(size_of::<ArrayRef>() / 8 - 1);
        reference[8 * word..][..8].copy_from_slice(&reader.word().to_le_bytes());
    }
    let reference: ArrayRef = bytemuck::cast(reference);
    check_ref::<u8>(&reference);
    check_ref::<u64>(&reference);
    check_ref::<[u16; 3]>(&reference);
    check_ref::<()>(&reference);
}

/// What is attached can be read, all of it, and is nothing that was never sent.
fn check_ref<T: bytemuck::Pod + Send + Sync>(reference: &ArrayRef) {
    // SAFETY: nobody writes the memory that such references can lead to.
    let Ok(array) = (unsafe { reference.attach::<T>() }) else {
        return;
    };
    let bytes = size_of_val::<[T]>(&array);
    let read = std::hint::black_box(
        bytemuck::cast_slice::<T, u8>(&array)
            .iter()
            .fold(0, |sum: u8, b| sum.wrapping_add(*b)),
    );
    if bytes == 0 {
        return;
    }
    if reference.segment() == GROUND.own.to_ref().segment() {
        let first = (reference.offset() - GROUND.own.to_ref().offset()) as usize;
        let sent = &bytemuck::cast_slice::<u64, u8>(&GROUND.own)[first..first + bytes];
        assert_eq!(sent, bytemuck::cast_slice::<T, u8>(&array), "{reference:?}");
    } else {
        assert_eq!(reference.segment(), GROUND.foreign.id(), "{reference:?}");
        assert!(bytes <= FOREIGN && read == 0, "{reference:?}");
    }
}

#[cfg(test)]
mod tests {
    use swathe_os::untrusted::run_corpus;

    use super::{array_ref, npy_file, npy_header};

    #[test]
    fn corpus_of_npy_header() {
        run_corpus("npy_header", npy_header);
    }

    #[test]
    fn corpus_of_npy_file() {
        run_corpus("npy_file", npy_file);
    }

    #[test]
    fn corpus_of_array_ref() {
        run_corpus("array_ref", array_ref);
    }
}
