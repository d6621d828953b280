//! What this crate reads of bytes that others wrote, as functions of those bytes: for `cargo fuzz` and for the tests.

use std::{
    fmt::Debug,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use rkyv::util::AlignedVec;
use swathe_memory::{Access, Array, Block, Memory, Segment, SegmentId, SharedSlice};
use swathe_os::memfd;
use swathe_protocol::queue::{QueueShape, QueueView};

use crate::{
    Datum, Queue, Records, SharedArray, Value,
    cross::{
        column::{Counting, Decoded, RowsOf, Sliced, Texts},
        datum::decode_result,
        kind::Owned,
        parameters::{With, Without},
    },
    lower::{HeapBlocks, RecordRef, Vouch, handles::words, prepare},
};

pub use crate::resume::untrusted::progress;

use swathe_os::untrusted::Reader;

/// A segment that some other process made and fills, under an id that does not change.
struct Foreign {
    segment: Arc<Segment>,
    bytes: SharedSlice<AtomicU8>,
}

impl Foreign {
    fn new(id: u64, len: usize) -> Mutex<Self> {
        let fd = memfd::create("swathe-hostile", len as u64).expect("a memory file can be made");
        #[expect(unsafe_code, reason = "what another process has made is made up")]
        // SAFETY: the id is nobody else's, and the file holds words only.
        let segment = unsafe { Segment::attach(SegmentId::from_bits(id), fd, len, Access::ReadWrite) }
            .expect("it is sealed");
        let bytes = words(&segment, 0, len).expect("it is as long");
        Mutex::new(Self { segment, bytes })
    }

    fn fill(&self, bytes: &[u8]) {
        for (i, byte) in self.bytes.iter().enumerate() {
            byte.store(bytes.get(i).copied().unwrap_or(0), Relaxed);
        }
    }
}

/// A record, as a result, a parameter or an item of a queue is one: the first byte says of what type.
pub fn record(data: &[u8]) {
    let mut reader = Reader(data);
    let choice = reader.below(12);
    let mut bytes = AlignedVec::<16>::new();
    bytes.extend_from_slice(reader.0);
    match choice {
        0 => check_record::<String, _>(&bytes),
        1 => check_record::<Vec<u64>, _>(&bytes),
        2 => check_record::<Option<Result<String, u8>>, _>(&bytes),
        3 => check_record::<(u8, Vec<String>, f32), _>(&bytes),
        4 => check_record::<Vec<Vec<Box<str>>>, _>(&bytes),
        5 => check_record::<bool, _>(&bytes),
        6 => check_record::<char, _>(&bytes),
        7 => check_record::<[u16; 3], _>(&bytes),
        8 => check_record::<Vec<char>, _>(&bytes),
        9 => check_record::<Vec<(bool, char)>, _>(&bytes),
        10 => drop(<Array<f64> as Datum<_>>::decode(&bytes, Vouch::OURS)),
        _ => check_record::<tree::Tree, _>(&bytes),
    }
}

/// What is decoded is a value like any other.
fn check_record<T: Datum<K> + PartialEq + Debug, K>(bytes: &[u8]) {
    let Ok(value) = T::decode(bytes, Vouch::OURS) else {
        return;
    };
    let mut again = AlignedVec::new();
    value.encode(&mut again).expect("it was a record before");
    let back = T::decode(&again, Vouch::OURS).expect("it was just encoded");
    // Compared as texts, because a float need not be equal to itself.
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
}

mod tree {
    /// A type that contains itself.
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, PartialEq)]
    #[rkyv(serialize_bounds(
        __S: rkyv::ser::Writer + rkyv::ser::Allocator,
        __S::Error: rkyv::rancor::Source,
    ))]
    #[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
    #[rkyv(bytecheck(bounds(
        __C: rkyv::validation::ArchiveContext,
        __C::Error: rkyv::rancor::Source,
    )))]
    pub(super) struct Tree {
        #[rkyv(omit_bounds)]
        pub(super) branches: Vec<Tree>,
    }
    impl crate::Record for Tree {}
}

