//! Opening the two files of an output: beginning them, going on with them, or refusing.
//!
//! Every step leaves a state that the next run understands, whatever kills this one:
//!
//! 1. the file of values, empty and locked;
//! 2. beside it the file of progress, with its head, renamed into place when it is whole;
//! 3. the values laid out (header, room for all), and synced;
//! 4. the session written: from here on workers may write.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use bytemuck::Zeroable;
use swathe_memory::{Segment, SharedSlice};
use swathe_os::{
    file::{NotOurs, Place, reserve},
    text,
};
use swathe_protocol::{ChunkStatus, StatusWord, Tag};

use super::{
    PROGRESS,
    error::OutputError,
    format::{Checkpoint, Head, Layout, PAGE, Session, Unreadable},
    progress_path,
};
use crate::{Error, Result, lower::handles::words};

/// How long the workers of a program that was killed may take to be gone.
const LEAVING: Duration = Duration::from_secs(3);

/// The two files, mapped and as the job needs them.
#[derive(Debug)]
pub(crate) struct OutputFiles {
    /// Holds the lock.
    pub(crate) values: Arc<Segment>,
    pub(crate) progress: Arc<Segment>,
    pub(crate) progress_file: ProgressFile,
    /// Positions without a value whose chunks are done, ascending.
    pub(crate) redo: Vec<u64>,
}

/// What is needed to say how far the job has come.
#[derive(Debug)]
pub(crate) struct ProgressFile {
    pub(crate) files: Files,
    pub(crate) head: Head,
    pub(crate) layout: Layout,
    pub(crate) status: SharedSlice<StatusWord>,
    pub(crate) failed: SharedSlice<AtomicU64>,
    /// The newest checkpoint in the file.
    pub(crate) saved: Checkpoint,
}

/// The two files by name.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) path: PathBuf,
    pub(crate) progress_path: PathBuf,
    pub(crate) values: File,
    pub(crate) progress: File,
}

/// What an output must look like.
pub(crate) struct Wanted<'a> {
    pub(crate) path: &'a Path,
    /// The job; its chunks are as long as the file says, if there is one.
    pub(crate) head: Head,
    /// The header of the file of values.
    pub(crate) header: Vec<u8>,
    /// Bytes of one value.
    pub(crate) value_size: usize,
    /// Whether a chunk is done as a whole or not at all.
    pub(crate) whole_chunks: bool,
    /// Whether the caller sees to it that no other job writes the file, where it cannot be locked.
    pub(crate) unlocked: bool,
}

