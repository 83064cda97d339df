//! The command line of `lab exec` as cells.

use lab_base::text;
use lab_protocol::{
    Capability, CellId, CellInfo, CellProgram, LinkKind, Raw, Work,
    cell::{NO_DEADLINE, NO_TOPOLOGY},
    shell::{ShellStage, Terminal},
    witness::AttachRules,
    work::Inherit,
    world::WorldSpec,
};
use sha2::{Digest, Sha256};

/// Area of the cells.
pub const AREA: &str = "exec";
/// Characters of a title.
const TITLE: usize = 200;
/// Characters of a command's name in an id.
const NAME: usize = 40;

/// A command, and where it runs.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Name and arguments.
    pub argv: Vec<Raw>,
    /// Name of the cells; made of the command if `None`.
    pub name: Option<String>,
    /// Topologies, each with the kind of its workloads' link; none is one cell without a topology.
    pub stages: Vec<(String, Option<LinkKind>)>,
    /// The node of each topology.
    pub node: Option<String>,
    /// Variables that the command line states.
    pub env: Vec<(Raw, Raw)>,
    /// Variables that the caller's environment adds.
    pub inherit: Inherit,
    /// What the command sees as `/`.
    pub world: Option<WorldSpec>,
    /// Working directory in the guest.
    pub cwd: Raw,
    /// User and group.
    pub user: Option<(u32, u32)>,
    /// Milliseconds.
    pub timeout_ms: Option<u64>,
    /// Largest core dump that is kept, bytes.
    pub core_bytes: u64,
    /// Kernel parameters.
    pub sysctl: Vec<(String, String)>,
    /// What is demanded of what it attaches; `None` without a witness.
    pub witness: Option<AttachRules>,
    /// What the kernel must have.
    pub requires: Vec<Capability>,
}

impl ExecRequest {
    /// The cells: one for each stage. They read input, in a terminal or not, where there is only one.
    pub fn cells(&self, input: bool, terminal: Option<&Terminal>) -> Vec<CellInfo> {
        let bare = [(NO_TOPOLOGY.to_owned(), None)];
        let stages = if self.stages.is_empty() { &bare[..] } else { &self.stages };
        stages.iter().map(|(topology, kind)| self.cell(topology, *kind, input, terminal)).collect()
    }

    fn cell(&self, topology: &str, kind: Option<LinkKind>, input: bool, terminal: Option<&Terminal>) -> CellInfo {
        let is_bare = topology == NO_TOPOLOGY;
        let stage =
            if is_bare { ShellStage::Bare } else { ShellStage::Topology { name: topology.to_owned(), device: kind } };
        let axes = [Some(topology).filter(|_| !is_bare), kind.map(LinkKind::name), self.node.as_deref()];
        let axes: Vec<&str> = axes.into_iter().flatten().collect();
        let variant = if axes.is_empty() { String::new() } else { format!("[{}]", axes.join(",")) };
        let program = CellProgram {
            argv: self.argv.clone(),
            env: self.env.clone(),
            inherit: self.inherit.clone(),
            cwd: self.cwd.clone(),
            world: self.world.clone(),
            stage,
            node: self.node.clone(),
            user: self.user,
            terminal: terminal.cloned(),
            timeout_ms: self.timeout_ms,
            core_bytes: self.core_bytes,
            sysctl: self.sysctl.clone(),
            input,
            witness: self.witness.clone(),
        };
        CellInfo {
            id: CellId(format!("{}{variant}", self.name()).into()),
            catalogue: String::new(),
            area: AREA.to_owned(),
            title: text::line(&shown(&self.argv), TITLE),
            topology: topology.to_owned(),
            attach: None,
            device: kind,
            requires: self.required(kind),
            // The timeout is the guest's to keep: its reader may be slower than any clock.
            deadline_ms: NO_DEADLINE,
            work: Work::Program(Box::new(program)),
            file: String::new(),
            line: 0,
        }
    }

    /// What its topology and the command need, each once.
    fn required(&self, kind: Option<LinkKind>) -> Vec<Capability> {
        let device = kind.map(|kind| if kind.is_netkit() { Capability::Netkit } else { Capability::Veth });
        let mut all: Vec<Capability> = Vec::new();
        for capability in device.into_iter().chain(self.requires.iter().copied()) {
            if !all.contains(&capability) {
                all.push(capability);
            }
        }
        all
    }

    /// The same command has the same name in every run, by which runs are compared.
    fn name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let command = self.argv.first().map(Raw::shown).unwrap_or_default();
        let base = command.rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let base: String = base.chars().take(NAME).map(plain).collect();
        let mut digest = Sha256::new();
        for word in &self.argv {
            digest.update((word.as_bytes().len() as u64).to_le_bytes());
            digest.update(word.as_bytes());
        }
        let digest: String = digest.finalize().iter().take(3).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{digest}", base.trim_matches(['.', '-']))
    }
}

#[cfg(test)]
impl ExecRequest {
    /// A command without any option.
    pub(crate) fn of_words(argv: &[&str]) -> Self {
        Self {
            argv: argv.iter().map(Raw::from).collect(),
            name: None,
            stages: Vec::new(),
            node: None,
            env: Vec::new(),
            inherit: Inherit::All,
            cwd: Raw::default(),
            world: None,
            user: None,
            timeout_ms: None,
            core_bytes: 0,
            sysctl: Vec::new(),
            witness: None,
            requires: Vec::new(),
        }
    }
}

/// A command as somebody would type it.
pub fn shown(argv: &[Raw]) -> String {
    argv.iter().map(|word| text::shell_quote(&word.shown())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_one_cell_for_each_stage_and_keeps_its_name() {
        let mut command = ExecRequest::of_words(&["/usr/bin/uname", "-r"]);
        let cells = command.cells(true, None);
        let id = cells[0].id.0.clone();
        assert!(id.starts_with("uname-") && id.len() == "uname-".len() + 6, "{id}");
        assert_eq!((cells.len(), &*cells[0].title, &*cells[0].topology), (1, "/usr/bin/uname -r", "none"));
        assert_ne!(ExecRequest::of_words(&["/usr/bin/uname", "-a"]).cells(true, None)[0].id.0, id);
        assert_ne!(ExecRequest::of_words(&["a", "b c"]).name(), ExecRequest::of_words(&["a", "b", "c"]).name());
        command.stages = vec![("pods".into(), Some(LinkKind::Veth)), ("pods".into(), Some(LinkKind::NetkitL3))];
        command.node = Some("w0".into());
        command.name = Some("release".into());
        let ids: Vec<String> = command.cells(false, None).into_iter().map(|info| info.id.to_string()).collect();
        assert_eq!(ids, ["release[pods,veth,w0]", "release[pods,nk-l3,w0]"]);
    }
}
