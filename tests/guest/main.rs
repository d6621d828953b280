//! Pools inside programs that do what real programs, launchers and batch systems do to their processes. Each host is a
//! process of its own (`tests/src/bin/host.rs`) that says in one line what it saw.

mod credentials;
mod descriptors;
mod host;
mod processes;
mod shortage;
mod signals;
mod start;
mod time;
