//! Waits for the kernel's asynchronous clean-up, instead of for a fixed time.
//! The kernel frees resources of a case asynchronously: the worker of `cleanup_net` (`net/core/net_namespace.c`) frees
//! dead network namespaces one after another, and further work items and grace periods free the resources of their
//! devices. A new namespace that is dropped at once is the last in that queue; when the worker has deleted it, the peer
//! of a device in it disappears.

use crate::error::HarnessError;
use lab_topology::{LinkKind, Netns, PairRequest, link};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(1);

/// Waits until the kernel has unregistered the devices of every namespace that was dead before the call. The
/// clean-up of namespaces that were dead before an earlier call is then complete, including grace periods.
///
/// # Errors
/// The kernel refuses a namespace or a device, or its clean-up does not get on by the deadline.
pub fn pass(deadline: Instant) -> Result<(), HarnessError> {
    let (here, gone) = (namespace()?, namespace()?);
    let request = PairRequest { peer_netns: Some(gone.fd()), ..PairRequest::new(LinkKind::Veth, "fence0", "fence1") };
    link::create_pair(&here, &request).map_err(HarnessError::Fence)?;
    drop(gone);
    // The remaining end is deleted together with its peer.
    while link::info(&here, "fence0").is_ok() {
        if Instant::now() > deadline {
            return Err(HarnessError::Stalled);
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn namespace() -> Result<Netns, HarnessError> {
    Ok(Netns::new("fence")?)
}
