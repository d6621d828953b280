//! Input that makes no sense, and machines that cannot give what is asked: each is an error whose text says what, where
//! and what to do; none is a panic, a hang, or harm to the rest of the pool.

swathe::init_before_main!();

mod files;
mod jobs;
mod neighbours;
mod pools;
mod records;

/// The text of an error, which must come.
fn text<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.to_string(),
    }
}
