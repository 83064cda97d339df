//! The kernel's selftests in trees: which tests there are, and what each needs.

use super::{list::ListError, test_progs};
use crate::{error::Error, project::Project};
use lab_base::{
    nearest::nearest,
    say::{note, say},
    text,
};
use lab_kernel_store::{ConfigWish, Kernel, KernelConfig, Source, object_source};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Where selftests are in a kernel tree.
const SELFTESTS: &str = "tools/testing/selftests";
/// Characters of a kernel's identity in names.
const IDENTITY: usize = 12;
/// Most directories below it that are looked at.
const MOST: usize = 4000;

/// Where each kernel's selftests are.
#[derive(Debug, Clone, Default)]
pub struct SelftestTrees {
    /// By the kernel's id, `tools/testing/selftests` of its tree.
    pub trees: BTreeMap<String, PathBuf>,
    /// By the kernel's id, the kernel whose sources these are, where the lab has unpacked them and may build in them.
    pub owners: BTreeMap<String, Kernel>,
    /// By the kernel's id, the folder's name for what is built for just this kernel.
    pub places: BTreeMap<String, String>,
    /// What the trees are, for messages.
    what: &'static str,
}

impl SelftestTrees {
    /// Each kernel's own sources. Those that are not on this host are fetched, or else left out with a line.
    pub fn of_kernels(project: &Project, kernels: &[&Kernel], fetches: bool) -> Result<Self, Error> {
        let (mut trees, mut owners) = (BTreeMap::new(), BTreeMap::new());
        for kernel in kernels {
            let known = project.store().known_sources(kernel, &project.lock)?;
            let tree = match known {
                Some(tree) => tree,
                None if fetches => {
                    project.ready()?;
                    project.store().sources(kernel, &project.lock, &note)?
                }
                None => {
                    say(&format!("left out: the sources of {} are not in the cache; a run fetches them", kernel.id));
                    continue;
                }
            };
            trees.insert(kernel.id.to_string(), below(&tree)?);
            if !matches!(kernel.source, Source::Path(_)) {
                owners.insert(kernel.id.to_string(), (*kernel).clone());
            }
        }
        let places = places(project, kernels)?;
        Ok(Self { trees, owners, places, what: "its sources" })
    }

    /// The sources of one kernel of `kernels.toml` for all.
    pub fn of_one(project: &Project, name: &str, kernels: &[&Kernel], fetches: bool) -> Result<Self, Error> {
        let found = lab_kernel_store::select(&project.config, &[name.to_owned()], &[])?;
        let Some(kernel) = found.first() else { return Err(Error::NothingSelected) };
        let one = Self::of_kernels(project, &[kernel], fetches)?;
        let Some(tree) = one.trees.values().next().cloned() else { return Ok(Self::default()) };
        let trees = kernels.iter().map(|kernel| (kernel.id.to_string(), tree.clone())).collect();
        let owner = one.owners.into_values().next();
        let owned = |owner: Kernel| kernels.iter().map(move |kernel| (kernel.id.to_string(), owner.clone()));
        let owners = owner.into_iter().flat_map(owned).collect();
        Ok(Self { trees, owners, places: places(project, kernels)?, what: "these sources" })
    }

    /// One tree for all kernels.
    pub fn of_tree(tree: &Path, kernels: &[&Kernel]) -> Result<Self, Error> {
        let tree = crate::project::absolute(tree)?;
        let place = below(&tree)?;
        let trees = kernels.iter().map(|kernel| (kernel.id.to_string(), place.clone())).collect();
        Ok(Self { trees, what: "this tree", ..Self::default() })
    }

    /// Where files of test_progs are built for a kernel; `None` in a tree of a person's.
    pub(super) fn place(&self, kernel: &str) -> Option<&str> {
        self.owners.get(kernel).and_then(|_| self.places.get(kernel)).map(String::as_str)
    }

    /// Why a kernel does not have a test.
    pub(super) fn absent(&self, test: &str) -> String {
        format!("{} {} no {test}", self.what, if self.what == "its sources" { "have" } else { "has" })
    }
}

/// A name for each kernel that changes with it.
fn places(project: &Project, kernels: &[&Kernel]) -> Result<BTreeMap<String, String>, Error> {
    let place = |kernel: &&Kernel| {
        let identity = project.store().identity(kernel, &project.lock)?;
        Ok((kernel.id.to_string(), format!("{}-{}", kernel.id, &identity[..IDENTITY.min(identity.len())])))
    };
    kernels.iter().map(place).collect()
}

