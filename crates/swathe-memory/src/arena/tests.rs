use std::process::Command;
use std::thread;

use proptest::prelude::*;

use super::*;

const H: usize = HUGE_PAGE;

fn bytes(block: &Block) -> &[u8] {
    // SAFETY: the tests write a block only through `fill`, which takes it mutably.
    unsafe { std::slice::from_raw_parts(block.as_ptr().as_ptr(), block.len()) }
}

fn fill(block: &mut Block, value: u8) {
    // SAFETY: the block is owned, and borrowed mutably.
    unsafe { block.as_ptr().write_bytes(value, block.len()) }
}

#[test]
fn blocks_are_aligned_and_counted() {
    let memory = Memory::with_capacity(8 * H).unwrap();
    let small = memory.alloc(1, 1).unwrap();
    let aligned = memory.alloc(100, 4096).unwrap();
    let large = memory.alloc(2 * H + 1, 8).unwrap();
    assert_eq!((small.offset(), small.len()), (0, 1));
    assert_eq!(aligned.offset() % 4096, 0);
    assert_eq!((large.offset() % H, large.as_ptr().addr().get() % H), (0, 0));
    let stats = memory.stats();
    assert_eq!((stats.capacity, stats.in_use), (8 * H, 64 + 128 + 2 * H + 64));
    assert_eq!(
        stats.warm,
        4 * H,
        "one granule for the small ones, three for the large one"
    );
    drop((small, aligned, large));
    assert_eq!(memory.stats().in_use, 0);
    for align in [0, 3, 2 * H] {
        let text = memory.alloc(8, align).unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("an alignment of {align} bytes")),
            "{text}"
        );
    }
    assert!(matches!(
        memory.alloc(usize::MAX, 8),
        Err(MemoryError::TooLarge { .. })
    ));
}

#[test]
fn freed_memory_stays_warm_and_is_handed_out_again() {
    let memory = Memory::with_capacity(64 * H).unwrap();
    let mut first = memory.alloc(4 * H, 8).unwrap();
    fill(&mut first, 0xab);
    let offset = first.offset();
    drop(first);
    assert_eq!(memory.stats().warm, 4 * H);
    let again = memory.alloc(4 * H, 8).unwrap();
    assert_eq!(again.offset(), offset);
    assert!(
        bytes(&again).iter().all(|&byte| byte == 0xab),
        "the very pages of the first block"
    );
    assert_eq!(memory.stats().warm, 4 * H, "no further page was taken");
}

#[test]
fn trimming_gives_pages_back_and_they_come_back_zero() {
    let memory = Memory::with_capacity(8 * H).unwrap();
    let mut keep = memory.alloc(64, 8).unwrap();
    let mut large = memory.alloc(3 * H, 8).unwrap();
    fill(&mut keep, 1);
    fill(&mut large, 2);
    drop(large);
    assert_eq!(memory.trim(), 3 * H);
    assert_eq!(memory.stats().warm, H, "the granule of the small block stays");
    assert_eq!(memory.trim(), 0);
    assert!(bytes(&keep).iter().all(|&byte| byte == 1));
    let large = memory.alloc(3 * H, 8).unwrap();
    assert!(bytes(&large).iter().all(|&byte| byte == 0));
}

#[test]
fn beyond_the_limit_freed_pages_go_back_at_once() {
    let memory = Memory::make(16 * H, std::process::id(), 2 * H).unwrap();
    let blocks: Vec<_> = (0..8).map(|_| memory.alloc(H, 8).unwrap()).collect();
    assert_eq!(memory.stats().warm, 8 * H);
    drop(blocks);
    assert_eq!(memory.stats().warm, 2 * H);
}

#[test]
fn zeroed_blocks_are_zero_wherever_they_come_from() {
    let memory = Memory::with_capacity(8 * H).unwrap();
    // Leaves a dirty granule in the middle of the free range: cold, warm, cold.
    let pad = memory.alloc(H, 8).unwrap();
    let mut dirty = memory.alloc(H, 8).unwrap();
    fill(&mut dirty, 0xff);
    drop(pad);
    assert_eq!(memory.trim(), H);
    drop(dirty);
    for len in [3 * H, 3 * H - 17, 100] {
        let mut block = memory.alloc_zeroed(len, 8).unwrap();
        assert!(bytes(&block).iter().all(|&byte| byte == 0), "{len} bytes");
        fill(&mut block, 0xff);
    }
}

