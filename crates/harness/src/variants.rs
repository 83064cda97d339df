//! The variants of cases.

use crate::case::{Direction, Variant};
use lab_protocol::{AttachRequest, LinkKind};

fn on(device: LinkKind) -> Variant {
    Variant { device: Some(device), ..Variant::default() }
}

/// netkit programs attach to netkit devices only; tc and tcx attach to anything.
fn possible(attach: AttachRequest, device: LinkKind) -> bool {
    attach != AttachRequest::Netkit || device.is_netkit()
}

fn cross(attaches: &[AttachRequest], devices: &[LinkKind]) -> Vec<Variant> {
    devices
        .iter()
        .flat_map(|&device| attaches.iter().map(move |&attach| (attach, device)))
        .filter(|&(attach, device)| possible(attach, device))
        .map(|(attach, device)| Variant { attach: Some(attach), ..on(device) })
        .collect()
}

fn both_ways(variants: Vec<Variant>) -> Vec<Variant> {
    variants
        .into_iter()
        .flat_map(|variant| Direction::BOTH.map(|direction| Variant { direction: Some(direction), ..variant }))
        .collect()
}

const NETKIT: [LinkKind; 2] = [LinkKind::NetkitL2, LinkKind::NetkitL3];
const EXPLICIT: [AttachRequest; 3] = [AttachRequest::Tc, AttachRequest::Tcx, AttachRequest::Netkit];

/// Every kind of workload link.
pub fn devices() -> Vec<Variant> {
    LinkKind::ALL.map(on).to_vec()
}

/// Both netkit modes.
pub fn netkit_devices() -> Vec<Variant> {
    NETKIT.map(on).to_vec()
}

/// Every attach type on every device kind that supports it.
pub fn mechanisms() -> Vec<Variant> {
    cross(&EXPLICIT, &LinkKind::ALL)
}

/// Every attach type and every device kind at least once.
pub fn paired_mechanisms() -> Vec<Variant> {
    let pair = |attach, device| Variant { attach: Some(attach), ..on(device) };
    vec![
        pair(AttachRequest::Tc, LinkKind::Veth),
        pair(AttachRequest::Tcx, LinkKind::Veth),
        pair(AttachRequest::Tcx, LinkKind::NetkitL2),
        pair(AttachRequest::Netkit, LinkKind::NetkitL2),
        pair(AttachRequest::Netkit, LinkKind::NetkitL3),
    ]
}

/// Every attach type on every device kind that supports it, in both directions.
pub fn hooks() -> Vec<Variant> {
    both_ways(mechanisms())
}

/// tc on every device kind, in both directions.
pub fn tc_hooks() -> Vec<Variant> {
    both_ways(cross(&[AttachRequest::Tc], &LinkKind::ALL))
}

/// tcx on every device kind, in both directions.
pub fn tcx_hooks() -> Vec<Variant> {
    both_ways(cross(&[AttachRequest::Tcx], &LinkKind::ALL))
}

/// netkit on both modes, in both directions.
pub fn netkit_hooks() -> Vec<Variant> {
    both_ways(cross(&[AttachRequest::Netkit], &NETKIT))
}

/// The attach types that are multi-program hooks with links: tcx on veth, netkit on netkit.
pub fn link_hooks() -> Vec<Variant> {
    both_ways(link_mechanisms())
}

/// Like [`link_hooks`], without the direction, which the case chooses.
pub fn link_mechanisms() -> Vec<Variant> {
    let mut variants = cross(&[AttachRequest::Tcx], &[LinkKind::Veth]);
    variants.extend(cross(&[AttachRequest::Netkit], &NETKIT));
    variants
}

/// Each attach type once, on the device kind on which a datapath would use it: for cases that do not depend on the
/// combination.
pub fn usual_mechanisms() -> Vec<Variant> {
    [cross(&[AttachRequest::Tc], &[LinkKind::Veth]), link_mechanisms()].concat()
}

/// The same in both directions.
pub fn usual_hooks() -> Vec<Variant> {
    both_ways(usual_mechanisms())
}

/// `auto` on every device kind.
pub fn auto() -> Vec<Variant> {
    cross(&[AttachRequest::Auto], &LinkKind::ALL)
}

/// `auto` on every device kind, in both directions.
pub fn auto_hooks() -> Vec<Variant> {
    both_ways(auto())
}

/// Each attach type and each device kind once: for cases about a path beyond the workload's link.
pub fn one_each() -> Vec<Variant> {
    use {AttachRequest as A, LinkKind as D};
    let pairs = [(A::Tc, D::Veth), (A::Tcx, D::NetkitL2), (A::Netkit, D::NetkitL3)];
    pairs.map(|(attach, device)| Variant { attach: Some(attach), ..on(device) }).to_vec()
}

/// netkit programs on both netkit modes.
pub fn netkit_native() -> Vec<Variant> {
    cross(&[AttachRequest::Netkit], &NETKIT)
}