/// The directory of selftests in a kernel tree.
///
/// # Errors
/// There is none.
pub fn below(tree: &Path) -> Result<PathBuf, Error> {
    let place = tree.join(SELFTESTS);
    if place.is_dir() {
        return Ok(place);
    }
    Err(Error::Usage(format!("{} is no kernel tree: it has no {SELFTESTS}", tree.display())))
}

/// The names of the tests that words name in a tree: files as they are, and the scripts and programs of collections, by their
/// Makefiles. `forwarding` is `net/forwarding` where only one collection is called so.
///
/// # Errors
/// A word names nothing; the error has the nearest names.
pub(super) fn named(words: &[String], top: &Path) -> Result<Vec<String>, ListError> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for word in words {
        let plain = word.trim_matches('/');
        let path = top.join(plain);
        if plain.split('/').any(|part| part == "..") {
            return Err(ListError::NoSelftest { word: text::line(word, 200), hint: String::new() });
        }
        let names = if let Some(test) = test_progs::of_word(plain, top) {
            vec![test]
        } else if path.is_file() {
            vec![plain.to_owned()]
        } else if path.join("Makefile").is_file() {
            collection(top, plain)?
        } else if let Some(test) = in_last_name(top, plain) {
            vec![test]
        } else {
            collection(top, &by_last_name(top, plain)?)?
        };
        found.extend(names.into_iter().filter(|name| seen.insert(name.clone())));
    }
    Ok(found)
}

/// The test in the only collection whose path ends so: `forwarding/router.sh`.
fn in_last_name(top: &Path, word: &str) -> Option<String> {
    let (dir, file) = word.rsplit_once('/')?;
    let test = format!("{}/{file}", by_last_name(top, dir).ok()?);
    top.join(&test).is_file().then_some(test)
}

/// The collection whose path ends so, or the error for a word that names nothing.
fn by_last_name(top: &Path, word: &str) -> Result<String, ListError> {
    let all = collections(top);
    let ending = format!("/{word}");
    let fits: Vec<&String> = all.iter().filter(|name| name.ends_with(&ending)).collect();
    if let [only] = fits[..] {
        return Ok(only.clone());
    }
    let tests = word.rsplit_once('/').map(|(dir, _)| collection(top, dir).unwrap_or_default()).unwrap_or_default();
    let names = if fits.len() > 1 {
        fits.iter().map(|name| (**name).clone()).collect()
    } else {
        let files = test_progs::words(word, top);
        nearest(word, tests.iter().chain(&files).chain(&all).map(String::as_str))
    };
    let hint = if names.is_empty() { String::new() } else { format!("; nearest: {}", names.join(", ")) };
    Err(ListError::NoSelftest { word: text::line(word, 200), hint })
}

/// The directories that have tests.
fn collections(top: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(top).max_depth(4).sort_by_file_name().into_iter().take(MOST * 10).flatten();
    let makefiles = entries.filter(|entry| entry.file_name() == "Makefile" && entry.depth() > 1);
    let dirs = makefiles.filter_map(|entry| entry.path().parent()?.strip_prefix(top).ok().map(Path::to_owned));
    dirs.take(MOST).map(|dir| dir.to_string_lossy().into_owned()).collect()
}

/// The tests of a collection: `TEST_PROGS`, and what of `TEST_GEN_PROGS` has been built.
fn collection(top: &Path, name: &str) -> Result<Vec<String>, ListError> {
    let dir = top.join(name);
    let makefile = Makefile::read(&dir)?;
    let scripts = makefile.words("TEST_PROGS").filter(|word| dir.join(word).is_file());
    let built = makefile.words("TEST_GEN_PROGS").filter(|word| dir.join(word).is_file());
    Ok(scripts.chain(built).map(|word| format!("{name}/{word}")).collect())
}

/// What a Makefile of selftests assigns.
#[derive(Debug, Default)]
struct Makefile(BTreeMap<String, Vec<String>>);

impl Makefile {
    fn read(dir: &Path) -> Result<Self, ListError> {
        let path = dir.join("Makefile");
        let text = fs::read_to_string(&path).map_err(|error| ListError::File { path, error })?;
        Ok(Self::parse(&text))
    }

