#!/usr/bin/env bash
# Train on a GPU for some seconds, and go on where the last call stopped: bash benchmarks/gpu/train.sh RUN SECONDS [flags]
# The flags of the first call (--preset hcnn --data-dir DIR, say) hold for all. RUN keeps checkpoints, metrics, picture.
set -euo pipefail
run=$1 seconds=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if [ -d "$run" ]; then
    set -- --resume "$run"
else
    set -- --out "$run" --backend cupy "$@"
fi
status=0
timeout --signal=TERM --kill-after=60 "$seconds" "${PYTHON:-python3}" -P -u -m train.cifar "$@" || status=$?
# 124: the time was up, and the run has saved its state at the end of the step
[ "$status" -eq 124 ] && "${PYTHON:-python3}" -P -m train.cifar --plot "$run" && exit 0
exit "$status"
