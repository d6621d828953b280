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
    let attached = reference.attach_own::<u32>().unwrap();
    assert_eq!(attached, part);
    assert_eq!(attached.to_ref(), reference);
    drop(part);
    assert_eq!(attached[0], 20, "the attached array keeps the memory");
    drop(attached);
    let text = reference.attach_own::<u32>().unwrap_err().to_string();
    assert!(
        text.starts_with("the array at byte 80 of segment") && text.contains("was freed"),
        "{text}"
    );
    let _reuser = Array::<u32>::zeros_in(&memory, 60).unwrap();
    assert!(matches!(
        reference.attach_own::<u32>(),
        Err(MemoryError::Freed { .. })
    ));
    // SAFETY: it is found to be gone.
    let attached = unsafe { reference.attach::<u32>() };
    assert!(
        matches!(attached, Err(MemoryError::Freed { .. })),
        "an unsafe call finds no more"
    );
}

#[test]
fn nothing_but_published_arrays_can_be_attached() {
    let memory = memory();
    let array = Array::from_range_in(&memory, 0..8_u64).unwrap();
    let reference = array.to_ref();
    let _private = crate::ArrayMut::<u64>::zeros_in(&memory, 8).unwrap();
    let elsewhere = with_word(&reference, 1, 64);
    assert!(matches!(
        elsewhere.attach_own::<u64>(),
        Err(MemoryError::Freed { .. })
    ));
    let long = with_word(&with_word(&reference, 2, 9), 5, 9);
    assert!(matches!(long.attach_own::<u64>(), Err(MemoryError::Freed { .. })));
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
            .attach_own::<u64>()
            .unwrap_err()
            .to_string();
        assert!(text.contains(expected), "{text} should contain {expected}");
    }
    let text = ArrayRef::zeroed().attach_own::<f32>().unwrap_err().to_string();
    assert_eq!(
        text,
        "this reference cannot be an array of f32: its elements have 0 bytes, not 4"
    );
}

#[test]
fn empty_arrays_and_units_cross_without_a_segment() {
    let empty = Array::<f64>::zeros(0).unwrap().reshape(&[4, 0]).unwrap();
    assert_eq!(empty.to_ref().segment(), SegmentId::zeroed());
    assert_eq!(empty.to_ref().attach_own::<f64>().unwrap().shape(), [4, 0]);
    let units = Array::<()>::zeros(7).unwrap();
    assert_eq!(units.to_ref().attach_own::<()>().unwrap().len(), 7);
}

/// Stands for a worker: the same memory under an id that no arena here has.
fn as_a_worker_sees_it(memory: &Memory, id: u64) -> Arc<Segment> {
    let (id, len) = (SegmentId::from_bits(id), memory.segment().len());
    // SAFETY: the id is the test's own, and stands for this arena, which is written by way of the arena only.
    let attached = unsafe {
        let fd = memory.segment().fd().try_clone_to_owned().unwrap();
        Segment::attach(id, fd.into(), len, Access::ReadWrite)
    };
    attached.unwrap()
}

/// Attaches, as a worker does, what the test keeps, or refuses.
fn attach<T: Pod>(reference: &ArrayRef) -> Result<Array<T>, MemoryError> {
    // SAFETY: the array that the reference was made from lives, and nobody writes it; another is refused.
    unsafe { reference.attach() }
}

#[test]
fn a_worker_attaches_through_the_segment_and_checks_bounds() {
    let memory = memory();
    let array = Array::from_range_in(&memory, 0..8_u64).unwrap();
    let id = 0x0a77_0001;
    let segment = as_a_worker_sees_it(&memory, id);
    let reference = with_word(&array.to_ref(), 0, id);
    let attached = attach::<u64>(&reference).unwrap();
    assert_eq!(attached, array);
    assert_ne!(attached.as_ptr(), array.as_ptr(), "through another mapping");
    assert_eq!(attached.to_ref(), reference, "it can go back as it came");

    let outside = with_word(&reference, 1, segment.len() as u64 - 56);
    assert!(matches!(
        attach::<u64>(&outside),
        Err(MemoryError::OutOfBounds { .. })
    ));
    let crooked = with_word(&reference, 1, 4);
    assert!(matches!(
        attach::<u64>(&crooked),
        Err(MemoryError::Misaligned { .. })
    ));
    let unknown = with_word(&reference, 0, 0x0a77_0002);
    assert!(matches!(
        attach::<u64>(&unknown),
        Err(MemoryError::UnknownSegment { .. })
    ));
}

