//! `swathe doctor`: what this machine and this job allow a pool.

mod cores;
mod finding;
mod host;
mod job;
mod limits;
mod memory;
mod pool;
mod system;

use std::{fmt::Write, process::ExitCode};

use console::style;
use serde_json::json;

use crate::{args::DoctorArgs, failure::Result, output};
use finding::{Finding, Severity};

/// Looks, tries, and tells.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    // Before anything here has started a thread or changed a signal.
    let host = host::examine();
    let findings: Vec<Finding> = [
        cores::examine(),
        memory::examine(),
        limits::examine(),
        host,
        job::examine(),
        system::examine(),
        pool::examine(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let worst = findings.iter().map(|finding| finding.severity).max();
    let worst = worst.unwrap_or(Severity::Ok);
    if args.json {
        let all = json!({
            "worst": worst.to_string(),
            "findings": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        });
        output::print(&format!("{all:#}\n"))?;
    } else {
        output::print(&text(&findings, worst))?;
    }
    Ok(ExitCode::from(match worst {
        Severity::Ok | Severity::Note => 0,
        Severity::Warning => 1,
        Severity::Failure => 2,
    }))
}

/// For people: a line a finding, under the heads of the sections.
fn text(findings: &[Finding], worst: Severity) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|f| f.what.chars().count()).max().unwrap_or(0);
    let mut section = "";
    for finding in findings {
        if finding.section != section {
            section = finding.section;
            let _ = writeln!(text, "{}", style(section).bold());
        }
        let by = finding.decided_by.as_ref();
        let by = by.map_or(String::new(), |by| format!(" ({by})"));
        let _ = writeln!(
            text,
            "  {} {:width$}  {}{}",
            mark(finding.severity),
            finding.what,
            finding.value,
            style(by).dim()
        );
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "  {:8} {:width$}  -> {remedy}", "", "");
        }
    }
    let _ = writeln!(
        text,
        "\n{}",
        match worst {
            Severity::Ok => "All is well.",
            Severity::Note => "A pool runs well here; see the notes.",
            Severity::Warning => "A pool runs here, but see the warnings.",
            Severity::Failure => "A pool cannot be run here as things are; see the failures.",
        }
    );
    text
}

fn mark(severity: Severity) -> console::StyledObject<String> {
    let text = style(format!("{severity:8}"));
    match severity {
        Severity::Ok => text.green(),
        Severity::Note => text.cyan(),
        Severity::Warning => text.yellow().bold(),
        Severity::Failure => text.red().bold(),
    }
}
