//! Builds an image from a specification.

use crate::{
    agent::check_agent,
    archive::CpioArchive,
    base::{self, BaseImage, ImagePart},
    cache,
    decompress::read_module,
    deps::{Index, Provided},
    error::ImageError,
    signature::unsigned,
    toolbox::Toolbox,
    wanted::ModuleList,
};
use lab_base::{facts::Facts, held::HeldFile};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Format version: increase it if the same inputs give a different image.
const FORMAT: u32 = 3;
/// Directories of every image.
const DIRECTORIES: [&str; 9] = ["dev", "etc", "lib", "lib/bpf", "lib/modules", "proc", "run", "sys", "tmp"];

/// The agent in an image.
const AGENT: &str = "init";

/// What the guests of an image will be sent. An image is not built then if there is one that differs in that alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sends {
    /// Nothing: they get exactly this image.
    Nothing,
    /// The exchangeable objects.
    Objects,
    /// Those, and an agent, which takes the place of the one that runs.
    Agent,
}

/// Specification of an image.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The kernel's id in the matrix; written into the image.
    pub kernel_id: &'a str,
    /// Directory with `modules.dep`, `modules.builtin` and the module files; `None` for a kernel without modules.
    pub modules: Option<&'a Path>,
    /// The agent, statically linked.
    pub agent: &'a HeldFile,
    /// The BPF objects, by their names in the image.
    pub objects: &'a [(&'a str, &'a [u8])],
    /// Those that the agent can be sent later.
    pub exchangeable: &'a [&'a str],
    /// What its guests will be sent.
    pub sends: Sends,
    /// Version of what the agent and the host say to each other: an agent of another one can't be sent anything.
    pub protocol: u32,
    /// The modules that the suite needs.
    pub wanted: &'a ModuleList,
    /// A shell and tools, for interactive images.
    pub toolbox: Option<&'a Toolbox>,
    /// Whether modules keep their signatures. Verifying them takes a sixth of a guest's boot.
    pub signed: bool,
    /// Root of the cache; images are in `images/` below it.
    pub cache: &'a Path,
    /// What is known of files that have not changed.
    pub facts: &'a Facts,
}

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The file: a newc cpio archive.
    pub path: PathBuf,
    /// SHA-256 of all inputs, hexadecimal.
    pub key: String,
    /// Objects that the image holds in another version, and that its guests must be sent. The key is that of the right ones.
    pub to_send: Vec<String>,
    /// The same of the agent.
    pub sends_agent: bool,
    /// Whether the image was already in the cache.
    pub cached: bool,
    /// Wanted modules in the image.
    pub modules: Vec<String>,
    /// Wanted modules that are built into the kernel.
    pub builtin: Vec<String>,
    /// Wanted modules that the kernel does not have.
    pub missing: Vec<String>,
}

impl Spec<'_> {
    fn is_exchanged(&self, (name, _): &(&str, &[u8])) -> bool {
        self.exchangeable.contains(name)
    }

    fn agent_sum(&self) -> Result<String, ImageError> {
        self.agent.sha256(self.facts).map_err(ImageError::io("agent", self.agent.path()))
    }
}

/// Images that differ in nothing but parts which guests can be sent.
struct Family {
    /// A hash over everything else.
    name: String,
    parts: Vec<ImagePart>,
}

impl Family {
    /// That of the objects, and that of the objects and the agent.
    fn both(spec: &Spec<'_>, plan: &ModulePlan) -> Result<[Self; 2], ImageError> {
        let (exchanged, kept): (Vec<_>, Vec<_>) = spec.objects.iter().copied().partition(|it| spec.is_exchanged(it));
        let sum = |(name, bytes): (&str, &[u8])| (name.to_owned(), lab_base::hex::hex(&Sha256::digest(bytes)));
        let objects: Vec<ImagePart> = exchanged.into_iter().map(sum).collect();
        let agent = (AGENT.to_owned(), spec.agent_sum()?);
        let name = spec.agent.path().file_name().unwrap_or_default();
        Ok([
            Self { name: key(spec, plan, &kept, &agent.1)?, parts: objects.clone() },
            // One of another name is another program, which may not know how to take the place of this one.
            Self {
                name: key(spec, plan, &kept, &format!("protocol {} {}", spec.protocol, name.to_string_lossy()))?,
                parts: objects.into_iter().chain([agent]).collect(),
            },
        ])
    }
}

