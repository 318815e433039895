"""`conv_nd`, `conv_transpose_nd` and their modules against PyTorch's own, over the parameters of PyTorch's tests."""

from __future__ import annotations

import copy
import io
import itertools
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from hcnn_core.torch import ConvNd, ConvTransposeNd, conv_nd, conv_transpose_nd, convolve  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DOUBLE = torch.float64
Shape = tuple[int, ...]
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")

CONV: list[tuple[Shape, Shape, dict[str, Any]]] = [  # sample_inputs_conv1d, conv2d and conv3d
    ((1, 3, 4), (3, 3, 3), {"stride": 2, "padding": 2}),
    ((2, 4, 8), (2, 2, 3), {"stride": 3, "padding": 1, "groups": 2, "dilation": 2}),
    ((2, 2, 4), (2, 1, 4), {"stride": 1, "padding": "same", "groups": 2, "dilation": 2}),
    ((1, 4, 5), (3, 4, 3), {}),
    ((2, 4, 8, 8), (2, 2, 3, 3), {"stride": (3, 2), "padding": (2, 1), "groups": 2, "dilation": (4, 4)}),
    ((1, 4, 5, 5), (1, 4, 2, 3), {"stride": 2, "padding": 1, "dilation": (2, 3)}),
    ((1, 4, 5, 5), (1, 4, 2, 3), {"stride": 1, "padding": "same", "dilation": 3}),
    ((2, 4, 6, 6), (4, 1, 3, 3), {"groups": 4}),
    ((2, 4, 6, 6), (4, 1, 3, 3), {"groups": 4, "stride": (3, 2)}),
    ((2, 4, 6, 5), (6, 2, 3, 2), {"groups": 2}),
    ((1, 1, 4, 4, 4), (1, 1, 1, 1, 1), {"padding": "same"}),
    ((1, 1, 1, 1, 10), (1, 1, 1, 1, 4), {"padding": "valid"}),
    ((1, 1, 10, 11, 12), (1, 1, 1, 2, 5), {"padding": "same", "dilation": 2}),
    ((1, 1, 10, 11, 12), (1, 1, 4, 4, 4), {"padding": "same", "dilation": 3}),
    ((3, 9, 3, 1, 9), (3, 3, 3, 1, 9), {"stride": (2, 2, 2), "groups": 3}),
    ((1, 1, 5, 5, 10), (1, 1, 2, 3, 5), {"padding": "same"}),
    ((0, 3, 6), (2, 3, 3), {"padding": 1}),
]
TRANSPOSE: list[tuple[Shape, Shape, dict[str, Any]]] = [  # sample_inputs_conv_transpose1d, 2d and 3d
    ((1, 3, 4), (3, 3, 3), {"stride": 2, "padding": 2, "output_padding": 1}),
    ((2, 2, 4), (2, 2, 4), {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 4}),
    ((1, 1, 4), (1, 1, 4), {"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2}),
    ((1, 4, 5), (4, 8, 3), {}),
    (
        (2, 2, 4, 4),
        (2, 2, 4, 5),
        {"stride": (3, 2), "padding": (1, 2), "output_padding": (2, 3), "groups": 2, "dilation": 4},
    ),
    ((1, 1, 4, 5), (1, 1, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1, "dilation": (2, 3)}),
    ((2, 4, 4, 4), (4, 1, 3, 3), {"groups": 4}),
    (
        (2, 2, 4, 4, 4),
        (2, 2, 4, 5, 6),
        {"stride": (3, 2, 1), "padding": (1, 2, 3), "output_padding": (2, 3, 1), "groups": 2, "dilation": 4},
    ),
    ((1, 1, 4, 5, 2), (1, 1, 4, 3, 1), {"stride": 2, "padding": 1, "output_padding": 1, "dilation": (2, 3, 2)}),
]


def numbers(*shape: int) -> Any:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.manual_seed(sum(shape)), requires_grad=True)


def require_agreement(found: Any, expected: Any, *arguments: Any) -> None:
    """Equal values, and equal gradients by all arguments; the result is in C order, as PyTorch's is."""
    assert found.shape == expected.shape
    assert found.is_contiguous()
    h = torch.randn_like(expected)
    pairs = zip(*(torch.autograd.grad(y, arguments, h) for y in (found, expected)), strict=True)
    for a, b in [(found, expected), *pairs]:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("shape", "kernel", "options"), CONV)
def test_conv_nd_is_conv1d_2d_and_3d(shape: Shape, kernel: Shape, options: dict[str, Any], bias: bool) -> None:
    x, w, *rest = numbers(*shape), numbers(*kernel), *([numbers(kernel[0])] if bias else [])
    theirs = getattr(functional, f"conv{len(shape) - 2}d")
    require_agreement(conv_nd(x, w, *rest, **options), theirs(x, w, *rest, **options), x, w, *rest)


