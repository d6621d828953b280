//! What the dead leave in a queue, made at will: pushes that stop at a step, under the id of a process that is gone.

use std::process::Command;

use swathe_protocol::queue::QueueStep;

use super::*;

/// The id of a process that has ended and was reaped.
fn dead_pid() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

/// Puts 7 as a process with this id that dies right after `last`.
fn push_until(queue: &Queue<u64>, pid: u32, last: QueueStep) {
    let producer = queue.core.producers.register_for(pid).expect("a free place");
    let view = queue.core.view().unwrap();
    let stopped = view.push_stepwise(producer.number(), &7_u64.to_le_bytes(), |step| {
        match step == last {
            true => Err(()),
            false => Ok(()),
        }
    });
    assert_eq!(stopped, Err(()), "the push came to {last:?}");
    // The dead do not leave their places.
    std::mem::forget(producer);
}

#[test]
fn nodes_and_places_of_dead_producers_are_used_again() {
    let queue = Queue::<u64>::bounded(4).unwrap();
    let pid = dead_pid();
    let nodes = queue.core.shape.nodes();
    for _ in 0..nodes {
        push_until(&queue, pid, QueueStep::Claimed);
    }
    assert_eq!(queue.core.producers.count(), nodes);
    queue.try_put(&1).unwrap();
    assert_eq!(queue.core.producers.count(), 1, "the only producer alive");
    assert_eq!(queue.try_get().unwrap(), Some(1));
    assert_eq!(queue.try_get().unwrap(), None, "what was not linked was not put");
}

#[test]
fn what_the_dead_had_linked_is_delivered_once() {
    let queue = Queue::<u64>::bounded(4).unwrap();
    let pid = dead_pid();
    let nodes = queue.core.shape.nodes();
    for _ in 0..2 * nodes {
        push_until(&queue, pid, QueueStep::Linked);
        assert_eq!(queue.get_timeout(Duration::ZERO).unwrap(), Some(7));
        queue.put(&8).unwrap();
        assert_eq!(queue.drain().collect::<Result<Vec<_>, _>>().unwrap(), [8]);
    }
}

#[test]
fn nothing_is_taken_from_the_living() {
    let queue = Queue::<u64>::bounded(4).unwrap();
    for _ in 0..queue.core.shape.nodes() {
        push_until(&queue, std::process::id(), QueueStep::Claimed);
    }
    assert!(matches!(queue.try_put(&1), Err(QueueError::Full { capacity: 4 })));
}

#[test]
fn places_run_out_for_the_living_only() {
    let queue = Queue::<u64>::bounded(1).unwrap();
    let pid = dead_pid();
    let producers: Vec<_> = (0..MAX_PRODUCERS)
        .map(|_| queue.core.producers.register_for(pid))
        .collect();
    producers.into_iter().for_each(std::mem::forget);
    queue.try_put(&1).unwrap();

    let other = Queue::<u64>::bounded(1).unwrap();
    let held: Vec<_> = (0..MAX_PRODUCERS)
        .map_while(|_| other.core.producers.register())
        .collect();
    assert_eq!(held.len(), MAX_PRODUCERS);
    let text = other.try_put(&1).unwrap_err().to_string();
    assert!(
        text.starts_with("1024 handles in this and other processes"),
        "{text}"
    );
    drop(held);
    assert_eq!(other.core.producers.count(), 0);
    other.try_put(&1).unwrap();
    assert_eq!(other.core.producers.count(), 1);
}

#[test]
fn handles_share_a_queue_and_refuse_what_does_not_fit() {
    let queue = Queue::<String>::with_item_bytes(3, 100).unwrap();
    assert_eq!((queue.capacity(), queue.item_bytes(), queue.len()), (4, 120, 0));
    let again = Queue::<String>::attach(queue.id(), Vouch::NOBODYS).unwrap();
    for text in ["first", "second", "third", "fourth"] {
        again.put(&text.to_owned()).unwrap();
    }
    assert!(matches!(
        again.put_timeout(&String::new(), Duration::from_millis(1)),
        Err(QueueError::Full { capacity: 4 })
    ));
    assert_eq!(queue.get().unwrap(), "first");
    assert_eq!(queue.len(), 3);
    let text = queue.put(&"x".repeat(200)).unwrap_err().to_string();
    assert!(
        text.contains(" bytes, and this queue was made for items of at most 120"),
        "{text}"
    );

    let text = crate::Value::<u64>::attach(queue.id(), Vouch::NOBODYS)
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("it was made for something else"), "{text}");
    let cell = crate::Value::new(1_u64).unwrap();
    let text = crate::Value::<u32>::attach(cell.id(), Vouch::NOBODYS)
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("or they have another size"), "{text}");
    let id = cell.id();
    drop(cell);
    assert!(
        crate::Value::<u64>::attach(id, Vouch::OURS).is_err(),
        "it is gone"
    );
    assert!(Queue::<u8>::bounded(usize::MAX).is_err());
}
