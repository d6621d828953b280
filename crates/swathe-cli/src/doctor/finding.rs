//! One thing that was found out.

use std::fmt;

use serde_json::{Value, json};
use swathe_os::text::shown;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Ok,
    /// Worth knowing.
    Note,
    /// Pools are slower, smaller or less sure than they could be.
    Warning,
    /// No pool can be run.
    Failure,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "failure",
        })
    }
}

/// One thing that was found out.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) section: &'static str,
    pub(crate) what: String,
    pub(crate) value: String,
    /// Who decided that it is so.
    pub(crate) decided_by: Option<String>,
    pub(crate) severity: Severity,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub(crate) fn ok(section: &'static str, what: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            section,
            what: what.into(),
            value: shown(&value.into()).to_string(),
            decided_by: None,
            severity: Severity::Ok,
            remedy: None,
        }
    }

    /// Who decided.
    pub(crate) fn by(mut self, who: impl Into<String>) -> Self {
        self.decided_by = Some(shown(&who.into()).to_string());
        self
    }

    /// It is not as it should be, and this can be done about it.
    pub(crate) fn but(mut self, severity: Severity, remedy: impl Into<String>) -> Self {
        self.severity = severity;
        self.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "section": self.section,
            "what": self.what,
            "value": self.value,
            "decided_by": self.decided_by,
            "severity": self.severity.to_string(),
            "remedy": self.remedy,
        })
    }
}
