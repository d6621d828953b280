use std::sync::Arc;

use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::*;
use crate::segment::{Access, Segment};

const WORD: usize = size_of::<u64>();

fn memory() -> Memory {
    Memory::with_capacity(4 << 20).unwrap()
}

/// The reference with one word changed: 0 segment, 1 offset, 2 count, 3 serial, 4 size and axes, 5.. lengths.
fn with_word(reference: &ArrayRef, word: usize, value: u64) -> ArrayRef {
    let mut bytes: [u8; size_of::<ArrayRef>()] = bytemuck::cast(*reference);
    bytes[word * WORD..][..WORD].copy_from_slice(&value.to_ne_bytes());
    bytemuck::pod_read_unaligned(&bytes)
}

#[test]
fn a_reference_finds_the_array_and_holds_it_once_attached() {
    let memory = memory();
    let array = Array::from_range_in(&memory, 0..60_u32)
        .unwrap()
        .reshape(&[3, 4, 5])
        .unwrap();
    let part = array.slice(1..).unwrap();
    let reference = part.to_ref();
    assert_eq!((reference.count(), reference.offset()), (40, 80));
    drop(array);
    let attached = reference.attach::<u32>().unwrap();
    assert_eq!(attached, part);
    assert_eq!(attached.to_ref(), reference);
    drop(part);
    assert_eq!(attached[0], 20, "the attached array keeps the memory");
    drop(attached);
    let text = reference.attach::<u32>().unwrap_err().to_string();
    assert!(
        text.starts_with("the array at byte 80 of segment") && text.contains("was freed"),
        "{text}"
    );
    let _reuser = Array::<u32>::zeros_in(&memory, 60).unwrap();
    assert!(matches!(
        reference.attach::<u32>(),
        Err(MemoryError::Freed { .. })
    ));
}

#[test]
fn nothing_but_published_arrays_can_be_attached() {
    let memory = memory();
    let array = Array::from_range_in(&memory, 0..8_u64).unwrap();
    let reference = array.to_ref();
    let _private = crate::ArrayMut::<u64>::zeros_in(&memory, 8).unwrap();
    let elsewhere = with_word(&reference, 1, 64);
    assert!(matches!(
        elsewhere.attach::<u64>(),
        Err(MemoryError::Freed { .. })
    ));
    let long = with_word(&with_word(&reference, 2, 9), 5, 9);
    assert!(matches!(long.attach::<u64>(), Err(MemoryError::Freed { .. })));
}

#[test]
fn damaged_references_are_refused() {
    let memory = memory();
    let reference = Array::from_range_in(&memory, 0..8_u64).unwrap().to_ref();
    let cases = [
        (1, u64::MAX, "its length is too large"),
        (2, 9, "its shape [8] does not have 9 elements"),
        (4, 8 | 9 << 32, "it has more than 8 axes"),
        (4, 4 | 1 << 32, "its elements have 4 bytes, not 8"),
        (5, 7, "its shape [7] does not have 8 elements"),
        (5, u64::MAX, "has more elements than this machine can address"),
    ];
    for (word, value, expected) in cases {
        let text = with_word(&reference, word, value)
            .attach::<u64>()
            .unwrap_err()
            .to_string();
        assert!(text.contains(expected), "{text} should contain {expected}");
    }
    let text = ArrayRef::zeroed().attach::<f32>().unwrap_err().to_string();
    assert_eq!(
        text,
        "this reference cannot be an array of f32: its elements have 0 bytes, not 4"
    );
}

#[test]
fn empty_arrays_and_units_cross_without_a_segment() {
    let empty = Array::<f64>::zeros(0).unwrap().reshape(&[4, 0]).unwrap();
    assert_eq!(empty.to_ref().segment(), SegmentId::zeroed());
    assert_eq!(empty.to_ref().attach::<f64>().unwrap().shape(), [4, 0]);
    let units = Array::<()>::zeros(7).unwrap();
    assert_eq!(units.to_ref().attach::<()>().unwrap().len(), 7);
}

/// Stands for a worker: the same memory under an id that no arena here has.
fn as_a_worker_sees_it(memory: &Memory, id: u64) -> Arc<Segment> {
    let fd = memory.segment().fd().try_clone_to_owned().unwrap();
    Segment::attach(
        SegmentId::from_bits(id),
        fd.into(),
        memory.segment().len(),
        Access::ReadWrite,
    )
    .unwrap()
}

