//! The segments of this process, by id.
//!
//! What crosses between processes is (segment id, offset, length); this is where the id becomes an address again. The
//! registry keeps attached segments alive, because in a worker nobody else does between two tasks; segments made here
//! live as long as their users. A segment that is not here is asked for: a worker's runtime installs a resolver that
//! fetches its descriptor from the parent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::RwLock;
use swathe_os::Descriptor;

use crate::error::MemoryError;
use crate::segment::{Access, Segment, SegmentId};

/// Fetches the descriptor, length in bytes and access of a segment that this process does not have yet, or says why
/// it cannot.
pub type Resolver = Box<dyn Fn(SegmentId) -> Result<(Descriptor, usize, Access), String> + Send + Sync>;

/// Attached segments that stay mapped without a user. The oldest goes first; if it is needed again, it is resolved
/// again.
const KEPT: usize = 64;

#[derive(Default)]
struct Registry {
    // Not a hash map: its random keys are the thread's, and every worker that is forked after they were drawn has the same.
    known: BTreeMap<SegmentId, Weak<Segment>>,
    kept: VecDeque<Arc<Segment>>,
}

static REGISTRY: LazyLock<RwLock<Registry>> = LazyLock::new(RwLock::default);
static RESOLVER: RwLock<Option<Arc<Resolver>>> = RwLock::new(None);

/// Makes a segment known under its id for as long as it lives. Every [`Segment`] does this for itself.
pub fn register(segment: &Arc<Segment>) {
    let mut registry = REGISTRY.write();
    registry.known.insert(segment.id(), Arc::downgrade(segment));
}

/// Keeps an attached segment mapped even while nobody uses it.
///
/// At most 64 are kept; the one kept longest is let go first.
pub fn keep(segment: &Arc<Segment>) {
    let mut registry = REGISTRY.write();
    registry.kept.push_back(Arc::clone(segment));
    let surplus = if registry.kept.len() > KEPT {
        registry.kept.pop_front()
    } else {
        None
    };
    // A segment that dies takes the registry's lock to be forgotten.
    drop(registry);
    drop(surplus);
}

/// Lets go of every kept segment that nobody uses, as a worker does between jobs with different inputs.
pub fn release_kept() {
    let kept = std::mem::take(&mut REGISTRY.write().kept);
    drop(kept);
}

/// Removes a dead segment. One that was mapped again under the same id in the meantime stays.
pub(crate) fn forget(id: SegmentId) {
    let mut registry = REGISTRY.write();
    if registry
        .known
        .get(&id)
        .is_some_and(|segment| segment.strong_count() == 0)
    {
        registry.known.remove(&id);
    }
}

/// The segment with this id, if this process has it.
pub fn find(id: SegmentId) -> Option<Arc<Segment>> {
    REGISTRY.read().known.get(&id)?.upgrade()
}

/// The segment with this id; one that this process does not have is fetched by the resolver and attached.
///
/// # Errors
/// When there is no resolver, it fails, or what it fetched cannot be attached.
pub fn resolve(id: SegmentId) -> Result<Arc<Segment>, MemoryError> {
    if let Some(segment) = find(id) {
        return Ok(segment);
    }
    // Cloned, so that no lock is held while the resolver waits for another process.
    let resolver = RESOLVER.read().clone();
    let unknown = |reason| MemoryError::UnknownSegment { segment: id, reason };
    let resolver = resolver.ok_or_else(|| {
        unknown(
            "this process did not make it, or has dropped it, and there is no pool to ask for it".to_owned(),
        )
    })?;
    let (fd, len, access) = resolver(id).map_err(unknown)?;
    // SAFETY: whoever set the resolver promised that it gives the file that has this id.
    unsafe { Segment::attach(id, fd, len, access) }
}

/// Installs what [`resolve`] asks for unknown segments, in place of any earlier resolver.
///
/// # Safety
/// What the resolver gives for an id is the file of the segment that has this id in the process that made it, as
/// [`Segment::attach`] asks.
pub unsafe fn set_resolver(resolver: Resolver) {
    *RESOLVER.write() = Some(Arc::new(resolver));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn segments_made_here_are_found_until_dropped() {
        let segment = Segment::create("swathe-test", 4096).unwrap();
        let id = segment.id();
        assert!(Arc::ptr_eq(&find(id).unwrap(), &segment));
        drop(segment);
        assert!(find(id).is_none());
        assert!(
            !REGISTRY.read().known.contains_key(&id),
            "a dead segment leaves no entry"
        );
    }

    /// One test for everything that touches the process-wide resolver and cache.
    #[test]
    fn unknown_segments_are_resolved_once_and_kept() {
        let other = Segment::create("swathe-test", 8192).unwrap();
        // SAFETY: nobody makes an array of the segment.
        let shared = unsafe { other.fd() }.try_clone_to_owned().unwrap();
        let known = SegmentId::from_bits(0x5eed_0001);
        let text = resolve(known).unwrap_err().to_string();
        assert!(text.contains("there is no pool to ask"), "{text}");

        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let resolver: Resolver = Box::new(move |id| {
            count.fetch_add(1, Ordering::Relaxed);
            match id.to_bits() >> 16 {
                0x5eed => Ok((
                    shared.try_clone().map_err(|e| e.to_string())?.into(),
                    8192,
                    Access::ReadWrite,
                )),
                _ => Err("the parent has no such segment".to_owned()),
            }
        });
        // SAFETY: the ids are the test's own, and nobody makes an array of what they name.
        unsafe { set_resolver(resolver) };
        let text = resolve(SegmentId::from_bits(5)).unwrap_err().to_string();
        assert!(text.ends_with("the parent has no such segment"), "{text}");
        assert_eq!(resolve(known).unwrap().len(), 8192);
        assert_eq!(resolve(known).unwrap().id(), known);
        assert_eq!(
            asked.load(Ordering::Relaxed),
            2,
            "the second look-up finds the kept segment"
        );

        for n in 0..KEPT as u64 {
            resolve(SegmentId::from_bits(0x5eed_1000 + n)).unwrap();
        }
        assert!(find(known).is_none(), "the oldest of {KEPT} + 1 was let go");
        let used = resolve(known).unwrap();
        release_kept();
        assert!(find(SegmentId::from_bits(0x5eed_1000)).is_none());
        assert!(find(known).is_some_and(|found| Arc::ptr_eq(&found, &used)));
        *RESOLVER.write() = None;
    }
}
