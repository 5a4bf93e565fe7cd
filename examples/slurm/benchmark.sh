#!/bin/bash
# Runs a benchmark on several machines: the same command in each job of an array. Each takes what no
# other has taken yet, and ends when all of the plan is done.
#
#   sbatch examples/slurm/benchmark.sh plan.yaml -o "$SCRATCH/gains"
#
# All words go to gansynth benchmark; all nodes must see the folder. Whatever stops a job (its time,
# the scheduler, a node), it goes on by itself, or when you type the same again.
#SBATCH --job-name=gains --array=0-3
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=8 --mem=32G --gpus=1
#SBATCH --time=24:00:00 --signal=B:TERM@180
#SBATCH --requeue --open-mode=append --output=gains_%a.log
set -eu
gansynth benchmark "$@" &
run=$!
stopped=
trap 'stopped=yes; kill -TERM $run' TERM    # three minutes before the time is up
code=0
while kill -0 $run 2> /dev/null; do wait $run && code=0 || code=$?; done

if [ -n "$stopped" ] && [ $code = 143 ]; then
    echo "stopped before the plan's end; it goes on in a job of the same number"
    scontrol requeue "$SLURM_JOB_ID" || echo "the scheduler refuses; type the same sbatch again"
fi
exit $code