    /// Assignments, whatever condition they stand under; words with variables are left out.
    fn parse(text: &str) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.replace("\\\n", " ").lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((name, value)) = line.split_once('=') else { continue };
            let name = name.trim_end_matches([':', '+', '?']).trim();
            if name.starts_with("TEST_") && name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                let words = value.split_whitespace().filter(|word| !word.contains('$')).map(str::to_owned);
                all.entry(name.to_owned()).or_default().extend(words);
            }
        }
        Self(all)
    }

    fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Programs that `make` builds here.
    fn programs(&self) -> BTreeSet<&str> {
        ["TEST_GEN_FILES", "TEST_GEN_PROGS", "TEST_GEN_PROGS_EXTENDED"]
            .iter()
            .flat_map(|name| self.words(name))
            .filter(|word| !word.contains('.'))
            .collect()
    }
}

/// Programs that selftests call and that not every host has, with Debian's packages.
const TOOLS: [(&str, &str); 31] = [
    ("arping", "iputils-arping"),
    ("bridge", "iproute2"),
    ("bpftool", "bpftool"),
    ("conntrack", "conntrack"),
    ("dropwatch", "dropwatch"),
    ("ebtables", "ebtables"),
    ("ethtool", "ethtool"),
    ("ip6tables", "iptables"),
    ("iperf3", "iperf3"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
    ("jq", "jq"),
    ("lsmod", "kmod"),
    ("mausezahn", "netsniff-ng"),
    ("modinfo", "kmod"),
    ("msend", "mtools"),
    ("nc", "netcat-openbsd"),
    ("ncat", "ncat"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("ping6", "iputils-ping"),
    ("rmmod", "kmod"),
    ("smcroutectl", "smcroute"),
    ("socat", "socat"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("teamd", "libteam-utils"),
    ("traceroute", "traceroute"),
    ("traceroute6", "traceroute"),
    ("tshark", "tshark"),
    ("udevadm", "udev"),
];

/// What a test needs and does not find.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingNeeds {
    /// Programs and eBPF objects (`.o`) of its folder that nobody has built.
    pub unbuilt: Vec<String>,
    /// Programs that are in no directory of `PATH`, each with its package.
    pub tools: Vec<(&'static str, &'static str)>,
}

/// Looks for what a test calls: by words, as its text and that of the libraries that it sources have them. `has` says whether a
/// program is in `PATH`.
pub fn missing(top: &Path, test: &str, has: &dyn Fn(&str) -> bool) -> MissingNeeds {
    let path = top.join(test);
    let dir = path.parent().unwrap_or(top);
    let makefile = Makefile::read(dir).unwrap_or_default();
    let own = script(&path);
    let own_words = words(&own);
    // A library has functions for everything; only a test's own words say what it calls of them.
    let libraries = own.lines().filter_map(sourced).filter_map(|name| fs::read_to_string(dir.join(name)).ok());
    let needed_by_libraries: BTreeSet<String> =
        libraries.flat_map(|text| required(&text)).filter(|tool| own_words.contains(&**tool)).collect();
    let called = |word: &str| own_words.contains(word) || needed_by_libraries.contains(word);
    let unbuilt = makefile.programs().into_iter().filter(|name| called(name) && !dir.join(name).is_file());
    let objects = own_words.iter().filter_map(|word| unbuilt_object(dir, word));
    let tools = TOOLS.into_iter().filter(|(name, _)| called(name) && !has(name));
    MissingNeeds { unbuilt: unbuilt.map(str::to_owned).chain(objects).collect(), tools: tools.collect() }
}

/// Where from a folder on its eBPF objects are: beside the tests, in `lib` since 6.13, among the BPF selftests before 6.6.
const OBJECTS: [&str; 4] = ["", "lib/", "bpf/", "../bpf/"];

/// The path of an eBPF object that is named and not there, if its source is.
fn unbuilt_object(dir: &Path, word: &str) -> Option<String> {
    let stem = word.strip_suffix(".o").filter(|stem| !stem.is_empty())?;
    let below = OBJECTS.into_iter().find(|below| object_source(&dir.join(format!("{below}{stem}"))).is_file())?;
    let object = format!("{below}{word}");
    (!dir.join(&object).is_file()).then_some(object)
}

/// The text of a script; nothing of a program.
fn script(path: &Path) -> String {
    let text = fs::read(path).ok().filter(|bytes| bytes.starts_with(b"#!"));
    text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The library that a line sources.
fn sourced(line: &str) -> Option<&str> {
    let line = line.trim();
    let rest = line.strip_prefix("source ").or_else(|| line.strip_prefix(". "))?;
    rest.trim().trim_matches(['"', '\'']).rsplit('/').next()
}

/// Programs that a library checks for on its own: `require_command X`.
fn required(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("require_command "));
    lines.filter_map(|rest| rest.split_whitespace().next()).map(|word| word.trim_matches('"').to_owned()).collect()
}

/// The words of a script without its comments.
fn words(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let split = |c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c));
    code.flat_map(|line| line.split(split)).map(|word| word.trim_start_matches("./").to_owned()).collect()
}