@pytest.mark.parametrize(("shape", "kernel", "options"), TRANSPOSE)
def test_conv_transpose_nd_is_conv_transpose1d_2d_and_3d(shape: Shape, kernel: Shape, options: dict[str, Any]) -> None:
    x, w, b = numbers(*shape), numbers(*kernel), numbers(kernel[1] * options.get("groups", 1))
    theirs = getattr(functional, f"conv_transpose{len(shape) - 2}d")
    require_agreement(conv_transpose_nd(x, w, b, **options), theirs(x, w, b, **options), x, w, b)


@st.composite
def one_axis(draw: st.DrawFn) -> tuple[int, int, dict[str, Any], str]:
    """Length, kernel size and options along one axis, which `conv1d` accepts."""
    n, k, d = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
    most = {"zeros": 6, "circular": n, "reflect": n - 1, "replicate": 6}[mode]
    p = draw(st.integers(0, most))
    k = min(k, (n + 2 * p - 1) // d + 1)
    return n, k, {"stride": draw(st.integers(1, 4)), "dilation": d, "padding": p}, mode


@given(one_axis())
def test_every_way_to_pad(case: tuple[int, int, dict[str, Any], str]) -> None:
    n, k, options, mode = case
    x, w = numbers(2, 3, n), numbers(2, 3, k)
    p = options["padding"]
    padded = x if mode == "zeros" else functional.pad(x, (p, p), mode)
    expected = functional.conv1d(padded, w, None, **(options if mode == "zeros" else {**options, "padding": 0}))
    require_agreement(conv_nd(x, w, None, **options, padding_mode=mode), expected, x, w)


@given(one_axis(), st.integers(0, 3))
def test_every_transpose(case: tuple[int, int, dict[str, Any], str], extra: int) -> None:
    n, k, options, _ = case
    options["output_padding"] = min(extra, max(options["stride"], options["dilation"]) - 1)
    options["padding"] = min(options["padding"], ((n - 1) * options["stride"] + options["dilation"] * (k - 1)) // 2)
    x, w = numbers(2, 3, n), numbers(3, 2, k)
    require_agreement(conv_transpose_nd(x, w, **options), functional.conv_transpose1d(x, w, **options), x, w)


def test_one_sample_is_all_that_padding_repeats() -> None:
    x, w = numbers(1, 1, 1), numbers(1, 1, 2)
    for mode in ("reflect", "replicate", "circular"):
        torch.testing.assert_close(conv_nd(x, w, padding=1, padding_mode=mode), (x * w.sum()).expand(1, 1, 2))


def test_circular_padding_longer_than_the_axis() -> None:
    x, w = numbers(1, 1, 3), numbers(1, 1, 4)
    for stride in (1, 2):
        padded = torch.cat([x] * 5, 2)[..., 2:13]  # 4 before and after
        expected = functional.conv1d(padded, w, stride=stride)
        require_agreement(conv_nd(x, w, stride=stride, padding=4, padding_mode="circular"), expected, x, w)


def loop_over_conv3d(x: Any, w: Any, stride: int, padding: int) -> Any:
    """The 4-D convolution that people write: a sum of conv3d over the taps of the first axis."""
    k, n = w.shape[2], x.shape[2] + 2 * padding
    x = functional.pad(x, (0, 0) * 3 + (padding, padding))
    rows = [
        sum(functional.conv3d(x[:, :, i + t], w[:, :, t], stride=stride, padding=padding) for t in range(k))
        for i in range(0, n - k + 1, stride)
    ]
    return torch.stack(rows, 2)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
def test_four_axes_are_a_loop_over_conv3d(stride: int, padding: int) -> None:
    x, w = numbers(2, 3, 5, 4, 6, 5), numbers(4, 3, 3, 3, 2, 3)
    found = conv_nd(x, w, stride=stride, padding=padding)
    require_agreement(found, loop_over_conv3d(x, w, stride, padding), x, w)


def test_five_and_six_axes_are_sums_over_windows() -> None:
    for m in (5, 6):
        x, w = numbers(1, 2, *(3,) * m), numbers(3, 2, *(2,) * m)
        windows = x
        for axis in range(2, m + 2):
            windows = windows.unfold(axis, 2, 1)
        expected = torch.tensordot(windows, w, ([1, *range(m + 2, 2 * m + 2)], list(range(1, m + 2)))).movedim(-1, 1)
        require_agreement(conv_nd(x, w), expected, x, w)


def test_transposing_six_axes_undoes_nothing_but_shapes() -> None:
    """The dot test: the transpose of conv_nd with the same weight."""
    x, w = numbers(1, 2, *(3,) * 6), numbers(3, 2, *(2,) * 6)
    y = conv_nd(x, w, stride=2, padding=1)
    h = torch.randn_like(y)
    back = conv_transpose_nd(h, w, stride=2, padding=1, output_padding=1)
    assert back.shape == x.shape
    torch.testing.assert_close((y * h).sum(), (x * back).sum(), rtol=1e-12, atol=0)


MODULES: list[tuple[Any, Any, dict[str, Any]]] = [
    (ConvNd, getattr(torch.nn, f"Conv{m}d"), options)
    for m, options in itertools.product(
        (1, 2, 3), [{}, {"padding": "same"}, {"padding": 1, "padding_mode": "circular"}]
    )
] + [(ConvTransposeNd, getattr(torch.nn, f"ConvTranspose{m}d"), {"stride": 2, "output_padding": 1}) for m in (1, 2, 3)]


@pytest.mark.parametrize(("ours", "theirs", "options"), MODULES)
def test_modules_are_pytorchs(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    """The same weights from the same seed, the same state, and the same results with and without a batch."""
    m = int(theirs.__name__[-2])
    torch.manual_seed(0)
    expected = theirs(4, 5, 3, dtype=DOUBLE, **options)
    torch.manual_seed(0)
    found = ours(4, 5, (3,) * m, dtype=DOUBLE, **options)
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(found.state_dict()[k], expected.state_dict()[k]) for k in expected.state_dict())
    other = ours(4, 5, (3,) * m, dtype=DOUBLE, **options)
    other.load_state_dict(expected.state_dict())
    for shape in [(2, 4, 3, 4, 5)[: m + 2], (4, 3, 4, 5)[: m + 1]]:
        x = numbers(*shape)
        torch.testing.assert_close(other(x), expected(x), rtol=1e-12, atol=1e-12)
    assert "kernel_size" in repr(found)


def test_modules_are_copied_and_saved() -> None:
    layer = ConvNd(2, 3, (3, 2, 3, 2), padding=1, padding_mode="circular", method="direct")
    x = torch.randn(1, 2, 4, 4, 4, 4)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), layer(x))
        assert other.method == "direct"


