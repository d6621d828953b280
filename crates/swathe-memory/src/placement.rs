//! Where an arena's pages are taken from.

/// Which node's memory an arena takes its pages from, and when. It matters on machines with several NUMA nodes.
///
/// ```
/// use swathe_memory::{Array, ArrayMut, Memory, Placement};
///
/// let memory = Memory::with_capacity(64 << 20)?;
/// memory.set_placement(Placement::Interleave)?;
/// let array: Array<f64> = Array::from_fn_in(&memory, 1 << 20, |i| i as f64)?;
/// for (node, bytes) in array.nodes()? {
///     println!("{bytes} bytes on node {node}");
/// }
/// # assert_eq!(array.nodes()?.values().sum::<usize>(), 8 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// When they are allocated, from the node that the allocating thread runs on; as huge pages where the kernel has some.
    #[default]
    Local,
    /// When they are allocated, from all nodes in turn; as huge pages where the kernel has some. No worker is near to all
    /// of its data, and none is far from all of it: for arrays that all workers read, or that one thread made.
    Interleave,
    /// When they are touched, from the node of the worker that touches them first. Nothing is taken when memory is
    /// allocated: a shortage may then be met by a worker (SIGBUS: a death that is recovered) instead of being an error, and
    /// pages are small. For outputs of pinned workers that write the same positions again and again; a worker that has
    /// nothing to do takes work from others, so pages are near to most of their users, not to all.
    FirstTouch,
}
