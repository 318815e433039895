#!/usr/bin/env bash
# What to run first on a card, in 590 s at most: the card and values of each new kernel, then what was asked of steps,
# layers and primitives, row by row, beside PyTorch and cupyx in the same run. A part that fails or takes too long ends by
# itself, and the next begins. Rows that are there are not measured again: a second call goes on after them.
# usage, from the project's root: bash benchmarks/gpu/first.sh FOLDER
set -u
out=${1:?usage: first.sh FOLDER}; mkdir -p "$out"; touch "$out/first.txt"; began=$SECONDS
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore HCNN_QUIET=1
all=${ALL:-585}                  # seconds for everything
python=${PYTHON:-python3 -m}     # tests put a stand-in for the driver here
steps="hcnn-best:tf32:100:32 hcnn-best:float32:100:32 hcnn-best:tf32:100:16 hcnn-best:float32:100:16 resnet20:tf32:128:32
  resnet20:float32:128:32"
peers="hcnn-best:tf32:100:32 hcnn-best:bf16:100:32 hcnn-best:float32:100:32 hcnn-best:tf32:100:16 resnet20:tf32:128:32
  resnet20:bf16:128:32 resnet20:float32:128:32 hcnn-best:float32:100:16"
limited() {  # SECONDS COMMAND ...: no longer than what is left of all
  local left=$((all - SECONDS + began))
  timeout -k 3 $((left < $1 ? (left > 0 ? left : 1) : $1)) ${before:-} $python "${@:2}" 2>&1
}
run() {
  echo "== $((SECONDS - began)) s: ${before:-} ${*:2}"
  limited "$@" || echo "== ended by itself, status $?"
}
has() { grep -q "^$1" "$out/first.txt"; }  # ROW: whether it is there
{
  if has "values: 0 wrong"; then run 20 benchmarks.gpu.values card; else run 60 benchmarks.gpu.values; fi
  if ! command -v compute-sanitizer >/dev/null; then echo "== no compute-sanitizer here"
  else has ".*ERROR SUMMARY: 0 errors" || before="compute-sanitizer --error-exitcode 9" run 60 benchmarks.gpu.values; fi
  for s in $steps; do has "$s: [0-9]" || limited 90 benchmarks.gpu.peers steps "$s" >/dev/null & done; wait  # compiles all
  for s in $steps; do has "$s: [0-9]" || run 30 benchmarks.gpu.peers steps "$s"; done
  # a process for each: Dynamo compiles a function for eight kinds of arguments at most
  for s in $peers; do has "PyTorch $s: [0-9]" || run 60 benchmarks.gpu.peers_torch "$s"; done
  IFS=$'\n' read -rd "" -a done < <(sed -n 's/^\([a-z0-9 ,]*\): here float32 [0-9].*/\1/p' "$out/first.txt")
  run 90 benchmarks.gpu.peers convolutions "${done[@]}"
  for s in hcnn-best:tf32:100:32 hcnn-best:float32:100:32 resnet20:tf32:128:32; do
    has "$s: .* ms of kernels" || run 30 benchmarks.gpu.peers profile $s
  done
} | tee -a "$out/first.txt"
run 10 benchmarks.gpu.asked "$out/first.txt" | tee "$out/asked.txt"
{
  for products in float32 tf32; do
    has "16 pixels, $products: [0-9]" || run 50 benchmarks.gpu.networks --preset hcnn-best --precision $products --sizes 16
  done
  run 190 benchmarks.gpu.choices "$out"
} | tee -a "$out/first.txt"