def test_autocast_computes_in_single_precision() -> None:
    layer = ConvNd(2, 3, (3, 3), padding=1)
    x = torch.randn(1, 2, 5, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        double = layer.double()(x.double())
    assert (y.dtype, double.dtype) == (torch.float32, DOUBLE)
    torch.testing.assert_close(y.double(), double, rtol=1e-5, atol=1e-5)
    layer = layer.float()
    with pytest.raises(TypeError, match=r"x has dtype torch\.bfloat16"):
        layer(x)


def test_modules_without_memory() -> None:
    layer = ConvTransposeNd(2, 3, (2, 2, 2, 2), stride=2, device="meta")
    assert layer(torch.empty(1, 2, 3, 3, 3, 3, device="meta")).shape == (1, 3, 6, 6, 6, 6)


def test_modules_are_compiled_without_breaks() -> None:
    torch._dynamo.reset()
    net = torch.nn.Sequential(
        ConvNd(1, 4, (3, 3, 2, 2), padding=1, stride=2, padding_mode="reflect"),
        torch.nn.ReLU(),
        ConvTransposeNd(4, 1, (2, 2, 2, 2), stride=2, dilation=(1, 2, 1, 1)),
    )
    x = torch.randn(1, 1, 5, 4, 5, 4)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), net(x), rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(f(x).square().sum(), net.parameters()) for f in (compiled, net)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_of_many_samples_at_once() -> None:
    """What torch.func is for: per-sample gradients of a module's parameters."""
    layer = ConvNd(1, 2, (3, 3, 3, 3), padding=1, groups=1)
    parameters = dict(layer.named_parameters())
    x = torch.randn(3, 1, 3, 3, 3, 3)

    def loss(parameters: Any, sample: Any) -> Any:
        return torch.func.functional_call(layer, parameters, (sample,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for i, sample in enumerate(x):
        expected = torch.autograd.grad(loss(parameters, sample), list(parameters.values()))
        for a, b in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-4, atol=1e-4)


RANK = """
import sys, numpy as np, torch
from hcnn_core.torch import ConvNd

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
layer = torch.nn.parallel.DistributedDataParallel(ConvNd(1, 2, (2, 2, 2, 2)))
x = torch.randn(2, 1, 3, 3, 3, 3)
layer(x[rank : rank + 1]).square().sum().backward()
np.save(f"{folder}/{rank}.npy", layer.module.weight.grad)
torch.distributed.destroy_process_group()
"""


def test_gradients_are_averaged_over_processes(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", RANK, str(rank), str(tmp_path)] for rank in range(2)]
    ranks = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in ranks:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    found = [np.load(tmp_path / f"{rank}.npy") for rank in range(2)]
    torch.manual_seed(0)
    layer = ConvNd(1, 2, (2, 2, 2, 2))
    layer(torch.randn(2, 1, 3, 3, 3, 3)).square().sum().backward()
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(2 * found[0], layer.weight.grad, rtol=1e-5, atol=1e-5)


ONES = torch.ones
BAD: list[tuple[Any, Any, dict[str, Any], str]] = [
    (ONES(2, 5), ONES(2), {}, "weight has 1 axes; it needs two for channels and between 1 and 6 kernel sizes"),
    (ONES(5), ONES(2, 1, 3), {}, "x has 1 axes and weight 3; x must have as many, or one less"),
    (ONES(1, 3, 5), ONES(2, 2, 3), {}, r"x has 3 channels and weight shape \(2, 2, 3\) with 1 groups; weight must be"),
    (ONES(1, 4, 5), ONES(3, 2, 3), {"groups": 2}, "with K a multiple of groups"),
    (ONES(1, 1, 2), ONES(1, 1, 3), {}, "axis 2 of x has 2 samples, padded to 2; a filter of 3 does not fit"),
    (ONES(1, 1, 5), ONES(1, 1, 3), {"stride": 0}, "stride is 0; give 1 or more"),
    (ONES(1, 1, 5), ONES(1, 1, 3), {"padding": (1, 1)}, "padding has 2 entries for 1 axes; give one, or one per axis"),
    (ONES(1, 1, 5), ONES(1, 1, 3), {"padding": "full"}, "padding is 'full'; give 'valid', 'same' or numbers"),
    (ONES(1, 1, 5), ONES(1, 1, 3), {"padding": "same", "stride": 2}, "'same' is for stride 1"),
    (ONES(1, 1, 5), ONES(1, 1, 3), {"padding_mode": "wrap"}, "padding_mode is 'wrap'; choose 'zeros' or 'circular'"),
    (ONES(1, 1, 5), ONES(2, 1, 3), {"bias": ONES(1)}, r"bias has shape \(1,\); it must be \(2,\), one for each filter"),
]


@pytest.mark.parametrize(("x", "weight", "options", "message"), BAD)
def test_what_conv_nd_refuses(x: Any, weight: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        conv_nd(x, weight, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        (ONES(2, 1, 3), {}, r"x has 1 channels and weight shape \(2, 1, 3\) with 1 groups; weight must be"),
        (
            ONES(1, 1, 3),
            {"output_padding": 1},
            "output_padding is 1; it must be less than the stride or the dilation, 1",
        ),
        (ONES(1, 1, 3), {"padding": 4}, "axis 2 of the result would have -1 samples; use less padding"),
        (ONES(1, 2, 3), {"bias": ONES(1)}, r"bias has shape \(1,\); it must be \(2,\)"),
    ],
)
def test_what_conv_transpose_nd_refuses(weight: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_transpose_nd(ONES(1, 1, 5), weight, **options)


def test_what_modules_refuse() -> None:
    with pytest.raises(TypeError, match=r"kernel_size is 3; give one length per axis, such as \(3, 3, 3, 3\)"):
        ConvNd(1, 1, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel_size has 7 entries; give between 1 and 6, one per axis"):
        ConvTransposeNd(1, 1, (2,) * 7)
    with pytest.raises(ValueError, match="stride has 2 entries for 4 axes"):
        ConvNd(1, 1, (3,) * 4, stride=(1, 2))
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        ConvNd(3, 4, (3,) * 4, groups=2)
    layer = ConvNd(2, 3, (3,) * 4, bias=False)
    assert math.prod(layer.weight.shape) == 486
    with pytest.raises(ValueError, match=r"x has 1 channels \(5 axes are one sample without a batch, \(C, \*space\)\)"):
        layer(torch.zeros(1, 2, 5, 5, 5))
    with pytest.raises(ValueError, match=r"x has 3 channels and weight shape \(3, 2, 3, 3, 3, 3\)"):
        layer(torch.zeros(2, 3, 5, 5, 5, 5))
    for one in (layer, ConvTransposeNd(2, 3, (3,) * 4)):
        with pytest.raises(
            TypeError, match=r"x has dtype torch.float64 and weight torch.float32; convert one, as with"
        ):
            one(torch.zeros(1, 2, 5, 5, 5, 5, dtype=DOUBLE))


X, W = torch.randn(2, 4, 5, 6), torch.randn(4, 4, 3, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: conv_nd(X, W, torch.zeros(4, dtype=torch.float64)), TypeError, "which would lose digits"),
        (lambda: conv_nd(X, W, [0.0] * 4), TypeError, r"bias is a list; pass a tensor, torch.as_tensor\(bias\)"),
        (lambda: conv_nd(X, W, stride=2.0), TypeError, "stride is 2.0; give an integer, or one per axis"),
        (lambda: conv_nd(X, W, stride=(1.5, 1)), TypeError, "stride holds 1.5; give integers"),
        (lambda: conv_nd(X, W, groups=0), ValueError, "groups is 0; give 1 or more"),
        (lambda: conv_nd(X, W[:, :, :0]), ValueError, "a filter needs at least one tap along each axis"),
        (lambda: ConvNd(4, 4, np.int64(3)), TypeError, r"such as \(3, 3, 3, 3\) for four axes"),
        (lambda: convolve(X, W[0, 0], (2, 3), boundary=None), TypeError, "boundary is None; give one for all axes"),
    ],
)
def test_what_does_not_fit_is_answered_in_one_line(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_options() -> None:
    two = np.int64(2)
    for options in ({"stride": two}, {"dilation": (two, 1)}, {"padding": np.array([1, 2])}):
        plain = {name: np.asarray(value).tolist() for name, value in options.items()}
        assert torch.equal(conv_nd(X, W, **options), conv_nd(X, W, **plain))
    assert torch.equal(conv_nd(X, W[:, :2], groups=two), conv_nd(X, W[:, :2], groups=2))
    flipped = convolve(X, W[0, 0], np.array([2, 3]), boundary="zero", stride=two)
    assert torch.equal(flipped, convolve(X, W[0, 0], (2, 3), boundary="zero", stride=2))


def test_spectral_normalisation_takes_the_axis_of_the_filters() -> None:
    theirs, ours = torch.nn.ConvTranspose3d(3, 5, (3, 2, 3)), ConvTransposeNd(3, 5, (3, 2, 3))
    ours.load_state_dict(theirs.state_dict())
    for module in (theirs, ours):
        torch.manual_seed(0)
        torch.nn.utils.parametrizations.spectral_norm(module)
    x = torch.randn(2, 3, 4, 4, 4)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (1, 3, 8, 7)])
def test_a_transpose_has_the_size_that_is_asked_for(size: Shape) -> None:
    ours, theirs = ConvTransposeNd(2, 3, (3, 3), 2, 1), torch.nn.ConvTranspose2d(2, 3, 3, 2, 1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))
    for module in (ours, theirs):
        with pytest.raises(ValueError, match=r"requested an output size of .18, 8., but valid sizes range from"):
            module(x, output_size=(18, 8))


