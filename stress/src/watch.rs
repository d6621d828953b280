//! A watchdog: a stress run that stands still ends with a message, not never.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// After this long without a sign of life a run is taken to hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends the whole program unless it hears something now and then, or is dropped.
#[derive(Debug)]
pub struct Watch(mpsc::Sender<()>);

impl Watch {
    /// Watches over something with this name.
    pub fn over(name: &str) -> Self {
        let name = name.to_owned();
        let (alive, hear) = mpsc::channel();
        thread::spawn(move || {
            loop {
                match hear.recv_timeout(PATIENCE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("{name} has stood still for {} s", PATIENCE.as_secs());
                        std::process::abort();
                    }
                }
            }
        });
        Self(alive)
    }

    /// It goes on.
    pub fn still_alive(&self) {
        let _ = self.0.send(());
    }
}
