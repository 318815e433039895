"""Draw the picture and write the tables of speed, from the figures on record: `python -m benchmarks.report`.

Reads benchmarks/results: layer.json, memory.json, step.json, step-plus.json, convolve/; writes the picture of
`convolve` beside its figures, and the tables to speed.md.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import convolve
from benchmarks.runner import tables

RESULTS = Path(__file__).parent / "results"
IMAGES = 50_000
BOUNDARIES = ("periodic", "zero")
OURS = {"ours": "this project", "ours-plus": "this project, (+)"}
PEERS = {
    "ours": {
        "torch-written": "Eq. (8) as written: Q copies, batch norm, convolution along v",
        "torch-written-compiled": "the same, compiled",
        "torch-merged": "merged filter; patches, convolution along v",
        "torch-merged-compiled": "the same, compiled",
        "torch-toeplitz": "merged filter; block-Toeplitz convolution, 128 to 512 channels",
        "torch-toeplitz-compiled": "the same, compiled",
        "torch-conv-float32": "of these, the block-Toeplitz convolution alone",
        "torch-conv-bfloat16": "that convolution alone, in bfloat16",
    },
    "ours-plus": {
        "torch-plus": "(+): Q copies, batch norm, ELU, convolution along v",
        "torch-plus-compiled": "the same, compiled",
    },
}


def read(name: str) -> dict[str, Any]:
    """One record."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def beside(title: str, figures: dict[str, dict[str, float]], digits: int) -> tuple[str, list[tuple[str, ...]]]:
    """Return a table of what each peer takes at each boundary, and of how many times as much as ours."""
    rows = []
    for ours, peers in PEERS.items():
        rows.append((OURS[ours], *(f"{figures[b][ours]:.{digits}f}" for b in BOUNDARIES)))
        for peer in (name for name in peers if name in figures["zero"]):
            pairs = [(figures[b][peer], figures[b][ours]) for b in BOUNDARIES]
            rows.append((f"PyTorch, {peers[peer]}", *(f"{his:.{digits}f} ({his / own:.1f}x)" for his, own in pairs)))
    return f"{title} | {' | '.join(BOUNDARIES)}", rows


def steps(records: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield rows of whole training steps."""
    for record in records:
        for name, network in record["networks"].items():
            rate = record["batch_size"] / statistics.median(network["seconds"])
            preset, boundary = name.split(", ")
            minutes, peak = f"{IMAGES / rate / 60:.1f} min", f"{record['peak_memory_mib']:,.0f} MiB"
            yield f"`{preset}`, {boundary} boundary", f"{rate:.1f}", minutes, peak


def text() -> str:
    """Return the tables."""
    timed, held = read("layer.json")["comparisons"], read("memory.json")["boundaries"]
    times = {row["boundary"]: {name: of["ms_per_image"] for name, of in row["timed"].items()} for row in timed}
    memory = {row["boundary"]: {name: of["mib_per_image"] for name, of in row["memory"].items()} for row in held}
    added = "what that adds at its peak, MiB an image, of 50 (of 4 where there are Q copies)"
    header = "training steps, batches of 50 | images/s | 50,000 images at that rate | peak memory, both boundaries"
    return tables(
        beside("one 32x32 layer, forward and backward, ms an image", times, 2),
        beside(added, memory, 1),
        (header, steps([read("step.json"), read("step-plus.json")])),
    )


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    (RESULTS / "speed.md").write_text(text(), encoding="utf-8")
    convolve.plot(read("convolve/convolve.json"), RESULTS / "convolve/convolve.png")
    print(RESULTS / "speed.md")


if __name__ == "__main__":
    main()
