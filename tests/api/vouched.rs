//! Memory that a worker reads is an input that it was given: not what bytes say that it is. And files that cannot change.

use std::{io::Write, os::fd::OwnedFd};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use rkyv::{
    Archive, Deserialize, Place, Serialize,
    rancor::{self, Fallible},
    ser::{Allocator, Writer},
    util::AlignedVec,
    vec::{ArchivedVec, VecResolver},
};
use swathe::{Array, Pool, Record, Result, SharedArray, Value};
use swathe_tests::pool;

/// What comes of reading archived bytes as an array.
fn read(bytes: &[u8]) -> String {
    match rkyv::from_bytes::<Array<f64>, rancor::Error>(bytes) {
        Ok(array) => format!("an array of {}", array.len()),
        Err(why) => why.to_string(),
    }
}

fn archived(array: &Array<f64>) -> Result<Vec<u8>, rancor::Error> {
    rkyv::to_bytes::<rancor::Error>(array).map(|bytes| bytes.to_vec())
}

/// The bytes are right, but a worker cannot know it: they could as well lead to what another worker writes just now.
#[test]
fn a_worker_reads_no_array_of_its_parent_from_bytes() -> Result<()> {
    let array = Array::from_fn(1000, |i| i as f64)?;
    let bytes = archived(&array).expect("it can be archived");
    let pool = pool(1);
    let said = pool
        .batch()
        .with(&bytes)?
        .map(|bytes: &Vec<u8>, _: u32| read(bytes), 0..1)?;
    let text = said.value(0)?;
    assert!(
        text.contains(
            "does not lie in the arena of this process, and nobody vouches for the bytes that refer to it"
        ),
        "{text}"
    );
    assert!(text.contains("pass the Array itself to the task"), "{text}");
    // Where the array was made every live one is known.
    assert_eq!(read(&bytes), "an array of 1000");
    drop(array);
    assert!(read(&bytes).contains("was freed"));
    // And so it is where a worker has made it.
    let own = |x: f64| {
        let array = Array::from_vec(vec![x; 7]).expect("there is room");
        read(&archived(&array).expect("it can be archived"))
    };
    assert_eq!(pool.map(own, [1.0])?.value(0)?, "an array of 7");
    Ok(())
}

/// A record of bytes that its own code takes for an array while the record is read.
#[derive(Debug)]
struct Smuggler {
    bytes: Vec<u8>,
    /// What came of it, in the record, and in a copy of its bytes.
    read: [String; 2],
}

impl Record for Smuggler {}

