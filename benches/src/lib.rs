//! Benchmarks of Swathe's parts. Run: `cargo bench -p swathe-benches`.
