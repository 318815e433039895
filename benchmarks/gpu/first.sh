#!/usr/bin/env bash
# What to run first on a card, in 590 s at most: what was asked of steps, layers and primitives, row by row, beside PyTorch
# and cupyx in the same run. A part that fails or takes too long ends by itself, and the next begins. A second call goes on
# after the rows of the tables `passes` and `choices`.
# usage, from the project's root: bash benchmarks/gpu/first.sh FOLDER
set -u
out=${1:?usage: first.sh FOLDER}; mkdir -p "$out"; began=$SECONDS
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore HCNN_QUIET=1
all=${ALL:-585}                  # seconds for everything
python=${PYTHON:-python3 -m}     # tests put a stand-in for the driver here
steps="hcnn-best:tf32:100:32 hcnn-best:float32:100:32 hcnn-best:tf32:100:16 hcnn-best:float32:100:16 resnet20:tf32:128:32
  resnet20:float32:128:32"
limited() {  # SECONDS COMMAND ...: no longer than what is left of all
  local left=$((all - SECONDS + began))
  timeout -k 3 $((left < $1 ? (left > 0 ? left : 1) : $1)) $python "${@:2}" 2>&1
}
run() {
  echo "== $((SECONDS - began)) s: ${*:2}"
  limited "$@" || echo "== ended by itself, status $?"
}
{
  echo "== 0 s: compiling"
  for s in $steps; do limited 90 benchmarks.gpu.peers steps "$s" >/dev/null & done  # so that times have no compiler in them
  limited 90 benchmarks.gpu.networks --preset hcnn-best --sizes 16 >/dev/null &
  limited 90 benchmarks.gpu.peers_torch $steps >/dev/null & wait
  run 60 benchmarks.gpu.peers steps $steps
  run 90 benchmarks.gpu.peers_torch $steps
  run 90 benchmarks.gpu.peers convolutions
  run 45 benchmarks.gpu.peers profile hcnn-best:tf32:100:32 hcnn-best:float32:100:32
  for products in float32 tf32; do
    run 50 benchmarks.gpu.networks --preset hcnn-best --precision $products --sizes 16
  done
} | tee -a "$out/first.txt"
run 10 benchmarks.gpu.asked "$out/first.txt" | tee "$out/asked.txt"
{
  run 120 benchmarks.gpu.passes "$out"
  run 190 benchmarks.gpu.choices "$out"
} | tee -a "$out/first.txt"
