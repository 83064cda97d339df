//! Deliberate faults of the witness: each makes its account wrong in one way, and holding it against another reading of the kernel
//! must show that.

use crate::decode::{AttachEvent, What};
use lab_protocol::AttachType;

/// What the witness does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WitnessFault {
    /// Programs that are detached from a hook stay in the account.
    DetachMissed,
    /// Links that are freed or detached stay.
    LinkEndMissed,
    /// Filters that are deleted stay.
    FilterEndMissed,
    /// Devices that go keep what was attached to them.
    DeviceEndMissed,
    /// Filters that are made are not seen.
    FilterMissed,
    /// A program that takes the place of another is attached beside it.
    ReplaceMissed,
    /// A link keeps its first program.
    UpdateMissed,
    /// Events are told of another network namespace.
    WrongNamespace,
    /// Events are told of the next device.
    WrongDevice,
    /// Ingress and egress, or primary and peer, are taken for each other.
    WrongHook,
    /// tcx and netkit are taken for each other.
    WrongMechanism,
    /// The program of an event is another one.
    WrongProgram,
    /// A link counts as a program that is attached without one.
    LinkIsProgram,
    /// What the kernel refused counts as attached.
    RefusedIsAttached,
}

impl WitnessFault {
    /// The event as it is seen with this fault, if it is seen at all.
    pub(crate) fn spoil(self, mut event: AttachEvent) -> Option<AttachEvent> {
        let is_missed = match self {
            Self::DetachMissed => matches!(event.what, What::ProgDetach { .. }),
            Self::LinkEndMissed => matches!(event.what, What::LinkGone { .. } | What::LinkDetach { .. }),
            Self::FilterEndMissed => matches!(event.what, What::FilterDel { .. }),
            Self::DeviceEndMissed => matches!(event.what, What::DeviceGone { .. }),
            Self::FilterMissed => matches!(event.what, What::FilterNew { .. }),
            Self::UpdateMissed => matches!(event.what, What::LinkUpdate { .. }),
            _ => false,
        };
        if is_missed {
            return None;
        }
        match self {
            Self::WrongNamespace => event.target.netns ^= 1,
            Self::WrongDevice => event.target.ifindex = event.target.ifindex.wrapping_add(1),
            Self::WrongProgram => event.program.id = event.program.id.wrapping_add(1),
            Self::RefusedIsAttached => event.refused = None,
            Self::LinkIsProgram => {
                if let What::LinkAttach { hook, .. } = &event.what {
                    event.what = What::ProgAttach { hook: hook.clone(), instead: None };
                }
            }
            Self::ReplaceMissed => {
                if let What::ProgAttach { instead, .. } | What::FilterNew { instead, .. } = &mut event.what {
                    *instead = None;
                }
            }
            Self::WrongHook | Self::WrongMechanism => self.other_hook(&mut event.what),
            _ => {}
        }
        Some(event)
    }

    fn other_hook(self, what: &mut What) {
        let (What::ProgAttach { hook, .. } | What::ProgDetach { hook } | What::LinkAttach { hook, .. }) = what else {
            return;
        };
        let (netkit, first) = match &*hook.name {
            "tcx/ingress" => (false, true),
            "tcx/egress" => (false, false),
            "netkit/primary" => (true, true),
            "netkit/peer" => (true, false),
            _ => return,
        };
        let (netkit, first) = if self == Self::WrongHook { (netkit, !first) } else { (!netkit, first) };
        hook.attach = Some(if netkit { AttachType::Netkit } else { AttachType::Tcx });
        hook.name = match (netkit, first) {
            (false, true) => "tcx/ingress",
            (false, false) => "tcx/egress",
            (true, true) => "netkit/primary",
            (true, false) => "netkit/peer",
        }
        .to_owned();
    }
}
