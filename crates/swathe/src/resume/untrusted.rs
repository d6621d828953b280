//! What is read of the files of an output that some other run has left, as a function of what was done to them.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use swathe_memory::npy_header;

use super::{
    files::{OutputFiles, Wanted},
    format::{Checkpoint, Head, Identity, Layout, PAGE},
    progress_path,
};
use swathe_os::untrusted::Reader;

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Option<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "swathe-hostile-{}-{}",
            process::id(),
            MADE.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn head(positions: u64, chunk_len: u64) -> Head {
    let identity = Identity {
        positions,
        element: "f64",
        seed: 1,
        input: [2, 3],
        parameters: [4, 5],
        task_name: "hostile::task",
        task_version: None,
        code: b"code",
    };
    Head::new(&identity, chunk_len)
}

fn open(path: &Path, head: Head, positions: u64) -> crate::Result<OutputFiles> {
    let wanted = Wanted {
        path,
        head,
        header: npy_header::<f64>(positions as usize),
        value_size: 8,
        whole_chunks: false,
        unlocked: false,
    };
    wanted.open()
}

/// The files of an output are begun, somebody writes into them, and they are opened again.
pub fn progress(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(folder) = Folder::new() else { return };
    let path = folder.0.join("values.npy");
    let (positions, chunk_len) = (1 + u64::from(reader.u16()) % 2000, 1 + reader.below(64) as u64);
    let head = head(positions, chunk_len);
    let Ok(begun) = open(&path, head, positions) else {
        return;
    };
    drop(begun);
    let write = |path: &Path| OpenOptions::new().write(true).open(path);
    let (Ok(values), Ok(progress)) = (write(&path), write(&progress_path(&path))) else {
        return;
    };
    while !reader.is_empty() {
        overwrite(&mut reader, &values, &progress, &head);
    }
    let Ok(opened) = open(&path, head, positions) else {
        return;
    };
    let (progress_file, redo) = (&opened.progress_file, &opened.redo);
    assert!(
        redo.is_sorted() && redo.last().is_none_or(|last| *last < positions),
        "{redo:?}"
    );
    let restored = progress_file.restored();
    assert!(
        redo.len() as u64 <= restored && restored <= positions,
        "{restored} of {positions}, {redo:?}"
    );
    assert_eq!(
        opened.values.len() as u64,
        npy_header::<f64>(positions as usize).len() as u64 + 8 * positions
    );
}

/// Somebody who knows the format writes: the checksums fit.
fn overwrite(reader: &mut Reader<'_>, values: &File, progress: &File, head: &Head) {
    let what = reader.below(6);
    let (at, word) = (u64::from(reader.u16()), reader.word());
    let _ = match what {
        0 => values.write_all_at(&word.to_ne_bytes(), at),
        1 => values.set_len(word.min(1 << 20)),
        2 => progress.set_len(word.min(1 << 20)),
        3 => {
            let mut page = bytemuck::bytes_of(head).to_vec();
            let at = at as usize % (PAGE - 8);
            page[at..at + 8].copy_from_slice(&word.to_ne_bytes());
            let resealed = bytemuck::pod_read_unaligned::<Head>(&page).sealed();
            progress.write_all_at(bytemuck::bytes_of(&resealed), 0)
        }
        4 => {
            let Some(layout) = Layout::of(head.positions, head.chunk_len) else {
                return;
            };
            let done = (0..layout.chunks).map(|_| reader.word() as u32).collect();
            let checkpoint = Checkpoint { sequence: word, done };
            progress.write_all_at(&checkpoint.to_bytes(head), layout.slots[at as usize % 2] as u64)
        }
        _ => progress.write_all_at(&word.to_ne_bytes(), at),
    };
}

#[cfg(test)]
mod tests {
    use super::progress;
    use swathe_os::untrusted::run_corpus;

    #[test]
    fn corpus_of_progress() {
        run_corpus("progress", progress);
    }
}
