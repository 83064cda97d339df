//! Cases: a name from the catalogue, variants, and a function.

use crate::{
    ctx::{Ctx, Stop},
    suite::Cell,
};
use lab_protocol::{AttachRequest, Capability, CellId, CellInfo, LinkKind, Work, cell::NO_TOPOLOGY};
use lab_topology::{Template, Topology, model::DeviceSpec};
use std::fmt::Write as _;
use std::panic::Location;

/// Cases about one subject.
#[derive(Debug)]
pub struct Area {
    /// The name used in reports and in filters.
    pub name: &'static str,
    cases: &'static [&'static [Case]],
    keeps_evidence: bool,
}

impl Area {
    /// An area of these cases, in the order in which they run: one list per file.
    pub const fn new(name: &'static str, cases: &'static [&'static [Case]]) -> Self {
        Self { name, cases, keeps_evidence: false }
    }

    /// Captures packets of failed cells, for areas about traffic.
    #[must_use]
    pub const fn keeping_evidence(mut self) -> Self {
        self.keeps_evidence = true;
        self
    }

    /// Every case in every variant.
    pub fn cells(&'static self) -> impl Iterator<Item = Cell> {
        let cases = self.cases.iter().flat_map(|cases| cases.iter());
        cases.flat_map(move |case| (case.variants)().into_iter().map(move |variant| case.cell(self, variant)))
    }
}

/// The direction of packets, relative to the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Ingress of the node's end, or `BPF_NETKIT_PEER`.
    FromWorkload,
    /// Egress of the node's end, or `BPF_NETKIT_PRIMARY`.
    ToWorkload,
}

impl Direction {
    /// From the workload first.
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

/// One variant: a value per axis. Axes that a case does not vary are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variant {
    /// The requested attach type.
    pub attach: Option<AttachRequest>,
    /// The kind of the workload's link.
    pub device: Option<LinkKind>,
    /// The direction of the hook.
    pub direction: Option<Direction>,
    /// Anything else that distinguishes two variants.
    pub tag: Option<&'static str>,
}

impl Variant {
    /// The device kind of a variant that has one.
    ///
    /// # Panics
    /// The case's variants have no device axis: a mistake in the case's entry.
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

/// Result of a case's function.
pub type CaseResult = Result<(), Stop>;

/// The topology that a case runs on.
#[derive(Debug, Clone, Copy)]
enum On {
    /// None: the case creates its own devices, or needs no network.
    Nothing,
    /// The same in every variant.
    One(Template),
    /// Depends on the variant.
    Each(fn(&Variant) -> Template),
}

/// One case of the catalogue. Its entry is directly above its function.
#[derive(Debug)]
pub struct Case {
    /// The catalogue's number.
    catalogue: &'static str,
    /// Short name, unique together with the number.
    name: &'static str,
    /// One sentence that is true if it passes.
    title: &'static str,
    on: On,
    variants: fn() -> Vec<Variant>,
    /// Required capabilities in addition to those of variants and topology.
    requires: &'static [Capability],
    /// Deadline on a fast guest.
    deadline_ms: u32,
    run: fn(&mut Ctx, &Variant) -> CaseResult,
    /// Its source file and line.
    place: &'static Location<'static>,
}

impl Case {
    /// A case with the usual deadline of ten seconds, without topology, variants and extra requirements. `catalogue`
    /// and `name` make its cells' ids, `title` is one sentence that is true if it passes.
    #[track_caller]
    pub const fn new(
        catalogue: &'static str,
        name: &'static str,
        title: &'static str,
        run: fn(&mut Ctx, &Variant) -> CaseResult,
    ) -> Self {
        let variants = || vec![Variant::default()];
        Self {
            catalogue,
            name,
            title,
            on: On::Nothing,
            variants,
            requires: &[],
            deadline_ms: 10_000,
            run,
            place: Location::caller(),
        }
    }

    /// Sets the topology, which [`Ctx::testbed`] builds.
    #[must_use]
    pub const fn on(mut self, topology: Template) -> Self {
        self.on = On::One(topology);
        self
    }

    /// Sets a topology that depends on the variant.
    #[must_use]
    pub const fn on_each(mut self, topology: fn(&Variant) -> Template) -> Self {
        self.on = On::Each(topology);
        self
    }

    /// Sets the variants.
    #[must_use]
    pub const fn over(mut self, variants: fn() -> Vec<Variant>) -> Self {
        self.variants = variants;
        self
    }

    /// Adds required capabilities to those of variants and topology.
    #[must_use]
    pub const fn needs(mut self, requires: &'static [Capability]) -> Self {
        self.requires = requires;
        self
    }

    /// Sets the deadline, milliseconds on a fast guest.
    #[must_use]
    pub const fn within(mut self, deadline_ms: u32) -> Self {
        self.deadline_ms = deadline_ms;
        self
    }

    fn cell(&'static self, area: &'static Area, variant: Variant) -> Cell {
        let mut id = format!("{}-{}", self.catalogue, self.name);
        let _ = write!(id, "{}", variant.suffix());
        let topology = match self.on {
            On::Nothing => None,
            On::One(template) => Some(template),
            On::Each(template) => Some(template(&variant)),
        };
        let built = topology.map(|template| template.of(variant.device.unwrap_or(LinkKind::Veth)));
        let info = CellInfo {
            file: self.place.file().to_owned(),
            line: self.place.line(),
            id: CellId(id.into()),
            catalogue: self.catalogue.into(),
            area: area.name.into(),
            title: self.title.into(),
            topology: topology.map_or(NO_TOPOLOGY, |template| template.name).into(),
            attach: variant.attach,
            device: variant.device,
            requires: requirements(self.requires, &variant, built.as_ref()),
            deadline_ms: self.deadline_ms,
            work: Work::Case,
        };
        let id = info.id.clone();
        Cell::new(info, topology, move |ctx| {
            let mut ctx = if area.keeps_evidence { ctx.with_evidence() } else { ctx };
            let result = (self.run)(&mut ctx, &variant);
            ctx.finish(id.clone(), result)
        })
    }
}

/// The required capabilities: those of a variant's axes, of its topology's devices, and of the case. `auto` only
/// needs its device, since it selects from the attach types of the kernel.
fn requirements(own: &[Capability], variant: &Variant, topology: Option<&Topology>) -> Vec<Capability> {
    let mut requires = own.to_vec();
    if let Some(topology) = topology {
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
        let over_ipv6 = topology.devices.iter().any(|device| match &device.spec {
            DeviceSpec::Vxlan { tunnel, .. } | DeviceSpec::IpTunnel { tunnel } => tunnel.local.is_ipv6(),
            _ => false,
        });
        requires.extend(over_ipv6.then_some(Capability::Ipv6));
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
