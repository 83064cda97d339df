//! A machine's command line, recorded from the running machine to start another one like it.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Paths and names that differ between two launches of the same machine.
#[derive(Debug)]
pub struct Places<'a> {
    /// The launch's own directory, with its sockets.
    pub dir: &'a Path,
    /// QEMU's `-name`.
    pub name: &'a str,
    /// The memory file.
    pub memory: &'a Path,
}

impl Places<'_> {
    /// Braces can't occur in a path or name that virtme-ng passes on, so a placeholder is never mistaken.
    fn pairs(&self) -> [(&'static str, String); 3] {
        [
            ("{memory}", self.memory.to_string_lossy().into_owned()),
            ("{dir}", self.dir.to_string_lossy().into_owned()),
            ("{name}", self.name.to_owned()),
        ]
    }
}

/// How to start the machine again: QEMU's own command line, with placeholders for what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The program that made the snapshot.
    pub program: PathBuf,
    arguments: Vec<String>,
}

impl Recipe {
    /// From a running machine.
    pub fn record(program: PathBuf, arguments: &[String], places: &Places<'_>) -> Self {
        let general = |word: &String| {
            let word =
                word.replace(&format!("mem-path={},share=on", places.memory.display()), "mem-path={memory},share=off");
            places.pairs().iter().fold(word, |word, (placeholder, value)| word.replace(value, placeholder))
        };
        Self { program, arguments: arguments.iter().map(general).collect() }
    }

    /// The arguments for another launch.
    pub fn replay(&self, places: &Places<'_>) -> Vec<String> {
        let special = |word: &String| {
            places.pairs().iter().fold(word.clone(), |word, (placeholder, value)| word.replace(placeholder, value))
        };
        self.arguments.iter().map(special).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_started_again_with_its_own_places_and_a_private_memory() {
        let words: Vec<String> = [
            "-name",
            "nkl.1.2.3.a-1",
            "-object",
            "memory-backend-file,id=ram,size=512M,mem-path=/c/.stage-x/memory,share=on",
            "-qmp",
            "unix:/tmp/gAAA/qmp,server=on,wait=off",
            "-append",
            "virtme_hostname=nkl.1.2.3.a-1 quiet",
        ]
        .map(str::to_owned)
        .to_vec();
        let old =
            Places { dir: Path::new("/tmp/gAAA"), name: "nkl.1.2.3.a-1", memory: Path::new("/c/.stage-x/memory") };
        let recipe = Recipe::record("/usr/bin/qemu".into(), &words, &old);
        let new = Places { dir: Path::new("/tmp/gBBB"), name: "nkl.1.9.9.b-7", memory: Path::new("/c/key/memory") };
        assert_eq!(
            recipe.replay(&new).join(" "),
            "-name nkl.1.9.9.b-7 -object memory-backend-file,id=ram,size=512M,mem-path=/c/key/memory,share=off \
             -qmp unix:/tmp/gBBB/qmp,server=on,wait=off -append virtme_hostname=nkl.1.9.9.b-7 quiet"
        );
    }
}
