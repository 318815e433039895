"""The README's Python runs, in order, and prints what its comments say."""

import contextlib
import io
import re
from pathlib import Path

from hcnn_core.testing import check_translation_covariant

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run():
    names: dict = {}
    printed = []
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block, "README.md", "exec"), names)
        printed += output.getvalue().splitlines()
    classified, shape, covariance, adjoint, gradient = printed
    assert classified.endswith("'] (10,)")
    assert shape == "(2, 32, 32, 4, 8, 16)"
    assert float(covariance) < 1e-11
    assert adjoint == "True"
    assert gradient == "(3, 3, 7, 11, 16)"
    names["test_my_layer"](check_translation_covariant)
