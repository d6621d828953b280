use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::header::tests::file_with;
use super::*;

fn native(descr: &str) -> String {
    let order = if cfg!(target_endian = "little") { '<' } else { '>' };
    format!("{order}{descr}")
}

/// Header text as NumPy pads it: the data start at a multiple of 64.
fn header_text(descr: &str, fortran_order: &str, shape: &str) -> String {
    let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran_order}, 'shape': {shape}, }}");
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10 - 1;
    format!("{text:<padded$}\n")
}

fn write(directory: &TempDir, name: &str, parts: &[&[u8]]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, parts.concat()).unwrap();
    path
}

/// Maps a file that the test does not write while it looks at the array.
fn map<T: Element>(path: impl AsRef<Path>) -> Array<T> {
    // SAFETY: as said above.
    unsafe { Array::map_npy_path(path) }.unwrap()
}

fn origin<T: Element>(array: &Array<T>) -> &Origin {
    array.segment().unwrap().origin()
}

#[test]
fn aligned_files_are_mapped_not_copied() {
    let directory = TempDir::new().unwrap();
    let values: Vec<f64> = (0..12).map(f64::from).collect();
    let head = file_with(&header_text(&native("f8"), "False", "(3, 4)"));
    let path = write(
        &directory,
        "a.npy",
        &[&head, bytemuck::cast_slice(&values), b"trailing"],
    );
    let array = map::<f64>(&path);
    assert_eq!(
        (array.shape(), &array[..]),
        ([3, 4].as_slice(), values.as_slice())
    );
    assert_eq!(origin(&array), &Origin::File { path: path.clone() });
    assert_eq!(array.offset(), head.len());

    let info = npy_info(&path).unwrap();
    assert_eq!(
        (info.descr, info.shape, info.fortran_order),
        (native("f8"), vec![3, 4], false)
    );
    assert_eq!((info.version, info.data_offset), ((1, 0), head.len()));

    let rows = array.slice(2..).unwrap();
    drop(array);
    fs::remove_file(&path).unwrap();
    assert_eq!(rows, [8.0, 9.0, 10.0, 11.0], "the mapping outlives the name");
    // SAFETY: the array lives, and nobody can write the file any more.
    assert_eq!(unsafe { rows.to_ref().attach::<f64>() }.unwrap(), rows);
    let text = rows.to_ref().attach_own::<f64>().unwrap_err().to_string();
    assert!(text.contains("nobody vouches"), "{text}");
}

/// Safe code may write a file that was read: nothing that it holds is seen by way of the array any more.
#[test]
fn a_file_that_was_read_may_be_overwritten_cut_off_and_removed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.npy");
    let written = Array::<u16>::from_range(0..6000)
        .unwrap()
        .reshape(&[2, 3000])
        .unwrap();
    written.to_npy(&path).unwrap();
    let read = Array::<u16>::from_npy_path(&path).unwrap();
    assert_eq!(origin(&read), &Origin::Arena);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 12_000], 0).unwrap();
    assert_eq!(read, written);
    file.set_len(0).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(read, written);
    read.verify().unwrap();
}

#[test]
fn a_file_is_read_into_the_arena_that_is_given_and_refused_before_memory_is_taken() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.npy");
    Array::<u64>::from_range(0..1000).unwrap().to_npy(&path).unwrap();
    let memory = Memory::with_capacity(4 << 20).unwrap();
    let read = Array::<u64>::from_npy_path_in(&memory, &path).unwrap();
    assert_eq!(read.segment().unwrap().id(), memory.segment().id());
    drop(read);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8000).unwrap();
    let untouched = Memory::with_capacity(4 << 20).unwrap();
    let text = Array::<u64>::from_npy_path_in(&untouched, &path)
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("it was cut off; copy or write it again"), "{text}");
    assert_eq!(untouched.stats().warm, 0, "no memory was taken");

    // More than the arena can hold: it says so, before anything is read.
    let (head, len) = (
        file_with(&header_text(&native("u1"), "False", "(9000000,)")),
        9_000_000,
    );
    let path = write(&directory, "long.npy", &[&head]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(head.len() as u64 + len).unwrap();
    let error = Array::<u8>::from_npy_path_in(&memory, &path).unwrap_err();
    assert!(matches!(error, MemoryError::ArenaFull { .. }), "{error}");
}