impl Wanted<'_> {
    /// Begins the files or goes on with them.
    pub(crate) fn open(mut self) -> Result<OutputFiles> {
        let place = Place::of(self.path).map_err(refused("create", self.path))?;
        let progress_place = place.beside(PROGRESS);
        let values = open_locked(&place, self.unlocked)?;
        let held = values.try_clone().map_err(failed("open", self.path))?;
        let mut made = None;
        let progress = self.open_progress(&values, &progress_place, &mut made);
        let opened = progress.and_then(|progress| {
            self.go_on(Files {
                path: self.path.to_owned(),
                progress_path: progress_path(self.path),
                values,
                progress,
            })
        });
        if opened.is_err() {
            // With the lock held: what was made just now has nothing in it, and neither has an empty file.
            if let Some(progress) = &made {
                progress_place.remove(progress);
            }
            if made.is_some() || length(&held, self.path).is_ok_and(|len| len == 0) {
                place.remove(&held);
            }
        }
        opened
    }

    /// The file of progress; it is made if there are no values either.
    fn open_progress(&self, values: &File, place: &Place, made: &mut Option<File>) -> Result<File> {
        match place.open() {
            Err(error) if error.is_missing() => {}
            opened => return Ok(opened.map_err(refused("open", place.path()))?),
        }
        if length(values, self.path)? > 0 {
            return Err(OutputError::Foreign {
                path: self.path.to_owned(),
                found: format!("there is no {} beside it", text::path(place.path())),
            }
            .into());
        }
        let file = self.begin(place)?;
        *made = Some(file.try_clone().map_err(failed("open", place.path()))?);
        Ok(file)
    }

    /// Makes the file of progress.
    fn begin(&self, place: &Place) -> Result<File> {
        let layout = layout(&self.head).ok_or(Error::TooLong)?;
        let (path, beside) = (place.path(), place.beside(".new"));
        let file = beside.create_anew().map_err(refused("create", beside.path()))?;
        let write = || -> Result<(), OutputError> {
            make_room(&file, layout.len as u64, path)?;
            file.write_all_at(bytemuck::bytes_of(&self.head), 0)
                .and_then(|()| file.sync_all())
                .map_err(failed("write to", path))?;
            beside.rename(&file, place).map_err(refused("write to", path))?;
            place.sync().map_err(failed("write to the directory of", path))
        };
        write().inspect_err(|_| {
            beside.remove(&file);
            place.remove(&file);
        })?;
        Ok(file)
    }

    /// With both files: checks them, and maps them.
    fn go_on(&mut self, files: Files) -> Result<OutputFiles> {
        let head = self.compare(&files)?;
        self.head = head;
        let layout = layout(&head).ok_or(Error::TooLong)?;
        let damaged = |found: String| files.progress_damaged(found);
        let present = length(&files.progress, &files.progress_path)?;
        if present != layout.len as u64 {
            return Err(damaged(format!("it has {present} bytes instead of {}", layout.len)).into());
        }
        let session = files.session()?;
        let saved = files.newest_checkpoint(&head, &layout)?;
        if session.was_begun() || saved.sequence > 0 {
            self.check_values(&files)?;
        }
        self.lay_out(&files)?;
        make_room(&files.progress, layout.len as u64, &files.progress_path)?;
        let clone = |file: &File, path: &Path| file.try_clone().map_err(failed("map", path));
        let progress = Segment::map_file_mut(
            clone(&files.progress, &files.progress_path)?,
            &files.progress_path,
            layout.len,
        )?;
        let (status, failed_bits) = (
            words(&progress, layout.status, layout.chunks)?,
            words(&progress, layout.failed, layout.failed_words)?,
        );
        let progress_file = ProgressFile {
            files,
            head,
            layout,
            status,
            failed: failed_bits,
            saved,
        };
        let redo = if session.is_now() {
            progress_file.check()?
        } else {
            progress_file.go_back_to_checkpoint();
            Vec::new()
        };
        if self.whole_chunks {
            progress_file.forget_parts();
        }
        progress_file.files.write_session(&Session::now())?;
        // Last, because a segment that is dropped gives up the lock.
        let files = &progress_file.files;
        let file = clone(&files.values, &files.path)?;
        let values = Segment::map_file_mut(file, &files.path, self.values_len()?)?;
        Ok(OutputFiles {
            values,
            progress,
            progress_file,
            redo,
        })
    }

    /// The head of the file, if its job is this one.
    fn compare(&self, files: &Files) -> Result<Head, OutputError> {
        let page = files.read_progress(0, PAGE)?;
        let head = Head::read(&page).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(found) => files.progress_damaged(found),
            Unreadable::Foreign => OutputError::Foreign {
                path: files.progress_path.clone(),
                found: "it does not start as the progress of a job does".to_owned(),
            },
        })?;
        match head.difference(&self.head) {
            Some(difference) => Err(OutputError::Changed {
                path: files.path.clone(),
                difference,
            }),
            None => Ok(head),
        }
    }

    fn values_len(&self) -> Result<usize> {
        let data = usize::try_from(self.head.positions)
            .ok()
            .and_then(|positions| positions.checked_mul(self.value_size));
        data.and_then(|data| data.checked_add(self.header.len()))
            .ok_or(Error::TooLong)
    }

    /// Values that were begun have their header and their length.
    fn check_values(&self, files: &Files) -> Result<()> {
        let (wanted, present) = (self.values_len()? as u64, length(&files.values, &files.path)?);
        if present != wanted {
            let found = format!("it has {present} bytes instead of {wanted}");
            return Err(files.values_damaged(found).into());
        }
        let mut header = vec![0; self.header.len()];
        files
            .values
            .read_exact_at(&mut header, 0)
            .map_err(failed("read", &files.path))?;
        if header != self.header {
            let found = "its header is not the one that was written to it".to_owned();
            return Err(files.values_damaged(found).into());
        }
        Ok(())
    }

    /// Gives the values their header and room for all; what is there stays.
    fn lay_out(&self, files: &Files) -> Result<()> {
        let len = self.values_len()? as u64;
        // What can stand here after a crash is a part of what is written now.
        let present = length(&files.values, &files.path)?;
        let mut start = vec![
            0;
            self.header
                .len()
                .min(usize::try_from(present).unwrap_or(usize::MAX))
        ];
        files
            .values
            .read_exact_at(&mut start, 0)
            .map_err(failed("read", &files.path))?;
        let ours = start
            .iter()
            .zip(&self.header)
            .all(|(&found, &byte)| found == byte || found == 0);
        if !ours || present > len {
            return Err(OutputError::Foreign {
                path: files.path.clone(),
                found: "its first bytes are not those of the job that was begun".to_owned(),
            }
            .into());
        }
        make_room(&files.values, len, &files.path)?;
        if start != self.header {
            files
                .values
                .write_all_at(&self.header, 0)
                .and_then(|()| files.values.sync_all())
                .map_err(failed("write to", &files.path))?;
        }
        Ok(())
    }
}

