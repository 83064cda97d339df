#!/bin/bash
# Written by `lab plan --format slurm`: @CELLS@ cells in @COUNT@ shards. It submits an array job, a task for each shard, and a
# job that merges their results when every task has ended.
#
#   bash FILE [options of sbatch]    in the project's directory
#
# Each node has this directory and the lab at the same paths. LAB=PATH names another lab than the one in PATH; it and what
# guests run are built before (`lab build`). A cache of the node's own is NETKIT_LAB_CACHE in the job's environment, which a
# TaskProlog can set.
#
# A task whose node is lost runs again on another one (sbatch --requeue), and a task without a verdict (exit code 3) once. Each
# attempt has a directory of its own, and the first one that ends becomes the shard's result: a node that only lost its
# connection may end an attempt beside its repetition.
set -euo pipefail
count=@COUNT@
# Longest first by recorded times: Slurm starts the tasks of an array in the order of their numbers.
order=(@ORDER@)
lab=${LAB:-lab}

# The results of a shard: those of an attempt that ended, or else those of the last attempt that got to its first cell.
result() {
    if [ -d "$1/shards/$2" ]; then
        echo "$1/shards/$2"
        return
    fi
    local events
    while read -r events; do
        # The first event says which shard it is; without it there is nothing to merge.
        if [ "$(head -n 1 "$events" | wc -l)" -eq 1 ]; then
            dirname "$events"
            return
        fi
    done < <(find "$1/attempts" -path "$1/attempts/$2-*" -name events.jsonl | sort -rV)
}

case ${1-} in
shard)
    out=$2 number=${order[SLURM_ARRAY_TASK_ID - 1]} restarts=${SLURM_RESTART_COUNT:-0}
    attempt=$out/attempts/$number-$restarts
    echo "shard $number/$count on ${SLURMD_NODENAME:-this node}, attempt $((restarts + 1))"
    # What ends a task (its time limit, scancel, a requeue) ends the lab, which writes what it has until then.
    trap : TERM
    export CI=true
    status=0
    "$lab" run --no-build@SELECTION@ --partition "$number/$count" --jobs "${SLURM_CPUS_PER_TASK:-1}" --out "$attempt" || status=$?
    case $status in
    3)
        if [ "$restarts" -eq 0 ] && scontrol requeue "$SLURM_JOB_ID"; then
            echo "shard $number/$count has no verdict: requeued"
            exit "$status"
        fi
        ;;
    0 | 1) ;;
    *) exit "$status" ;;
    esac
    # Renamed as a whole, never onto another one: of two attempts that end, the first one counts.
    if mv -T "$attempt" "$out/shards/$number" 2>/dev/null; then
        echo "shard $number/$count ended with exit code $status"
    elif [ -d "$out/shards/$number" ]; then
        echo "shard $number/$count has the results of another attempt: those of this one are not used"
    else
        echo "error: can't rename $attempt to $out/shards/$number" >&2
        exit 3
    fi
    exit "$status"
    ;;
merge)
    out=$2 results=()
    for ((number = 1; number <= count; number++)); do
        found=$(result "$out" "$number")
        [ -z "$found" ] || results+=("$found")
    done
    if [ "${#results[@]}" -eq 0 ]; then
        echo "error: no shard has results; $out/task-*.log say why" >&2
        exit 3
    fi
    exec "$lab" merge "${results[@]}"
    ;;
"" | -*)
    for program in "$lab" sbatch; do
        command -v "$program" >/dev/null || {
            echo "error: $program is not in PATH" >&2
            exit 2
        }
    done
    LAB=$(realpath "$(command -v "$lab")")
    export LAB
    out=$PWD/results/slurm-$(date -u +%Y%m%dT%H%M%SZ)-$$
    mkdir -p "$out/attempts" "$out/shards"
    array=$(sbatch --parsable --job-name=netkit-lab "--array=1-$count" --requeue --time=@MINUTES@ --cpus-per-task=2 --mem=6G \
        "--output=$out/task-%a.log" --open-mode=append "$@" "$0" shard "$out")
    array=${array%%;*}
    # afterany: a shard without results is an error of the merged report, and not a report that never comes.
    merge=$(sbatch --parsable --job-name=netkit-lab-merge "--dependency=afterany:$array" --requeue --time=30 --cpus-per-task=1 --mem=2G \
        "--output=$out/merge.log" --open-mode=append "$@" "$0" merge "$out") || {
        scancel "$array"
        echo "error: the merge was not submitted, and job $array is cancelled" >&2
        exit 3
    }
    echo "array job $array, merge job ${merge%%;*}; logs and shards in $out"
    ;;
*)
    echo "error: \`$1\` is not an option of sbatch" >&2
    exit 2
    ;;
esac
