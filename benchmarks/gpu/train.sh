#!/usr/bin/env bash
# Train on a GPU for some seconds, and go on where the last call stopped: bash benchmarks/gpu/train.sh RUN SECONDS [flags]
# The settings of the first call (--preset hcnn, say) hold for all; --data-dir and --backend may change. RUN keeps
# checkpoints, metrics, picture. Status 0: the time was up, or all epochs are trained.
set -euo pipefail
run=$1 seconds=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=("${PYTHON:-python3}" -P)

if compgen -G "$run/epoch*.h5" > /dev/null; then
    flags=(--resume "$run")
    while [ $# -gt 0 ]; do # of all flags, those that a resumed run takes
        case $1 in
        --data-dir | --backend) flags+=("$1" "$2") && shift ;;
        --data-dir=* | --backend=*) flags+=("$1") ;;
        esac
        shift
    done
else
    rm -f "$run/config.toml" "$run/metrics.jsonl" "$run/learning-curve.png" # of a start that was stopped too early
    flags=(--out "$run" --backend cupy "$@")
fi
status=0
timeout --signal=TERM --kill-after=60 "$seconds" "${python[@]}" -u -m train.cifar "${flags[@]}" || status=$?
if [ "$status" -eq 124 ]; then # the time was up, and the run has saved its state at the end of a step, if it took one
    if [ -s "$run/metrics.jsonl" ]; then
        "${python[@]}" -m train.cifar --plot "$run"
    else
        echo "$run: the time was up before the end of the first epoch"
    fi
    exit 0
fi
exit "$status"
