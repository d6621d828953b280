//! Files that are not what they should be.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use swathe::{Array, Result, Status};
use swathe_tests::{pool, watch};
use tempfile::TempDir;

use crate::text;

fn write(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).expect("the directory is there");
    path
}

/// A file of version 1 with this header text.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{header:<117}\n");
    [
        b"\x93NUMPY\x01\x00".as_slice(),
        &(header.len() as u16).to_le_bytes(),
        header.as_bytes(),
        data,
    ]
    .concat()
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
}

fn refused(path: &Path) -> String {
    text(Array::<f64>::from_npy_path(path))
}

#[test]
fn a_file_that_is_not_there() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("none.npy");
    assert_eq!(
        refused(&path),
        format!(
            "cannot open {}: No such file or directory (os error 2)",
            path.display()
        )
    );
}

#[test]
fn an_npy_of_another_element_type() {
    let directory = TempDir::new().expect("a directory");
    let path = write(&directory, "f4.npy", &npy(&header("<f4", "(2,)"), &[0; 8]));
    assert_eq!(
        refused(&path),
        format!(
            "{} cannot be used as an array of f64: its elements are f32 (<f4); load it as Array::<f32>, or convert it \
             with numpy: a.astype(\"<f8\")",
            path.display()
        )
    );
    let path = write(&directory, "c16.npy", &npy(&header("<c16", "(2,)"), &[0; 32]));
    assert!(
        refused(&path).contains("its elements have the NumPy type \"<c16\"; convert it with numpy"),
        "{}",
        refused(&path)
    );
}

#[test]
fn an_npy_of_the_other_byte_order() {
    let directory = TempDir::new().expect("a directory");
    let path = write(&directory, "big.npy", &npy(&header(">f8", "(2,)"), &[0; 16]));
    let expected = "cannot be used as an array of f64: its elements are f64 in the other byte order (>f8); convert it with \
                    numpy: a.astype(\"<f8\")";
    assert!(refused(&path).ends_with(expected), "{}", refused(&path));
}

