#!/usr/bin/env bash
# Runs a plan's trainings on a machine that is lent for minutes, many at a time on its GPU.
#
#   bash benchmarks/gpu/lab.sh FOLDER [--jobs 12] [--for 840] [-- OPTIONS of gansynth benchmark]
#
# FOLDER has plan.yaml and what it names. What has ended is in FOLDER/jobs.tar after each minute: copied into the same
# folder on another machine, the same command goes on with the rest. README.md says more.
set -u
usage='lab.sh FOLDER [--jobs N] [--for SECONDS] [-- OPTIONS]'
folder=${1:?$usage} jobs=12 seconds=840; shift
while (($#)); do
  case $1 in
    --jobs) jobs=$2; shift ;;
    --for) seconds=$2; shift ;;
    --) shift; break ;;
    *) echo "lab.sh: $1: expected $usage" >&2; exit 2 ;;
  esac
  shift
done
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$folder" && [[ -s plan.yaml ]] || { echo "lab.sh: $folder: expected a folder with plan.yaml" >&2; exit 2; }
export PYTHONPATH=$root:$root/cli:$root/plugins:$root/adapters:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}
export OMP_NUM_THREADS=1  # a core or less for each training
[[ -d runs || ! -s jobs.tar ]] || tar -xf jobs.tar

keep() {  # what has ended, in one file that is never half written
  compgen -G 'runs/benchmarks/*/jobs' >/dev/null || return 0
  tar -cf jobs.tar.new --exclude=.work runs/benchmarks/*/jobs && mv jobs.tar.new jobs.tar
}

"${PYTHON:-python3}" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
timeout --signal=INT --kill-after=30 "$seconds" \
  "${PYTHON:-python3}" -m gansynth_cli benchmark plan.yaml --executor "local:$jobs" "$@" &
running=$!
trap 'kill -INT $running' INT TERM
while kill -0 $running 2>/dev/null; do
  for _ in {1..60}; do kill -0 $running 2>/dev/null && sleep 1; done
  keep
done
wait $running
code=$?
keep
((code != 124 && code != 130)) || echo "lab.sh: stopped after $SECONDS s; the same command goes on with what is left"
exit $code