/// Results of variable length: where each lies, and the memory that they lie in.
pub fn records(data: &[u8]) {
    static MEMORY: LazyLock<Memory> =
        LazyLock::new(|| Memory::with_capacity(4 << 20).expect("4 MiB are to be had"));
    let mut reader = Reader(data);
    let refs: Vec<[u64; 2]> = (0..reader.below(16))
        .map(|_| [reader.word(), reader.word()])
        .collect();
    let content = reader.0;
    let blocks: Vec<_> = [content, &content[content.len() / 2..]]
        .into_iter()
        .filter_map(|bytes| block_of(&MEMORY, bytes))
        .collect();
    // Offsets are those of an arena, which a fuzzer cannot know: small ones count from the first block.
    let first = blocks.first().map_or(0, |block| block.offset() as u64);
    let refs: Vec<RecordRef> = refs
        .into_iter()
        .map(|[offset, len]| {
            RecordRef::new(first.wrapping_add(offset), len as u32 as usize).expect("it has 32 bits")
        })
        .collect();
    let Ok(slab) = Array::from_slice_in(&MEMORY, &refs) else {
        return;
    };
    let strings = Records::<String>::new(
        slab.clone(),
        HeapBlocks::over(blocks.clone()),
        decode_result::<String, Owned>,
    );
    let lists = Records::<Vec<u32>>::new(slab, HeapBlocks::over(blocks), decode_result::<Vec<u32>, _>);
    check_records(&strings, content.len());
    check_records(&lists, content.len());
}

fn block_of(memory: &Memory, content: &[u8]) -> Option<Arc<Block>> {
    let block = Arc::new(memory.alloc(content.len(), 64).ok()?);
    #[expect(unsafe_code, reason = "bytes in a block that nobody else has")]
    // SAFETY: the block is new, and nobody makes an array of it.
    let bytes: SharedSlice<AtomicU8> = unsafe { SharedSlice::in_block(&block, 0, content.len()) }.ok()?;
    for (to, from) in bytes.iter().zip(content) {
        to.store(*from, Relaxed);
    }
    Some(block)
}

fn check_records<T: Debug + PartialEq>(records: &Records<T>, most: usize) {
    let whole = records.to_vec();
    let each: Vec<_> = (0..records.len()).map(|i| records.value(i)).collect();
    assert_eq!(whole.is_ok(), each.iter().all(Result::is_ok));
    assert!(records.value(records.len()).is_err());
    assert!(
        format!("{records:?}").len() < (most + 128) * 8 * (records.len() + 1),
        "nothing comes from nowhere"
    );
    let same = records.clone();
    assert_eq!(*records == same, whole.is_ok());
}

/// Where parameters may refer to, beside the parent's arena.
const PARAMETERS_SEGMENT: u64 = 7;
const PARAMETERS_LEN: usize = 4096;

/// The parameter bytes of a job, and the segment that they refer to.
pub fn parameters(data: &[u8]) {
    static GROUND: LazyLock<Mutex<Foreign>> =
        LazyLock::new(|| Foreign::new(PARAMETERS_SEGMENT, PARAMETERS_LEN));
    let ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reader = Reader(data);
    let (choice, first, len) = (reader.below(6), usize::from(reader.u8()), reader.below(65));
    let content = usize::from(reader.u16());
    ground.fill(reader.take(content));
    let positions = first..first + len;
    // An error is as good as a value: what matters is that it is one of the two.
    let _ = match choice {
        0 => prepare::<(Sliced<f64>, Counting<u64>), With<(u64, String), _>, u64>(reader.0, positions),
        1 => prepare::<(Texts, Sliced<u8>), Without, RecordRef>(reader.0, positions),
        2 => prepare::<(Decoded<String, Owned>,), Without, RecordRef>(reader.0, positions),
        3 => prepare::<(Decoded<Vec<u16>, _>, Counting<i8>), Without, ()>(reader.0, positions),
        4 => prepare::<(RowsOf<f32>,), Without, [u8; 3]>(reader.0, positions),
        _ => prepare::<(), With<Vec<Array<u16>>, _>, f64>(reader.0, positions),
    };
}

/// The words of a queue, as a process gone wild left them, and some operations on it.
pub fn queue_words(data: &[u8]) {
    let mut reader = Reader(data);
    let capacity = 1 << reader.below(4);
    let Ok(shape) = QueueShape::new(capacity, capacity + reader.below(8), 16) else {
        return;
    };
    let words: Vec<AtomicU64> = (0..shape.words()).map(|_| AtomicU64::new(0)).collect();
    for _ in 0..reader.below(64) {
        words[usize::from(reader.u16()) % words.len()].store(reader.word(), Relaxed);
    }
    let queue = QueueView::over(&shape, &words).expect("it is as large as its shape says");
    let mut out = vec![0; queue.max_len()];
    while !reader.is_empty() {
        match reader.below(4) {
            0 => drop(queue.push_stepwise(u32::from(reader.u8()), &[1; 16][..reader.below(17)], steps())),
            1 => {
                let popped = queue.pop_stepwise(&mut out, steps()).expect("it ends");
                assert!(
                    popped
                        .expect("the buffer is long enough")
                        .is_none_or(|len| len <= queue.max_len())
                );
            }
            2 => assert!(queue.len() <= queue.capacity()),
            _ => assert!(queue.recover(u32::from(reader.u8())) <= shape.nodes()),
        }
    }
}