#[test]
fn control_words_are_no_array() {
    let control = Segment::create("swathe-test", 4096).unwrap();
    let array = Array::<u64>::zeros(8).unwrap();
    let reference = with_word(&array.to_ref(), 0, control.id().to_bits());
    let text = attach::<u64>(&reference).unwrap_err().to_string();
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

/// The bytes of a value that holds arrays, as they would come from the process that has the arena: the test's own segment id
/// is put in the place of the arena's, wherever it stands.
fn as_sent<T>(value: &T, memory: &Memory, id: u64) -> AlignedVec<16>
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<AlignedVec, rkyv::ser::allocator::ArenaHandle<'a>, rancor::Error>,
    >,
{
    let mut bytes = rkyv::to_bytes::<rancor::Error>(value).unwrap();
    let own = memory.segment().id().to_bits().to_ne_bytes();
    for at in 0..bytes.len() - WORD {
        if bytes[at..][..WORD] == own {
            bytes[at..][..WORD].copy_from_slice(&id.to_ne_bytes());
        }
    }
    bytes
}

/// Reads bytes as Swathe does that has written them.
fn read_vouched<T>(bytes: &[u8]) -> Result<T, rancor::Error>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Error>>
        + Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Error>>,
{
    let check = || rkyv::access::<T::Archived, rancor::Error>(bytes);
    // SAFETY: the bytes were serialised from a `T` whose arrays the test keeps.
    unsafe { vouch::read(bytes, check, |archived| rkyv::deserialize(archived)) }
}

#[test]
fn arrays_of_another_process_are_read_only_by_who_vouches_for_the_bytes() {
    let memory = memory();
    let id = 0x0a77_0003;
    let _segment = as_a_worker_sees_it(&memory, id);
    let job = Job {
        name: "whiten".to_owned(),
        strain: Array::from_fn_in(&memory, 10, |i| i as f64).unwrap(),
        tables: vec![Array::from_slice_in(&memory, b"ab").unwrap()],
    };
    let bytes = as_sent(&job, &memory, id);
    let read = read_vouched::<Job>(&bytes).unwrap();
    assert_eq!(read, job);
    assert_ne!(read.strain.as_ptr(), job.strain.as_ptr());

    let text = rkyv::from_bytes::<Job, rancor::Error>(&bytes)
        .unwrap_err()
        .to_string();
    let at = job.strain.to_ref().offset();
    assert!(
        text.starts_with(&format!(
            "the array at byte {at} of segment {:016x} does not lie in the arena of this process, and nobody vouches",
            id
        )),
        "{text}"
    );
    // They are vouched for where they lie, and while they are read.
    let elsewhere = bytes.clone();
    let archived = rkyv::access::<ArchivedJob, rancor::Error>(&elsewhere).unwrap();
    let check = || Ok::<_, rancor::Error>(archived);
    // SAFETY: the values that are read lie elsewhere, and are refused.
    let read = unsafe {
        vouch::read(&bytes, check, |archived| {
            rkyv::deserialize::<Job, rancor::Error>(archived)
        })
    };
    assert!(read.is_err());
}

/// A user's type: bytes of its own, which it takes for a reference to an array when it is read.
struct Smuggler([u8; size_of::<ArrayRef>()]);

impl Archive for Smuggler {
    type Archived = [u8; size_of::<ArrayRef>()];
    type Resolver = ();

    fn resolve(&self, (): (), out: Place<Self::Archived>) {
        out.write(self.0);
    }
}

impl<S: Fallible + ?Sized> Serialize<S> for Smuggler {
    fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

/// The array that a smuggler makes of its bytes, or why it cannot.
struct Smuggled(Result<Array<u64>, String>);

impl<D: Fallible + ?Sized> Deserialize<Smuggled, D> for [u8; size_of::<ArrayRef>()] {
    fn deserialize(&self, _: &mut D) -> Result<Smuggled, D::Error> {
        let own = rkyv::from_bytes::<Array<u64>, rancor::Error>(self);
        Ok(Smuggled(own.map_err(|e| e.to_string())))
    }
}

/// Bytes that no array was serialised to are believed nowhere: not in the record that is read, nor beside it.
#[test]
fn a_record_that_holds_a_forged_reference_reads_no_array_of_another_process() {
    let memory = memory();
    let array = Array::from_range_in(&memory, 0..8_u64).unwrap();
    let id = 0x0a77_0004;
    let _segment = as_a_worker_sees_it(&memory, id);
    // To what happens to lie there, say the results of a job that runs.
    let forged = with_word(&array.to_ref(), 0, id);
    let forged = Smuggler(bytemuck::cast(forged));
    let bytes = rkyv::to_bytes::<rancor::Error>(&forged).unwrap();
    let check = || rkyv::access::<[u8; size_of::<ArrayRef>()], rancor::Error>(&bytes);
    let make =
        |archived: &[u8; size_of::<ArrayRef>()]| rkyv::deserialize::<Smuggled, rancor::Error>(archived);
    // SAFETY: the bytes were serialised from a `Smuggler`, which has no handles.
    let Smuggled(read) = unsafe { vouch::read(&bytes, check, make) }.unwrap();
    assert!(read.unwrap_err().contains("bytes of a record that are no handle"));

    // Copied out they lie elsewhere, and nobody vouches for that place.
    let beside = bytes.clone();
    let make = |_: &[u8; size_of::<ArrayRef>()]| {
        Ok(rkyv::from_bytes::<Array<u64>, rancor::Error>(&beside).map_err(|e| e.to_string()))
    };
    // SAFETY: as above.
    let read = unsafe { vouch::read(&bytes, check, make) }.unwrap();
    assert!(read.unwrap_err().contains("nobody vouches"));
}

/// A panic of a user's code while a record is read leaves nothing believed.
#[test]
fn nothing_is_believed_after_a_panic() {
    let memory = memory();
    let id = 0x0a77_0005;
    let _segment = as_a_worker_sees_it(&memory, id);
    let array = Array::from_range_in(&memory, 0..8_u64).unwrap();
    let bytes = as_sent(&array, &memory, id);
    let panicked = std::panic::catch_unwind(|| {
        let check = || rkyv::access::<ArchivedArray, rancor::Error>(&bytes);
        // SAFETY: the bytes were serialised from an array that lives.
        let read = unsafe {
            vouch::read(&bytes, check, |_| -> Result<(), rancor::Error> {
                panic!("as it should")
            })
        };
        drop(read);
    });
    assert!(panicked.is_err());
    assert!(rkyv::from_bytes::<Array<u64>, rancor::Error>(&bytes).is_err());
    assert_eq!(read_vouched::<Array<u64>>(&bytes).unwrap(), array);
}

#[test]
fn what_was_serialised_by_content_is_refused_when_it_is_read() {
    let array = Array::from_vec(vec![1.0, 2.0]).unwrap();
    let own = array.segment().unwrap().id().to_bits();
    let offset = array.to_ref().offset();
    // The worst of fingerprints: one that looks like a place.
    thread_local! {
        static PLACE: Cell<[u64; 2]> = const { Cell::new([0; 2]) };
    }
    PLACE.set([own, offset]);
    let bytes = by_content(
        |_| PLACE.get(),
        || rkyv::to_bytes::<rancor::Error>(&array).unwrap(),
    );
    let text = read_vouched::<Array<f64>>(&bytes).unwrap_err().to_string();
    assert!(text.contains("it has more than 8 axes"), "{text}");
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
