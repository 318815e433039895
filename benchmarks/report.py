"""All pictures and the README's table of speed, from the figures on record: `python -m benchmarks.report`.

Reads benchmarks/results: layer.json, step.json, step-plus.json, convolve/, scaling/, roofline/; writes their pictures
beside them and the table to speed.md.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import convolve, roofline, scaling

RESULTS = Path(__file__).parent / "results"
IMAGES = 50_000
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
    found = {row["boundary"]: row["timed"] for row in record["comparisons"]}
    yield "| one 32x32 layer, forward and backward, ms an image | periodic | zero |"
    yield "| --- | --- | --- |"
    for ours, peers in PEERS.items():
        title = "this project" if ours == "ours" else "this project, (+)"
        yield f"| {title} | {_ms(found, 'periodic', ours)} | {_ms(found, 'zero', ours)} |"
        for peer, text in peers.items():
            cells = [f"{_ms(found, b, peer)} ({_ratio(found, b, peer, ours)})" for b in ("periodic", "zero")]
            yield f"| PyTorch, {text} | {cells[0]} | {cells[1]} |"


def _ms(found: dict[str, Any], boundary: str, name: str) -> str:
    return f"{found[boundary][name]['ms_per_image']:.2f}" if name in found[boundary] else "-"


def _ratio(found: dict[str, Any], boundary: str, peer: str, ours: str) -> str:
    timed = found[boundary]
    return f"{timed[peer]['ms_per_image'] / timed[ours]['ms_per_image']:.1f}x" if peer in timed else "-"


def step_table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Whole training steps."""
    yield "| whole training steps, batches of 50 | images/s | an epoch of CIFAR-10 | peak memory of the process |"
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
    table = [*layer_table(read("layer.json")), "", *step_table([read("step.json"), read("step-plus.json")])]
    (RESULTS / "speed.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    convolve.plot(read("convolve/convolve.json"), RESULTS / "convolve/convolve.png")
    scaling.draw(read("scaling/scaling.json"), RESULTS / "scaling/scaling.png")
    roofline.draw(read("roofline/roofline.json"), RESULTS / "roofline/roofline.png")
    print(RESULTS / "speed.md")


if __name__ == "__main__":
    main()
