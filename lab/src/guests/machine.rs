//! The host's part of a run: the programs virtme-ng and QEMU, the accelerator, and the files that a kernel boots with.

use crate::{
    error::Error,
    project::{
        artifacts::{ArtifactError, Artifacts},
        cross_error::CrossError,
    },
    run::common::{PrepareError, Prepared, SentObject},
    setup::{Tools, VIRTME_NG_VERSION},
    world::KernelFiles,
};
use lab_base::{arch::Architecture, facts::Facts, held::HeldFile};
use lab_image::{ImageError, ModuleList, Profile, Sends, Spec, Toolbox};
use lab_kernel_store::BootableKernel;
use lab_protocol::{PROTOCOL_VERSION, Stated, witness::PRELOAD_SUITE};
use lab_record::event::{ImageInfo, Versions};
use lab_vm::{
    Accel, Acceleration, DEFAULT_QEMU, GuestSpec, Launcher,
    accel::{self, Asking},
    has_right_cmpxchg16b, qemu_version,
    snapshot::SnapshotStore,
    stock::Stock,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Guest memory if `kernels.toml` does not set it, MiB.
const MEMORY_MIB: u32 = 512;
/// The objects that the agent takes from the host. It loads the witness before a snapshot is taken.
const EXCHANGEABLE: [&str; 2] = ["datapath.o", "lab.o"];
/// Processors of a guest.
const PROCESSORS: u32 = 1;

/// What a person asks of the machine of each guest, beyond what `kernels.toml` says. It is part of a snapshot's key.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// What the image holds.
    pub profile: Profile,
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory, MiB.
    pub memory_mib: Option<u32>,
    /// Memory without a wish, MiB, where `kernels.toml` does not give more.
    pub least_mib: u32,
    /// A network device, for guests that are connected to a network.
    pub network: bool,
    /// Memory for programs' streams, where the machine can have it.
    pub stream_memory: bool,
    /// Kernel parameters behind all others.
    pub cmdline: Vec<String>,
}

impl Shape {
    /// The machine for programs that are not the lab's. Their tests start threads on a second processor, and fail in less than
    /// 1 GiB. A guest of another shape than the suite's has a snapshot of its own; restoring that takes no longer.
    pub fn of_programs() -> Self {
        Self { cpus: Some(2), least_mib: 1024, stream_memory: true, ..Self::default() }
    }

    /// The suite's machine, whose cells the witness watches.
    pub fn watched() -> Self {
        Self { cmdline: vec![PRELOAD_SUITE.to_owned()], ..Self::default() }
    }

    /// Whether the witness watches its cells.
    pub fn is_watched(&self) -> bool {
        self.cmdline.iter().any(|word| word == PRELOAD_SUITE)
    }

    /// A prepared kernel of this shape.
    pub fn of(&self, mut prepared: Prepared) -> Prepared {
        prepared.spec.cpus = self.cpus.unwrap_or(prepared.spec.cpus);
        prepared.spec.memory_mib = self.memory_mib.unwrap_or(prepared.spec.memory_mib.max(self.least_mib));
        prepared.spec.network = self.network;
        prepared.spec.stream_memory &= self.stream_memory;
        prepared.spec.cmdline.extend(self.cmdline.iter().cloned());
        prepared
    }
}

/// The programs and files that all guests share.
#[derive(Debug, Clone)]
pub struct Machine {
    vng: PathBuf,
    qemu: Option<PathBuf>,
    sandbox: bool,
    /// Whether QEMU has the device with memory for streams.
    stream_memory: bool,
    cache: PathBuf,
    artifacts: Artifacts,
    /// What guests of other architectures need instead.
    foreign: BTreeMap<Architecture, ForeignMachine>,
    /// Versions for reports.
    pub versions: Versions,
}

/// What emulates guests of another architecture, and what they run.
#[derive(Debug, Clone)]
struct ForeignMachine {
    qemu: PathBuf,
    /// QEMU's version.
    version: String,
    sandbox: bool,
    stream_memory: bool,
    agent: HeldFile,
}

