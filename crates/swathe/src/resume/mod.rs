//! Output in a file: a job that goes on after its program was killed.
//!
//! - [`format`]: what the file of progress holds
//! - [`files`]: begins the two files, goes on with them, or refuses
//! - [`checkpoint`]: brings what was done to the disk

pub(crate) mod checkpoint;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod format;
#[cfg(any(test, feature = "_untrusted"))]
pub(crate) mod untrusted;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

pub(crate) use checkpoint::Checkpointer;
pub use error::{Difference, OutputError};

use crate::Batch;

/// The results of a batch lie in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

/// The results of a batch lie in a file; see [`Batch::output_file`].
#[derive(Clone, Debug)]
pub struct InFile {
    pub(crate) path: PathBuf,
    pub(crate) task_version: Option<String>,
    /// Whether the caller sees to it that no other job writes the file, where it cannot be locked.
    pub(crate) unlocked: bool,
}

/// What stands behind the name of an output in the name of the file that says how far the job has come.
const PROGRESS: &str = ".progress";

fn progress_path(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(PROGRESS);
    name.into()
}

impl<'p, S, P, E> Batch<'p, S, P, E> {
    /// Has the results written to a `.npy` file, so that the job can be **resumed**: when the program was killed,
    /// running it again does only what was not done, and ends with the same bytes. When all is done, running it again
    /// returns at once.
    ///
    /// It is offered for [`map`](Self::map), [`try_map`](Self::try_map), [`starmap`](Self::starmap),
    /// [`try_starmap`](Self::try_starmap), [`map_rows`](Self::map_rows) and [`try_map_rows`](Self::try_map_rows), and
    /// the forms of them that do not wait, and for [`map_chunks`](Self::map_chunks) and
    /// [`try_map_chunks`](Self::try_map_chunks), where the result of an element is a number that a `.npy` file can hold, an
    /// array of them (`[f64; 3]`: the file's array has one more axis), or a struct of these
    /// ([`npy_fields!`](crate::npy_fields): one of NumPy's structured arrays). The returned array is the mapped file. (Other
    /// verbs and results do not compile.)
    ///
    /// ```
    /// use swathe::{Array, Pool};
    ///
    /// fn root(x: u32) -> f64 {
    ///     f64::from(x).sqrt()
    /// }
    ///
    /// fn main() -> swathe::Result<()> {
    ///     swathe::init();
    ///     # let directory = tempfile::tempdir().unwrap();
    ///     # let path = directory.path().join("roots.npy");
    ///     let pool = Pool::builder().processes(2).build()?;
    ///     let roots = pool.batch().output_file(&path).map(root, 0..1000)?;
    ///     let again = pool.batch().output_file(&path).map(root, 0..1000)?; // nothing is run
    ///     assert_eq!(again, roots);
    ///     assert_eq!(Array::<f64>::from_npy_path(&path)?, roots);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # The files
    /// Beside `out.npy` lies `out.npy.progress`, which says which positions are done. Both have their full size from the
    /// beginning, and stay when the job is complete. To start anew, delete both. `out.npy` can be read at any time;
    /// positions that are not done hold zeros or anything else. While the job runs, or an array of its results lives, nobody
    /// else may write or shorten the files. A second job with the same output is refused, and so is a file that cannot be
    /// locked, because then nothing would keep a second job away (see [`unlocked`](Batch::unlocked)).
    ///
    /// Both are made for this user to write and for nobody else. In a directory that others can write, what they have put
    /// there is neither believed nor changed: a file of another user, one that others can write, a link, a pipe.
    ///
    /// # What can be trusted
    /// - **A process was killed**, be it a worker, the program, or all of them, at any moment: what was published stays
    ///   published. The values are written before the word that says so, and both lie in the page cache of a machine
    ///   that still runs.
    /// - **The machine went down, or the job goes on on another one**: pages may have reached the disk in any order, so
    ///   only the last *checkpoint* counts. About once a second all values are brought to the disk, and then a copy of
    ///   the progress with a checksum, in two places in turn. What was done after it is done again. In a chunk with a
    ///   failed position, what lies behind that position is done again too.
    /// - **The call has returned**: everything it returned is on the disk.
    ///
    /// # What is compared
    /// A job goes on only with what began it: number of elements, type of the results, name of the task, build of the
    /// program (or [`task_version`](Batch::task_version)), contents of input and parameters (by a 128-bit hash, so all
    /// inputs are read once), and seed. What differs is named in the error. Not compared are the state of the workers
    /// ([`Builder::state`](crate::Builder::state)), files that tasks read by themselves, the number of processes, and
    /// the chunk size: the one that began the file stays. A hash map among the parameters has another order in every run,
    /// and so differs; use a `BTreeMap`.
    ///
    /// # Failures
    /// Positions that failed have no value, and are run again by the next run; those that are done are not. A chunk of
    /// `map_chunks` is done or not done as a whole.
    ///
    /// # Errors
    /// The verbs return [`Error::Output`](crate::Error::Output), before anything is run, if the files cannot be made, lie
    /// on a full file system or on one without locks, belong to another job, are damaged, or are being written. Such files are
    /// never changed.
    pub fn output_file(self, path: impl Into<PathBuf>) -> Batch<'p, S, P, E, InFile> {
        let output = InFile {
            path: path.into(),
            task_version: None,
            unlocked: false,
        };
        self.with_output(output)
    }
}

impl<S, P, E> Batch<'_, S, P, E, InFile> {
    /// Says in words which version of the task this is, instead of the build of the program: a program that was built
    /// anew may then go on with the file. Whether the task still computes the same is yours to know.
    pub fn task_version(mut self, version: impl Into<String>) -> Self {
        self.output.task_version = Some(version.into());
        self
    }

    /// Has the output written also where it cannot be locked: on a file system without locks (`flock` says `ENOLCK` or
    /// `EOPNOTSUPP`), or where a sandbox forbids them. Where it can be locked it is, and this changes nothing.
    ///
    /// # Safety
    /// From when a verb is called until its job is over and the arrays of its results are gone, no other job, of this program
    /// or of any other on any machine, has this output file. Two jobs would write one another's `&mut [T]`.
    ///
    /// # Errors
    /// Without this call the verbs return [`OutputError::NoLock`] for such a file.
    #[expect(unsafe_code, reason = "what a lock would see to is for the caller to see to")]
    pub unsafe fn unlocked(mut self) -> Self {
        self.output.unlocked = true;
        self
    }
}