/// Builds the image, or finds it in the cache.
///
/// # Errors
/// [`ImageError`]: an input is missing or invalid, or the cache can't be written.
pub fn build(spec: &Spec<'_>) -> Result<Image, ImageError> {
    if spec.objects.is_empty() {
        return Err(ImageError::NoObjects);
    }
    let plan = ModulePlan::new(spec.modules, spec.wanted)?;

    let key = key(spec, &plan, spec.objects, &spec.agent_sum()?)?;
    let mut path = cache::path_of(spec.cache, &key, "cpio");
    let mut to_send = Vec::new();
    let mut cached = cache::touch(&path);
    if !cached {
        let families = Family::both(spec, &plan)?;
        let sent = match spec.sends {
            Sends::Nothing => &families[..0],
            Sends::Objects => &families[..1],
            Sends::Agent => &families,
        };
        let base = sent.iter().find_map(|family| base::find(spec.cache, &family.name, &family.parts));
        let is_agent_worth_it = |base: &BaseImage| {
            !base.differ.iter().any(|part| part == AGENT) || !base::was_sent_enough(spec.cache, &key)
        };
        if let Some(BaseImage { path: other, differ }) = base.filter(is_agent_worth_it) {
            (path, to_send, cached) = (other, differ, true);
        } else {
            check_agent(spec.agent)?;
            let modules = plan.unpack(spec.signed)?;
            let bytes = assemble(spec, &key, &plan, &modules).map_err(ImageError::io("image", &path))?;
            cache::store(&path, &bytes)?;
            families.iter().for_each(|family| base::note(spec.cache, &family.name, &key, &family.parts));
        }
    }
    let sends_agent = to_send.iter().any(|part| part == AGENT);
    if sends_agent {
        check_agent(spec.agent)?;
        to_send.retain(|part| part != AGENT);
    }
    let ModulePlan { carried: modules, builtin, missing, .. } = plan;
    Ok(Image { path, key, to_send, sends_agent, cached, modules, builtin, missing })
}

/// The module files of an image, and the order in which the guest loads them.
#[derive(Default)]
struct ModulePlan {
    /// Names with files on the host.
    files: BTreeMap<String, PathBuf>,
    /// Content of `/lib/modules/load-order`.
    load_order: String,
    carried: Vec<String>,
    builtin: Vec<String>,
    missing: Vec<String>,
}

impl ModulePlan {
    fn new(dir: Option<&Path>, wanted: &ModuleList) -> Result<Self, ImageError> {
        let Some(dir) = dir else { return Ok(Self::default()) };
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(ImageError::io("module index", &path))
        };
        let broken = |name: &str| {
            let path = dir.join(name);
            move |problem| ImageError::Index { path, problem }
        };
        let mut index = Index::parse_dep(&read("modules.dep")?).map_err(broken("modules.dep"))?;
        index.add_builtin(&read("modules.builtin")?).map_err(broken("modules.builtin"))?;

        let mut plan = Self::default();
        for name in wanted.names() {
            let mut files = String::new();
            match index.provide(name).map_err(broken("modules.dep"))? {
                Provided::Files(closure) => {
                    for (module, path) in closure {
                        files.push_str(&format!(" {module}.ko"));
                        plan.files.insert(module, dir.join(path));
                    }
                    plan.carried.push(name.to_owned());
                }
                Provided::BuiltIn => plan.builtin.push(name.to_owned()),
                Provided::Missing => {
                    plan.missing.push(name.to_owned());
                    continue;
                }
            }
            plan.load_order.push_str(&format!("{name}:{files}\n"));
        }
        Ok(plan)
    }

    fn unpack(&self, signed: bool) -> Result<BTreeMap<&str, Vec<u8>>, ImageError> {
        let read = |path| read_module(path).map(|module| if signed { module } else { unsigned(module) });
        self.files.iter().map(|(name, path)| Ok((name.as_str(), read(path)?))).collect()
    }
}

/// Hashes all inputs, with these objects and these words on the agent. The length of each is hashed before it, so that different sets of inputs have different hashes.
fn key(spec: &Spec<'_>, plan: &ModulePlan, objects: &[(&str, &[u8])], agent: &str) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(&FORMAT.to_le_bytes());
    add(spec.kernel_id.as_bytes());
    add(&[u8::from(spec.signed)]);
    add(agent.as_bytes());
    for (name, bytes) in objects {
        add(name.as_bytes());
        add(bytes);
    }
    add(plan.load_order.as_bytes());
    add(plan.missing.join("\n").as_bytes());
    let files: Vec<&Path> = plan.files.values().map(PathBuf::as_path).collect();
    add(spec.facts.of_files("digest of modules", &files, || digest(&plan.files))?.as_bytes());
    if let Some(toolbox) = spec.toolbox {
        toolbox.digest(&mut add);
    }
    Ok(lab_base::hex::hex(&hash.finalize()))
}

