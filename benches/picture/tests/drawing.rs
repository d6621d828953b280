//! The picture of the README is what its figures give.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn figures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/figures")
        .join(name)
}

/// Draws figures that lie in a folder of their own; gives the picture.
fn drawn(name: &str, figures: &str) -> (Output, Option<String>) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("compare.json");
    fs::write(&file, figures).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_swathe-picture"))
        .arg(&file)
        .output()
        .unwrap();
    (output, fs::read_to_string(file.with_extension("svg")).ok())
}

#[test]
fn the_same_figures_give_the_same_bytes_and_these_are_in_the_readme() {
    let figures_text = fs::read_to_string(figures("compare.json")).unwrap();
    let kept = fs::read_to_string(figures("compare.svg")).unwrap();
    for name in ["first", "second"] {
        let (output, svg) = drawn(name, &figures_text);
        assert!(output.status.success(), "{output:?}");
        assert!(
            svg.as_deref() == Some(&kept),
            "docs/figures/compare.svg is not what docs/figures/compare.json gives: draw it again"
        );
    }
    assert!(
        kept.len() < 60 << 10,
        "{} bytes are too many for a page",
        kept.len()
    );
}

#[test]
fn the_picture_says_what_it_shows() {
    let kept = fs::read_to_string(figures("compare.svg")).unwrap();
    let figures: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(figures("compare.json")).unwrap()).unwrap();
    let machine = figures[0]["machine"].as_str().unwrap();
    let date = figures[0]["date"].as_str().unwrap();
    for told in [
        machine,
        date,
        "Swathe",
        "rayon",
        "OpenMP",
        "multiprocessing.Pool",
        "logarithmic",
    ] {
        assert!(kept.contains(told), "the picture does not say {told}");
    }
}

#[test]
fn figures_without_a_case_of_the_picture_are_refused() {
    let (output, svg) = drawn("none", "[]");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the figures hold no case of the picture"), "{said}");
    assert_eq!(svg, None);
}