impl Machine {
    /// Finds the programs.
    ///
    /// # Errors
    /// virtme-ng or QEMU is missing.
    pub fn new(cache: &Path, artifacts: Artifacts, agent_version: String) -> Result<Self, Error> {
        let tools = Tools::in_cache(cache);
        let vng = tools
            .virtme_ng()
            .ok_or_else(|| Error::Host("virtme-ng is not installed; `lab setup` installs it".to_owned()))?;
        let facts = Facts::below(cache);
        let (qemu, full) = tools.known_qemu(&facts).map_or((None, None), |qemu| (Some(qemu.path), qemu.full));
        let program = qemu.as_deref().unwrap_or(Path::new(DEFAULT_QEMU));
        let sandbox = tools.has_sandbox(program, &facts);
        let stream_memory = tools.has_stream_memory(program, &facts);
        // The answer of the search is used, and a missing one asked for again, for its error.
        let version = full.map_or_else(|| qemu_version(qemu.as_deref()), Ok);
        let versions = Versions {
            lab: crate::VERSION.to_owned(),
            agent: agent_version,
            virtme_ng: VIRTME_NG_VERSION.to_owned(),
            qemu: version?,
        };
        let (cache, foreign) = (cache.to_owned(), BTreeMap::new());
        Ok(Self { vng, qemu, sandbox, stream_memory, cache, artifacts, foreign, versions })
    }

    /// Finds what emulates guests of an architecture, for which there is this agent.
    ///
    /// # Errors
    /// QEMU is missing.
    pub fn emulate(&mut self, architecture: Architecture, agent: HeldFile) -> Result<(), Error> {
        let tools = Tools::in_cache(&self.cache);
        let facts = Facts::below(&self.cache);
        let (programs, _) = tools.arm64().ok_or(ArtifactError::from(CrossError::NoTools { architecture }))?;
        let qemu = programs.program(&format!("qemu-system-{}", architecture.machine()));
        let known = tools.known_qemu_at(qemu.clone(), &facts).full;
        let version = known.map_or_else(|| qemu_version(Some(&qemu)), Ok)?;
        let sandbox = tools.has_sandbox(&qemu, &facts);
        let stream_memory = tools.has_stream_memory(&qemu, &facts);
        self.foreign.insert(architecture, ForeignMachine { qemu, version, sandbox, stream_memory, agent });
        Ok(())
    }

    /// The lab's cache directory.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Chooses the accelerator; this may boot a guest with the given kernel.
    ///
    /// # Errors
    /// No guest can be launched.
    pub fn acceleration(
        &self,
        launcher: &dyn Launcher,
        kernel: &BootableKernel,
        say: &dyn Fn(&str),
        stop: &dyn Fn() -> bool,
    ) -> Result<Acceleration, Error> {
        let asking = Asking { cache: &self.cache, qemu_version: &self.versions.qemu, say, stop };
        let memory_mib = kernel.memory_mib.unwrap_or(MEMORY_MIB);
        // Without a test no image is needed.
        if let Some(known) = accel::known(&asking, self.qemu.as_deref(), memory_mib, PROCESSORS)? {
            return Ok(known);
        }
        let scratch = lab_vm::scratch()?;
        let console = scratch.path().join("console.log");
        let prepare = |sends| {
            let prepared = self.prepare(kernel, Profile::Suite, sends, Accel::Kvm, console.clone());
            prepared.map_err(|error| Error::Host(error.to_string()))
        };
        // An image that stands in tells as well whether KVM works, if it has booted before. Building the right one here would keep the
        // run from sending what has changed.
        let mut probe = prepare(Sends::Agent)?;
        let emulated = GuestSpec { accel: Accel::Tcg, ..probe.spec.clone() };
        if probe.is_exchanged() && !self.has_snapshot(launcher, &emulated) {
            probe = prepare(Sends::Nothing)?;
        }
        Ok(accel::choose(launcher, &probe.spec, &asking)?)
    }