/// The options of a collection's `config` that a kernel lacks, and how many it has in all; `None` if it has no such file.
pub fn lacking(top: &Path, collection: &str, config: &KernelConfig) -> Option<(usize, Vec<String>)> {
    let wanted = KernelConfig::read(&top.join(collection).join("config")).ok()?;
    let all: Vec<(&str, &str)> = wanted.options().filter(|(_, value)| *value != "n").collect();
    let lacks = |(name, value): &&(&str, &str)| config.lacks(&ConfigWish::of_fragment(name, value)).is_some();
    let lacks = all.iter().filter(lacks).map(|(name, _)| (*name).to_owned()).collect();
    Some((all.len(), lacks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file(
            "net/Makefile",
            "TEST_PROGS := a.sh \\\n\tb.sh # c.sh\nTEST_PROGS += gone.sh $(OTHER)\nTEST_GEN_FILES = nettest x.o\nTEST_GEN_PROGS = tls\n",
        );
        file("net/a.sh", "#!/bin/sh\n# conntrack is not called\n. lib.sh\nnettest -s; mausezahn x | jq .\n");
        file("net/b.sh", "#!/bin/sh\ntrue\n");
        file(
            "net/c.sh",
            "#!/bin/sh\nBPF_FILE=\"lib/xdp_dummy.bpf.o\"\ntc filter add dev x bpf obj nat6to4.bpf.o other.o\n",
        );
        file("net/lib/xdp_dummy.bpf.c", "");
        file("net/d.sh", "#!/bin/sh\nBPF_FILE=\"../bpf/xdp_old.bpf.o\"\n");
        file("bpf/progs/xdp_old.c", "");
        file("net/nat6to4.bpf.c", "");
        file("net/nat6to4.bpf.o", "");
        file("net/lib.sh", "require_command jq\nrequire_command teamd\n");
        file("net/config", "CONFIG_VETH=y\nCONFIG_AMT=m\n# CONFIG_X is not set\n");
        file("net/forwarding/Makefile", "TEST_PROGS = router.sh\n");
        file("net/forwarding/router.sh", "#!/bin/sh\n");
        dir
    }

    #[test]
    fn words_name_files_collections_and_their_last_names() {
        let dir = tree();
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            named(&words, dir.path()).map_err(|error| error.to_string())
        };
        assert_eq!(names(&["net", "forwarding"]).unwrap(), ["net/a.sh", "net/b.sh", "net/forwarding/router.sh"]);
        assert_eq!(names(&["net/b.sh", "net"]).unwrap(), ["net/b.sh", "net/a.sh"]);
        assert_eq!(names(&["forwarding/router.sh"]).unwrap(), ["net/forwarding/router.sh"]);
        assert!(names(&["forwarding/gone.sh"]).is_err());
        let error = names(&["net/aa.sh"]).unwrap_err();
        assert!(error.contains("net/aa.sh") && error.contains("net/a.sh"), "{error}");
        assert!(names(&["../../etc/passwd"]).is_err());
    }

    #[test]
    fn what_a_test_calls_and_does_not_find_is_named() {
        let dir = tree();
        let found = missing(dir.path(), "net/a.sh", &|tool| tool == "jq");
        assert_eq!(found.unbuilt, ["nettest"]);
        assert_eq!(found.tools, [("mausezahn", "netsniff-ng")]);
        assert_eq!(missing(dir.path(), "net/b.sh", &|_| false), MissingNeeds::default());
        assert_eq!(missing(dir.path(), "net/d.sh", &|_| false).unbuilt, ["../bpf/xdp_old.bpf.o"]);
        assert_eq!(missing(dir.path(), "net/c.sh", &|_| true).unbuilt, ["lib/xdp_dummy.bpf.o"]);
        let config = KernelConfig::parse("CONFIG_VETH=m\n");
        assert_eq!(lacking(dir.path(), "net", &config), Some((2, vec!["AMT".to_owned()])));
        assert_eq!(lacking(dir.path(), "net/forwarding", &config), None);
    }
}
