use swathe_os::{AsFd, memfd};

use super::*;

fn memory() -> Memory {
    Memory::with_capacity(64 << 20).unwrap()
}

#[test]
fn every_constructor_gives_its_elements() {
    let memory = memory();
    assert_eq!(Array::from_vec(vec![1, 2, 3]).unwrap(), [1, 2, 3]);
    assert_eq!(Array::from_vec_in(&memory, vec![1, 2, 3]).unwrap(), vec![1, 2, 3]);
    assert_eq!(Array::from_slice(&[1.5, 2.5]).unwrap(), [1.5, 2.5]);
    assert_eq!(Array::from_fn(3, |i| i as u8 * 2).unwrap(), [0, 2, 4]);
    assert_eq!(
        Array::collect_from((0..6).filter(|x| x % 2 == 1)).unwrap(),
        [1, 3, 5]
    );
    assert_eq!(Array::from_range(1..=4_i64).unwrap(), [1, 2, 3, 4]);
    assert_eq!(Array::from_range_in(&memory, -2..1_i8).unwrap(), [-2, -1, 0]);
    assert_eq!(Array::<u32>::zeros(3).unwrap(), [0; 3]);
    assert_eq!(memory.stats().in_use, 0, "all were dropped");
    let kept = Array::<[f32; 3]>::zeros_in(&memory, 100).unwrap();
    assert_eq!(memory.stats().in_use, 1216);
    assert_eq!(kept.segment().unwrap().id(), memory.segment().id());
}

#[test]
fn clones_share_and_the_last_one_frees() {
    let memory = memory();
    let array = Array::from_slice_in(&memory, &[1_u64, 2, 3]).unwrap();
    let clone = array.clone();
    assert_eq!(array.as_ptr(), clone.as_ptr());
    drop(array);
    assert_eq!(clone, [1, 2, 3]);
    drop(clone);
    assert_eq!(memory.stats().in_use, 0);
}

#[test]
fn elements_without_bytes_need_no_memory() {
    let units = Array::from_vec(vec![(); 5]).unwrap();
    assert_eq!((units.len(), units.iter().count()), (5, 5));
    assert!(units.segment().is_none());
    assert_eq!(units.slice(1..3).unwrap().len(), 2);
    assert_eq!(units.view().len(), 5);
    let empty = Array::<f64>::from_vec(Vec::new()).unwrap();
    assert!(empty.is_empty() && empty.segment().is_none());
    assert_eq!(empty.reshape(&[3, 0]).unwrap().view().shape(), [3, 0]);
    assert!(Array::<()>::zeros(usize::MAX).is_err());
    assert!(matches!(
        Array::<u64>::zeros(usize::MAX / 4),
        Err(MemoryError::TooLarge { .. } | MemoryError::Shape { .. })
    ));
}

#[test]
fn strongly_aligned_elements_are_aligned() {
    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(256))]
    struct Wide([u64; 32]);
    let memory = memory();
    let _pad = Array::from_slice_in(&memory, &[1_u8]).unwrap();
    let wide = Array::from_fn_in(&memory, 3, |i| Wide([i as u64; 32])).unwrap();
    assert_eq!(wide.as_ptr().addr() % 256, 0);
    assert_eq!(wide[2].0[31], 2);
}