#[test]
fn huge_pages_are_reported_as_obtained() {
    let memory = Memory::with_capacity(8 * H).unwrap();
    assert_eq!(memory.stats().huge_page_bytes, 0);
    let block = memory.alloc(4 * H, 8).unwrap();
    let obtained = memory.stats().huge_page_bytes;
    // The kernel may have none to give; whatever it gave must be what /proc says, and whole.
    assert!(obtained <= 4 * H && obtained.is_multiple_of(H), "{obtained}");
    if obtained == 0 {
        eprintln!("no huge pages on this machine");
    }
    drop(block);
    memory.trim();
    assert_eq!(memory.stats().huge_page_bytes, 0);
}

#[test]
fn pages_lie_where_the_placement_says() {
    let memory = Memory::with_capacity(64 * H).unwrap();
    let nodes = cores::numa_nodes();
    for placement in [Placement::Interleave, Placement::Local, Placement::FirstTouch] {
        if let Err(error) = memory.set_placement(placement) {
            return eprintln!("no NUMA support here: {error}");
        }
        let block = memory.alloc(4 * H, 8).unwrap();
        let stats = memory.stats();
        if placement == Placement::FirstTouch {
            assert_eq!(stats.huge_page_bytes, 0, "nothing was taken yet");
        }
        let found = numa::nodes_of(bytes(&block)).unwrap();
        assert_eq!(found.values().sum::<usize>(), 4 * H);
        if placement == Placement::Interleave {
            assert!(found.len() >= nodes.len().min(4), "{found:?}");
        }
        drop(block);
        memory.trim();
    }
}

#[test]
fn too_much_is_refused_with_needed_available_and_remedy() {
    let memory = Memory::with_capacity(8 << 40).unwrap();
    let error = memory.alloc(4 << 40, 8).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("4.0 TiB of new memory are needed but only "),
        "{text}"
    );
    assert!(text.contains(" are available, limited by the "), "{text}");
    assert!(text.ends_with("or work on less data at a time"), "{text}");
    let MemoryError::Shortage {
        needed, available, ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(needed == 4 << 40 && available < needed);
    let stats = memory.stats();
    assert_eq!((stats.in_use, stats.warm), (0, 0), "nothing was taken");
}

#[test]
fn a_full_arena_says_what_it_holds() {
    let memory = Memory::with_capacity(2 * H).unwrap();
    let held = memory.alloc(H, 8).unwrap();
    let text = memory.alloc(2 * H, 8).unwrap_err().to_string();
    assert!(
        text.starts_with(
            "4.0 MiB do not fit into the arena: its capacity is 4.0 MiB, 2.0 MiB are in use and its longest free \
             range has 2.0 MiB"
        ),
        "{text}"
    );
    drop(held);
    memory.alloc(2 * H, 8).unwrap();
}

#[test]
fn only_the_process_that_made_an_arena_allocates_in_it() {
    let here = std::process::id();
    let memory = Memory::make(2 * H, here + 1, H).unwrap();
    let text = memory.alloc(64, 8).unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("this arena was made by process {}", here + 1)),
        "{text}"
    );
    assert_eq!(memory.trim(), 0);
    assert!(Memory::owner_of(memory.segment().id()).is_none());
}

#[test]
fn the_global_arena_is_one_and_large() {
    let memory = Memory::global().unwrap();
    assert_eq!(memory.segment().id(), Memory::global().unwrap().segment().id());
    assert!(memory.segment().len() >= capacity::LEAST);
}

#[test]
fn an_arena_dies_with_its_last_block() {
    let memory = Memory::with_capacity(H).unwrap();
    let id = memory.segment().id();
    let block = memory.alloc(10, 1).unwrap();
    drop(memory);
    assert!(Memory::owner_of(id).is_some());
    drop(block);
    assert!(Memory::owner_of(id).is_none());
    assert!(crate::registry::find(id).is_none());
}

#[test]
fn published_blocks_are_found_until_freed() {
    let memory = Memory::with_capacity(H).unwrap();
    let block = Arc::new(memory.alloc(1000, 8).unwrap());
    let (offset, serial) = (block.offset(), block.serial());
    let whole = offset..offset + 1000;
    assert!(
        memory.find_published(&whole, serial).is_none(),
        "not published yet"
    );
    block.publish();
    assert!(
        memory
            .find_published(&whole, serial)
            .is_some_and(|found| Arc::ptr_eq(&found, &block))
    );
    assert!(
        memory
            .find_published(&(offset + 8..offset + 16), serial)
            .is_some()
    );
    assert!(memory.find_published(&(offset..offset + 1001), serial).is_none());
    drop(block);
    assert!(memory.find_published(&whole, serial).is_none());
    let next = Arc::new(memory.alloc(1000, 8).unwrap());
    next.publish();
    assert_eq!(next.offset(), offset);
    assert!(
        memory.find_published(&whole, serial).is_none(),
        "another block in the same place"
    );
    assert!(memory.find_published(&whole, next.serial()).is_some());
}

