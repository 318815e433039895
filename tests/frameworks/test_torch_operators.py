"""`hcnn_core.torch.convolve`: values, gradients of every order, and the transforms and the compiler of PyTorch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import hcnn_core
from hcnn_core.backend import _device
from tests.core.oracle import Problem, problems

torch = pytest.importorskip("torch")
from hcnn_core.torch import _operators, convolve  # noqa: E402

# PyTorch's own forward mode warns of PyTorch's own functions
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

FLOAT, COMPLEX = torch.float64, torch.complex128
X, W, G = (torch.randn(shape, dtype=FLOAT, generator=torch.manual_seed(0)) for shape in ((4, 5), (3, 3, 2), (4, 5, 2)))
OPTIONS = ([4, 5], [3, 3, 2], [0, 1], [], [1, 1], ["periodic"] * 2, ["auto"] * 2)
"""Of the convolution of X with W, as the operators take them."""

Convolution = Callable[[Any, Any], Any]
Cell = Callable[[Convolution], Any]


def definition(x: Any, w: Any) -> Any:
    """The convolution of X with W in functions of PyTorch's."""
    return sum(torch.roll(x, (a - 1, b - 1), (0, 1))[..., None] * w[a, b] for a in range(3) for b in range(3))


def by(calls: _operators.Calls) -> Convolution:
    return lambda x, w: calls["y"](x, w, *OPTIONS)


def loss(function: Convolution) -> Convolution:
    return lambda x, w: (function(x, w) ** 3 * G).sum()


def backward(function: Convolution) -> Any:
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    return torch.autograd.grad(loss(function)(x, w), (x, w))


def twice(function: Convolution) -> Any:
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    first = torch.autograd.grad(loss(function)(x, w), (x, w), create_graph=True)
    return torch.autograd.grad(sum((g**2).sum() for g in first), (x, w))


def of_gradient(function: Convolution) -> Convolution:
    return torch.func.grad(loss(function), (0, 1))


def nested(function: Convolution) -> Any:
    return torch.func.grad(lambda w: (of_gradient(function)(X, w)[0] ** 2).sum())(W)


def forward_mode(function: Convolution) -> Any:
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(X, X.flip(0))
        return tuple(torch.autograd.forward_ad.unpack_dual(function(x, W)))


def compiled(function: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


XS, WS = torch.stack([X, 2 * X, -X]), torch.stack([W, 3 * W, -W], 2)
CELLS: dict[str, Cell] = {
    "backward": backward,
    "double backward": twice,
    "grad": lambda f: of_gradient(f)(X, W),
    "nested grad": nested,
    "jacrev": lambda f: torch.func.jacrev(f, (0, 1))(X, W),
    "jacrev of jacrev": lambda f: torch.func.jacrev(torch.func.jacrev(f), 1)(X, W),
    "jvp": lambda f: torch.func.jvp(f, (X, W), (X, W)),
    "hessian": lambda f: torch.func.hessian(loss(f), (0, 1))(X, W)[1][0],
    "jacfwd": lambda f: torch.func.jacfwd(f)(X, W),
    "forward mode": forward_mode,
    "vmap over x": lambda f: torch.func.vmap(f, (0, None))(XS, W),
    "vmap over w": lambda f: torch.func.vmap(f, (None, 2), 1)(X, WS),
    "vmap over both": lambda f: torch.func.vmap(f, (0, 2))(XS, WS),
    "vmap of grad over x": lambda f: torch.func.vmap(of_gradient(f), (0, None))(XS, W),
    "vmap of grad over w": lambda f: torch.func.vmap(of_gradient(f), (None, 2))(X, WS),
    "compile": lambda f: compiled(f)(X, W),
    "compile, backward": lambda f: backward(compiled(f)),
    "compile of grad": lambda f: compiled(of_gradient(f))(X, W),
}
FORWARD = {"jvp", "jacfwd", "forward mode"}
VALUES_ALONE = {"vmap over x", "vmap over w", "vmap over both", "compile"}
UNDER_TORCH_FUNC = {cell for cell in CELLS if "grad" in cell or "jacrev" in cell or cell == "hessian"}
every_cell = pytest.mark.parametrize("cell", CELLS)


def agree(found: Any, expected: Any) -> bool:
    pairs = zip(*(each if isinstance(each, tuple) else (each,) for each in (found, expected)), strict=True)
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in pairs)