#[test]
fn shapes_slices_and_views() {
    let array = Array::from_range(0..24_i32).unwrap().reshape(&[2, 3, 4]).unwrap();
    assert_eq!(array.shape(), [2, 3, 4]);
    assert_eq!(array.view()[[1, 2, 3]], 23);
    let half = array.slice(1..).unwrap();
    assert_eq!((half.shape(), half[0]), ([1, 3, 4].as_slice(), 12));
    assert_eq!(half.as_ptr(), array[12..].as_ptr(), "nothing was copied");
    assert_eq!(half.slice(..0).unwrap().shape(), [0, 3, 4]);
    assert_eq!(array.index_axis(1, 2).unwrap().shape(), [2, 4]);
    assert_eq!(array.index_axis(2, 1).unwrap()[[1, 0]], 13);
    assert_eq!(array.index_axis(0, 1).unwrap()[[2, 3]], 23);

    let table = array.reshape(&[6, 4]).unwrap();
    assert_eq!(table.column(1).unwrap(), [1, 5, 9, 13, 17, 21]);
    let strings: Vec<String> = [
        table.column(4).unwrap_err(),
        array.column(0).unwrap_err(),
        array.slice(1..3).unwrap_err(),
        array.index_axis(3, 0).unwrap_err(),
        array.reshape(&[5]).unwrap_err(),
        array.reshape(&[]).unwrap_err(),
    ]
    .iter()
    .map(MemoryError::to_string)
    .collect();
    assert_eq!(
        strings,
        [
            "column 4 is out of bounds: the array has the shape [6, 4]",
            "the shape [2, 3, 4] has no columns; only arrays with two axes have",
            "the range Included(1)..Excluded(3) is out of bounds: the array has the shape [2, 3, 4]",
            "position 0 of axis 3 is out of bounds: the array has the shape [2, 3, 4]",
            "the shape [5] has 5 elements, but the array has 24",
            "the shape [] has 1 elements, but the array has 24",
        ]
    );
    assert!(array.slice(..=usize::MAX).is_err());
    let scalar = array
        .slice(..)
        .unwrap()
        .reshape(&[24])
        .unwrap()
        .slice(3..4)
        .unwrap();
    let scalar = scalar.reshape(&[]).unwrap();
    assert_eq!((scalar[0], scalar.view().ndim()), (3, 0));
    assert!(scalar.slice(..).is_err());
}

#[test]
fn ndarray_arrays_of_any_layout_are_copied_in_c_order() {
    let source = ndarray::array![[1, 2, 3], [4, 5, 6]];
    let array = Array::from_ndarray(&source).unwrap();
    assert_eq!(
        (array.shape(), &array[..]),
        ([2, 3].as_slice(), [1, 2, 3, 4, 5, 6].as_slice())
    );
    let transposed = Array::from_ndarray(&source.t()).unwrap();
    assert_eq!(
        transposed,
        Array::from_slice(&[1, 4, 2, 5, 3, 6])
            .unwrap()
            .reshape(&[3, 2])
            .unwrap()
    );
    assert_eq!(transposed.view(), source.t().into_dyn());
}

#[test]
fn equality_is_by_elements_and_shape() {
    let flat = Array::from_range(0..6_u8).unwrap();
    assert_ne!(flat, flat.reshape(&[2, 3]).unwrap());
    assert_ne!(flat, Array::from_range(1..7_u8).unwrap());
    assert_eq!(flat.reshape(&[2, 3]).unwrap(), [0, 1, 2, 3, 4, 5]);
    let total: u32 = (&flat).into_iter().map(|&x| u32::from(x)).sum();
    assert_eq!((total, flat.as_ref().len()), (15, 6));
}

#[test]
fn debug_output_is_bounded() {
    let short = Array::from_range(0..3_u8).unwrap();
    assert_eq!(format!("{short:?}"), "[0, 1, 2]");
    let long = Array::<u8>::zeros(1 << 20)
        .unwrap()
        .reshape(&[1 << 10, 1 << 10])
        .unwrap();
    let text = format!("{long:?}");
    assert!(
        text.starts_with("[1024, 1024] [0, 0,") && text.ends_with(", ... 1048576 in all]"),
        "{text}"
    );
}

#[test]
fn writable_arrays_freeze_in_place() {
    let memory = memory();
    let mut array = ArrayMut::<i64>::zeros_in(&memory, 6)
        .unwrap()
        .reshape(&[2, 3])
        .unwrap();
    array.view_mut()[[1, 2]] = 9;
    array[0] = 1;
    for element in &mut array {
        *element += 1;
    }
    let address = array.as_ptr();
    assert_eq!(format!("{array:?}"), "[2, 3] [2, 1, 1, 1, 1, 10]");
    let frozen = array.freeze();
    assert_eq!((frozen.as_ptr(), frozen.shape()), (address, [2, 3].as_slice()));
    assert_eq!(frozen, [2, 1, 1, 1, 1, 10]);
}

#[test]
fn a_written_block_becomes_an_array() {
    let memory = memory();
    let block = memory.alloc_zeroed(80, 8).unwrap();
    // SAFETY: no other process knows the block.
    let array = unsafe { ArrayMut::<u64>::from_block(block, &[2, 5]) }.unwrap();
    assert_eq!(array.freeze(), [0; 10]);
    let block = memory.alloc(80, 8).unwrap();
    // SAFETY: as above.
    let error = unsafe { ArrayMut::<u64>::from_block(block, &[11]) }.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the shape [11] needs 88 bytes, but the block has 80"
    );
    assert_eq!(memory.stats().in_use, 0);
}

