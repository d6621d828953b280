//! `swathe top`: running pools of another process, from outside.

mod look;
mod memory;
mod show;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use console::Term;
use swathe::observe;
use swathe_os::process::Pidfd;

use crate::{args::TopArgs, failure::Result, output};
use look::Watched;

/// Looks, and shows what was seen, until the process ends.
pub(crate) fn top(args: &TopArgs) -> Result<ExitCode> {
    let interval = Duration::from_millis(args.interval.get() as u64);
    let mut watched = Watched::new(args.pid, observe::pools(args.pid)?);
    // Opened after the pools were found: if the id was given away in between, its new owner has none.
    let process = Pidfd::open(args.pid).ok();
    let is_gone = |patience| process.as_ref().is_none_or(|process| process.wait_gone(patience));
    let mut screen = Screen::new(!args.json && !args.once && std::io::stdout().is_terminal());
    watched.look();
    loop {
        let over = is_gone(interval);
        let look = watched.look();
        if args.json {
            screen.plain(&show::json(&look).to_string())?;
        } else {
            screen.draw(&show::text(&look))?;
        }
        if over {
            if !args.json {
                output::print(&format!("process {} has ended\n", args.pid))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
        watched.find_more(&look);
    }
}

/// Where the looks are shown: one over the other on a terminal, one after the other elsewhere. The terminal's modes are
/// left alone, so there is nothing to restore, however the program ends.
struct Screen {
    term: Option<Term>,
    lines: usize,
}

impl Screen {
    fn new(is_live: bool) -> Self {
        Self {
            term: is_live.then(Term::stdout),
            lines: 0,
        }
    }

    fn draw(&mut self, text: &str) -> Result<()> {
        let Some(term) = &self.term else {
            return self.plain(text);
        };
        let (rows, columns) = term.size();
        // What has scrolled away cannot be drawn over, nor can lines that the terminal breaks.
        let shown: Vec<String> = text
            .lines()
            .take(usize::from(rows).saturating_sub(1))
            .map(|line| console::truncate_str(line, usize::from(columns), "…").into_owned())
            .collect();
        term.clear_last_lines(self.lines)?;
        term.write_line(&shown.join("\n"))?;
        self.lines = shown.len();
        Ok(())
    }

    fn plain(&self, text: &str) -> Result<()> {
        output::print(&format!("{}\n", text.trim_end()))
    }
}