#[test]
fn misaligned_data_are_copied() {
    let directory = TempDir::new().unwrap();
    let text = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': (2,)}}",
        native("i4")
    );
    let pad = if (10 + text.len()).is_multiple_of(4) {
        " "
    } else {
        ""
    };
    let head = file_with(&format!("{text}{pad}"));
    assert_ne!(head.len() % 4, 0);
    let path = write(
        &directory,
        "odd.npy",
        &[&head, bytemuck::cast_slice(&[-5_i32, 6])],
    );
    for array in [map::<i32>(&path), Array::from_npy_path(&path).unwrap()] {
        assert_eq!(array, [-5, 6]);
        assert_eq!(origin(&array), &Origin::Arena);
    }
}

#[test]
fn fortran_order_becomes_c_order() {
    let directory = TempDir::new().unwrap();
    let data = [1_u16, 4, 2, 5, 3, 6];
    let head = file_with(&header_text(&native("u2"), "True", "(2, 3)"));
    let path = write(&directory, "f.npy", &[&head, bytemuck::cast_slice(&data)]);
    for array in [map::<u16>(&path), Array::from_npy_path(&path).unwrap()] {
        assert_eq!(
            (array.shape(), &array[..]),
            ([2, 3].as_slice(), [1, 2, 3, 4, 5, 6].as_slice())
        );
    }

    let head = file_with(&header_text(&native("u2"), "True", "(6, 1)"));
    let path = write(&directory, "column.npy", &[&head, bytemuck::cast_slice(&data)]);
    let column = map::<u16>(&path);
    assert_eq!(
        (column.shape(), &column[..]),
        ([6, 1].as_slice(), data.as_slice())
    );
    assert!(
        matches!(origin(&column), Origin::File { .. }),
        "one axis needs no copy"
    );
    assert_eq!(Array::<u16>::from_npy_path(&path).unwrap(), column);
}

#[test]
fn many_elements_in_fortran_order_are_read_a_piece_at_a_time() {
    let directory = TempDir::new().unwrap();
    let (rows, columns, planes) = (300, 100, 101);
    let of = |row: usize, column: usize, plane: usize| (row * columns + column) * planes + plane;
    let mut data = Vec::new();
    for plane in 0..planes {
        for column in 0..columns {
            data.extend((0..rows).map(|row| of(row, column, plane) as f64));
        }
    }
    assert!(size_of_val(&data[..]) > 16 << 20, "more than one piece");
    let shape = format!("({rows}, {columns}, {planes})");
    let head = file_with(&header_text(&native("f8"), "True", &shape));
    let path = write(&directory, "f.npy", &[&head, bytemuck::cast_slice(&data)]);
    let array = Array::<f64>::from_npy_path(&path).unwrap();
    assert_eq!(array.shape(), [rows, columns, planes]);
    assert!(array.iter().enumerate().all(|(i, x)| *x == i as f64));
}

#[test]
fn everything_written_is_read_again() {
    fn round_trip<T: Element + PartialEq + std::fmt::Debug>(values: &[T]) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.npy");
        let array = Array::from_slice(values).unwrap().reshape(&[2, 1, 2]).unwrap();
        array.to_npy(&path).unwrap();
        let read = Array::<T>::from_npy_path(&path).unwrap();
        assert_eq!(read, array);
        assert_eq!(map::<T>(&path), array);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }
    round_trip(&[1.5_f64, -0.0, f64::INFINITY, f64::MIN]);
    round_trip(&[1.5_f32, -0.0, f32::INFINITY, f32::MIN]);
    round_trip(&[i8::MIN, -1, 0, i8::MAX]);
    round_trip(&[i16::MIN, -1, 0, i16::MAX]);
    round_trip(&[i32::MIN, -1, 0, i32::MAX]);
    round_trip(&[i64::MIN, -1, 0, i64::MAX]);
    round_trip(&[0, 1, 2, u8::MAX]);
    round_trip(&[0, 1, 2, u16::MAX]);
    round_trip(&[0, 1, 2, u32::MAX]);
    round_trip(&[0, 1, 2, u64::MAX]);
}

#[test]
fn arrays_without_elements_or_axes_survive() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.npy");
    Array::<f64>::zeros(0)
        .unwrap()
        .reshape(&[0, 5])
        .unwrap()
        .to_npy(&path)
        .unwrap();
    assert_eq!(Array::<f64>::from_npy_path(&path).unwrap().shape(), [0, 5]);
    let scalar = ArrayMut::from_slice(&[7_i64]).unwrap().reshape(&[]).unwrap();
    scalar.to_npy(&path).unwrap();
    assert_eq!(Array::<i64>::from_npy_path(&path).unwrap(), scalar.freeze());
}