#[test]
fn raw_files_are_mapped() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytemuck::bytes_of(&[1.0_f64, 2.0, 3.0])).unwrap();
    // SAFETY: the test writes the file only when it does not look at the elements any more.
    let array = unsafe { Array::<f64>::map_raw_file(file.path()) }.unwrap();
    assert_eq!(array, [1.0, 2.0, 3.0]);
    array.verify().unwrap();
    std::fs::write(file.path(), [0; 23]).unwrap();
    assert!(
        array
            .verify()
            .unwrap_err()
            .to_string()
            .contains("24 bytes were mapped and 23 are left")
    );
    let path = file.path().display();
    let refused = format!(
        "{path} cannot be used as an array of f64: it holds 23 bytes, which is not a multiple of 8; check the \
         element type, or whether the file was cut off"
    );
    // SAFETY: as above.
    let mapped = unsafe { Array::<f64>::map_raw_file(file.path()) };
    for text in [mapped, Array::from_raw_file(file.path())] {
        assert_eq!(text.unwrap_err().to_string(), refused);
    }
    std::fs::write(file.path(), []).unwrap();
    assert!(Array::<f64>::from_raw_file(file.path()).unwrap().is_empty());
}

/// Safe code may write a file that was read.
#[test]
fn a_raw_file_that_was_read_may_be_overwritten() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytemuck::bytes_of(&[1.0_f64, 2.0, 3.0])).unwrap();
    let memory = Memory::with_capacity(4 << 20).unwrap();
    let arrays = [
        Array::<f64>::from_raw_file(file.path()).unwrap(),
        Array::<f64>::from_raw_file_in(&memory, file.path()).unwrap(),
    ];
    assert_eq!(arrays[1].segment().unwrap().id(), memory.segment().id());
    std::fs::write(file.path(), [0xff; 24]).unwrap();
    for array in &arrays {
        assert_eq!(*array, [1.0, 2.0, 3.0]);
    }
    file.as_file().set_len(0).unwrap();
    for array in &arrays {
        assert_eq!(*array, [1.0, 2.0, 3.0]);
        array.verify().unwrap();
    }
}

#[test]
fn a_sealed_memory_file_is_mapped_without_a_promise() {
    let numbers: Vec<u32> = (0..3000).collect();
    let file = memfd::sealed("swathe-test", bytemuck::cast_slice(&numbers)).unwrap();
    let given = || file.as_fd().try_clone_to_owned().unwrap();
    let array = Array::<u32>::from_sealed_file(given(), &[30, 100]).unwrap();
    assert_eq!(
        (array.shape(), &array[..]),
        ([30, 100].as_slice(), numbers.as_slice())
    );
    assert_eq!(array.segment().unwrap().origin(), &crate::Origin::Sealed);
    let part = Array::<u32>::from_sealed_file(given(), &[7]).unwrap();
    assert_eq!(part, [0, 1, 2, 3, 4, 5, 6], "bytes behind the array are ignored");
    drop(part);
    // Whoever still has the file cannot harm it.
    let file = std::fs::File::from(given());
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 4], 0).unwrap_err();
    file.set_len(16).unwrap_err();
    array.verify().unwrap();
    assert_eq!(array, numbers);

    let text = Array::<u64>::from_sealed_file(file, &[1501])
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "this file cannot be mapped as one that never changes: the shape [1501] of u64 needs 12008 bytes, but the file has \
         12000; check shape and element type"
    );
}

#[test]
fn a_file_that_can_change_is_not_mapped_as_one_that_cannot() {
    let ordinary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ordinary.path(), [0; 64]).unwrap();
    let cannot_shrink = memfd::create("swathe-test", 64).unwrap();
    for file in [
        std::fs::File::open(ordinary.path()).unwrap().into(),
        cannot_shrink.as_fd().try_clone_to_owned().unwrap(),
        memfd::unsealed("swathe-test")
            .unwrap()
            .as_fd()
            .try_clone_to_owned()
            .unwrap(),
        std::fs::File::open("/dev/null").unwrap().into(),
    ] {
        let text = Array::<u8>::from_sealed_file(file, &[64])
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with(
                "this file cannot be mapped as one that never changes: it is no memory file (memfd_create) that is sealed"
            ) && text.contains("add F_SEAL_WRITE and F_SEAL_SHRINK by fcntl(F_ADD_SEALS)"),
            "{text}"
        );
    }
}
