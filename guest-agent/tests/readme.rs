//! The README's case is code that compiles.

use std::{fs, path::Path};

/// `examples/own_suite.rs` is compiled with the tests; the README shows a part of it.
#[test]
fn the_case_of_the_readme_is_the_one_of_the_example() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(here.join("../README.md")).unwrap();
    let (_, section) = readme.split_once("\n## A case\n").expect("a section on a case");
    let (_, code) = section.split_once("```rust\n").expect("a block of code");
    let (code, _) = code.split_once("```").expect("the block ends");
    let example = fs::read_to_string(here.join("examples/own_suite.rs")).unwrap();
    assert!(code.lines().count() > 8 && example.contains(code), "README.md shows another case:\n{code}");
}
