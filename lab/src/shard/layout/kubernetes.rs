//! An Indexed Job: one pod per shard, on machines with KVM where there are any.

use super::Layout;
use serde_json::{Value, json};

/// Exit code of `lab run` where the cells have no verdict: only then is another attempt worth anything.
const NO_VERDICT: u8 = 3;
/// Attempts of a shard beside the first one.
const RETRIES: u8 = 1;

/// The job. Its shards write to the claim `netkit-lab-results`, each into a directory of its own, which a later attempt
/// empties first: a shard must not be there twice when results are merged. The image is that of ci/kubernetes/Containerfile.
pub(super) fn job(layout: &Layout, image: &str) -> Value {
    let timeout = layout.shards.iter().map(|shard| shard.timeout_minutes).max().unwrap_or_default();
    let script = format!(
        "test -e /cache/tools || ln -s /opt/netkit-lab/tools /cache/tools; \
         out=/results/shard-$JOB_COMPLETION_INDEX; rm -rf \"$out\"; \
         exec lab run --no-build{}{} --partition auto/{} --out \"$out\"",
        if layout.selection.is_empty() { "" } else { " " },
        layout.selection,
        layout.count
    );
    let container = json!({
        "name": "lab",
        "image": image,
        "command": ["/bin/sh", "-c", script],
        "env": [{ "name": "CI", "value": "true" }, { "name": "NETKIT_LAB_CACHE", "value": "/cache" }],
        // Shows the container the node's /dev/kvm, where it has one; guests fall back to emulation.
        "securityContext": { "privileged": true },
        "resources": {
            "requests": { "cpu": "2", "memory": "4Gi" },
            "limits": { "memory": "6Gi" },
        },
        "volumeMounts": [
            { "name": "results", "mountPath": "/results" },
            { "name": "cache", "mountPath": "/cache" },
        ],
    });
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": "netkit-lab", "labels": { "app": "netkit-lab" } },
        "spec": {
            "completionMode": "Indexed",
            "completions": layout.count,
            "parallelism": layout.count,
            "activeDeadlineSeconds": timeout * 60 * u64::from(RETRIES + 1),
            "backoffLimitPerIndex": RETRIES,
            "maxFailedIndexes": layout.count,
            "ttlSecondsAfterFinished": 172_800,
            "podFailurePolicy": { "rules": [{
                "action": "FailIndex",
                "onExitCodes": { "containerName": "lab", "operator": "NotIn", "values": [NO_VERDICT] },
            }] },
            "template": {
                "metadata": { "labels": { "app": "netkit-lab" } },
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [container],
                    "volumes": [
                        { "name": "results", "persistentVolumeClaim": { "claimName": "netkit-lab-results" } },
                        { "name": "cache", "persistentVolumeClaim": { "claimName": "netkit-lab-cache" } },
                    ],
                },
            },
        },
    })
}