def test_maps_over_nothing() -> None:
    x, w = torch.randn(2, 2, 5), torch.randn(3, 2, 3)
    for call in (conv_nd, torch.func.grad(lambda x, w: conv_nd(x, w).sum(), 1)):
        for dims in ((0, 0), (0, None), (None, 0)):
            given = [a if dim is None else a.new_empty((0, *a.shape)) for dim, a in zip(dims, (x, w), strict=True)]
            assert torch.func.vmap(call, dims)(*given).shape == (0, *call(x, w).shape)


def test_tracers_record_a_module_as_one_call_or_say_what_would() -> None:
    layer, x = ConvNd(2, 3, (3,), padding=1), torch.randn(1, 2, 5)
    for module in (layer, torch.nn.Sequential(layer, torch.nn.ReLU())):
        torch.testing.assert_close(torch.fx.symbolic_trace(module)(x), module(x))
    with pytest.raises(TypeError, match=r"take ConvNd, or torch.fx.wrap this function"):
        torch.fx.symbolic_trace(lambda x: conv_nd(x, layer.weight))
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match=r"use torch.export.export or torch.compile"):
        warnings.simplefilter("ignore")  # PyTorch's own, that its tracer is deprecated
        torch.jit.trace(layer, x)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_exported_modules_take_other_lengths(stride: int, mode: Any) -> None:
    layer = ConvNd(2, 3, (3,), stride, 1, padding_mode=mode)
    shapes = ({2: torch.export.Dim.AUTO},)
    exported = torch.export.export(layer, (torch.randn(1, 2, 16),), dynamic_shapes=shapes).module()
    for n in range(4, 24):
        x = torch.randn(1, 2, n)
        torch.testing.assert_close(exported(x), layer(x))