/// Fortran order is turned into C order, so only the shape is another than one may think.
#[test]
fn an_npy_in_fortran_order_or_another_shape() -> Result<()> {
    let directory = TempDir::new().expect("a directory");
    let data: Vec<u8> = [1.0_f64, 4.0, 2.0, 5.0, 3.0, 6.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let fortran = header("<f8", "(2, 3)").replace("False", "True");
    let table = Array::<f64>::from_npy_path(write(&directory, "f.npy", &npy(&fortran, &data)))?;
    assert_eq!(
        (table.shape(), &table[..]),
        ([2, 3].as_slice(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].as_slice())
    );
    let sums = pool(1).map_rows(|row: ndarray::ArrayViewD<'_, f64>| row.sum(), &table, 0)?;
    assert_eq!(sums, [6.0, 15.0]);
    let refused = text(pool(1).map_rows(|row: ndarray::ArrayViewD<'_, f64>| row.sum(), &table, 3));
    assert_eq!(
        refused,
        "the array has 2 axes, and rows along axis 3 were asked for"
    );
    Ok(())
}

#[test]
fn an_npy_that_was_cut_off() {
    let directory = TempDir::new().expect("a directory");
    let path = write(&directory, "cut.npy", &npy(&header("<f8", "(3, 4)"), &[0; 95]));
    let expected = "cannot be used as a .npy file: its shape [3, 4] of f64 needs 96 bytes of data, but the file has only 95 \
                    bytes; it was cut off; copy or write it again";
    assert!(refused(&path).ends_with(expected), "{}", refused(&path));
    let path = write(&directory, "shorter.npy", &npy(&header("<f8", "(3,)"), &[])[..40]);
    assert!(
        refused(&path).contains("it ends after 40 bytes, inside its header"),
        "{}",
        refused(&path)
    );
    let path = write(&directory, "empty.npy", b"");
    assert!(
        refused(&path).contains("cannot be used as a .npy file: "),
        "{}",
        refused(&path)
    );
}

#[test]
fn an_npy_that_is_hostile() {
    let directory = TempDir::new().expect("a directory");
    let huge = usize::MAX;
    let cases = [
        (npy(&header("<f8", &format!("({huge}, {huge})")), &[]), "more"),
        (
            npy(&header("<f8", "(2305843009213693953,)"), &[0; 8]),
            "more bytes than this machine can address",
        ),
        (
            npy(&header("<f8", "(-1,)"), &[0; 8]),
            "where the length of an axis should be",
        ),
        (
            npy(&header("<f8", "(1,1,1,1,1,1,1,1,1)"), &[0; 8]),
            "it has more than 8 axes",
        ),
        (
            npy("{'descr': __import__('os').system('true'), }", &[]),
            "where a string in quotes should be",
        ),
        (
            npy(
                "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}",
                &[0; 8],
            ),
            "records with fields",
        ),
        (
            npy("{'descr': '<f8', 'shape': (1,)}", &[0; 8]),
            "its header lacks the key \"fortran_order\"",
        ),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(),
            "its header claims 4294967295 bytes",
        ),
        (b"\x93NUMPY\x07\x00\x10\x00".to_vec(), "its format version is 7.0"),
        (b"PK\x03\x04 an archive".to_vec(), "instead of \"\\x93NUMPY\""),
    ];
    for (i, (bytes, expected)) in cases.iter().enumerate() {
        let path = write(&directory, &format!("{i}.npy"), bytes);
        let refused = refused(&path);
        assert!(
            refused.starts_with(&format!("{} cannot be used as a .npy file: ", path.display())),
            "{refused}"
        );
        assert!(refused.contains(expected), "{refused}\nexpected: {expected}");
    }
}

/// What has the name of a file and is none: nobody waits for its other end, and nothing is done to it.
#[test]
fn pipes_sockets_devices_and_files_of_the_kernel_are_no_arrays() {
    let _watch = watch();
    let directory = TempDir::new().expect("a directory");
    let pipe = directory.path().join("pipe.npy");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("it starts");
    assert!(made.success());
    let link = directory.path().join("link.npy");
    symlink(&pipe, &link).expect("it can be made");
    let socket = directory.path().join("socket.npy");
    let _socket = UnixListener::bind(&socket).expect("it can be made");
    for path in [
        &pipe,
        &link,
        &socket,
        Path::new("/dev/zero"),
        Path::new("/dev/tty"),
        directory.path(),
    ] {
        let expected = format!("cannot open {}: it is not a regular file", path.display());
        assert_eq!(refused(path), expected);
        assert_eq!(text(Array::<u8>::from_raw_file(path)), expected);
    }
    for path in ["/proc/self/maps", "/proc/self/status"] {
        let refused = text(Array::<u8>::from_raw_file(path));
        assert!(
            refused.contains("it has no length, because the kernel makes its text"),
            "{refused}"
        );
    }
}

/// A header is quoted in part, and does nothing to a terminal.
#[test]
fn a_long_header_is_not_told_whole() {
    let directory = TempDir::new().expect("a directory");
    let long = "9".repeat(60_000);
    let clear = "\x1b[2J".repeat(1000);
    for (i, header) in [
        header("<f8", &format!("({long},)")),
        header(&clear, "(1,)"),
        header("<f8", "(1,)").replace("shape", &clear),
    ]
    .iter()
    .enumerate()
    {
        let path = write(&directory, &format!("{i}\x1b[31m.npy"), &npy(header, &[0; 8]));
        let refused = refused(&path);
        assert!(refused.len() < 1000 && refused.contains("..."), "{refused}");
        assert!(
            !refused.contains('\x1b') && refused.contains("\\u{1b}[31m.npy"),
            "{refused:?}"
        );
    }
}

fn long_array(directory: &TempDir) -> (PathBuf, Array<f64>) {
    let path = directory.path().join("long.npy");
    let written = Array::from_fn(1 << 16, |i| i as f64).and_then(|array| array.to_npy(&path));
    written.expect("it can be written");
    #[expect(unsafe_code, reason = "what happens where a promise is not kept is tested")]
    // SAFETY: the file is the test's own; what the test cuts off, this process does not look at any more.
    let array = unsafe { Array::map_npy_path(&path) }.expect("it can be mapped");
    (path, array)
}

fn truncate(path: &Path, len: u64) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("it is there");
    file.set_len(len).expect("it can be cut");
}

#[test]
fn a_file_that_shrinks_between_two_jobs() -> Result<()> {
    let directory = TempDir::new().expect("a directory");
    let (path, array) = long_array(&directory);
    let pool = pool(2);
    assert_eq!(pool.map(|x: f64| x + 1.0, &array)?[65_535], 65_536.0);
    truncate(&path, 4096);
    let refused = text(pool.map(|x: f64| x, &array));
    assert!(
        refused.contains("long.npy shrank while it was mapped: "),
        "{refused}"
    );
    assert!(
        refused.contains("bytes were mapped and 4096 are left; load it again"),
        "{refused}"
    );
    let refused = text(pool.starmap(|x: f64, i: u32| x * f64::from(i), (&array, 0..1 << 16)));
    assert!(
        refused.contains("long.npy shrank while it was mapped: "),
        "{refused}"
    );
    assert_eq!(pool.map(|x: u64| x, 0..3)?, [0, 1, 2]);
    Ok(())
}

/// A worker that touches the lost part dies of SIGBUS; the parent does not. Whoever maps the file again is told why.
#[test]
fn a_file_that_shrinks_while_a_job_runs() -> Result<()> {
    fn cut(path: &String, array: Array<f64>) -> [f64; 2] {
        truncate(Path::new(path), 4096);
        [array[0], array[65_535]]
    }
    let directory = TempDir::new().expect("a directory");
    let pool = pool(1);
    let run = |deaths| {
        let (path, array) = long_array(&directory);
        let path = path.display().to_string();
        let partial = pool
            .batch()
            .max_deaths(deaths)
            .with(&path)?
            .collect_errors()
            .map(cut, [array])?;
        Ok::<_, swathe::Error>((partial.status(0), partial.failures()[0].to_string()))
    };
    let (status, failure) = run(1)?;
    assert_eq!(status, Status::Lost);
    assert!(
        failure.starts_with("position 0 was lost: its worker was killed by signal 7 (SIGBUS)"),
        "{failure}"
    );
    let (status, failure) = run(3)?;
    assert_eq!(status, Status::Failed);
    assert!(failure.starts_with("position 0 failed: "), "{failure}");
    assert!(failure.contains("bytes of a file that holds 4096"), "{failure}");
    assert_eq!(pool.map(|x: u64| x, 0..3)?, [0, 1, 2]);
    Ok(())
}
