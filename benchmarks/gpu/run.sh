#!/usr/bin/env bash
# Measures gansynth on one CUDA device; README.md says what, and how to go on after a stop.
set -u
usage='run.sh OUT [--tiny] [--pretend] [--for SECONDS] [--only PART]'
out=${1:?$usage} tiny=() only='' limit=1000000; shift
root=$(cd "$(dirname "$0")/../.." && pwd) && here=$root/benchmarks/gpu
path=$root:$root/plugins:$root/adapters:$root/cli:$root/benchmarks:$root/benchmarks/measure
while (($#)); do
  case $1 in
    --tiny) tiny=(--tiny) ;;
    --pretend) export PRETEND_CUDA=1; path=$root/tests/pretend_cuda/for_children:$path ;;
    --for) limit=$2; shift ;;
    --only) only=$2; shift ;;
    *) echo "run.sh: $1: expected $usage" >&2; exit 2 ;;
  esac
  shift
done
mkdir -p "$out/parts" && out=$(cd "$out" && pwd) && cd "$root" || exit
export PYTHONPATH=$path:$out/site${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3} most=${PART_SECONDS:-540}
"$python" "$here/summary.py" begin "$out" || exit

part() {  # NAME COMMAND...: the command writes NAME.json, or something.json into NAME.d
  local made=$out/parts/$1 began=$SECONDS left=$((limit - SECONDS))
  [[ $1 == "$only"* && ! -s $made.json ]] || return 0
  ((left > 60)) || { echo "$1: no time left"; return 0; }
  timeout -k 10 $((left < most ? left : most)) "${@:2}" >"$made.log" 2>&1
  local code=$?
  [[ -d $made.d ]] && mv "$made.d"/*.json "$made.json" 2>/dev/null
  if [[ -s $made.json ]]; then echo "$1: $((SECONDS - began)) s"
  else echo "$1: failed, exit code $code: $(tail -n 1 "$made.log")"; fi
  "$python" "$here/summary.py" merge "$out"
}

measure() {  # NAME PART OPTIONS...
  part "$1" "$python" "$here/parts.py" "${@:2}" "${tiny[@]}" --out "$out/parts/$1.json"
}

live() {  # NAME OVERHEAD PRODUCERS OPTIONS...: nnU-Net on the GPU beside producers
  local options=(--blocks 8 --steps 40 --warmup 150 --patch 128 --spacing 1.2 --capacity 8 --features 32 64 128 256 320 320)
  ((${#tiny[@]})) && options=(--blocks 1 --steps 2 --warmup 2 --patch 16 --count 2)
  mkdir -p "$out/parts/$1.d"
  part "$1" env BENCH_RESULTS="$out/parts/$1.d" nnUNet_compile=t "$python" benchmarks/measure/bench_live.py "${options[@]}" \
    --device cuda --producers "$3" --workers auto --ratios "p 0.5" --overhead "$2" "${@:4}"
  rm -rf "$out/parts/$1.d"
}

sizes=(64 96 128) planes=(64 128 256) tests=(tests/gpu/test_*.py)
((${#tiny[@]})) && sizes=(64) planes=(64) tests=("${tests[0]}")
for size in "${sizes[@]}"; do for dtype in fp32 bf16; do
  measure "gan_step_${size}_$dtype" gan_step --size "$size" --dtype $dtype
done; done
for size in "${sizes[@]}"; do for dtype in fp32 bf16; do
  measure "gan_step_${size}_${dtype}_graphs" gan_step --size "$size" --dtype $dtype --ways "" "CUDA graphs"
done; done
measure gan_step_128_bf16_texture gan_step --size 128 --dtype bf16 --shape texture
for size in "${planes[@]}"; do measure "gan_2d_$size" gan_2d --size "$size"; done
measure real_fit_64 real_fit --size 64
((${#tiny[@]})) || measure real_fit_128 real_fit --size 128
for name in kernels volume doncenco; do measure $name $name; done
live live_2 0.02 1 --producer-device cuda:0
live live_free 100 1 --producer-device cuda:0
live live_lesions 100 auto --generator parametric
live live_lesions_cgan3d 100 4 --generator cgan3d-lesion --producer-device cuda:0
for file in "${tests[@]}"; do measure "$(basename "$file" .py)" tests --file "$file"; done
"$python" "$here/summary.py" table "$out"
