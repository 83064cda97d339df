//! What a case is: a name from the catalogue, its variants, and one function.

use crate::ctx::{Ctx, Stop};
use lab_protocol::{AttachRequest, Capability, CellId, CellInfo, LinkKind};
use lab_topology::{library, model::DeviceSpec};
use std::fmt::Write as _;

/// The areas of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Attaching and detaching through each API, and its errors.
    AttachApi,
    /// Order, anchors and revisions of multi-program hooks.
    Mprog,
    /// Links, pins, updates, and what deletion does to them.
    Links,
    /// Probes, auto mode, and what happens where a mechanism is missing.
    Detection,
    /// prog_arrays, tail calls and expected_attach_type.
    ProgArray,
    /// Interface indexes and other packet metadata.
    Ifindex,
    /// Return codes and netkit's default policies.
    Verdicts,
    /// bpf_redirect and its relatives.
    Redirect,
    /// Several mechanisms or device kinds at once.
    Coexistence,
    /// Changing programs and mechanisms under traffic.
    Upgrade,
    /// Plain traffic over the workload's link.
    Traffic,
    /// Traffic through a datapath of several programs: policy, services, forwarding.
    Datapath,
    /// What must not pass: see [`crate::canary`].
    Canary,
    /// Deletion, and what it must not leave behind.
    Cleanup,
    /// Requests that must be refused.
    BadInput,
    /// Packet sizes: MTU, path MTU, segmentation.
    Mtu,
}

impl Area {
    /// Whether a failed case of this area keeps packets: where packets are the matter itself.
    pub const fn keeps_evidence(self) -> bool {
        matches!(self, Self::Traffic | Self::Mtu | Self::Datapath)
    }

    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttachApi => "attach-api",
            Self::Mprog => "mprog",
            Self::Links => "links",
            Self::Detection => "detection",
            Self::ProgArray => "prog-array",
            Self::Ifindex => "ifindex",
            Self::Verdicts => "verdicts",
            Self::Redirect => "redirect",
            Self::Coexistence => "coexistence",
            Self::Upgrade => "upgrade",
            Self::Traffic => "traffic",
            Self::Datapath => "datapath",
            Self::Canary => "canary",
            Self::Cleanup => "cleanup",
            Self::BadInput => "bad-input",
            Self::Mtu => "mtu",
        }
    }
}

/// Which way the packets go, seen from the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Ingress of the node's end, or `BPF_NETKIT_PEER`.
    FromWorkload,
    /// Egress of the node's end, or `BPF_NETKIT_PRIMARY`.
    ToWorkload,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::FromWorkload, Self::ToWorkload];

    /// The opposite one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::FromWorkload => Self::ToWorkload,
            Self::ToWorkload => Self::FromWorkload,
        }
    }

    /// Sender and receiver of packets of this direction.
    pub const fn ends(self, workload: &'static str, other: &'static str) -> (&'static str, &'static str) {
        match self {
            Self::FromWorkload => (workload, other),
            Self::ToWorkload => (other, workload),
        }
    }

    /// The name used in cell ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromWorkload => "from-workload",
            Self::ToWorkload => "to-workload",
        }
    }
}

/// One point on the axes that a case is run over. Axes that a case has no use for stay `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variant {
    /// The attach type that is asked for.
    pub attach: Option<AttachRequest>,
    /// The kind of the workload's link.
    pub device: Option<LinkKind>,
    /// The direction of the hook.
    pub direction: Option<Direction>,
    /// Anything else that tells two variants apart.
    pub tag: Option<&'static str>,
}

impl Variant {
    /// The device kind of a variant that has one.
    ///
    /// # Panics
    /// Where the case's variants have no device axis: a mistake in the registry, caught by its test.
    pub fn device(&self) -> LinkKind {
        self.device.expect("the case's variants have a device axis")
    }

    /// The attach request of a variant that has one. Panics like [`Variant::device`].
    pub fn attach(&self) -> AttachRequest {
        self.attach.expect("the case's variants have an attach axis")
    }

    /// The direction of a variant that has one. Panics like [`Variant::device`].
    pub fn direction(&self) -> Direction {
        self.direction.expect("the case's variants have a direction axis")
    }