    /// Whether such guests are restored, and none has to boot first.
    pub fn has_snapshot(&self, launcher: &dyn Launcher, spec: &GuestSpec) -> bool {
        launcher.fingerprint(spec).is_ok_and(|key| SnapshotStore::below(&self.cache).has(&key))
    }

    /// A stock virtme-ng guest with the kernel.
    pub fn stock<'a>(&'a self, kernel: &'a BootableKernel, accel: Accel) -> Stock<'a> {
        Stock {
            vng: &self.vng,
            qemu: self.qemu.as_deref(),
            kernel: &kernel.vmlinuz,
            modules: &kernel.modules,
            release: &kernel.release,
            memory_mib: kernel.memory_mib.unwrap_or(MEMORY_MIB),
            accel,
        }
    }

    /// Builds a kernel's image and returns the guest's specification. `console` is the directory for consoles. By `sends` the image
    /// may be an earlier one, and what differs is in [`Prepared::objects`] and [`Prepared::agent`].
    ///
    /// # Errors
    /// The image can't be built.
    pub fn prepare(
        &self,
        kernel: &BootableKernel,
        profile: Profile,
        sends: Sends,
        accel: Accel,
        console: PathBuf,
    ) -> Result<Prepared, PrepareError> {
        let facts = Facts::below(&self.cache);
        let failed = |error: ImageError| PrepareError::Image { kernel: kernel.id.to_string(), error };
        let toolbox = (profile != Profile::Suite).then(Toolbox::collect).transpose().map_err(failed)?;
        let foreign = match kernel.architecture.is_own() {
            true => None,
            false => Some(self.foreign.get(&kernel.architecture).ok_or_else(|| PrepareError::Foreign {
                kernel: kernel.id.to_string(),
                architecture: kernel.architecture,
            })?),
        };
        // A host runs the instructions of its own processor alone.
        let accel = if foreign.is_some() { Accel::Tcg } else { accel };
        let agent = foreign.map_or(&self.artifacts.agent, |it| &it.agent);
        let (qemu, version, sandbox, stream_memory) = match foreign {
            Some(it) => (Some(&it.qemu), &it.version, it.sandbox, it.stream_memory),
            None => (self.qemu.as_ref(), &self.versions.qemu, self.sandbox, self.stream_memory),
        };
        let objects = self.artifacts.objects.iter().map(|(name, built)| {
            let cause = |cause| ImageError::Io { what: "eBPF object", path: built.path().to_owned(), cause };
            Ok((&**name, built.bytes().map_err(cause)?))
        });
        let objects: Vec<(&str, &[u8])> = objects.collect::<Result<_, _>>().map_err(failed)?;
        let spec = Spec {
            kernel_id: &kernel.id,
            modules: Some(&kernel.modules),
            agent,
            objects: &objects,
            exchangeable: &EXCHANGEABLE,
            // The agent for another architecture may be of an older lab.
            sends: if foreign.is_none() { sends } else { Sends::Nothing },
            // The agent's listing has it as well: an agent of another one runs no cells.
            protocol: PROTOCOL_VERSION,
            wanted: &ModuleList::committed(profile),
            toolbox: toolbox.as_ref(),
            signed: wants_signatures(kernel.config.as_deref(), &kernel.cmdline),
            cache: &self.cache,
            facts: &facts,
        };
        let image = lab_image::build(&spec).map_err(failed)?;
        let held = |name: String| self.artifacts.objects.get(&name).map(|file| SentObject { name, file: file.clone() });
        let sent = image.to_send.into_iter().filter_map(held).collect();
        // QEMU starts an uncompressed `Image` as it is.
        let direct = match foreign {
            Some(_) => None,
            None => lab_image::direct_kernel(&kernel.vmlinuz, &self.cache, &facts).map_err(failed)?,
        };
        // Without signatures the keys are not needed; the kernel would verify them in every boot.
        let keyless = (!spec.signed).then(|| "initcall_blacklist=load_system_certificate_list".to_owned());
        let spec = GuestSpec {
            name: kernel.id.to_string(),
            architecture: kernel.architecture,
            kernel: kernel.vmlinuz.clone(),
            direct,
            image: image.path,
            memory_mib: kernel.memory_mib.unwrap_or(MEMORY_MIB),
            cpus: PROCESSORS,
            at_once: 1,
            cmdline: keyless.into_iter().chain(stated(kernel).words()).chain(kernel.cmdline.iter().cloned()).collect(),
            accel,
            console,
            run_dir: std::env::temp_dir(),
            vng: self.vng.clone(),
            qemu: qemu.cloned(),
            sandbox,
            tools: format!(
                "virtme-ng {}, QEMU {version}{}",
                self.versions.virtme_ng,
                if sandbox { ", sandbox" } else { "" }
            ),
            cx16: has_right_cmpxchg16b(version),
            network: false,
            // A processor under KVM may read a device's memory without its cache, and a port is fast there.
            stream_memory: stream_memory && accel == Accel::Tcg,
            memory_file: None,
        };
        Ok(Prepared {
            spec,
            image: ImageInfo { key: image.key, cached: image.cached, missing: image.missing, content: None },
            objects: sent,
            agent: image.sends_agent.then(|| agent.clone()),
            files: None,
            scans_memory: has_option(kernel.config.as_deref(), "CONFIG_DEBUG_KMEMLEAK=y"),
        })
    }
}

