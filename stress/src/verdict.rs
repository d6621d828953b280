//! What a result is worth.

/// What was wrong with a result; nothing, if all is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Results or items that are missing, failed, or given up though they did no harm.
    pub lost: u64,
    /// Results or items that came twice, or were run again after they were settled.
    pub doubled: u64,
    /// Values that are neither.
    pub wrong: u64,
    /// Elements that were rightly started again.
    pub rerun: u64,
    /// Items that went with the one that held them, as they may.
    pub in_hand: u64,
    /// The first thing that was wrong, in words.
    pub complaint: Option<String>,
}

impl Verdict {
    /// Whether nothing was wrong.
    pub fn is_good(&self) -> bool {
        self.lost + self.doubled + self.wrong == 0
    }

    /// Something is missing.
    pub fn lose(&mut self, what: String) {
        self.lost += 1;
        self.complaint.get_or_insert(what);
    }

    /// Something was done twice.
    pub fn double(&mut self, what: String) {
        self.doubled += 1;
        self.complaint.get_or_insert(what);
    }

    /// Something is neither missing nor doubled, and wrong.
    pub fn reject(&mut self, what: String) {
        self.wrong += 1;
        self.complaint.get_or_insert(what);
    }
}
