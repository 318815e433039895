"""Whatever kind of operand a layer is given, a list or another library's array, it takes the same way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autodiff as ad
from autodiff import grad, primitives
from tests.core.oracle import noise


class Elsewhere:
    """A host array of another library."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


LAYERS: dict[str, tuple[Any, tuple[tuple[int, ...], ...], str]] = {
    "convolve_elu": (
        lambda x, w, bias: ad.convolve_elu(x, w, bias, (1, 2), boundary="zero"),
        ((3, 3, 5), (5,)),
        "convolve_cotangents",
    ),
    "convolve_elu_marginal": (
        lambda x, w, bias: ad.convolve_elu_marginal(x, w, bias, (1, 2), 3, boundary="zero")[1],
        ((3, 3, 5), (5,)),
        "convolve_cotangents",
    ),
    "factored_layer": (
        lambda x, h, shift, g, bias: ad.factored_layer(x, h, shift, g, bias, (1, 2), 3, boundary="zero"),
        ((3, 3, 5), (5,), (5, 3, 2), (2,)),
        "factored_adjoints",
    ),
}


@pytest.mark.parametrize("kind", [np.ndarray.tolist, lambda a: tuple(a.tolist()), Elsewhere])
@pytest.mark.parametrize("name", LAYERS)
def test_operands_of_every_kind_take_the_same_way_back(name: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, shapes, at_once = LAYERS[name]
    x, *operands = (noise(seed, shape, "float64") for seed, shape in enumerate([(2, 6, 6, 4), *shapes]))
    calls, original = [], getattr(primitives, at_once)
    monkeypatch.setattr(primitives, at_once, lambda *args, **kw: calls.append(at_once) or original(*args, **kw))

    def gradient(operands: list[Any]) -> Any:
        return grad(lambda x: np.sum(layer(x, *operands) ** 2))(x)

    expected = gradient(operands)
    for place, operand in enumerate(operands):
        found = gradient([*operands[:place], kind(operand), *operands[place + 1 :]])
        assert np.array_equal(found, expected)
    assert len(calls) == 1 + len(operands)


def test_a_bias_of_another_dtype_takes_the_same_way_back() -> None:
    x, h, shift, g = (
        noise(seed, shape, "float32") for seed, shape in enumerate([(2, 6, 6, 4), (3, 3, 5), (5,), (5, 3, 2)])
    )

    def gradient(shift: Any, bias: Any) -> Any:
        return grad(lambda x: np.sum(ad.factored_layer(x, h, shift, g, bias, (1, 2), 3, boundary="zero") ** 2))(x)

    expected = gradient(shift, np.float32(0.5))
    assert expected.dtype == np.float32
    for given in ((shift, 0.5), (shift, np.float64(0.5)), (shift.astype(np.float64), np.float32(0.5))):
        assert np.array_equal(gradient(*given), expected)
