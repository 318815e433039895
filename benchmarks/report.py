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


def layer_table(record: dict[str, Any]) -> Iterator[str]:
    """Times of one layer, ours and PyTorch's, and their ratios."""
    timed = {row["boundary"]: row["timed"] for row in record["comparisons"]}
    yield "| one 32x32 layer, forward and backward, ms an image | periodic | zero |"
    yield "| --- | --- | --- |"
    for ours, peers in PEERS.items():
        yield f"| {OURS[ours]} | {' | '.join(_ms(timed, b, ours) for b in BOUNDARIES)} |"
        for peer, text in peers.items():
            cells = (f"{_ms(timed, b, peer)} ({_ratio(timed, b, peer, ours)})" for b in BOUNDARIES)
            yield f"| PyTorch, {text} | {' | '.join(cells)} |"


def _ms(timed: dict[str, Any], boundary: str, name: str) -> str:
    return f"{timed[boundary][name]['ms_per_image']:.2f}" if name in timed[boundary] else "-"


def _ratio(of_layer: dict[str, Any], boundary: str, peer: str, ours: str) -> str:
    timed = of_layer[boundary]
    return f"{timed[peer]['ms_per_image'] / timed[ours]['ms_per_image']:.1f}x" if peer in timed else "-"


def memory_table(record: dict[str, Any]) -> Iterator[str]:
    """Memory of a step of one layer, ours and PyTorch's, and their ratios."""
    memory = {row["boundary"]: row["memory"] for row in record["boundaries"]}
    yield "| what that adds at its peak, MiB an image, of 50 (of 4 where there are Q copies) | periodic | zero |"
    yield "| --- | --- | --- |"
    for ours, peers in PEERS.items():
        least = {b: memory[b][ours]["mib_per_image"] for b in BOUNDARIES}
        yield f"| {OURS[ours]} | {' | '.join(f'{least[b]:.1f}' for b in BOUNDARIES)} |"
        for peer in (name for name in peers if name in memory["zero"]):
            figures = {b: memory[b][peer]["mib_per_image"] for b in BOUNDARIES}
            cells = (f"{figures[b]:.1f} ({figures[b] / least[b]:.1f}x)" for b in BOUNDARIES)
            yield f"| PyTorch, {peers[peer]} | {' | '.join(cells)} |"


def step_table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Whole training steps."""
    yield "| training steps, batches of 50 | images/s | 50,000 images at that rate | peak memory, both boundaries |"
    yield "| --- | --- | --- | --- |"
    for record in records:
        for name, network in record["networks"].items():
            rate = record["batch_size"] / statistics.median(network["seconds"])
            preset, boundary = name.split(", ")
            minutes, peak = IMAGES / rate / 60, record["peak_memory_mib"]
            yield f"| `{preset}`, {boundary} boundary | {rate:.1f} | {minutes:.1f} min | {peak:,.0f} MiB |"


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    layer, memory = layer_table(read("layer.json")), memory_table(read("memory.json"))
    table = [*layer, "", *memory, "", *step_table([read("step.json"), read("step-plus.json")])]
    (RESULTS / "speed.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    convolve.plot(read("convolve/convolve.json"), RESULTS / "convolve/convolve.png")
    print(RESULTS / "speed.md")


if __name__ == "__main__":
    main()
