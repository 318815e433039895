#!/usr/bin/env bash
# What to run first on a card, in ten minutes at most: are values right, how long do steps take, what have new kernels
# gained, does `auto` choose well. A second call goes on after the rows of the first.
# usage, from the project's root: bash benchmarks/gpu/first.sh FOLDER
set -u
out=${1:?usage: first.sh FOLDER}; mkdir -p "$out"; began=$SECONDS
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore HCNN_QUIET=1
python=${PYTHON:-python3 -m}  # tests put a stand-in for the driver here
run() { echo "== $((SECONDS - began)) s: $*"; timeout "$1" $python "${@:2}" 2>&1; }
{
  for products in float32 tf32; do
    run 50 benchmarks.gpu.networks --preset hcnn-best --precision $products --sizes 16
  done
  run 100 benchmarks.gpu.peers steps hcnn-best:tf32:100:32 hcnn-best:float32:100:32 hcnn-best:tf32:100:16 \
    hcnn-best:float32:100:16 resnet20:tf32:128:32 resnet20:float32:128:32
  run 200 benchmarks.gpu.passes "$out"
  run 190 benchmarks.gpu.choices "$out"
} | tee -a "$out/first.txt"
