//! Waits for the kernel's own clean-up instead of guessing how long it takes.
//!
//! What a case releases is freed asynchronously: a dead network namespace by the worker of `cleanup_net`
//! (`net/core/net_namespace.c`), one after another, and what its devices held by further work and grace periods behind
//! it. A namespace that is made to be dropped comes last in that queue, and a device that reaches out of it shows when
//! its turn has come.

use crate::error::HarnessError;
use lab_topology::{LinkKind, Netns, PairRequest, link};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(1);

/// Waits until the kernel has unregistered the devices of every namespace that was dead before the call. The whole of
/// the clean-up of those that were dead before an earlier call is through then, grace periods included.
///
/// # Errors
/// The kernel refuses a namespace or a device, or its clean-up does not get on by the deadline.
pub fn pass(deadline: Instant) -> Result<(), HarnessError> {
    let (here, gone) = (namespace()?, namespace()?);
    let request = PairRequest { peer_netns: Some(gone.fd()), ..PairRequest::new(LinkKind::Veth, "fence0", "fence1") };
    link::create_pair(&here, &request).map_err(HarnessError::Fence)?;
    drop(gone);
    // The end that stays goes with its peer.
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
