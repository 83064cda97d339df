//! Hooks in the numbers of `enum bpf_attach_type`.

use crate::BpfError;
use lab_protocol::Hook;

const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_NETKIT_PRIMARY: u32 = 54;
const BPF_NETKIT_PEER: u32 = 55;

/// The `expected_attach_type` that belongs to a hook: 0 for clsact.
///
/// The kernel only compares it among the users of a prog_array ("bpf: Enforce expected_attach_type for tailcall
/// compatibility").
pub const fn expected_attach_type(hook: Hook) -> u32 {
    match hook {
        Hook::ClsactIngress | Hook::ClsactEgress => 0,
        Hook::TcxIngress => BPF_TCX_INGRESS,
        Hook::TcxEgress => BPF_TCX_EGRESS,
        Hook::NetkitPrimary => BPF_NETKIT_PRIMARY,
        Hook::NetkitPeer => BPF_NETKIT_PEER,
    }
}

/// The attach type of a hook with the multi-program API.
pub(crate) const fn attach_type(hook: Hook) -> Result<u32, BpfError> {
    match hook {
        Hook::ClsactIngress | Hook::ClsactEgress => Err(BpfError::NotMprog(hook)),
        other => Ok(expected_attach_type(other)),
    }
}

/// The way back, for what a link says of itself.
pub(crate) const fn from_attach_type(attach_type: u32) -> Option<Hook> {
    match attach_type {
        BPF_TCX_INGRESS => Some(Hook::TcxIngress),
        BPF_TCX_EGRESS => Some(Hook::TcxEgress),
        BPF_NETKIT_PRIMARY => Some(Hook::NetkitPrimary),
        BPF_NETKIT_PEER => Some(Hook::NetkitPeer),
        _ => None,
    }
}