#[test]
fn writing_replaces_the_file_and_spares_its_readers() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.npy");
    Array::<u8>::from_range(0..100).unwrap().to_npy(&path).unwrap();
    let old = map::<u8>(&path);
    Array::<u8>::zeros(3).unwrap().to_npy(&path).unwrap();
    old.verify().unwrap();
    assert_eq!(
        (old[99], Array::<u8>::from_npy_path(&path).unwrap().len()),
        (99, 3)
    );

    let nowhere = directory.path().join("missing/a.npy");
    let text = old.to_npy(&nowhere).unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("cannot write to {}: No such file", nowhere.display())),
        "{text}"
    );
    assert_eq!(
        old.to_npy("/").unwrap_err().to_string(),
        "cannot write to /: it names no file"
    );
}

#[test]
fn a_file_cut_off_while_mapped_is_noticed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.npy");
    Array::<u64>::zeros(1000).unwrap().to_npy(&path).unwrap();
    let array = map::<u64>(&path);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(500)
        .unwrap();
    let text = array.verify().unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("the file {} shrank while it was mapped", path.display())),
        "{text}"
    );
}

/// Writes each file, loads it as `f64`s and looks for the expected part of the error.
fn assert_unusable(table: &[(Vec<u8>, String)]) {
    let directory = TempDir::new().unwrap();
    for (bytes, expected) in table {
        let path = write(&directory, "bad.npy", &[bytes]);
        let text = Array::<f64>::from_npy_path(&path).unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("{} cannot be used ", path.display())),
            "{text}"
        );
        assert!(text.contains(expected), "{text}\nexpected: {expected}");
    }
}

fn file(descr: &str, shape: &str, data: usize) -> Vec<u8> {
    [file_with(&header_text(descr, "False", shape)), vec![0; data]].concat()
}

#[test]
fn other_element_types_say_what_was_found_expected_and_to_do() {
    let other_order = if cfg!(target_endian = "little") {
        ">f8"
    } else {
        "<f8"
    };
    let (f4, f8) = (native("f4"), native("f8"));
    assert_unusable(&[
        (
            file(other_order, "(1,)", 8),
            format!(
                "as an array of f64: its elements are f64 in the other byte order ({other_order}); convert it with \
                 numpy: a.astype(\"{f8}\")"
            ),
        ),
        (
            file(&f4, "(1,)", 8),
            format!(
                "as an array of f64: its elements are f32 ({f4}); load it as Array::<f32>, or convert it with numpy: \
                 a.astype(\"{f8}\")"
            ),
        ),
        (
            file("<c16", "(1,)", 16),
            format!("its elements have the NumPy type \"<c16\"; convert it with numpy: a.astype(\"{f8}\")"),
        ),
        (
            file("|O", "(1,)", 8),
            "its elements have the NumPy type \"|O\"".to_owned(),
        ),
    ]);
}

#[test]
fn damaged_files_say_what_was_found_expected_and_to_do() {
    let f8 = native("f8");
    assert_unusable(&[
        (
            file(&f8, "(10, 10)", 799),
            "as a .npy file: its shape [10, 10] of f64 needs 800 bytes of data, but the file has only 799 bytes; it \
             was cut off; copy or write it again"
                .to_owned(),
        ),
        (
            file(&f8, "(4611686018427387904, 4611686018427387904)", 8),
            "has more elements than this machine can address; the file is damaged".to_owned(),
        ),
        (
            file(&f8, "(4611686018427387904,)", 8),
            "its shape [4611686018427387904] has more bytes than this machine can address".to_owned(),
        ),
        (
            file(&f8, "(2305843009213693951,)", 8),
            "needs 16.0 EiB of data, but the file has only 8 bytes".to_owned(),
        ),
        (
            b"time,strain\n0.0,1e-21\n".to_vec(),
            "as a .npy file: it starts with \"time,s\" instead of \"\\x93NUMPY\"; write it with numpy.save, or load a \
             file without header with from_raw_file"
                .to_owned(),
        ),
    ]);
    let directory = TempDir::new().unwrap();
    assert!(npy_info(directory.path().join("missing.npy")).is_err());
    let text = npy_info(directory.path()).unwrap_err().to_string();
    assert!(text.starts_with("cannot open "), "{text}");
}

#[test]
fn headers_longer_than_one_read_are_found() {
    let directory = TempDir::new().unwrap();
    let text = header_text("|u1", "False", "(1,)");
    let long = format!("{text:<60000}");
    let path = write(&directory, "long.npy", &[&file_with(&long), &[42]]);
    assert_eq!(Array::<u8>::from_npy_path(path).unwrap(), [42]);
}
