//! The way of a process through what is tested, instruction by instruction.

use std::{collections::HashMap, io};

use crate::tracee::{Call, Tracee, Went, image_base};

/// The most instructions of a course: a process that does not come to its end runs in a circle.
const LONGEST: usize = 2_000_000;

/// How far back from an instruction a breakpoint is looked for.
const FARTHEST: usize = 1000;
/// What passing a breakpoint costs, in single steps.
const PASS: usize = 4;

/// Memory is laid out in units of this.
const PAGE: u64 = 4096;

/// Where a course ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Where the process goes to sleep on a futex, or ends.
    Sleep,
    /// At the next marker.
    Marker,
    /// Whichever comes first.
    SleepOrMarker,
}

/// The addresses of all instructions from a beginning to an end, as a process executed them once.
#[derive(Debug)]
pub(super) struct Course {
    /// For each its address, and how often the process had come by there, this time included.
    steps: Vec<(u64, u32)>,
    base: u64,
    /// Whether the last instruction is a sleep: then the process can be killed in the midst of it, too.
    asleep: bool,
}

impl Course {
    /// Steps a process to the end of the course, and notes down its way.
    ///
    /// # Errors
    /// If the kernel refuses, or there is no end.
    pub(super) fn record(tracee: &mut Tracee, end: End) -> io::Result<Self> {
        let mut passes = HashMap::new();
        let mut course = Self {
            steps: Vec::new(),
            base: image_base(tracee.pid()),
            asleep: false,
        };
        loop {
            let place = tracee.place()?;
            let index = course.steps.len();
            let passed = passes.entry(place.pc).or_insert(0);
            let repeats = index > 0 && course.steps[index - 1].0 == place.pc;
            *passed += u32::from(!repeats);
            course.steps.push((place.pc, *passed));
            let over = match place.call {
                Call::FutexWait => end != End::Marker,
                Call::Marker => end != End::Sleep,
                Call::None | Call::Other => false,
            };
            if over && index > 0 {
                course.asleep = place.call == Call::FutexWait;
                return Ok(course);
            }
            if course.step(tracee, index)? == Went::Ended {
                return Ok(course);
            }
            if index > LONGEST {
                return Err(io::Error::other("the process does not come to an end"));
            }
        }
    }

    /// Goes on from before instruction `index` to before the next.
    ///
    /// An instruction that repeats itself (`rep movs`) stops after every repetition. Two such stops are noted, before it
    /// and amid it; the others are passed over.
    fn step(&self, tracee: &mut Tracee, index: usize) -> io::Result<Went> {
        if index > 0 && self.steps[index - 1].0 == self.steps[index].0 {
            tracee.step_past()
        } else {
            tracee.step()
        }
    }

    fn steps(&self, tracee: &mut Tracee, from: usize, to: usize) -> io::Result<Went> {
        for index in from..to {
            if self.step(tracee, index)? == Went::Ended {
                return Ok(Went::Ended);
            }
        }
        Ok(Went::There)
    }

    /// How many instructions there are, the one at the end included.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// In how many places a process can be killed: before every instruction, and asleep at the end.
    pub(super) fn deaths(&self) -> usize {
        self.len() + usize::from(self.asleep)
    }

    /// Whether the last instruction puts it to sleep.
    pub(super) fn ends_asleep(&self) -> bool {
        self.asleep
    }

    /// The address of an instruction in the executable's file.
    pub(super) fn offset(&self, index: usize) -> u64 {
        self.steps[index.min(self.len() - 1)].0.wrapping_sub(self.base)
    }

    /// Brings another process, which stands at the beginning, to before instruction `index`: at full speed to a
    /// breakpoint on the way, then step by step. Behind the last, it is put to sleep. [`Went::Elsewhere`]: it went
    /// another way, and stands somewhere else.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn bring(&self, tracee: &mut Tracee, index: usize) -> io::Result<Went> {
        if index == self.len() {
            return match self.bring(tracee, index - 1)? {
                Went::There => tracee.fall_asleep(),
                went => Ok(went),
            };
        }
        let from = self.breakpoint(index);
        if from > 0 {
            let (pc, nth) = self.steps[from];
            let went = tracee.run_to(pc, nth)?;
            if went != Went::There {
                return Ok(went);
            }
        }
        if self.steps(tracee, from, index)? == Went::Ended {
            return Ok(Went::Ended);
        }
        if tracee.place()?.pc == self.steps[index].0 {
            Ok(Went::There)
        } else {
            Ok(Went::Elsewhere)
        }
    }

    /// As [`bring`](Self::bring), for another run of the same program: it lies elsewhere in memory, so it is stepped all
    /// the way.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn walk(&self, tracee: &mut Tracee, index: usize) -> io::Result<Went> {
        if self.steps(tracee, 0, index.min(self.len() - 1))? == Went::Ended {
            return Ok(Went::Ended);
        }
        if index == self.len() {
            return tracee.fall_asleep();
        }
        // What lies elsewhere lies as far into its page as ever.
        if (tracee.place()?.pc ^ self.steps[index].0).is_multiple_of(PAGE) {
            Ok(Went::There)
        } else {
            Ok(Went::Elsewhere)
        }
    }

    /// The instruction from which on stepping is cheapest, 0 for the beginning.
    fn breakpoint(&self, index: usize) -> usize {
        let cost = |&from: &usize| match from {
            0 => index,
            _ => index - from + PASS * self.steps[from].1 as usize,
        };
        let is_come_by = |&from: &usize| from == 0 || self.steps[from - 1].0 != self.steps[from].0;
        (index.saturating_sub(FARTHEST)..=index)
            .chain([0])
            .filter(is_come_by)
            .min_by_key(cost)
            .unwrap_or(0)
    }
}