#[test]
fn a_worker_attaches_through_the_segment_and_checks_bounds() {
    let memory = memory();
    let array = Array::from_range_in(&memory, 0..8_u64).unwrap();
    let id = 0x0a77_0001;
    let segment = as_a_worker_sees_it(&memory, id);
    let reference = with_word(&array.to_ref(), 0, id);
    let attached = reference.attach::<u64>().unwrap();
    assert_eq!(attached, array);
    assert_ne!(attached.as_ptr(), array.as_ptr(), "through another mapping");
    assert_eq!(attached.to_ref(), reference, "it can go back as it came");

    let outside = with_word(&reference, 1, segment.len() as u64 - 56);
    assert!(matches!(
        outside.attach::<u64>(),
        Err(MemoryError::OutOfBounds { .. })
    ));
    let crooked = with_word(&reference, 1, 4);
    assert!(matches!(
        crooked.attach::<u64>(),
        Err(MemoryError::Misaligned { .. })
    ));
    let unknown = with_word(&reference, 0, 0x0a77_0002);
    assert!(matches!(
        unknown.attach::<u64>(),
        Err(MemoryError::UnknownSegment { .. })
    ));
}

#[test]
fn control_words_are_no_array() {
    let control = Segment::create("swathe-test", 4096).unwrap();
    let array = Array::<u64>::zeros(8).unwrap();
    let reference = with_word(&array.to_ref(), 0, control.id().to_bits());
    let text = reference.attach::<u64>().unwrap_err().to_string();
    assert!(text.contains("it holds control words"), "{text}");
}

#[derive(Debug, PartialEq, Archive, Serialize, Deserialize)]
struct Job {
    name: String,
    strain: Array<f64>,
    tables: Vec<Array<u8>>,
}

#[test]
fn arrays_cross_inside_any_archive() {
    let memory = memory();
    let job = Job {
        name: "whiten".to_owned(),
        strain: Array::from_fn_in(&memory, 1000, |i| i as f64).unwrap(),
        tables: vec![
            Array::from_slice_in(&memory, b"ab").unwrap(),
            Array::zeros(0).unwrap(),
        ],
    };
    let bytes = rkyv::to_bytes::<rancor::Error>(&job).unwrap();
    assert!(
        bytes.len() < 1000,
        "a reference, not the elements: {} bytes",
        bytes.len()
    );
    let copy = rkyv::from_bytes::<Job, rancor::Error>(&bytes).unwrap();
    assert_eq!(copy, job);
    assert_eq!(copy.strain.as_ptr(), job.strain.as_ptr());
    let archived = rkyv::access::<ArchivedJob, rancor::Error>(&bytes).unwrap();
    assert_eq!(archived.strain.to_ref(), job.strain.to_ref());
    drop((job, copy));
    let text = rkyv::from_bytes::<Job, rancor::Error>(&bytes)
        .unwrap_err()
        .to_string();
    assert!(text.contains("was freed"), "{text}");
}

#[test]
fn equal_contents_serialise_alike_by_content_only() {
    let job = |last: f64| Job {
        name: "whiten".to_owned(),
        strain: Array::from_vec(vec![1.0, last]).unwrap(),
        tables: Vec::new(),
    };
    let jobs = [job(2.0), job(2.0), job(3.0)];
    let sum = |bytes: &[u8]| {
        [
            bytes.iter().map(|&byte| u64::from(byte)).sum(),
            bytes.len() as u64,
        ]
    };
    let bytes = |job| rkyv::to_bytes::<rancor::Error>(job).unwrap().to_vec();
    let by_content = jobs.each_ref().map(|job| by_content(sum, || bytes(job)));
    assert_eq!(by_content[0], by_content[1]);
    assert_ne!(by_content[0], by_content[2]);
    assert_ne!(bytes(&jobs[0]), bytes(&jobs[1]), "references again");
}

#[test]
fn any_bytes_in_an_archive_are_an_error_at_worst() {
    let mut bytes = AlignedVec::<16>::new();
    bytes.resize(size_of::<ArrayRef>(), 0xff);
    let outcome = rkyv::from_bytes::<Array<f64>, rancor::Error>(&bytes);
    assert!(
        outcome
            .unwrap_err()
            .to_string()
            .contains("this reference cannot be an array of f64")
    );
}
