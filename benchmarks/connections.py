"""Dense connections and a static HyperNetwork beside the plain network, each trained for as many steps.

    HCNN_NUM_THREADS=1 python -m benchmarks.connections --data data --out benchmarks/results/connections

results/connections/README.md has the protocol; students and images are those of attention.py, without a teacher.
"""

from typing import Any

from benchmarks.attention import main

ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dense connections": {"skip": "dense"},
    "HyperNetwork": {"hypernetwork": 4},
}

COMPARED = [(arm, "plain") for arm in list(ARMS)[1:]]

if __name__ == "__main__":
    main(__doc__ or "", ARMS, COMPARED, seeds=3, epochs=4)