/// The kernel's own files, for its guests.
pub fn kernel_files(unpacked: &BootableKernel) -> KernelFiles {
    KernelFiles { modules: unpacked.modules.clone(), config: unpacked.config.clone() }
}

/// What `kernels.toml` says of a kernel against its version.
fn stated(kernel: &BootableKernel) -> Stated {
    Stated {
        has: kernel.has.iter().map(|it| it.capability).collect(),
        lacks: kernel.unsupported.iter().map(|it| it.capability).collect(),
        believe_probes: kernel.believe_probes.is_some(),
    }
}

/// Whether a kernel's configuration has a line.
fn has_option(config: Option<&Path>, option: &str) -> bool {
    let config = config.and_then(|path| fs::read_to_string(path).ok());
    config.is_some_and(|config| config.lines().any(|line| line == option))
}

/// Whether a guest with this kernel may refuse a module without a signature. If it does not, the signatures are not
/// needed: the host has verified the package that the modules came from.
fn wants_signatures(config: Option<&Path>, cmdline: &[String]) -> bool {
    const ENFORCING: [&str; 3] = [
        "CONFIG_MODULE_SIG_FORCE=y",
        "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y",
        "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y",
    ];
    let config = config.and_then(|path| fs::read_to_string(path).ok());
    let enforcing = |word: &String| ["module.sig_enforce", "lockdown="].iter().any(|start| word.starts_with(start));
    // A kernel without a known configuration may require signatures.
    config.is_none_or(|config| config.lines().any(|line| ENFORCING.contains(&line))) || cmdline.iter().any(enforcing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_keep_their_signatures_if_the_kernel_may_require_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let wants = |config: Option<&Path>, word: &str| wants_signatures(config, &[word.to_owned()]);
        fs::write(&config, "CONFIG_MODULE_SIG=y\n# CONFIG_MODULE_SIG_FORCE is not set\n").unwrap();
        assert!(!wants(Some(&config), "quiet"));
        assert!(wants(Some(&config), "module.sig_enforce=1") && wants(Some(&config), "lockdown=integrity"));
        assert!(wants(None, "quiet"));
        fs::write(&config, "CONFIG_MODULE_SIG_FORCE=y\n").unwrap();
        assert!(wants(Some(&config), "quiet"));
    }
}