#[test]
fn threads_share_an_arena() {
    let memory = Memory::with_capacity(32 * H).unwrap();
    thread::scope(|scope| {
        for value in 1..=4_u8 {
            let memory = &memory;
            scope.spawn(move || {
                for round in 1..60_usize {
                    let mut block = memory.alloc_zeroed(round * 40_000, 8).unwrap();
                    assert!(bytes(&block).iter().all(|&byte| byte == 0));
                    fill(&mut block, value);
                    if round % 16 == 0 {
                        memory.trim();
                    }
                    assert!(bytes(&block).iter().all(|&byte| byte == value));
                }
            });
        }
    });
    let stats = memory.stats();
    assert_eq!(stats.in_use, 0);
    assert_eq!(memory.0.state.lock().settling, 0);
    memory.trim();
    assert_eq!(memory.stats().warm, 0);
}

/// Runs the ignored test `child` of this file in a process of its own, under a shell's `ulimit`.
fn run_under(limit: &str, child: &str) {
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--quiet",
            "--exact",
            "--ignored",
            "--test-threads=1",
            &format!("arena::tests::{child}"),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // A name that no longer fits would run nothing and succeed.
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{child} under ulimit {limit}: {text}"
    );
}

#[test]
fn limits_of_the_process_shrink_the_arena_instead_of_breaking_it() {
    run_under("-v 2000000", "child_with_little_address_space");
    run_under("-f 1000", "child_with_short_files");
}

#[test]
#[ignore = "run by limits_of_the_process_shrink_the_arena_instead_of_breaking_it"]
fn child_with_little_address_space() {
    let limited = memory_limits::address_space_headroom().unwrap();
    let memory = Memory::global().unwrap();
    assert!(
        (memory.segment().len() as u64) < limited.bytes / 2 + H as u64,
        "half of it, rounded up"
    );
    let block = memory.alloc_zeroed(3 * H, 8).unwrap();
    assert!(bytes(&block).iter().all(|&byte| byte == 0));
    let text = Memory::with_capacity(4 << 30).unwrap_err().to_string();
    assert!(
        text.contains("could not be mapped") && text.contains("`ulimit -v`"),
        "{text}"
    );
}

#[test]
#[ignore = "run by limits_of_the_process_shrink_the_arena_instead_of_breaking_it"]
fn child_with_short_files() {
    let text = Memory::global().unwrap_err().to_string();
    assert!(
        text.contains("longer than the file size limit") && text.contains("`ulimit -f`"),
        "{text}"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Alloc { len: usize, align: usize, zeroed: bool },
    Free { which: usize },
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![3 => 0..5000_usize, 1 => H / 2..2 * H];
    prop_oneof![
        5 => (len, 0..14_u32, any::<bool>())
            .prop_map(|(len, log, zeroed)| Step::Alloc { len, align: 1 << log, zeroed }),
        4 => any::<usize>().prop_map(|which| Step::Free { which }),
        1 => Just(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The oracle is the list of blocks held and what each must contain: nobody else may own or change those bytes.
    #[test]
    fn no_block_ever_touches_another(steps in prop::collection::vec(step(), 1..60)) {
        let memory = Memory::with_capacity(12 * H).unwrap();
        let mut held: Vec<(Block, u8)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Alloc { len, align, zeroed } => {
                    let taken = if zeroed { memory.alloc_zeroed(len, align) } else { memory.alloc(len, align) };
                    let Ok(mut block) = taken else {
                        prop_assert!(held.iter().map(|(block, _)| block.len()).sum::<usize>() > H);
                        continue;
                    };
                    prop_assert_eq!(block.offset() % align.max(BLOCK_ALIGN), 0);
                    prop_assert!(block.offset() + len <= 12 * H);
                    prop_assert!(!zeroed || bytes(&block).iter().all(|&byte| byte == 0));
                    let (from, to) = (block.offset(), block.offset() + len.max(1));
                    for (other, _) in &held {
                        prop_assert!(to <= other.offset() || other.offset() + other.len().max(1) <= from);
                    }
                    fill(&mut block, n as u8 | 1);
                    held.push((block, n as u8 | 1));
                }
                Step::Free { which } if !held.is_empty() => {
                    let (block, value) = held.swap_remove(which % held.len());
                    prop_assert!(bytes(&block).iter().all(|&byte| byte == value));
                }
                Step::Free { .. } => {}
                Step::Trim => {
                    memory.trim();
                    prop_assert!(memory.0.state.lock().granules.warm_bytes() <= 12 * H);
                }
            }
            let expected: usize = held.iter().filter_map(|(block, _)| block_size(block.len())).sum();
            prop_assert_eq!(memory.0.state.lock().in_use, expected);
        }
        for (block, value) in &held {
            prop_assert!(bytes(block).iter().all(|byte| byte == value));
        }
    }
}
