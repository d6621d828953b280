//! What the targets for fuzzing share, of all crates (feature `_untrusted`).
//!
//! A target is a function of bytes that some process could have written where this one reads. It returns, whatever the
//! bytes are: it does not panic, does not go on for ever, and takes no more memory than the bytes can account for.

/// Reads a target's bytes as numbers; zeros when they are used up.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether they are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn number<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.number())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.number())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.number())
    }

    /// A number below `limit`, which is at most 256.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.u8()) % limit
    }

    /// A word that is more often an interesting one than a random one.
    pub fn word(&mut self) -> u64 {
        match self.u8() {
            short @ 0..=199 => u64::from(short),
            200..=207 => u64::from(self.u16()),
            208..=215 => u64::from(self.u16()) << 32 | u64::from(self.u16()),
            216..=223 => 1 << (self.u8() % 64),
            224..=231 => u64::MAX - u64::from(self.u8()),
            232..=239 => (1 << 63) - u64::from(self.u8()),
            240..=247 => (1 << 32) - u64::from(self.u8()),
            _ => self.u64(),
        }
    }
}

/// Runs every file of a target's corpus, and says which one it was if that comes to nothing. A package without its
/// repository has no corpora.
///
/// # Panics
/// If a file makes the target panic, or hang.
pub fn run_corpus(target: &str, run: fn(&[u8])) {
    use std::{fs, path::Path, sync::mpsc, thread, time::Duration};

    // Where the tests of each crate are run.
    let corpora = Path::new("../../fuzz/corpus");
    if !Path::new("../../fuzz").exists() {
        return;
    }
    let folder = corpora.join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no file", folder.display());
    for path in paths {
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (done, is_done) = mpsc::channel();
        let running = thread::spawn(move || {
            run(&bytes);
            let _ = done.send(());
        });
        // Far longer than any file takes: a hang becomes a failure that names the file.
        match is_done.recv_timeout(Duration::from_secs(60)) {
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{} hangs", path.display()),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let _ = running.join();
                panic!("{} makes the target panic; its message is above", path.display());
            }
        }
    }
}
