//! Runs the tests of the example's parts. A target of its own, because `cargo test` does not build an example as a
//! program when that is its own test.

#![allow(dead_code, reason = "the program that calls the parts is not here")]

mod bank;
mod filter;
mod plot;
mod psd;
mod strain;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
