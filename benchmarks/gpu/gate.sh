#!/usr/bin/env bash
# All that a GPU has to show, in one folder, within ten minutes: bash benchmarks/gpu/gate.sh OUT
# Run again with the same folder, it goes on with the stages that are not done. --help lists the options.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -P -u -m benchmarks.gpu.gate "$@"
