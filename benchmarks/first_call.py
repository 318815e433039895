"""How long the first calls take: `python -m benchmarks.first_call [--out FILE]`.

Each row is a fresh process, whose cache of compiled kernels is empty, or filled by the process before it: the import
with the first `convolve`, its two gradients, and a `convolve` along an axis of a new length. Time by the clock counts
what else the machine does. The processor time of the process counts it less: only what shares its core and its
caches. On a quiet machine the two are close, since functions are compiled one at a time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

CODE = """
import json, time
def clock():
    return time.perf_counter(), time.process_time()
stages, last = {}, clock()
def done(name):
    global last
    now = clock()
    stages[name] = [b - a for a, b in zip(last, now)]
    last = now
import numpy as np
done("import numpy")
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x
x, w = np.ones((2, 32, 32, 8, 16)), np.ones((3, 3, 7, 11, 16))
axes, options = (1, 2, 3, 4), {"boundary": "periodic", "stride": (1, 1, 2, 2)}
y = convolve(x, w, axes, **options)
done("first convolve, import included")
convolve_vjp_x(y, x.shape, w, axes, **options), convolve_vjp_w(y, x, w.shape, axes, **options)
done("its gradients")
convolve(np.ones((2, 32, 32, 8, 14)), w, axes, **options)
done("an axis of another length")
print(json.dumps(stages))
"""


def measure(cache: str) -> dict[str, list[float]]:
    """Seconds by the clock and of the processor, of each stage of a process."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_call", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="processes with a filled cache [%(default)s]")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        rows = {"empty cache": [measure(cache)], "filled cache": [measure(cache) for _ in range(options.repeats)]}
    record: dict[str, Any] = {"machine": describe_machine(), "seconds by the clock, of the processor": rows}
    for name, found in rows.items():
        print(name)
        for stage in found[0]:
            clock, processor = (min(each[stage][k] for each in found) for k in (0, 1))
            print(f"  {stage:32} {clock:6.2f} s by the clock, {processor:6.2f} s of the processor")
    print(f"load {os.getloadavg()[0]:.1f}; of several processes the least")
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
