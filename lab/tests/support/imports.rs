//! Finds the imports between source files by their `use` declarations and paths, without tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A module's path in its crate; empty for the root.
pub type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Re-exported names: module and name, and the path that they refer to.
type Renamed = BTreeMap<(Module, String), Vec<String>>;

/// The modules of a crate that are separate files, with their text; `source` is its `src` directory.
fn modules(source: &Path) -> BTreeMap<Module, String> {
    let all = walkdir::WalkDir::new(source).into_iter().map(|entry| entry.expect("sources are readable"));
    let mut found = BTreeMap::new();
    for entry in all.filter(|entry| entry.path().extension().is_some_and(|end| end == "rs")) {
        let path = entry.path().strip_prefix(source).expect("below the source").with_extension("");
        let mut module: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let test = |part: &String| matches!(&**part, "tests" | "testing" | "fuzz" | "main") || part.ends_with("_tests");
        if module.iter().any(test) {
            continue;
        }
        module.pop_if(|last| matches!(&**last, "mod" | "lib"));
        let text = fs::read_to_string(entry.path()).expect("sources are text");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        found.insert(module, lines.collect::<Vec<_>>().join("\n"));
    }
    found
}

/// The paths of a use tree, each with the name that it declares.
fn leaves(tree: &str, before: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some((head, rest)) = tree.split_once('{') {
        let names = head.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
        let before: Vec<String> = before.iter().cloned().chain(names).collect();
        let body = rest.strip_suffix('}').expect("a brace is closed");
        let (mut depth, mut begin) = (0, 0);
        for (at, c) in body.char_indices().chain([(body.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !body[begin..at].trim().is_empty() {
                        leaves(&body[begin..at], &before, found);
                    }
                    begin = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path: Vec<String> = before.iter().cloned().chain(path.split("::").map(|it| it.trim().to_owned())).collect();
    path.pop_if(|last| last == "self");
    let name = if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.trim().to_owned() };
    found.push((path, name));
}

/// A path from the crate's root; `None` if it leaves the crate.
fn absolute(path: &[String], module: &Module, known: &BTreeMap<Module, String>) -> Option<Vec<String>> {
    let mut base = module.clone();
    let mut rest = path;
    match &*path.first()?.clone() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        child => {
            base.push(child.to_owned());
            known.contains_key(&base).then_some(())?;
            rest = &path[1..];
        }
    }
    Some(base.into_iter().chain(rest.iter().cloned()).collect())
}

/// The visibility of the `use` declaration that a line starts; `None` if it starts none. A sentence with the word `use` is
/// not followed by a path.
fn declaration(line: &str) -> Option<&str> {
    let (visibility, tree) = line.trim().split_once("use ")?;
    let path = tree.split_whitespace().next().is_some_and(|word| word.contains("::"));
    (path && (visibility.is_empty() || visibility.starts_with("pub") && visibility.ends_with(' ')))
        .then_some(visibility)
}

/// The file that contains the target of a path.
fn file(path: &[String], known: &BTreeMap<Module, String>, renamed: &Renamed, depth: u32) -> Option<Module> {
    let module = (0..=path.len()).rev().map(|end| path[..end].to_vec()).find(|module| known.contains_key(module))?;
    let further = path.get(module.len()).and_then(|name| renamed.get(&(module.clone(), name.clone())));
    match further {
        Some(target) if depth < 8 => {
            let whole: Vec<String> = target.iter().chain(&path[module.len() + 1..]).cloned().collect();
            file(&whole, known, renamed, depth + 1)
        }
        _ => Some(module),
    }
}

/// The imports of each file. Imports of parent modules are ignored: these contain what their files share.
fn graph(source: &Path) -> Graph {
    let known = modules(source);
    let mut renamed = Renamed::new();
    let mut paths: BTreeMap<Module, Vec<Vec<String>>> = BTreeMap::new();
    for (module, text) in &known {
        let found = paths.entry(module.clone()).or_default();
        let mut rest = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(visibility) = declaration(line) else {
                rest.push_str(line);
                rest.push('\n');
                continue;
            };
            let mut whole = line.trim()[visibility.len() + "use ".len()..].to_owned();
            while !whole.ends_with(';') {
                whole.push_str(lines.next().expect("a declaration ends").trim());
            }
            let mut names = Vec::new();
            leaves(whole.trim_end_matches(';'), &[], &mut names);
            for (path, name) in names {
                let Some(path) = absolute(&path, module, &known) else { continue };
                if !visibility.is_empty() {
                    renamed.insert((module.clone(), name), path.clone());
                }
                found.push(path);
            }
        }
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for path in rest.split(|c| !word(c)).filter(|path| path.contains("::")) {
            let path: Vec<String> = path.split("::").map(str::to_owned).collect();
            found.extend(absolute(&path, module, &known));
        }
    }
    let uses = |(module, paths): (Module, Vec<Vec<String>>)| {
        let files = paths.iter().filter_map(|path| file(path, &known, &renamed, 0));
        let used = files.filter(|used| !module.starts_with(used)).collect();
        (module, used)
    };
    paths.into_iter().map(uses).collect()
}

fn reachable<'a>(graph: &'a Graph, from: &Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(module) = waiting.pop() {
        for next in &graph[&module] {
            if seen.insert(next) {
                waiting.push(next.clone());
            }
        }
    }
    seen
}

/// Groups of files that form import cycles, by their paths in the crate.
pub fn circles(source: &Path) -> Vec<Vec<String>> {
    let graph = graph(source);
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 0, "{}: no file uses another", source.display());
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = graph.keys().map(|it| (it, reachable(&graph, it))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (module, seen) in reach.iter().filter(|(module, seen)| seen.contains(*module)) {
        let group = seen.iter().filter(|other| reach[**other].contains(module));
        found.insert(group.map(|module| module.join("::")).collect());
    }
    found.into_iter().collect()
}
