#!/usr/bin/env bash
# Steps and convolutions beside PyTorch and cupyx, and a step kernel by kernel, on one card in about five minutes.
# usage, from the project's root: bash benchmarks/gpu/peers.sh OUT      SPECS="preset:precision:batch:side ..." chooses steps
set -u
out=${1:?usage: peers.sh OUT}; mkdir -p "$out"; began=$SECONDS
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore HCNN_QUIET=1
specs=${SPECS:-hcnn-best:float32:100:32 hcnn-best:float32:100:16 hcnn-best:tf32:100:32 hcnn-best:tf32:100:16 \
  hcnn-best:tf32:500:32 resnet20:float32:128:32 resnet20:tf32:128:32 hcnn:float32:50:32}
run() { echo "== $((SECONDS - began)) s: $*"; timeout "$1" python3 -m "${@:2}" 2>&1; }
{
  for s in $specs; do timeout 110 python3 -m benchmarks.gpu.peers steps "$s" >/dev/null 2>&1 & done; wait  # compiles
  run 100 benchmarks.gpu.peers steps $specs
  run 150 benchmarks.gpu.peers_torch
  run 60 benchmarks.gpu.peers profile hcnn-best:float32:100:32 hcnn-best:tf32:100:32
  run 110 benchmarks.gpu.peers convolutions
} | tee "$out/peers.txt"