/// No operation takes more steps than this on a queue of up to 8 items that nobody else uses.
fn steps() -> impl FnMut(swathe_protocol::queue::QueueStep) -> Result<(), std::convert::Infallible> {
    let mut left = 200;
    move |step| {
        left -= 1;
        assert!(left > 0, "an operation goes on and on: {step:?}");
        Ok(())
    }
}

const SHARED_SEGMENT: u64 = 9;
const SHARED_LEN: usize = 32 << 10;

/// The segment of a shared value, array or queue: its header and all behind it.
pub fn shared_segment(data: &[u8]) {
    static GROUND: LazyLock<Mutex<Foreign>> = LazyLock::new(|| Foreign::new(SHARED_SEGMENT, SHARED_LEN));
    let ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reader = Reader(data);
    let mark = u64::from_be_bytes(*b"swathe\0\0") + reader.below(4) as u64;
    ground.fill(&mark.to_le_bytes());
    let words: SharedSlice<AtomicU64> = words(&ground.segment, 0, SHARED_LEN / 8).expect("it is as long");
    for fact in &words[1..4] {
        fact.store(reader.word(), Relaxed);
    }
    for _ in 0..reader.below(64) {
        words[4 + usize::from(reader.u16()) % (SHARED_LEN / 8 - 4)].store(reader.word(), Relaxed);
    }
    let mut id = AlignedVec::<16>::new();
    id.extend_from_slice(&SHARED_SEGMENT.to_le_bytes());
    if let Ok(value) = <Value<u64> as Datum<_>>::decode(&id, Vouch::OURS) {
        value.fetch_add(value.load());
    }
    if let Ok(array) = <SharedArray<u16> as Datum<_>>::decode(&id, Vouch::OURS) {
        assert!(array.to_vec().len() <= SHARED_LEN / 2);
    }
    if let Ok(queue) = <Queue<u64> as Datum<_>>::decode(&id, Vouch::OURS) {
        check_queue(&queue, &mut reader);
    }
    if let Ok(queue) = <Queue<String> as Datum<_>>::decode(&id, Vouch::OURS) {
        let _ = queue.try_get();
    }
}

fn check_queue(queue: &Queue<u64>, reader: &mut Reader<'_>) {
    for _ in 0..16 {
        match reader.below(4) {
            0 => drop(queue.try_put(&reader.word())),
            1 => drop(queue.try_get()),
            2 => assert!(queue.len() <= queue.capacity()),
            _ => assert!(queue.drain().count() <= queue.capacity()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rkyv::util::AlignedVec;

    use swathe_os::untrusted::run_corpus;

    use super::{parameters, queue_words, record, records, shared_segment};
    use crate::{Datum, lower::Vouch};

    #[test]
    fn corpus_of_record() {
        run_corpus("record", record);
    }

    /// A file for this would be large: each level is 8 bytes, an offset and a length.
    #[test]
    fn a_record_of_very_many_levels_does_not_exhaust_the_stack() {
        let leaf = [0_i32, 0].map(i32::to_le_bytes).concat();
        let branch = [-8_i32, 1].map(i32::to_le_bytes).concat();
        for levels in [1000, 2000, 100_000] {
            let mut bytes = AlignedVec::<16>::new();
            bytes.extend_from_slice(&leaf);
            (1..levels).for_each(|_| bytes.extend_from_slice(&branch));
            let decoded = super::tree::Tree::decode(&bytes, Vouch::OURS);
            assert_eq!(decoded.is_ok(), levels == 1000, "{levels} levels");
        }
    }

    #[test]
    fn corpus_of_records() {
        run_corpus("records", records);
    }

    #[test]
    fn corpus_of_parameters() {
        run_corpus("parameters", parameters);
    }

    #[test]
    fn corpus_of_queue_words() {
        run_corpus("queue_words", queue_words);
    }

    #[test]
    fn corpus_of_shared_segment() {
        run_corpus("shared_segment", shared_segment);
    }
}