/// Modules are hashed compressed, so that a cache hit needs no decompression.
fn digest(files: &BTreeMap<String, PathBuf>) -> Result<String, ImageError> {
    let mut hash = Sha256::new();
    for (name, path) in files {
        for bytes in [name.as_bytes(), &fs::read(path).map_err(ImageError::io("module", path))?] {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
    Ok(lab_base::hex::hex(&hash.finalize()))
}

fn assemble(spec: &Spec<'_>, key: &str, plan: &ModulePlan, modules: &BTreeMap<&str, Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut archive = CpioArchive::new();
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    // The kernel opens it as the agent's standard streams before the agent mounts devtmpfs.
    archive.character_device("dev/console", 0o600, 5, 1)?;
    let about = serde_json::json!({ "kernel": spec.kernel_id, "image": key });
    archive.file("etc/netkit-lab.json", 0o644, about.to_string().as_bytes())?;
    for (name, bytes) in spec.objects {
        archive.file(&format!("lib/bpf/{name}"), 0o644, bytes)?;
    }
    archive.file("lib/modules/load-order", 0o644, plan.load_order.as_bytes())?;
    let missing: String = plan.missing.iter().map(|name| format!("{name}\n")).collect();
    archive.file("lib/modules/missing", 0o644, missing.as_bytes())?;
    for (name, bytes) in modules {
        archive.file(&format!("lib/modules/{name}.ko"), 0o644, bytes)?;
    }
    archive.file(AGENT, 0o755, spec.agent.bytes()?)?;
    if let Some(toolbox) = spec.toolbox {
        toolbox.pack(&mut archive, &DIRECTORIES)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Profile,
        archive::{content, names},
    };

    /// A program without program headers: the kernel's loader treats it as static.
    const STATIC_ELF: [u8; 64] = {
        let mut elf = [0; 64];
        let ident = [0x7f, b'E', b'L', b'F', 2, 1, 1];
        let mut index = 0;
        while index < ident.len() {
            elf[index] = ident[index];
            index += 1;
        }
        elf
    };

    struct Inputs {
        dir: tempfile::TempDir,
        wanted: ModuleList,
    }

    impl Inputs {
        fn new() -> Self {
            let inputs = Self {
                dir: tempfile::tempdir().unwrap(),
                wanted: ModuleList::parse(
                    &["veth", "netkit", "ghost"]
                        .map(|name| format!("[[module]]\nname='{name}'\nreason='x'"))
                        .join("\n"),
                    Profile::Suite,
                )
                .unwrap(),
            };
            inputs.write("agent", &STATIC_ELF);
            inputs.write("bpf/tc.o", b"object");
            inputs.write("modules/modules.dep", b"net/veth.ko: lib/base-lib.ko\nlib/base-lib.ko:\n");
            inputs.write("modules/modules.builtin", b"net/netkit.ko\n");
            inputs.write("modules/net/veth.ko", b"\x7fELF veth");
            inputs.write("modules/lib/base-lib.ko", b"\x7fELF base");
            inputs
        }

        fn write(&self, path: &str, content: &[u8]) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn build(&self) -> Result<Image, ImageError> {
            self.build_for(Sends::Nothing)
        }

        fn build_for(&self, sends: Sends) -> Result<Image, ImageError> {
            self.build_of(sends, 1)
        }

        fn build_of(&self, sends: Sends, protocol: u32) -> Result<Image, ImageError> {
            let dir = self.dir.path();
            let (agent, object) = (dir.join("agent"), fs::read(dir.join("bpf/tc.o")).unwrap());
            build(&Spec {
                kernel_id: "6.12",
                facts: &Facts::below(dir),
                modules: Some(&dir.join("modules")),
                agent: &HeldFile::open(&agent).unwrap(),
                objects: &[("tc.o", &object), ("witness.o", b"fixed")],
                exchangeable: &["tc.o"],
                sends,
                protocol,
                wanted: &self.wanted,
                toolbox: None,
                signed: false,
                cache: &dir.join("cache"),
            })
        }
    }

    #[test]
    fn the_image_contains_exactly_what_the_guest_needs() {
        let image = Inputs::new().build().map(|image| (fs::read(&image.path).unwrap(), image));
        let (bytes, image) = image.unwrap();
        assert_eq!(
            (image.modules, image.builtin, image.missing),
            (vec!["veth".to_owned()], vec!["netkit".to_owned()], vec!["ghost".to_owned()],)
        );
        assert_eq!(content(&bytes, "lib/modules/load-order"), "veth: base_lib.ko veth.ko\nnetkit:\n");
        assert_eq!(
            names(&bytes).join(" "),
            "dev etc lib lib/bpf lib/modules proc run sys tmp dev/console \
            etc/netkit-lab.json lib/bpf/tc.o lib/bpf/witness.o lib/modules/load-order lib/modules/missing lib/modules/base_lib.ko \
            lib/modules/veth.ko init"
        );
    }

    #[test]
    fn every_input_byte_changes_the_key() {
        let inputs = Inputs::new();
        let first = inputs.build().unwrap();
        let again = inputs.build().unwrap();
        assert!(!first.cached && again.cached);
        assert_eq!(first.key, again.key);
        let mut keys = vec![first.key];
        for (path, content) in [
            ("agent", [&STATIC_ELF[..], b"x"].concat()),
            ("bpf/tc.o", b"other".to_vec()),
            ("modules/lib/base-lib.ko", b"\x7fELF other".to_vec()),
            ("modules/modules.builtin", Vec::new()),
        ] {
            inputs.write(path, &content);
            let image = inputs.build().unwrap();
            assert!(!image.cached && !keys.contains(&image.key), "{path}");
            keys.push(image.key);
        }
    }

    #[test]
    fn an_object_that_will_be_sent_needs_no_image_of_its_own() {
        let inputs = Inputs::new();
        let first = inputs.build_for(Sends::Objects).unwrap();
        assert!(!first.cached && first.to_send.is_empty());
        inputs.write("bpf/tc.o", b"edited");
        let sent = inputs.build_for(Sends::Objects).unwrap();
        assert_eq!((&sent.path, &sent.to_send, sent.cached), (&first.path, &vec!["tc.o".to_owned()], true));
        assert_ne!(sent.key, first.key, "the key tells what the guest runs");
        let built = inputs.build().unwrap();
        assert!(!built.cached && built.key == sent.key && built.path != sent.path && built.to_send.is_empty());
        let found = inputs.build_for(Sends::Objects).unwrap();
        assert_eq!((found.path, found.to_send.len()), (built.path, 0), "the right image comes first");
        inputs.write("agent", &[&STATIC_ELF[..], b"x"].concat());
        assert!(!inputs.build_for(Sends::Objects).unwrap().cached, "another agent, another image");
    }

    #[test]
    fn an_agent_that_will_be_sent_needs_no_image_of_its_own() {
        let inputs = Inputs::new();
        let first = inputs.build_for(Sends::Agent).unwrap();
        assert!(!first.cached && !first.sends_agent);
        inputs.write("agent", &[&STATIC_ELF[..], b"edited"].concat());
        let sent = inputs.build_for(Sends::Agent).unwrap();
        assert_eq!((&sent.path, sent.sends_agent, sent.cached), (&first.path, true, true));
        assert!(sent.to_send.is_empty() && sent.key != first.key, "the key tells what the guest runs");
        inputs.write("bpf/tc.o", b"edited");
        let both = inputs.build_for(Sends::Agent).unwrap();
        assert_eq!((&both.path, both.sends_agent, both.to_send), (&first.path, true, vec!["tc.o".to_owned()]));
        assert!(!inputs.build_of(Sends::Agent, 2).unwrap().cached, "the agent of the image does not know the message");
        let found = inputs.build_for(Sends::Agent).unwrap();
        assert!(found.cached && !found.sends_agent && found.path != first.path, "the right image comes first");
        inputs.write("agent", &[&STATIC_ELF[..], b"twice edited"].concat());
        let again = [(); 4].map(|()| inputs.build_for(Sends::Agent).unwrap());
        assert_eq!(
            again.map(|image| image.sends_agent),
            [true, true, true, false],
            "an image of its own is quicker by now"
        );
        inputs.write("agent", b"#!/bin/sh");
        let error = inputs.build_for(Sends::Agent).unwrap_err().to_string();
        assert!(error.starts_with("agent ") && error.contains("+crt-static"), "{error}");
    }

    #[test]
    fn a_listed_module_without_a_file_is_an_error() {
        let inputs = Inputs::new();
        fs::remove_file(inputs.dir.path().join("modules/net/veth.ko")).unwrap();
        let error = inputs.build().unwrap_err().to_string();
        assert!(error.starts_with("module ") && error.contains("net/veth.ko"), "{error}");
    }
}
