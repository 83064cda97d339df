//! A machine's command line, recorded to start an equal machine.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Paths and names that differ between two launches of the same machine.
#[derive(Debug)]
pub struct Places<'a> {
    /// The directory of the launch, with its sockets.
    pub dir: &'a Path,
    /// QEMU's `-name`.
    pub name: &'a str,
    /// Path of the memory file.
    pub memory: &'a Path,
}

impl Places<'_> {
    /// Placeholders contain braces, which can't occur in values that virtme-ng passes on.
    fn pairs(&self) -> [(&'static str, String); 3] {
        [
            ("{memory}", self.memory.to_string_lossy().into_owned()),
            ("{dir}", self.dir.to_string_lossy().into_owned()),
            ("{name}", self.name.to_owned()),
        ]
    }
}

/// How to start the machine again: QEMU's command line, with placeholders for values that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The QEMU program that created the snapshot.
    pub program: PathBuf,
    arguments: Vec<String>,
}

impl Recipe {
    /// Records a running machine.
    pub fn record(program: PathBuf, arguments: &[String], places: &Places<'_>) -> Self {
        let general = |word: &String| {
            let word =
                word.replace(&format!("mem-path={},share=on", places.memory.display()), "mem-path={memory},share=off");
            places.pairs().iter().fold(word, |word, (placeholder, value)| word.replace(value, placeholder))
        };
        Self { program, arguments: arguments.iter().map(general).collect() }
    }

    /// The arguments for another launch, which gets its state from a snapshot: without what only a boot reads. The kernel and the
    /// image are in the guest's memory, and QEMU would map and check a hundred megabytes that nobody asks it for.
    pub fn replay(&self, places: &Places<'_>) -> Vec<String> {
        let special = |word: &String| {
            places.pairs().iter().fold(word.clone(), |word, (placeholder, value)| word.replace(placeholder, value))
        };
        let mut words = Vec::new();
        let mut all = self.arguments.iter();
        while let Some(word) = all.next() {
            match &**word {
                "-kernel" | "-initrd" | "-append" => drop(all.next()),
                _ => words.push(special(word)),
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_restarted_with_new_paths_and_private_memory() {
        let words: Vec<String> = [
            "-name",
            "nkl.1.2.3.a-1",
            "-object",
            "memory-backend-file,id=ram,size=512M,mem-path=/c/.stage-x/memory,share=on",
            "-qmp",
            "unix:/tmp/gAAA/qmp,server=on,wait=off",
            "-kernel",
            "/k/vmlinuz",
            "-append",
            "virtme_hostname=nkl.1.2.3.a-1 quiet",
            "-initrd",
            "/k/image",
            "-nodefaults",
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
             -qmp unix:/tmp/gBBB/qmp,server=on,wait=off -nodefaults",
            "what only a boot reads is left out"
        );
    }
}
