#!/bin/bash
# A study on Slurm: Ray's head runs on the first node of the job, its workers on the others.
# docs/cluster.md explains it.
#
#   export SHARED=/scratch/$USER                     a folder that all nodes have at this path
#   sbatch studies/cluster/slurm.sh studies/deit_b.yaml --set data.path=$SHARED/imagenet
#
# Arguments after the study are passed to `ofbnas study run`. The same command resumes the study.
# The job also resumes by itself: five minutes before its time limit it stops the study, whose
# trials keep their checkpoints, and requeues itself. Fill in the numbers below, and how your Python
# environment is activated; all nodes must have it at the same path.
#SBATCH --job-name=ofbnas
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

study=${1:?give the study, such as studies/deit_b.yaml}
shared=${SHARED:?set SHARED to a folder that all nodes have at the same path}
shift
output=$shared/runs/$(basename "$study" .yaml)
if [[ -f ${VENV:-.venv}/bin/activate ]]; then source "${VENV:-.venv}/bin/activate"; fi

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN OFBNAS_CACHE=${OFBNAS_CACHE:-$shared/cache}
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not inherit it from sbatch

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts%%$'\n'*}  # the first line; under pipefail, `| head -n 1` could end the job by SIGPIPE
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" python -c 'import ray.util; print(ray.util.get_node_ip_address())')
address=$ip:$((20000 + SLURM_JOB_ID % 12000))  # Linux gives ports from 32768 on to any process
temporary=/tmp/ray-$SLURM_JOB_ID

end() {
    trap - EXIT
    kill $(jobs -p) 2>/dev/null || true
    wait
}
trap end EXIT

srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --block --node-ip-address="$ip" --port="${address##*:}" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false --disable-usage-stats --temp-dir="$temporary" &
if ((SLURM_JOB_NUM_NODES > 1)); then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --nodes="$others" --ntasks="$others" --exclude="$head" bash -c \
        'for _ in {1..60}; do ray health-check --address "$0" 2>/dev/null && break; sleep 2; done
         exec ray start --block --address "$0" --num-cpus "$1"' "$address" "$SLURM_CPUS_PER_TASK" &
fi

wait_for_nodes() {
    timeout 300 python - "$address" "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import sys, time
import ray

address, wanted = sys.argv[1], int(sys.argv[2])
while not ray.is_initialized() or sum(node["Alive"] for node in ray.nodes()) < wanted:
    try:
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError) as error:  # the head has not started yet
        print(error, file=sys.stderr)
    time.sleep(2)
PYTHON
}
if ! wait_for_nodes; then
    echo "not all $SLURM_JOB_NUM_NODES nodes joined Ray at $address within 300 s" >&2
    exit 1
fi

ofbnas doctor "$study" --address "$address" --output "$output" "$@"

ofbnas study run "$study" --address "$address" --output "$output" "$@" &
run=$!
again=no
trap 'again=yes; kill -TERM "$run"' USR1
trap 'kill -TERM "$run"' TERM
while kill -0 "$run" 2>/dev/null; do wait "$run" || true; done
status=0
wait "$run" || status=$?
if [[ $again == yes && $status != 0 ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
