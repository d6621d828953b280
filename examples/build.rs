//! Compiles the C library of the `legacy_c` example.

fn main() {
    let source = "legacy_c/calc.c";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-changed=legacy_c/calc.h");
    // Only the place is told to Cargo: the example names the library itself, so no other target links it.
    let place = std::env::var("OUT_DIR").expect("Cargo tells build scripts where to write");
    cc::Build::new()
        .file(source)
        .warnings(true)
        .extra_warnings(true)
        .cargo_metadata(false)
        .compile("calc");
    println!("cargo:rustc-link-search=native={place}");
}