    fn suffix(&self) -> String {
        let parts: Vec<&str> = [
            self.attach.map(AttachRequest::name),
            self.device.map(LinkKind::name),
            self.direction.map(Direction::name),
            self.tag,
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { String::new() } else { format!("[{}]", parts.join(",")) }
    }
}

/// What a case's function returns.
pub type CaseResult = Result<(), Stop>;

/// One case of the catalogue.
pub struct Case {
    /// The catalogue's number.
    pub catalogue: &'static str,
    /// Short name, unique together with the number.
    pub name: &'static str,
    /// Where it belongs.
    pub area: Area,
    /// One sentence: what holds when it passes.
    pub title: &'static str,
    /// Name of its topology in the library.
    pub topology: &'static str,
    /// The axes.
    pub variants: fn() -> Vec<Variant>,
    /// What it needs beyond what its variants imply.
    pub requires: &'static [Capability],
    /// Time it may take on a fast guest, milliseconds.
    pub deadline_ms: u32,
    /// The body.
    pub run: fn(&mut Ctx, &Variant) -> CaseResult,
}

impl Case {
    /// A case with the usual deadline, no variants and no extra requirements.
    pub const fn new(
        catalogue: &'static str,
        name: &'static str,
        area: Area,
        topology: &'static str,
        title: &'static str,
        run: fn(&mut Ctx, &Variant) -> CaseResult,
    ) -> Self {
        Self {
            catalogue,
            name,
            area,
            title,
            topology,
            variants: || vec![Variant::default()],
            requires: &[],
            deadline_ms: 10_000,
            run,
        }
    }

    /// With these variants.
    pub const fn over(mut self, variants: fn() -> Vec<Variant>) -> Self {
        self.variants = variants;
        self
    }

    /// With these extra requirements.
    pub const fn needs(mut self, requires: &'static [Capability]) -> Self {
        self.requires = requires;
        self
    }

    /// With this deadline, milliseconds.
    pub const fn within(mut self, deadline_ms: u32) -> Self {
        self.deadline_ms = deadline_ms;
        self
    }
}

/// A case in one variant, ready to run.
pub struct Cell {
    /// What the host is told.
    pub info: CellInfo,
    /// The case.
    pub case: &'static Case,
    /// The variant.
    pub variant: Variant,
}

impl Cell {
    /// A case's cell for one variant.
    pub fn new(case: &'static Case, variant: Variant) -> Self {
        let mut id = format!("{}-{}", case.catalogue, case.name);
        let _ = write!(id, "{}", variant.suffix());
        let info = CellInfo {
            id: CellId(id),
            catalogue: case.catalogue.into(),
            area: case.area.name().into(),
            title: case.title.into(),
            topology: case.topology.into(),
            attach: variant.attach,
            device: variant.device,
            requires: requirements(case, &variant),
            deadline_ms: case.deadline_ms,
        };
        Self { info, case, variant }
    }
}

/// A variant's axes and the devices of its topology say what it needs; the case adds the rest. `auto` needs nothing
/// beyond its device: choosing what the kernel has is its very point.
fn requirements(case: &Case, variant: &Variant) -> Vec<Capability> {
    let mut requires = case.requires.to_vec();
    let kind = variant.device.unwrap_or(LinkKind::Veth);
    if let Some(topology) = library::by_name(case.topology, kind) {
        requires.extend(topology.links.iter().map(|link| match link.kind {
            LinkKind::Veth => Capability::Veth,
            LinkKind::NetkitL2 | LinkKind::NetkitL3 => Capability::Netkit,
        }));
        requires.extend(topology.devices.iter().map(|device| match &device.spec {
            DeviceSpec::Dummy => Capability::Dummy,
            DeviceSpec::Bridge => Capability::Bridge,
            DeviceSpec::Vrf { .. } => Capability::Vrf,
            DeviceSpec::Tap { .. } => Capability::Tun,
            DeviceSpec::Vxlan { .. } | DeviceSpec::VxlanMetadata => Capability::Vxlan,
            DeviceSpec::IpTunnel { tunnel } if tunnel.local.is_ipv4() => Capability::Ipip,
            DeviceSpec::IpTunnel { .. } => Capability::Ip6Tnl,
        }));
        requires.extend(topology.nat.first().map(|_| Capability::NftNat));
    }
    match variant.device {
        Some(LinkKind::Veth) => requires.push(Capability::Veth),
        Some(kind) if kind.is_netkit() => requires.push(Capability::Netkit),
        _ => {}
    }
    match variant.attach {
        Some(AttachRequest::Tc) => requires.push(Capability::Clsact),
        Some(AttachRequest::Tcx) => requires.push(Capability::Tcx),
        Some(AttachRequest::Netkit) => requires.push(Capability::Netkit),
        Some(AttachRequest::Auto) | None => {}
    }
    requires.sort();
    requires.dedup();
    requires
}
