#!/usr/bin/env bash
# Train on a GPU for some seconds, and go on where the last call stopped: bash benchmarks/gpu/train.sh RUN SECONDS [flags]
# The settings of the first call (--preset hcnn, say) hold for all; --data-dir and --backend may change. RUN keeps
# checkpoints, metrics, picture. Status 0: the time was up, or all epochs are trained.
# After --gate FOLDER, packages and compiled kernels are those of the gate's folder: train.sh --gate FOLDER RUN SECONDS ...
set -euo pipefail
if [ "${1:-}" = --gate ]; then
    gate=$(cd "$2" && pwd)
    shift 2
    export PYTHONPATH="$gate/site${PYTHONPATH:+:$PYTHONPATH}" CUPY_CACHE_DIR="$gate/kernels"
fi
run=$1 seconds=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=("${PYTHON:-python3}" -P)

wanted='import importlib.util as u; print(*(n for n in ("numpy", "h5py", "cupy") if u.find_spec(n) is None))'
missing=$("${python[@]}" -c "$wanted")
if [ -n "$missing" ]; then
    echo "train.sh: no $missing: give the wheels to gate.sh by --wheels, and here --gate FOLDER first" >&2
    exit 1
fi

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
        "${python[@]}" -m hcnn plot "$run"
    else
        echo "$run: the time was up before the end of the first epoch"
    fi
    exit 0
fi
exit "$status"
