#!/usr/bin/env bash
# All that a GPU has to show, in one folder: bash benchmarks/gpu/gate.sh FOLDER [--part check|train|test] [--archive FILE.tgz]
# Each part takes less than ten minutes. A later call goes on with what is not done, in the same folder or, where that is
# gone, from the archive. --help lists the options.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -P -u -m benchmarks.gpu.gate "$@"
