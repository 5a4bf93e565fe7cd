#!/bin/bash
# Runs a benchmark on several machines: a node of Ray on each, gansynth on the first.
#
#   sbatch examples/slurm/benchmark.sh plan.yaml -o "$SCRATCH/gains"
#
# All words go to gansynth benchmark. Submit it again to go on, or several times with
# --dependency=singleton. A single machine needs no Ray: gansynth benchmark ... --executor local.
#SBATCH --job-name=gains --nodes=4 --ntasks-per-node=1 --cpus-per-task=8 --gpus-per-node=1
#SBATCH --time=24:00:00 --signal=B:TERM@180
set -eu
bound=${BOUND:-120}    # seconds to wait for Ray
head=$(hostname)
port=$((20000 + SLURM_JOB_ID % 10000))
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_ADDRESS=$head:$port
step="srun --cpus-per-task=$SLURM_CPUS_PER_TASK"
node="--block --disable-usage-stats --num-cpus=$SLURM_CPUS_PER_TASK"
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT

# await WHAT PID COMMAND...: wait until the command succeeds, but not if the process has ended.
await() {
    local what=$1 pid=$2 since=$SECONDS
    shift 2
    until "$@" 2> /dev/null; do
        if ! kill -0 "$pid" 2> /dev/null; then
            echo "$what: its srun has ended, and Ray's reason is above; try that ray start by hand in: srun --pty bash" >&2
            exit 1
        fi
        if [ $((SECONDS - since)) -ge "$bound" ]; then
            echo "$what: not there after $bound s; if the nodes are only slow, set BOUND=600" >&2
            exit 1
        fi
        sleep 1
    done
}

answers() { (: < "/dev/tcp/$head/$port"); }
everyone_is_there() {
    timeout 60 python -c "import ray; ray.init(log_to_driver=False, logging_level='ERROR'); raise SystemExit(len(ray.nodes()) < $SLURM_JOB_NUM_NODES)"
}

$step --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port=$port --include-dashboard=false $node &
await "ray start on $head" $! answers
others=$((SLURM_JOB_NUM_NODES - 1))
$step --nodes=$others --ntasks=$others --exclude="$head" ray start --address="$head:$port" $node &
await "ray start on the $others other node(s)" $! everyone_is_there

gansynth benchmark "$@" --executor "ray:cpus=$SLURM_CPUS_PER_TASK,gpus=1" &
run=$!
trap 'kill -TERM $run' TERM    # three minutes before the time is up: jobs write their checkpoints
code=0
while kill -0 $run 2> /dev/null; do wait $run && code=0 || code=$?; done
exit $code
