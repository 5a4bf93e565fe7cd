#!/bin/sh
# Runs a plan with a fair control, from its data on; typed again, it goes on where it was.
#
#   benchmarks/gains/fair.sh FOLDER PLAN --source DATA [options of gansynth benchmark]
#
# DATA is a folder with images/ and labels/: lgg_flair256, busi256. FOLDER/lgg64 or FOLDER/busi64 gets
# data, scans, the plan with their places, and results. Needs pip install -e benchmarks/controls.
set -eu
plan=$2 source=$4
gains=$(dirname "$(realpath "$0")")
scripts=$gains/../measure
cases=$(sed -n 's/^data: pictures://p' "$gains/$plan/plan.yaml")
folder=$(realpath -m "$1")/$cases
shift 4
mkdir -p "$folder"
if [ ! -d "$folder/$cases" ]; then
  python "$scripts/gain_data.py" lgg --source "$source" -o "$folder/$cases.part"
  # near-identical to pictures of other groups
  rm -f "$folder/$cases.part"/*/G0223_* "$folder/$cases.part"/*/G0645_*
  mv "$folder/$cases.part" "$folder/$cases"
fi
for scans in free all; do
  if [ ! -d "$folder/$scans" ]; then
    rm -rf "$folder/$scans.part"
    python "$scripts/gain_unlabelled.py" "$gains/$plan/plan.yaml" --data "pictures:$folder/$cases" \
      $([ $scans = all ] && echo --all) -o "$folder/$scans.part"
    mv "$folder/$scans.part" "$folder/$scans"
  fi
done
sed "s|pictures:all|pictures:$folder/all|" "$gains/$plan/plan.yaml" >"$folder/$plan.yaml"
exec gansynth benchmark "$folder/$plan.yaml" --data "pictures:$folder/$cases" -o "$folder/$plan" \
  --no-pictures --quiet "$@"