impl Files {
    fn read_progress(&self, at: usize, len: usize) -> Result<Vec<u8>, OutputError> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.progress.read_at(&mut bytes[filled..], (at + filled) as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", &self.progress_path)(error)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn session(&self) -> Result<Session, OutputError> {
        let bytes = self.read_progress(PAGE, size_of::<Session>())?;
        Ok(bytemuck::try_pod_read_unaligned(&bytes).unwrap_or_else(|_| Session::zeroed()))
    }

    pub(crate) fn write_session(&self, session: &Session) -> Result<(), OutputError> {
        self.progress
            .write_all_at(bytemuck::bytes_of(session), PAGE as u64)
            .map_err(failed("write to", &self.progress_path))
    }

    fn newest_checkpoint(&self, head: &Head, layout: &Layout) -> Result<Checkpoint, OutputError> {
        let mut newest = Checkpoint {
            sequence: 0,
            done: vec![0; layout.chunks],
        };
        let slot_len = layout.len - layout.slots[1];
        for slot in layout.slots {
            let bytes = self.read_progress(slot, slot_len)?;
            if let Some(found) = Checkpoint::read(&bytes, head, layout)
                && found.sequence > newest.sequence
            {
                newest = found;
            }
        }
        Ok(newest)
    }

    fn progress_damaged(&self, found: String) -> OutputError {
        OutputError::Damaged {
            path: self.progress_path.clone(),
            beside: self.path.clone(),
            found,
        }
    }

    fn values_damaged(&self, found: String) -> OutputError {
        OutputError::Damaged {
            path: self.path.clone(),
            beside: self.progress_path.clone(),
            found,
        }
    }
}

impl ProgressFile {
    /// Checks the status words and bits that this boot's processes have left. Gives the positions without a value whose
    /// chunks say that they are done; bits of others are of no account, because those positions are run anyway.
    fn check(&self) -> Result<Vec<u64>, OutputError> {
        for (chunk, word) in self.status.iter().enumerate() {
            let positions = self.layout.positions_of(chunk);
            if let ChunkStatus::Progress(done) = word.load(Tag::NONE)
                && u64::from(done) >= positions.end - positions.start
            {
                return Err(self.files.progress_damaged(format!(
                    "it says that {done} of the {} positions of chunk {chunk} are done, and that the chunk is not",
                    positions.end - positions.start
                )));
            }
        }
        let mut redo = Vec::new();
        for (word, bits) in (0..).zip(self.failed.iter()) {
            // SYNC publish: the bit was set before the status that was just read.
            let mut left = bits.load(Ordering::Acquire);
            let mut kept = 0;
            while left != 0 {
                let bit = left.trailing_zeros();
                let position = word * 64 + u64::from(bit);
                left &= left - 1;
                if position >= self.layout.positions {
                    return Err(self.files.progress_damaged(format!(
                        "it says that position {position} failed, which does not exist"
                    )));
                }
                if self.says_done(position) {
                    redo.push(position);
                    kept |= 1 << bit;
                }
            }
            bits.store(kept, Ordering::Relaxed);
        }
        Ok(redo)
    }

