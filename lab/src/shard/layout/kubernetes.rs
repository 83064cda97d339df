//! A Kubernetes Indexed Job: one pod per shard, on nodes with KVM where available.

use super::Layout;
use serde_json::{Value, json};

/// Exit code of `lab run` for an infrastructure failure: only then is the shard repeated.
const NO_VERDICT: u8 = 3;
/// Repetitions of a shard.
const RETRIES: u8 = 1;

/// Creates the job. Shards write to the claim `netkit-lab-results`, each to a directory of its own. A repeated attempt
/// empties this directory first, because results with the same shard twice can't be merged. ci/kubernetes/Containerfile
/// builds the image.
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
        // Gives the container access to the node's /dev/kvm; without it, guests run under emulation.
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
