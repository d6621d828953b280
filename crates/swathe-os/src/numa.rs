//! On which NUMA node pages lie, and where new ones are to be taken from.

use std::{collections::BTreeMap, io};

use crate::mapping::Mapping;

const MPOL_DEFAULT: libc::c_int = 0;
const MPOL_INTERLEAVE: libc::c_int = 3;
const MPOL_F_NODE: libc::c_ulong = 1;
const MPOL_F_ADDR: libc::c_ulong = 2;
/// Nodes that a mask has bits for.
const NODES: usize = 1024;
const WORD: usize = libc::c_ulong::BITS as usize;

/// Pages of this mapping that are taken from now on, by whatever process, come from these nodes in turn. With no nodes:
/// from the node of whoever touches them first. For memory that is shared the kernel keeps this with the file.
///
/// # Errors
/// `InvalidInput` for a node beyond 1023; otherwise what the kernel says, for example where it has no NUMA support.
pub fn interleave(mapping: &Mapping, nodes: &[usize]) -> io::Result<()> {
    let mut mask = [0 as libc::c_ulong; NODES / WORD];
    for &node in nodes {
        let word = mask.get_mut(node / WORD).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (node % WORD);
    }
    let (mode, mask, bits) = match nodes {
        [] => (MPOL_DEFAULT, std::ptr::null(), 0),
        _ => (MPOL_INTERLEAVE, mask.as_ptr(), NODES),
    };
    // SAFETY: the range is this live mapping, the mask has as many bits as is said, and a policy changes no byte.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            mapping.as_ptr().as_ptr(),
            mapping.len(),
            mode,
            mask,
            bits,
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many of these bytes lie on which node. Pages that are not there yet are taken by this.
///
/// # Errors
/// What the kernel says, for example where it has no NUMA support.
pub fn nodes_of(bytes: &[u8]) -> io::Result<BTreeMap<usize, usize>> {
    let page = rustix::param::page_size();
    let (start, end) = (bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len());
    let mut found = BTreeMap::new();
    let mut at = start;
    while at < end {
        let next = (at / page + 1) * page;
        let mut node: libc::c_int = 0;
        // SAFETY: `node` is an int to be written; the address is looked up, not dereferenced by this process.
        let result = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut node,
                std::ptr::null_mut::<libc::c_ulong>(),
                0 as libc::c_ulong,
                at,
                MPOL_F_NODE | MPOL_F_ADDR,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        *found.entry(node as usize).or_default() += next.min(end) - at;
        at = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cores, mapping::HUGE_PAGE, memfd};

    #[test]
    fn pages_are_found_on_the_nodes_that_they_were_wanted_on() {
        let fd = memfd::create("swathe-test", HUGE_PAGE as u64).expect("a memory file");
        let mapping = Mapping::read_write(&fd, HUGE_PAGE).expect("a mapping");
        let nodes: Vec<usize> = cores::numa_nodes().iter().map(|node| node.id).collect();
        if let Err(error) = interleave(&mapping, &nodes) {
            return eprintln!("no NUMA support here: {error}");
        }
        mapping.populate_write(&fd, 0, HUGE_PAGE).expect("pages");
        // SAFETY: the mapping is live and nobody else has it.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.as_ptr().as_ptr(), HUGE_PAGE) };
        let found = nodes_of(&bytes[5..]).expect("the kernel knows");
        assert_eq!(found.values().sum::<usize>(), HUGE_PAGE - 5);
        let pages = HUGE_PAGE / rustix::param::page_size();
        for node in &nodes {
            let here = found.get(node).copied().unwrap_or(0) / rustix::param::page_size();
            assert!(here + 1 >= pages / nodes.len(), "{found:?} of {nodes:?}");
        }
        interleave(&mapping, &[]).expect("back to the default");
    }

    #[test]
    fn a_node_that_cannot_be_is_refused() {
        let fd = memfd::create("swathe-test", 4096).expect("a memory file");
        let mapping = Mapping::read_write(&fd, 4096).expect("a mapping");
        assert!(interleave(&mapping, &[4096]).is_err());
        assert!(interleave(&mapping, &[1023]).is_err());
    }
}
