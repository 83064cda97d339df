//! Fuzz targets for foreign text: names, drawings, and their output.

use lab::run::only_draws;
use lab_base::{selection::Pattern, text};
use lab_guard::{Id, Inside};
use std::path::{Component, Path};

#[test]
fn names() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let plain = |path: &str| Path::new(path).components().all(|it| matches!(it, Component::Normal(_)));
        if let Ok(id) = Id::new(&text) {
            assert!(plain(&id) && Path::new(&*id).components().count() == 1);
        }
        if let Ok(inside) = Inside::new(&text) {
            assert!(plain(&inside) && !inside.starts_with('/'));
        }
    });
}

#[test]
fn printed() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        for (colours, ci) in [(false, false), (false, true), (true, true)] {
            let once = text::printable(&text, colours, ci);
            assert!(once.chars().all(|c| !c.is_control() || "\n\t".contains(c) || colours && c == '\x1b'), "{once:?}");
            assert_eq!(text::printable(&once, colours, ci), once, "what is safe stays");
            assert!(
                !ci || once.lines().all(|line| !line.trim().starts_with("::") && !line.contains("##[")),
                "{once:?}"
            );
        }
        let markdown = text::markdown(&text);
        assert!(!markdown.contains(['<', '>', '@', '\n']), "{markdown:?}");
    });
}

#[test]
fn drawings() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if only_draws(bytes) {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            assert!(
                !text.contains("<script") && !text.contains("<!doctype") && !text.contains("<foreignobject"),
                "{text}"
            );
        }
    });
}

/// A pattern and a name, with a NUL byte between them.
#[test]
fn patterns() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let (pattern, name) = text.split_once('\0').unwrap_or((&text, "A01-first[auto,nk-l3]"));
        for read in [Pattern::new, Pattern::of_names] {
            assert!(read(name).matches(name) && read(&format!("{pattern}*")).matches(pattern), "{text:?}");
            let plain = !pattern.contains(['*', '?']);
            assert!(!plain || !Pattern::new(pattern).matches(name) || pattern == name, "{text:?}");
        }
    });
}
