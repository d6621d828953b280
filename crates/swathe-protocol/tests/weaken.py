#!/usr/bin/env python3
"""Breaks the protocol in one place at a time, and looks whether a model sees it.

    crates/swathe-protocol/tests/weaken.py [WORD ...]

Works on a copy of the tree below `target`. With words, only weakenings whose line contains one of them. Each must make its
model fail with the report that the table "Seen to fail" of the protocol's README gives; the two lists must be the same. A
model that does not fail, another report, or a line that is in one list only, is an error. Takes about a quarter of an hour on
2 cores. Needs cargo and git.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

CRATE = pathlib.Path(__file__).resolve().parents[1]
TREE = CRATE.parents[1]
COPY = TREE / "target" / "weakened" / "tree"
COPY_OF_CRATE = COPY / "crates" / "swathe-protocol"

# Model, weakening, report, file, then pairs of what stands there and what is put in its place. What stands there must be
# found exactly once, or behind the text that precedes " ... ".
WEAKENINGS = [
    ("loom_ring", "`tail` stored relaxed", "left == right", "src/ring.rs",
     ("store(tail.wrapping_add(1), Ordering::Release)", "store(tail.wrapping_add(1), Ordering::Relaxed)")),
    ("loom_ring", "`tail` loaded relaxed", "left == right", "src/ring.rs",
     ("pub fn pop ... tail.0.load(Ordering::Acquire)", "tail.0.load(Ordering::Relaxed)")),
    ("loom_ring", "cell copied after the claim", "left == right", "src/ring.rs",
     ("            let run = self.cell(head).read();\n", ""),
     ("Ok(_) => return Some(run),", "Ok(_) => return Some(self.cell(head).read()),")),
    ("loom_lane", "`fill` does not clear the hand", "counted, held, left and stolen", "src/lane.rs",
     ("pub fn fill ... self.hand.store(0, Ordering::Relaxed);", "")),
    ("loom_lane", "`fill` stores relaxed", "left == right", "src/lane.rs",
     ("self.range.store(run.to_word(), Ordering::Release)", "self.range.store(run.to_word(), Ordering::Relaxed)")),
    ("loom_lane", "`steal` and its first load relaxed", "left == right", "src/lane.rs",
     ("pub fn steal ... self.range.load(Ordering::Acquire)", "self.range.load(Ordering::Relaxed)"),
     ("pub fn steal ... Ordering::AcqRel, Ordering::Acquire", "Ordering::Relaxed, Ordering::Relaxed")),
    ("loom_lane", "constant parity", "left == right", "src/lane.rs",
     ("let parity = (self.done.load(Ordering::Relaxed) & PARITY) ^ PARITY;", "let parity = PARITY;"),
     ("pub fn count ... | ((done & PARITY) ^ PARITY)", "| (done & PARITY)")),
    ("loom_lane", "`hand` does not look at the front", "counted, held, left and stolen", "src/lane.rs",
     ("|| never_taken {", "|| (never_taken && span.is_empty()) {")),
    ("loom_publish", "progress stored relaxed", "of 1 published", "src/status.rs",
     ("store(tag.bits() | (n & PROGRESS), Ordering::Release)", "store(tag.bits() | (n & PROGRESS), Ordering::Relaxed)")),
    ("loom_publish", "final stored relaxed", "of 2 published", "src/status.rs",
     ("store(tag.bits() | FINAL, Ordering::Release)", "store(tag.bits() | FINAL, Ordering::Relaxed)")),
    ("loom_publish", "status loaded relaxed", "published", "src/status.rs",
     ("let word = self.0.load(Ordering::Acquire);", "let word = self.0.load(Ordering::Relaxed);")),
    ("loom_publish", "`done` stored relaxed", "complete, but a value is stale", "src/lane.rs",
     ("pub fn count ... self.done.store(next, Ordering::Release)", "self.done.store(next, Ordering::Relaxed)")),
    ("loom_publish", "`done` loaded relaxed", "complete, but a value is stale", "src/lane.rs",
     ("self.done.load(Ordering::Acquire) >> 1", "self.done.load(Ordering::Relaxed) >> 1")),
    ("loom_publish", "no fence in `counted`", "nobody completed the job", "src/lane.rs",
     ("pub fn counted<'l> ... fence(Ordering::SeqCst);", "")),
    ("loom_publish", "gate exchanged relaxed", "complete, but a value is stale", "src/job.rs",
     ("fn change ... Ordering::AcqRel", "Ordering::Relaxed")),
    ("loom_publish", "gate loaded relaxed", "complete, but a value is stale", "src/job.rs",
     ("GateState::from_word(self.0.load(Ordering::Acquire))", "GateState::from_word(self.0.load(Ordering::Relaxed))")),
    ("loom_gate", "no fence in `enter`", "left == right", "src/job.rs",
     ("pub fn enter ... fence(Ordering::SeqCst);", "")),
    ("loom_gate", "no fence in `set`", "left == right", "src/job.rs",
     ("pub fn set ... fence(Ordering::SeqCst);", "")),
    ("loom_gate", "no fence behind `close`", "left == right", "src/job.rs",
     ("fn change ... fence(Ordering::SeqCst);", "")),
    ("loom_gate", "gate stored relaxed", "left == right", "src/job.rs",
     ("self.0.store(state.to_word(), Ordering::Release)", "self.0.store(state.to_word(), Ordering::Relaxed)")),
    ("loom_gate", "gate loaded relaxed", "left == right", "src/job.rs",
     ("GateState::from_word(self.0.load(Ordering::Acquire))", "GateState::from_word(self.0.load(Ordering::Relaxed))")),
    ("loom_gate", "`leave` stores relaxed", "left == right", "src/slot.rs",
     ("pub fn leave ... self.inside.store(0, Ordering::Release)", "self.inside.store(0, Ordering::Relaxed)")),
    ("loom_gate", "`inside` loads relaxed", "left == right", "src/slot.rs",
     ("self.inside.load(Ordering::Acquire)", "self.inside.load(Ordering::Relaxed)")),
    ("loom_gate", "a gate that is completed without a comparison", "left == right", "src/job.rs",
     ("        self.change(seen, GateState { phase, ..seen })",
      "        self.set(GateState { phase, ..seen });\n        true")),
    ("loom_gate", "`close` loads and stores", "left != right", "src/job.rs",
     ("(seen.phase == JobPhase::Open && self.change(seen, closed)).then_some(closed)",
      "(seen.phase == JobPhase::Open && self.state() == seen).then(|| {\n            self.set(closed);\n            closed\n        })")),
    ("loom_gate", "no fence where the parent scans the slots of a cell that a worker completed", "left == right",
     "tests/loom_gate.rs", ("            publish_fence();\n", "")),
    ("loom_strip", "the start is not taken away first", "", "src/slot.rs",
     ("self.strip_started.store(0, Ordering::Relaxed);", "")),
    ("loom_strip", "positions stored relaxed", "", "src/slot.rs",
     ("self.strip_first.store(strip.first, Ordering::Release)", "self.strip_first.store(strip.first, Ordering::Relaxed)")),
    ("loom_strip", "the start not read again", "", "src/slot.rs",
     ("let still = self.strip_started.load(Ordering::Relaxed) == started;", "let still = true;")),
    ("loom_round", "epoch of a run ignored", "left == right", "src/worker.rs",
     ("Some(seen) if seen.epoch == epoch => Some((cell, seen)),", "Some(seen) if seen.epoch >= epoch || epoch > 0 => Some((cell, seen)),")),
    ("loom_round", "the second round in the epoch of the first", "left == right", "src/parent.rs",
     ("let gate = self.cell.gate.state().next_epoch(JobPhase::Open);",
      "let gate = GateState { phase: JobPhase::Open, ..self.cell.gate.state() };")),
    ("loom_words", "the newest failure read before the scan of the slots", "a failure is lost", "src/parent.rs",
     ("let newest = || cell.failures.load(Ordering::Acquire);",
      "let newest = cell.failures.load(Ordering::Acquire);\n        let newest = || newest;")),
    ("loom_words", "failure record pushed relaxed", "a record has no text", "src/job.rs",
     ("compare_exchange_weak(head, record, Ordering::AcqRel, Ordering::Relaxed)",
      "compare_exchange_weak(head, record, Ordering::Relaxed, Ordering::Relaxed)")),
    ("loom_words", "its link not written again", "", "src/job.rs",
     ("        loop {\n            link(head);", "        link(head);\n        loop {")),
    ("loom_words", "`held_handles` stored behind `leave`", "left == right", "src/worker.rs",
     ("pub fn leave ... self.say_what_it_keeps(handles);\n        self.go(attended);",
      "let slot = self.member.slot();\n        self.go(attended);\n        set(&slot.held_handles, handles, Ordering::Release);")),
    ("loom_words", "`disturbed` stored behind the push", "it takes the chunk for fresh", "tests/loom_words.rs",
     ("        pool.cell.disturbed.store(1, Relaxed);\n", ""),
     ("fn who_takes_a_chunk ... .push(run(0)).unwrap();", ".push(run(0)).unwrap();\n        pool.cell.disturbed.store(1, Relaxed);")),
    ("loom_words", "lanes asked for before the fence of `counted`", "nobody completed the job", "src/lane.rs",
     ("pub fn counted<'l> ... fence(Ordering::SeqCst);\n    lanes()", "let lanes = lanes();\n    fence(Ordering::SeqCst);\n    lanes")),
    ("loom_words", "no fence between `shutdown` and the wake", "deadlock", "tests/loom_words.rs",
     ("fn everybody_hears ... publish_fence();", "")),
    ("loom_words", "a copy disarmed before it is settled", "nobody knows", "tests/loom_words.rs",
     ("                    slot.settled.store(COPY.end, Release);\n                    slot.copy.disarm();",
      "                    slot.copy.disarm();\n                    slot.settled.store(COPY.end, Release);")),
    ("loom_words", "`pid` stored relaxed", "the parent has not heard of it", "tests/loom_words.rs",
     ("slot.pid.store(9, Release);", "slot.pid.store(9, Relaxed);")),
    ("loom_bell", "no fence in `withdraw`", "deadlock", "src/job.rs",
     ("pub fn withdraw ... fence(Ordering::SeqCst);", "")),
    ("loom_bell", "no fence in a doorbell's `ring`", "deadlock", "src/bell.rs",
     ("impl DoorbellView ... fence(Ordering::SeqCst);", "")),
    ("loom_bell", "no fence in a doorbell's `announce`", "deadlock", "src/bell.rs",
     ("pub fn announce ... fence(Ordering::SeqCst);", "")),
    ("loom_bell", "no fence in a park word's `prepare`", "deadlock", "src/bell.rs",
     ("pub fn prepare(&self) { ... fence(Ordering::SeqCst);", "")),
    ("loom_bell", "no fence in `publish_fence`", "deadlock", "src/bell.rs",
     ("pub fn publish_fence() { ... fence(Ordering::SeqCst);", "")),
    ("loom_bell", "no fence in the bell's `prepare`", "deadlock", "src/bell.rs",
     ("pub fn prepare(&self) -> u32 { ... fence(Ordering::SeqCst);", "")),
    ("loom_bell", "no fence in the bell's `ring`", "deadlock", "src/bell.rs",
     ("/// After it has happened ... fence(Ordering::SeqCst);", "")),
    ("loom_bell", "the bell does not count its rings", "deadlock", "src/bell.rs",
     ("word.wrapping_add(1), Ordering::AcqRel", "word & !Self::WAITED, Ordering::AcqRel")),
    ("loom_bell", "the supervisor wakes only if `ring` says so", "deadlock", "tests/loom_bell.rs",
     ("            let _ = event.bell.ring();\n            event.futex.wake(event.bell.word());",
      "            if event.bell.ring() {\n                event.futex.wake(event.bell.word());\n            }")),
    ("loom_order", "an order does not name the epoch", "never ends", "src/order.rs",
     ("| u64::from(epoch & EPOCH_MASK) << Self::CELL_BITS\n", "| u64::from(epoch & EPOCH_MASK & 0) << Self::CELL_BITS\n"),
     ("src/worker.rs", "let Some((cell, seen)) = self.enter(job, epoch) else {",
      "let epoch = self.words.cell(job).map_or(epoch, |cell| cell.gate.state().epoch);\n"
      "        let Some((cell, seen)) = self.enter(job, epoch) else {")),
    ("loom_order", "order given relaxed", "never ends", "src/order.rs",
     ("self.0.swap(order.to_word(), Ordering::AcqRel)", "self.0.swap(order.to_word(), Ordering::Relaxed)")),
    ("loom_order", "cleared without a comparison", "never ends", "src/order.rs",
     ("        let _ = self\n            .0\n            .compare_exchange(done.to_word(), 0, Ordering::AcqRel, Ordering::Relaxed);",
      "        let _ = done;\n        self.0.store(0, Ordering::Release);")),
    ("loom_order", "cleared before the worker says `Popping`", "", "src/worker.rs",
     ("pub fn follow ... self.slot().set_phase(SlotPhase::Popping);",
      "self.slot().order.clear(order);\n        self.slot().set_phase(SlotPhase::Popping);")),
    ("loom_recover", "runs pushed before the gate is open again", "not complete", "src/recovery.rs",
     ("        self.cell.gate.advance(self.seen, JobPhase::Open).then(|| {",
      "        for first in 0..chunks {\n"
      "            let epoch = self.seen.epoch;\n"
      "            let run = crate::Descriptor { job: self.key, epoch, first, chunks: 1, careful: false };\n"
      "            let _ = self.parent.push(run);\n        }\n"
      "        self.cell.gate.advance(self.seen, JobPhase::Open).then(|| {"),
     ("tests/recovery/mod.rs", "                    for chunk in open.into_iter().flatten() {\n"
      "                        self.push(epoch.run(Span::new(chunk, chunk + 1), false));\n                    }\n", "")),
    ("loom_recover", "a rebuild does not wait", "chunk", "src/recovery.rs",
     ("        if self.words.anyone_inside(key) {\n            return Rebuild::NotYet;\n        }\n", "")),
    ("loom_recover", "no rebuild", "not complete", "src/recovery.rs",
     ("pub fn left ... Left::Unwritten\n", "Left::Nothing\n")),
    ("loom_recover", "theft under phase `Idle`", "not complete", "src/worker.rs",
     ("        self.slot().set_phase(SlotPhase::Stealing);\n", "")),
    ("loom_recover", "no `settle`", "not complete", "src/recovery.rs",
     ("        self.lane.settle(held.len() - left);\n", "        let _ = left;\n")),
    ("loom_recover", "no completion where the dead was the last to count", "not complete", "src/recovery.rs",
     ("            cell.complete_if_counted(seen, || words.lanes_of(key));\n", "")),
    ("loom_recover", "no fence in `counted`", "not complete", "src/lane.rs",
     ("pub fn counted<'l> ... fence(Ordering::SeqCst);", "")),
    ("loom_recover", "the supervisor does not ring", "nobody rang", "src/recovery.rs",
     ("        words.wake_waiters(self.outside, cell);\n", "        let _ = self.outside;\n")),
    ("loom_recover", "epoch of a run ignored", "", "src/worker.rs",
     ("Some(seen) if seen.epoch == epoch => Some((cell, seen)),", "Some(seen) if seen.epoch >= epoch || epoch > 0 => Some((cell, seen)),")),
    ("loom_recover", "the lane drained before the hand is read", "", "src/recovery.rs",
     ("        let held = match lane.hand() {", "        let rest = lane.drain();\n        let held = match lane.hand() {"),
     ("            held,\n        })\n    }\n\n    /// The slot is nobody's", "            held,\n            rest,\n        })\n    }\n\n    /// The slot is nobody's"),
     ("pub struct Claims<'a, O> { ... held: Option<Span>,", "held: Option<Span>,\n    rest: Span,"),
     ("rest: self.lane.drain(),", "rest: self.rest,")),
    ("loom_recover_again", "a hand is handed on whatever the gate", "chunk", "src/recovery.rs",
     ("        if self.seen.phase != JobPhase::Open {\n            return HandOn::Void;\n        }\n", "")),
    ("loom_recover_again", "a rebuild does not wait", "chunk", "src/recovery.rs",
     ("        if self.words.anyone_inside(key) {\n            return Rebuild::NotYet;\n        }\n", "")),
    ("loom_recover_again", "a rebuild that must wait is not asked for again", "not complete", "tests/recovery/mod.rs",
     ("            Rebuild::NotYet => return false,\n            Rebuild::Void => {}", "            Rebuild::NotYet | Rebuild::Void => {}")),
    ("loom_recover_again", "recovery after the first of two deaths only", "not complete", "tests/loom_recover_again.rs",
     ("fn both_at_once ... scene.recover(SECOND);", "")),
    ("loom_recover_again", "no `settle`", "not complete", "src/recovery.rs",
     ("        self.lane.settle(held.len() - left);\n", "        let _ = left;\n")),
]


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def copy_tree():
    COPY.mkdir(parents=True, exist_ok=True)
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=TREE).split()
    for file in files:
        to = COPY / file
        # Only what has changed, or cargo builds everything again.
        if (TREE / file).is_file() and not (to.is_file() and to.read_bytes() == (TREE / file).read_bytes()):
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TREE / file, to)


def weakened(text, old, new):
    """The text with one place changed."""
    before, found, place = old.partition(" ... ")
    start = text.index(before) if found else 0
    place = place if found else old
    at = text.index(place, start)
    if not found and text.count(place) != 1:
        raise ValueError(f"{place!r} is there {text.count(place)} times")
    return text[:at] + new + text[at + len(place):]


def try_one(model, weakening, report, file, *changes):
    """What came of it: nothing if it failed as it should."""
    texts = {}
    try:
        for *other, old, new in changes:
            name = other[0] if other else file
            texts[name] = weakened(texts.get(name) or (CRATE / name).read_text(), old, new)
    except ValueError as error:
        return f"cannot be made: {error}"
    for name, text in texts.items():
        (COPY_OF_CRATE / name).write_text(text)
    try:
        return judge(model, report)
    finally:
        for name in texts:
            shutil.copyfile(CRATE / name, COPY_OF_CRATE / name)


def judge(model, report):
    """Runs a model of the copy."""
    build = {"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": str(COPY.parent / "build"), "RUST_BACKTRACE": "0"}
    command = ["cargo", "test", "-q", "-p", "swathe-protocol", "--release", "--test", model]
    try:
        done = subprocess.run(command, cwd=COPY, env=os.environ | build, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return "does not end"
    said = done.stdout + done.stderr
    if "could not compile" in said:
        return "does not compile:\n" + said[-1500:]
    if done.returncode == 0:
        return "IS NOT SEEN"
    if report not in said:
        lines = [line for line in said.splitlines() if "panicked" in line or "left" in line or "assert" in line]
        return f"is seen otherwise: {lines[:4]}"
    return ""


def listed():
    """The lines of the README's table."""
    text = (CRATE / "src/README.md").read_text()
    table = text.partition("Seen to fail")[2]
    return {tuple(row) for row in re.findall(r"^\| `(loom_\w+)` \| (.+?) \| .+? \|$", table, re.M)}


def main():
    words = sys.argv[1:]
    here = {(model, weakening) for model, weakening, *_ in WEAKENINGS}
    faults = [f"only in this list: {line}" for line in sorted(here - listed())]
    faults += [f"only in the README: {line}" for line in sorted(listed() - here)]
    copy_tree()
    for entry in WEAKENINGS:
        name = f"{entry[0]}: {entry[1]}"
        if words and not any(word in name for word in words):
            continue
        begun = time.monotonic()
        fault = try_one(*entry)
        print(f"{time.monotonic() - begun:6.1f} s  {name}: {fault or 'seen'}", flush=True)
        if fault:
            faults.append(name)
    print(*faults, sep="\n")
    sys.exit(bool(faults))


main()
