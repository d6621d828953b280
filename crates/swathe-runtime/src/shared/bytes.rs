//! Byte strings in shared memory, copied in and out word by word: another process may be writing there, so no reference
//! to the bytes is ever made.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use swathe_memory::{Block, MemoryError, Segment};

use crate::shared::memory;

/// Words that hold `len` bytes.
pub(crate) fn words_for(len: usize) -> usize {
    len.div_ceil(8)
}

/// Writes bytes into words; the last word is filled with zeros.
pub(crate) fn write(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    if let (false, Some(last)) = (rest.is_empty(), words.get(whole.len())) {
        let mut buffer = [0; 8];
        buffer[..rest.len()].copy_from_slice(rest);
        last.store(u64::from_le_bytes(buffer), Ordering::Relaxed);
    }
}

/// Reads the first `len` bytes of words.
pub(crate) fn read(words: &[AtomicU64], len: usize) -> Vec<u8> {
    let words = &words[..words_for(len)];
    let mut bytes = Vec::with_capacity(words.len() * 8);
    for word in words {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes bytes at the start of a block of this process.
pub(crate) fn write_block(block: &Arc<Block>, bytes: &[u8]) -> Result<(), MemoryError> {
    write(&memory::words_in(block, 0, words_for(bytes.len()))?, bytes);
    Ok(())
}

/// Reads bytes from a segment that another process made.
pub(crate) fn read_segment(segment: &Arc<Segment>, offset: u64, len: u64) -> Result<Vec<u8>, MemoryError> {
    let len = len as usize;
    Ok(read(
        &memory::words(segment, offset as usize, words_for(len))?,
        len,
    ))
}
