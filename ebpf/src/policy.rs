//! A workload's policy: the map decides per destination port, the configured verdict decides the rest.

use crate::{config, parse::Flow, stats};
use aya_ebpf::{macros::classifier, macros::map, maps::HashMap, programs::TcContext};
use lab_abi::{POLICY_ENTRIES, PolicyKey, VERDICT_NEXT};

#[map]
static POLICY: HashMap<PolicyKey, i32> = HashMap::with_max_entries(POLICY_ENTRIES, 0);

/// A listed destination gets its verdict, marked or not; of the others only marked packets get the default.
#[classifier]
fn policy(ctx: TcContext) -> i32 {
    let (marked, verdict) = match Flow::of(&ctx) {
        None => (false, VERDICT_NEXT),
        Some(flow) => {
            let marked = flow.is_marked();
            let key = PolicyKey { protocol: u16::from(flow.protocol), port: flow.destination };
            let default = if marked { config::verdict() } else { VERDICT_NEXT };
            (marked, listed(&key).unwrap_or(default))
        }
    };
    stats::record(&ctx, marked, verdict);
    verdict
}

#[inline(always)]
fn listed(key: &PolicyKey) -> Option<i32> {
    // SAFETY: the value is read at once; a concurrent update yields the old or the new verdict.
    unsafe { POLICY.get(key) }.copied()
}
