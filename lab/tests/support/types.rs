//! Finds the types and functions that source files declare, line by line: the workspace is formatted by rustfmt.

use std::{fs, path::Path};

/// A declaration, with the place for messages.
pub struct Declared {
    /// Name of the type or function.
    pub name: String,
    /// Text after the name, up to the body.
    pub rest: String,
    /// `file:line`.
    pub place: String,
}

/// Every Rust file below a directory, without tests: path and code.
fn sources(directory: &Path) -> Vec<(String, String)> {
    let all = walkdir::WalkDir::new(directory).into_iter().map(|entry| entry.expect("sources are readable"));
    let mut found = Vec::new();
    for entry in all.filter(|entry| entry.path().extension().is_some_and(|end| end == "rs")) {
        if entry.file_name().to_string_lossy().ends_with("_tests.rs") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).expect("sources are text");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        found.push((entry.path().display().to_string(), code));
    }
    found
}

/// What follows `pub`, `pub(crate)` and the like; none where the line declares nothing public.
fn public(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    match rest.strip_prefix('(') {
        Some(restricted) => restricted.split_once(") ").map(|(_, rest)| rest),
        None => rest.strip_prefix(' '),
    }
}

fn name_of(rest: &str) -> String {
    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The public types of a crate, those that only the crate sees among them; `source` is its `src` directory.
pub fn types(source: &Path) -> Vec<Declared> {
    let mut found = Vec::new();
    for (path, code) in sources(source) {
        for (at, line) in code.lines().enumerate() {
            let Some(rest) = public(line) else { continue };
            let kinds = ["struct ", "enum ", "union ", "trait ", "type "];
            let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
            if let Some(rest) = kinds.iter().find_map(|kind| rest.strip_prefix(kind)) {
                let place = format!("{path}:{}", at + 1);
                found.push(Declared { name: name_of(rest), rest: rest.to_owned(), place });
            }
        }
    }
    found
}

/// Lines that parse a text and give text for an error; `source` is a `src` directory.
pub fn parsers_with_text_for_error(source: &Path) -> Vec<Declared> {
    let mut found = Vec::new();
    for (path, code) in sources(source) {
        let lines = code.lines().enumerate().filter(|(_, line)| line.trim() == "type Err = String;");
        found.extend(lines.map(|(at, line)| Declared {
            name: "from_str".to_owned(),
            rest: line.to_owned(),
            place: format!("{path}:{}", at + 1),
        }));
    }
    found
}

/// The public functions of a crate, and the methods of its public traits; `source` is its `src` directory.
pub fn functions(source: &Path) -> Vec<Declared> {
    let mut found = Vec::new();
    for (path, code) in sources(source) {
        let lines: Vec<&str> = code.lines().collect();
        // Indentation of the public trait that the line is in.
        let mut within: Option<usize> = None;
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if within == Some(indent) && line.trim() == "}" {
                within = None;
            }
            let declared = public(line);
            if declared.is_some_and(|rest| rest.starts_with("trait ") && rest.ends_with('{')) {
                within = Some(indent);
            }
            let method = within.map(|_| line.trim_start());
            let Some(rest) = declared.or(method) else { continue };
            let rest =
                ["const ", "unsafe ", "async "].iter().fold(rest, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
            let Some(rest) = rest.strip_prefix("fn ") else { continue };
            let mut whole = rest.to_owned();
            for next in &lines[at + 1..] {
                if whole.ends_with(['{', ';', '}']) {
                    break;
                }
                whole.push(' ');
                whole.push_str(next.trim());
            }
            let place = format!("{path}:{}", at + 1);
            found.push(Declared { name: name_of(rest), rest: whole, place });
        }
    }
    found
}

/// Whether a signature names `Result<_, String>`, also as a part of another type.
pub fn has_text_for_error(signature: &str) -> bool {
    signature.match_indices("Result<").any(|(at, opening)| {
        let inner = &signature[at + opening.len()..];
        let (mut depth, mut last) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '<' | '(' | '[' => depth += 1,
                '>' if inner[..at].ends_with('-') => {}
                '>' if depth == 0 => {
                    return inner[last..at].trim().trim_end_matches(',').trim() == "String" && last > 0;
                }
                '>' | ')' | ']' => depth -= 1,
                ',' if depth == 0 && !inner[at + 1..].trim_start().starts_with('>') => last = at + 1,
                _ => {}
            }
        }
        false
    })
}

/// Places where an error prints its `source` and returns it too: a caller that prints the chain says it twice.
pub fn sources_that_are_printed(source: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in sources(source) {
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let begins = line.trim().starts_with("#[error(") || at > 0 && lines[at - 1].trim() == "#[error(";
            if begins && line.contains("{source") {
                found.push(format!("{path}:{}", at + 1));
            }
        }
    }
    found
}