impl Archive for Smuggler {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_slice(&self.bytes, resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> Serialize<S> for Smuggler {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(&self.bytes, serializer)
    }
}

impl<D: Fallible + ?Sized> Deserialize<Smuggler, D> for ArchivedVec<u8> {
    fn deserialize(&self, _: &mut D) -> Result<Smuggler, D::Error> {
        let copy = self.to_vec();
        Ok(Smuggler {
            read: [read(self), read(&copy)],
            bytes: copy,
        })
    }
}

/// Swathe vouches for the arrays in a record, and not for what its code makes of other bytes meanwhile.
#[test]
fn a_record_cannot_pass_bytes_off_as_an_array_while_it_is_read() -> Result<()> {
    let array = Array::from_fn(1000, |i| i as f64)?;
    let smuggler = || Smuggler {
        bytes: archived(&array).expect("it can be archived"),
        read: Default::default(),
    };
    let pool = pool(1);
    let as_element = pool.map(|smuggler: Smuggler| smuggler.read.to_vec(), vec![smuggler()])?;
    let batch = pool.batch();
    let as_parameter = batch
        .with(&smuggler())?
        .map(|smuggler: &Smuggler, _: u32| smuggler.read.to_vec(), 0..1)?;
    for said in [as_element.value(0)?, as_parameter.value(0)?] {
        assert!(
            said[0].contains("bytes of a record that are no handle were read as one"),
            "{said:?}"
        );
        assert!(said[1].contains("nobody vouches"), "{said:?}");
    }
    // The same bytes beside a real handle: the handle is read, they are not.
    let pairs = vec![(smuggler(), array.clone())];
    let beside = pool.map(
        |(smuggler, array): (Smuggler, Array<f64>)| (smuggler.read[0].clone(), array[999]),
        pairs,
    )?;
    let (said, last) = beside.value(0)?;
    assert!(said.contains("no handle") && last == 999.0, "{said}, {last}");
    Ok(())
}

/// The id of a segment says nothing about what lies in it: an array may begin as a shared value does.
#[test]
fn a_worker_reads_no_shared_value_of_its_parent_from_bytes() -> Result<()> {
    fn attempt(bytes: &(Vec<u8>, Vec<u8>), _: u32) -> (String, String) {
        let aligned = |bytes: &[u8]| {
            let mut aligned = AlignedVec::<16>::new();
            aligned.extend_from_slice(bytes);
            aligned
        };
        let value =
            rkyv::from_bytes::<Value<u64>, rancor::Error>(&aligned(&bytes.0)).map(|value| value.load());
        let array =
            rkyv::from_bytes::<SharedArray<u8>, rancor::Error>(&aligned(&bytes.1)).map(|array| array.len());
        (
            value.map_or_else(|why| why.to_string(), |value| value.to_string()),
            array.map_or_else(|why| why.to_string(), |len| len.to_string()),
        )
    }
    let (value, array) = (Value::new(7_u64)?, SharedArray::<u8>::zeros(3)?);
    let of_value = rkyv::to_bytes::<rancor::Error>(&value).expect("it can be archived");
    let of_array = rkyv::to_bytes::<rancor::Error>(&array).expect("it can be archived");
    let bytes = (of_value.to_vec(), of_array.to_vec());
    assert_eq!(
        attempt(&bytes, 0),
        ("7".into(), "3".into()),
        "its own process knows it"
    );
    let pool = pool(1);
    // The worker has both mapped, and could read them.
    let warm = pool.batch().with(&(value.clone(), array.clone()))?;
    warm.map(
        |given: &(Value<u64>, SharedArray<u8>), _: u32| given.0.load(),
        0..1,
    )?;
    let said = pool.batch().with(&bytes)?.map(attempt, 0..1)?.value(0)?;
    for text in [said.0, said.1] {
        assert!(
            text.contains("it was made by another process, and nobody vouches for the bytes that name it"),
            "{text}"
        );
    }
    Ok(())
}

/// A memory file with these numbers, which nobody can change any more.
fn sealed(numbers: &[f64]) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create(c"numbers", flags).expect("there is room"));
    file.write_all(bytemuck::cast_slice(numbers))
        .expect("there is room");
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("nobody has it mapped");
    file.into()
}

/// Whatever way it takes to the workers, they map the file and read it where it lies.
#[test]
fn a_sealed_memory_file_is_an_input_of_a_pool() -> Result<()> {
    let numbers: Vec<f64> = (0..100_000).map(f64::from).collect();
    let array = Array::<f64>::from_sealed_file(sealed(&numbers), &[100_000])?;
    let pool = Pool::builder().processes(2).build()?;
    let doubled = pool.map(|x: f64| 2.0 * x, &array)?;
    assert!(doubled.iter().zip(&numbers).all(|(y, x)| *y == 2.0 * x));
    let rows = array.reshape(&[1000, 100])?;
    let sums = pool.map_rows(|row: ndarray::ArrayViewD<'_, f64>| row.sum(), &rows, 0)?;
    assert_eq!(sums[999], (99_900..100_000).map(f64::from).sum::<f64>());
    let part = array.slice(50_000..)?;
    let found = pool
        .batch()
        .with(&part)?
        .map(|part: &Array<f64>, i: usize| part[i], 0..50_000)?;
    assert_eq!(found, numbers[50_000..]);
    let lengths = pool.map(|part: Array<f64>| part.len() as u64, vec![part.clone(), array])?;
    assert_eq!(lengths, [50_000, 100_000]);
    // It comes back as it went.
    let same = pool.map(|part: Array<f64>| part, vec![part.clone()])?;
    assert_eq!(same.value(0)?, part);
    Ok(())
}
