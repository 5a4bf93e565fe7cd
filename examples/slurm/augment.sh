#!/bin/bash
# Trains nnU-Net with synthetic samples, each fold in a job of its own. Prepare the data once, then:
#
#   sbatch examples/slurm/augment.sh nnunet:004 -c 3d_fullres
#
# All words go to gansynth augment. Whatever stops a job (its time, the scheduler, a node), it goes
# on at its last checkpoint: by itself, or when you type the same again. Finished folds are kept.
#SBATCH --job-name=augment --array=0-4
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=14 --mem=48G --gpus=1
#SBATCH --time=24:00:00 --signal=B:TERM@300
#SBATCH --requeue --open-mode=append --output=augment_%a.log
set -eu
# A GPU does the computing, and processes take the cores: 12 of nnU-Net's load and augment, one
# trains, one draws samples. In each of them, every thread above one would wait for the others.
export OMP_NUM_THREADS=1

# In a folder that all nodes see, with room: generators (runs/), and nnU-Net's folders unless set.
work=${GANSYNTH_WORK:-${SCRATCH:-$PWD}/augment}
export nnUNet_raw=${nnUNet_raw:-$work/nnUNet_raw}
export nnUNet_preprocessed=${nnUNet_preprocessed:-$work/nnUNet_preprocessed}
export nnUNet_results=${nnUNet_results:-$work/nnUNet_results}
mkdir -p "$work"
cd "$work"

gansynth augment "$@" --fold "$SLURM_ARRAY_TASK_ID" &
run=$!
stopped=
trap 'stopped=yes; kill -TERM $run' TERM    # five minutes before the time is up
code=0
while kill -0 $run 2> /dev/null; do wait $run && code=0 || code=$?; done

if [ -n "$stopped" ] && [ $code = 143 ]; then
    echo "fold $SLURM_ARRAY_TASK_ID: stopped before its end; it goes on in a job of the same number"
    scontrol requeue "$SLURM_JOB_ID" || echo "the scheduler refuses; type the same sbatch again"
fi
exit $code