    /// How many positions the status words say are done, failed ones included.
    pub(crate) fn restored(&self) -> u64 {
        let chunks = self.status.iter().enumerate();
        chunks
            .map(|(chunk, word)| {
                let positions = self.layout.positions_of(chunk);
                match word.load(Tag::NONE) {
                    ChunkStatus::Final => positions.end - positions.start,
                    ChunkStatus::Progress(done) => done.into(),
                }
            })
            .sum()
    }

    fn says_done(&self, position: u64) -> bool {
        let chunk = position / self.layout.chunk_len;
        match self.status[chunk as usize].load(Tag::NONE) {
            ChunkStatus::Final => true,
            ChunkStatus::Progress(done) => position < chunk * self.layout.chunk_len + u64::from(done),
        }
    }

    /// A task that takes whole chunks is never given a part of one.
    fn forget_parts(&self) {
        let begun = |word: &&StatusWord| matches!(word.load(Tag::NONE), ChunkStatus::Progress(1..));
        self.status.iter().filter(begun).for_each(StatusWord::reset);
    }

    /// The words and bits of another boot are not to be trusted: pages reach the disk in any order.
    fn go_back_to_checkpoint(&self) {
        self.failed
            .iter()
            .for_each(|bits| bits.store(0, Ordering::Relaxed));
        for (chunk, (word, &done)) in self.status.iter().zip(&self.saved.done).enumerate() {
            let positions = self.layout.positions_of(chunk);
            match done {
                0 => word.reset(),
                done if u64::from(done) >= positions.end - positions.start => word.publish_final(Tag::NONE),
                done => word.publish_progress(Tag::NONE, done),
            }
        }
    }
}

fn layout(head: &Head) -> Option<Layout> {
    Layout::of(head.positions, head.chunk_len).filter(|_| head.chunk_len > 0)
}

/// Turns an error of the system into a sentence.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError::Io { action, path, source }
}

fn length(file: &File, path: &Path) -> Result<u64, OutputError> {
    file.metadata()
        .map(|metadata| metadata.len())
        .map_err(failed("read", path))
}

fn make_room(file: &File, len: u64, path: &Path) -> Result<(), OutputError> {
    reserve(file, len).map_err(|source| OutputError::NoRoom {
        path: path.to_owned(),
        source,
    })
}

/// Turns a file that cannot be had, or must not be used, into a sentence.
fn refused(action: &'static str, path: &Path) -> impl FnOnce(NotOurs) -> OutputError {
    let path = path.to_owned();
    move |reason| match reason {
        NotOurs::Io(source) => OutputError::Io { action, path, source },
        NotOurs::NoName | NotOurs::Directory | NotOurs::NotRegular => OutputError::Foreign {
            path,
            found: reason.to_string(),
        },
        reason => OutputError::Untrusted { path, reason },
    }
}

/// Opens the file of values, or makes it, and locks it. The workers of a program that was killed hold its lock until
/// they are gone, which is waited for. A file that cannot be locked is refused, unless the caller has it `unlocked`.
///
/// It may have been made just now, and stays: without a lock nobody knows whether it is another job's by now.
fn open_locked(place: &Place, unlocked: bool) -> Result<File, OutputError> {
    let (path, begun) = (place.path(), Instant::now());
    loop {
        let file = place.open_or_create().map_err(refused("create", path))?;
        match file.try_lock() {
            // Another job may have given up the file between the two, and removed it.
            Ok(()) if place.holds(&file) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if begun.elapsed() < LEAVING => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OutputError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) if unlocked => {
                tracing::debug!(path = %text::path(path), %error, "an output that cannot be locked");
                return Ok(file);
            }
            Err(TryLockError::Error(source)) => {
                return Err(OutputError::NoLock {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}
