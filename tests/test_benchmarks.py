"""Benchmarks run without the frameworks they compare with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import convolve_costs, roofline, step

ROOT = Path(__file__).resolve().parents[1]


def test_comparison_of_layers_names_what_it_skips(tmp_path: Path) -> None:
    out = tmp_path / "layer.json"
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('benchmarks.layer', run_name='__main__')"
    arguments = ["--quick", "--boundary", "periodic", "--out", str(out)]
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

    (comparison,) = json.loads(out.read_text("utf-8"))["comparisons"]
    assert set(comparison["timed"]) == {"ours", "ours-plus"}
    assert len(comparison["skipped"]) == 10
    for name, why in comparison["skipped"].items():
        assert name.startswith("torch-")
        assert f"{name}: skipped, {why}" in result.stdout.splitlines()
        assert why == "torch is not installed"
    assert json.loads(result.stdout.splitlines()[-1])["comparisons"] == [comparison]
    assert "skipped" in out.with_suffix(".txt").read_text("utf-8")


def test_every_stage_of_a_step_has_its_time() -> None:
    taken = step.Step("hcnn-plus", "zero", 16, width=4, factors=4, depth=6)
    taken()
    stages, _ = step.profile(taken)
    assert not [name for name in step.STAGES if stages[name] <= 0]


def test_roofline_adds_up_the_stages_of_a_plain_layer_alone() -> None:
    names = ("marginal", "convolution and ELU", "backward: of x and w", "(+) layer")
    figures = [(1, 4, 0.8), (2, 50, 100), (5, 5, 5), (7, 7, 7)]
    keys = ("ms_per_image", "gflops", "flops_per_byte")
    stages = [
        {"boundary": "zero", "stage": n, "gbs": 1} | dict(zip(keys, f, strict=True))
        for n, f in zip(names, figures, strict=True)
    ]
    text = roofline.lines({"sgemm_gflops": 100, "copy_gbs": 10, "threads": 2, "stages": stages})
    assert [line.split()[-2:] for line in text[3:7]] == [["50", "%"], ["50", "%"], ["10", "%"], ["10", "%"]]
    assert text[-1] == "zero: a plain layer's stages take 3.000 ms an image, at their roofs 1.500"


def test_costs_are_those_of_what_the_planner_chooses() -> None:
    rng = np.random.default_rng(0)
    for case in [convolve_costs.draw(rng) for _ in range(20)] + convolve_costs.AWKWARD:
        found = convolve_costs.choices(case.problem)
        chosen = convolve_costs.planner.choose(*convolve_costs.described(case.problem))
        least = min(map(convolve_costs.estimate, found.values()))
        assert convolve_costs.estimate(found[convolve_costs.name_of(chosen)]) <= least / convolve_costs.planner.GAIN
    rows = [{"regret": ratio} for ratio in (1.0, 1.15, 1.4, 1.1)]
    expected = '"auto" within 1.15 times of the best for 75.0% of 4; median 1.12, mean 1.16, largest 1.40'
    assert convolve_costs.summary(rows) == expected
    measured = [
        {"measured_regret": ratio, "planning_ms": 10.0, "paid_after": calls, "chosen_ms": auto, "measured_ms": 1.0}
        for ratio, calls, auto in ((1.0, 20, 2.0), (1.2, None, 1.0), (1.1, 40, 1.5), (1.0, 900, 1.01))
    ]
    assert convolve_costs.summary_of_measured(measured) == (
        "measured plans within 1.15 times of the best for 75.0% of 4; median 1.05, mean 1.07, largest 1.20; "
        "planning takes 10 ms in the median, 10 at most; 2 gain 1.15 times, paid for after 30 calls, 40 at most"
    )


def test_a_document_shows_the_tables_on_record() -> None:
    table = (ROOT / "benchmarks/results/speed.md").read_text("utf-8")
    assert table in (ROOT / "docs/performance.md").read_text("utf-8")
