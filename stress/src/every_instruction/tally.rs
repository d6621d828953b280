//! What a case came to.

use std::{fmt, time::Duration};

use crate::{tracee::Went, verdict::Verdict};

/// How many complaints are kept.
const KEPT: usize = 5;

/// The sums over all trials of a case.
#[derive(Clone, Debug)]
pub struct Tally {
    name: String,
    /// Instructions of the course.
    pub instructions: usize,
    /// Processes killed.
    pub deaths: u64,
    /// Trials in which the process had gone another way than when the course was recorded, and was killed there.
    pub astray: u64,
    /// Sums of the verdicts.
    pub sum: Verdict,
    /// Trials that never ended.
    pub hung: u64,
    /// How long all of it took.
    pub took: Duration,
    complaints: Vec<String>,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new(name: &str, instructions: usize) -> Self {
        Self {
            name: name.to_owned(),
            instructions,
            deaths: 0,
            astray: 0,
            sum: Verdict::default(),
            hung: 0,
            took: Duration::ZERO,
            complaints: Vec::new(),
        }
    }

    /// One trial more: where the process was when it was killed, and what came of it. `None`: somebody waits for ever.
    pub(super) fn count(&mut self, deed: Option<(Went, Verdict)>) {
        let Some((went, verdict)) = deed else {
            self.deaths += 1;
            self.hung += 1;
            return;
        };
        self.deaths += u64::from(went != Went::Ended);
        self.astray += u64::from(went == Went::Elsewhere);
        self.sum.lost += verdict.lost;
        self.sum.doubled += verdict.doubled;
        self.sum.wrong += verdict.wrong;
        self.sum.rerun += verdict.rerun;
        self.sum.in_hand += verdict.in_hand;
    }

    /// Keeps what was wrong after a death before instruction `index`.
    pub(super) fn complain(&mut self, index: usize, offset: u64, what: &str) {
        if self.complaints.len() < KEPT {
            let complaint =
                format!("killed before instruction {index} (at {offset:#x} of the executable): {what}");
            self.complaints.push(complaint);
        }
    }

    /// Whether nothing was lost, doubled, wrong or late.
    pub fn is_good(&self) -> bool {
        self.sum.is_good() && self.hung == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            instructions,
            deaths,
            astray,
            sum,
            hung,
            took,
            complaints,
        } = self;
        write!(
            f,
            "{name:24} {instructions:7} instructions, {deaths:6} deaths ({astray} beside the way), lost {}, doubled {}, \
             wrong {}, hung {hung}; started again {}, gone with the dead {}; {:.1} s",
            sum.lost,
            sum.doubled,
            sum.wrong,
            sum.rerun,
            sum.in_hand,
            took.as_secs_f64()
        )?;
        complaints
            .iter()
            .try_for_each(|complaint| write!(f, "\n    {complaint}"))
    }
}