@every_cell
def test_every_transform_of_the_public_function(cell: str) -> None:
    found = CELLS[cell](lambda x, w: convolve(x, w, (0, 1), boundary="periodic"))
    assert agree(found, CELLS[cell](definition))


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in FORWARD])
@pytest.mark.parametrize("route", ["operator", "function"])
def test_what_each_route_can(route: str, cell: str) -> None:
    """The public function calls operators outside of torch.func and functions inside: operators are refused there.

    In forward mode operators have no tangent, and do not say so.
    """
    calls = _operators.REGISTERED if route == "operator" else _operators.FUNCTIONS
    refused = route == "operator" and cell in UNDER_TORCH_FUNC
    with pytest.raises(RuntimeError, match="setup_context") if refused else contextlib.nullcontext():
        assert agree(CELLS[cell](by(calls)), CELLS[cell](definition))


@every_cell
def test_a_wrong_backward_is_noticed(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    right = _operators.cotangents

    def wrong(*arguments: Any) -> Any:
        of_a, of_b, *rest = right(*arguments)
        return (of_a, None if of_b is None else 2 * of_b, *rest)

    monkeypatch.setattr(_operators, "cotangents", wrong)
    found = CELLS[cell](lambda x, w: convolve(x, w, (0, 1), boundary="periodic"))
    assert agree(found, CELLS[cell](definition)) == (cell in VALUES_ALONE | FORWARD)


@pytest.mark.parametrize("cell", sorted(FORWARD))
def test_a_wrong_tangent_is_noticed(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    right = _operators.tangent
    monkeypatch.setattr(_operators, "tangent", lambda *arguments: 2 * right(*arguments))
    found = CELLS[cell](lambda x, w: convolve(x, w, (0, 1), boundary="periodic"))
    assert not agree(found, CELLS[cell](definition))


def tensors(problem: Problem, *arrays: Any) -> list[Any]:
    return [torch.tensor(np.ascontiguousarray(a)) for a in (problem.x, problem.w, *arrays)]


@given(problems(max_axes=3))
def test_values_and_gradients_are_those_of_arrays(problem: Problem) -> None:
    x, w = tensors(problem)
    y = problem.run(convolve, x, w)
    np.testing.assert_array_equal(y, problem.run(hcnn_core.convolve, x.numpy(), w.numpy()))
    h = torch.full_like(y, 1.5).numpy()
    y = problem.run(convolve, x.requires_grad_(), w.requires_grad_())
    found = torch.autograd.grad(y, (x, w), torch.from_numpy(h))
    x, w = x.detach().numpy(), w.detach().numpy()
    np.testing.assert_array_equal(found[0], problem.run(hcnn_core.convolve_vjp_x, h, x.shape, w.conj()))
    np.testing.assert_array_equal(found[1], problem.run(hcnn_core.convolve_vjp_w, h, x.conj(), w.shape))


@pytest.mark.parametrize("dtype", [FLOAT, COMPLEX])
def test_gradients_of_both_orders_by_finite_differences(dtype: Any) -> None:
    x = torch.randn(2, 5, 3, 4, dtype=dtype, requires_grad=True)
    w = torch.randn(3, 2, 3, 2, dtype=dtype, requires_grad=True)
    layer = partial(convolve, axes=(1, 3), boundary=("periodic", "zero"), sum_axes=2, stride=(2, 1))
    assert torch.autograd.gradcheck(layer, (x, w))
    assert torch.autograd.gradgradcheck(layer, (x, w))


SAMPLES = {
    "single precision": (torch.randn(2, 3, 6), torch.randn(3, 3, 4)),
    "double precision": (torch.randn(2, 3, 6, dtype=FLOAT), torch.randn(3, 2, 4, dtype=FLOAT)),
    "complex": (torch.randn(2, 3, 6, dtype=COMPLEX), torch.randn(3, 3, 4, dtype=COMPLEX)),
    "transposed": (torch.randn(6, 3, 2).permute(2, 1, 0), torch.randn(4, 3, 3).permute(2, 1, 0)),
    "part of a tensor": (torch.randn(4, 3, 7)[1:3, :, 1:], torch.randn(3, 3, 4)),
    "one number many times": (torch.ones(1, 3, 1).expand(2, 3, 6), torch.randn(3, 3, 4)),
    "no batch": (torch.randn(0, 3, 6), torch.randn(3, 3, 4)),
}


@pytest.mark.parametrize("role", _operators.NAMES)
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("records", [False, True], ids=["plain", "records gradients"])
def test_operators_keep_the_rules_of_pytorch(name: str, role: Any, records: bool) -> None:
    x, w = SAMPLES[name]
    y = convolve(x, w, 2, boundary="zero", sum_axes=1, stride=2)
    given = {"x": x, "w": w, "y": torch.randn_like(y)}
    operands = [given[k].clone() if name != "one number many times" else given[k] for k in _operators.OPERANDS[role]]
    if records:
        operands = [operand.detach().requires_grad_() for operand in operands]
    options = (list(x.shape), list(w.shape), [2], [1], [2], ["zero"], ["auto"])
    with warnings.catch_warnings(action="ignore"):  # of opcheck's own making
        torch.library.opcheck(_operators.REGISTERED[role], (*operands, *options))


@pytest.mark.parametrize("mapped", [("x",), ("w",), ("x", "w")], ids="".join)
@pytest.mark.parametrize("sum_axes", [(), (1,), (3, 0)])
def test_mapping_any_operand_of_any_order(mapped: tuple[str, ...], sum_axes: tuple[int, ...]) -> None:
    """With channels, strides and mapped axes anywhere, of the function and of its gradients."""
    shape = (2, 3, 4, 2)
    channels = tuple(shape[a] for a in sum_axes)
    axes = (2,) if 1 in sum_axes else (2, 1)
    x = torch.randn(3, *shape, dtype=FLOAT)
    w = torch.randn(*channels, *(3, 2)[: len(axes)], 3, 2, dtype=FLOAT)  # the axis of length 3 is mapped
    at = {"x": 0 if "x" in mapped else None, "w": w.ndim - 2 if "w" in mapped else None}
    x, w = x if at["x"] == 0 else x[0], w if at["w"] else w[..., 0, :]

    def function(x: Any, w: Any) -> Any:
        return convolve(x, w, axes, boundary="zero", sum_axes=sum_axes, stride=2)

    def gradients(x: Any, w: Any) -> Any:
        return torch.func.grad(lambda x, w: (function(x, w) ** 2).sum(), (0, 1))(x, w)

    for each in (function, gradients):
        found = torch.func.vmap(each, (at["x"], at["w"]))(x, w)
        rows = [each(x[i] if at["x"] == 0 else x, w.select(at["w"], i) if at["w"] else w) for i in range(3)]
        expected = tuple(map(torch.stack, zip(*rows, strict=True))) if isinstance(rows[0], tuple) else torch.stack(rows)
        assert agree(found, expected)


def test_tensors_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(role: Any, problem: Any, *arrays: Any) -> Any:
        seen.extend(a.__array_interface__["data"][0] for a in arrays)
        return right(role, problem, *arrays)

    right = _operators.derivative
    monkeypatch.setattr(_operators, "derivative", spy)
    x, w = torch.randn(2, 3, 6)[:, :, 1:], torch.randn(4, 3, 3).permute(2, 1, 0)
    y = convolve(x, w, 2, boundary="zero", sum_axes=1)
    assert seen == [x.data_ptr(), w.data_ptr()]
    assert y.movedim(-1, 1).is_contiguous()  # channels stay in front of space


def test_compiling_for_lengths_that_change() -> None:
    torch._dynamo.reset()
    layer = torch.compile(
        lambda x, w: convolve(x, w, 1, boundary="zero", stride=2), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (6, 9, 12):
        x, w = torch.randn(2, n), torch.randn(3, 2)
        np.testing.assert_array_equal(layer(x, w), convolve(x, w, 1, boundary="zero", stride=2))


def test_tensors_without_values() -> None:
    x, w = torch.empty(2, 3, 6, device="meta", requires_grad=True), torch.empty(3, 3, 4, device="meta")
    y = convolve(x, w, 2, boundary="zero", sum_axes=1, stride=2)
    assert (y.shape, y.device.type, y.dtype) == ((2, 3, 4), "meta", torch.float32)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_tensors_without_values_lie_as_those_with_values() -> None:
    """Along two axes the order of axes in memory is not its own inverse."""
    x, w = torch.randn(2, 3, 6, 5), torch.randn(3, 3, 2, 4)
    found = [
        convolve(x.to(device), w.to(device), (2, 3), boundary="zero", sum_axes=1).stride() for device in ("cpu", "meta")
    ]
    assert found[0] == found[1] != torch.empty(2, 6, 5, 4).stride()


@contextlib.contextmanager
def standing_in(seen: list[Any], *given: Any) -> Iterator[Any]:
    seen.append(given)
    yield SimpleNamespace(from_dlpack=np.from_dlpack, ascontiguousarray=np.ascontiguousarray)


def test_tensors_on_a_gpu_go_through_cupy_on_the_current_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a GPU: the kernel of CUDA tensors, with NumPy in CuPy's place."""
    seen: list[Any] = []
    monkeypatch.setattr(_operators, "cuda_stream", partial(standing_in, seen))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    x, w = torch.randn(2, 3, 6, dtype=COMPLEX), torch.randn(3, 3, 4, dtype=COMPLEX)
    options = (list(x.shape), list(w.shape), [2], [1], [2], ["zero"], ["auto"])
    found = _operators.on_gpu("y", x, w.conj(), *options)
    assert torch.equal(found, _operators.on_host("y", x, w.conj(), *options))
    assert found.stride() == _operators.without_values("y", x, w, *options).stride()
    assert seen == [(None, "the stream of cpu")]


def test_cupy_works_on_the_stream_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []

    @contextlib.contextmanager
    def entering(what: str) -> Iterator[None]:
        entered.append(what)
        yield
        entered.append(f"end of {what}")

    cuda = SimpleNamespace(
        Device=lambda i: entering(f"device {i}"),
        Stream=SimpleNamespace(from_external=lambda s: entering(f"stream {s}")),
    )
    monkeypatch.setattr(_device, "_usable_cupy", lambda: SimpleNamespace(cuda=cuda))
    with _device.cuda_stream(3, "of torch"):
        entered.append("work")
    assert entered == ["device 3", "stream of torch", "work", "end of stream of torch", "end of device 3"]


def test_a_gpu_without_cupy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> Any:
        raise RuntimeError("CuPy is not installed: install the extra cuda12 or cuda13")

    monkeypatch.setattr(_device, "get_namespace", lacking)
    _device._usable_cupy.cache_clear()
    with pytest.raises(RuntimeError, match="CuPy is not installed"), _device.cuda_stream(0, None):
        pass


BAD: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (np.ones(5), torch.ones(3), {}, TypeError, r"x is a numpy\.ndarray; pass a tensor, torch\.as_tensor\(x\)"),
    (torch.ones(5), [1.0], {}, TypeError, r"w is a builtins\.list; pass a tensor, torch\.as_tensor\(w\)"),
    (torch.ones(5).half(), torch.ones(3), {}, TypeError, r"x has dtype torch\.float16; .* inside torch\.autocast"),
    (torch.ones(5), torch.ones(3).bfloat16(), {}, TypeError, r"w has dtype torch\.bfloat16; convert it to float32"),
    (torch.ones(5, device="meta"), torch.ones(3), {}, TypeError, "x is on meta and w on cpu: bring them to one device"),
    (torch.ones(5).to_sparse(), torch.ones(3), {}, TypeError, r"x has layout torch\.sparse_coo; pass x\.to_dense\(\)"),
    (torch.ones(5), torch.ones(3), {"boundary": "wrap"}, ValueError, "boundary is 'wrap'; its name here is 'periodic'"),
]


@pytest.mark.parametrize(("x", "w", "options", "kind", "message"), BAD)
def test_bad_input_gets_one_line(x: Any, w: Any, options: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        convolve(x, w, **{"axes": 0, "boundary": "zero", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_integers_are_computed_in_double_precision(kind: torch.dtype) -> None:
    x, w = torch.arange(7).to(kind), torch.tensor([1, 0, 1]).to(kind)
    for filters in (w, w.float()):
        y = convolve(x, filters, 0, boundary="zero")
        assert y.dtype == torch.float64
        np.testing.assert_array_equal(y, hcnn_core.convolve(x.numpy(), w.numpy(), 0, boundary="zero"))


def test_operators_called_with_another_problem_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(5,\); this convolution has \(6,\)"):
        torch.ops.hcnn.convolve(torch.ones(5), torch.ones(3), [6], [3], [0], [], [1], ["zero"], ["auto"])
    with pytest.raises(TypeError, match=r"arrays of torch\.float32 and torch\.float64 in one call"):
        torch.ops.hcnn.convolve(torch.ones(5), torch.ones(3, dtype=FLOAT), [5], [3], [0], [], [1], ["zero"], ["auto"])


def test_dtypes_are_promoted_and_their_gradients_come_back() -> None:
    x, w = torch.randn(6, requires_grad=True), torch.randn(3, dtype=COMPLEX, requires_grad=True)
    y = convolve(x, w, 0, boundary="zero")
    assert y.dtype == COMPLEX
    of_x, of_w = torch.autograd.grad(y.abs().square().sum(), (x, w))
    assert (of_x.dtype, of_w.dtype) == (torch.float32, COMPLEX)


def test_no_graph_is_kept_without_gradients() -> None:
    w = torch.randn(3, requires_grad=True)
    with torch.no_grad():
        assert not convolve(torch.randn(5), w, 0, boundary="zero").requires_grad
    with torch.inference_mode():
        assert convolve(torch.randn(5), w, 0, boundary="zero").is_inference()
