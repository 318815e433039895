"""Arguments of `convolve` and its adjoints: what is refused, and how it may be given."""

from __future__ import annotations

import ast
import functools
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import autodiff
from hcnn_core import (
    convolve,
    convolve_elu,
    convolve_elu_marginal,
    convolve_vjp_w,
    convolve_vjp_x,
    correlate,
    correlate_vjp_w,
    correlate_vjp_x,
    linear_operator,
    translate,
    translate_vjp,
)
from tests.core.oracle import Problem, noise, problems

X, W = np.ones((4, 5, 6)), np.ones((3, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": (0, 3)}, "axes names axis 3 of an array with 3 axes; use -3 to 2"),
        ({"axes": (1, -2)}, r"axes is \(1, -2\); an axis is named twice"),
        ({"axes": ()}, "axes names 0 axes; between 1 and 6 can be convolved"),
        ({"sum_axes": (2, 2)}, r"sum_axes is \(2, 2\); an axis is named twice"),
        ({"sum_axes": -3}, r"axes and sum_axes both name \[0\]; an axis is either convolved or summed"),
        ({"stride": 0}, "stride holds 0; give 1 or more"),
        ({"stride": (1, 2, 1)}, "stride has 3 entries for 2 axes; give one, or one per axis"),
        ({"boundary": "odd"}, "boundary is 'odd'; choose 'periodic' or 'zero' or 'reflect' or 'nearest' or 'mirror'"),
        ({"boundary": ("zero", "wrap")}, "boundary is 'wrap'; its name here is 'periodic'; choose"),
        ({"boundary": "replicate"}, "boundary is 'replicate'; its name here is 'nearest'; choose"),
        ({"method": "winograd"}, "method is 'winograd'; choose 'auto' or 'direct' or 'fft' or 'measure'"),
        ({"w": np.ones(3)}, r"w has shape \(3,\); it needs 0 summed and 2 convolved axes, so at least 2"),
        ({"w": W, "sum_axes": 2}, r"w has shape \(3, 3\); it needs 1 summed and 2 convolved axes, so at least 3"),
        ({"w": np.ones((5, 3, 3)), "sum_axes": 2}, r"w has shape \(5, 3, 3\); its leading axes must be \(6,\)"),
        ({"x": 1.0, "axes": 0}, "axes names axis 0 of an array with 0 axes; none can be named"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"x": X, "w": W, "axes": (0, 1), "boundary": "zero", **change}
    x, w, axes = (arguments.pop(name) for name in ("x", "w", "axes"))
    with pytest.raises(ValueError, match=message):
        convolve(x, w, axes, **arguments)
    with pytest.raises(ValueError, match=message):
        convolve_vjp_x(np.ones((4, 5, 6)), x if isinstance(x, np.ndarray) else (), w, axes, **arguments)
    with pytest.raises(ValueError, match=message):
        convolve_vjp_w(np.ones((4, 5, 6)), x, w if isinstance(w, np.ndarray) else (), axes, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": None}, r"axes are left out, which means all where x and w have as many .* x has 3, w 2: name those"),
        ({"axes": 1.0}, "axes is 1.0; give an integer, or one per axis"),
        ({"axes": (0, 1.0)}, "axes holds 1.0; axes are integers"),
        ({"axes": (0, True)}, "axes holds True; axes are integers"),
        ({"stride": 1.5}, "stride is 1.5; give an integer, or one per axis"),
        ({"stride": True}, "stride is True; give an integer, or one per axis"),
        ({"stride": np.array(1.5)}, r"stride is array\(1.5\); give an integer, or one per axis"),
        ({"boundary": None}, "boundary is None; give 'periodic' or 'zero' or 'reflect' or 'nearest' or 'mirror'"),
        ({"mode": "wrap"}, "there is no option 'mode': boundary='periodic' says it; options: boundary, sum_axes"),
        ({"mode": "same"}, "there is no option 'mode': boundary says how x is extended"),
        ({"cval": 0.0}, "there is no option 'cval': boundary='zero' extends x by zeros"),
        ({"origin": 1}, "there is no option 'origin': zeros beside w move its middle, 2 k of them after its taps for"),
        ({"output": np.ones(1)}, "there is no option 'output': the result is a new array; out"),
        ({"out": np.ones(1)}, "there is no option 'out': the result is a new array; out"),
        ({"padding": 1}, "there is no option 'padding': boundary says how x is extended; options: boundary, sum_axes"),
        ({"dilation": 1}, "there is no option 'dilation'; options: boundary, sum_axes, stride, method"),
        ({"axis": 1}, r"there is no option 'axis' \(did you mean axes\?\); options: boundary"),
        ({"axes": "full"}, "axes is 'full'; axes are integers, and options have names, as in boundary='periodic'"),
        ({"x": np.ones((4, 5, 6), np.float16)}, "x has dtype float16; convert it to one of float32, float64"),
        ({"x": np.ones((4, 5, 6), np.longdouble)}, "x has dtype (float128|longdouble|float64); convert it"),
        ({"x": np.ones((4, 5, 6), object)}, "x has dtype object; convert it"),
        ({"x": np.ones((4, 5, 6), ">f4")}, "x has dtype >f4; convert it"),
        ({"w": np.ones((3, 3), "timedelta64[s]")}, r"w has dtype timedelta64\[s\]; convert it"),
        ({"x": None}, "expected a NumPy or CuPy array, got builtins.NoneType"),
        ({"w": "filter"}, "expected a NumPy or CuPy array, got builtins.str"),
    ],
)
def test_wrong_types_are_refused(change: dict[str, Any], message: str) -> None:
    for stride in (1, (1, 2)):  # numbers that equal a wrong one, and may be remembered
        convolve(X, W, (0, 1), boundary="zero", stride=stride)
    arguments = {"x": X, "w": W, "axes": (0, 1), "boundary": "zero", **change}
    x, w, axes = (arguments.pop(name) for name in ("x", "w", "axes"))
    with pytest.raises(TypeError, match=message) as error:
        convolve(x, w, axes, **arguments)
    assert error.value.__context__ is None or error.value.__suppress_context__  # one error, not two


@pytest.mark.parametrize("function", [convolve, correlate, autodiff.convolve])
def test_an_option_without_its_name_is_answered_by_the_names(function: Any) -> None:
    message = "^options need names, as in boundary='periodic': boundary, sum_axes, stride, method$"
    with pytest.raises(TypeError, match=message):
        function(X, W, (0, 1), "periodic")


@pytest.mark.parametrize("given", [{}, {"boundary": "zero"}])
def test_options_of_scipy_are_answered_by_every_function(given: dict[str, Any]) -> None:
    calls: list[Any] = [
        functools.partial(f, *operands, *axes)
        for axes in ((0,), ())
        for f, *operands in (
            *((f, X, X) for f in (convolve, correlate)),
            *((f, X, X, X) for f in (convolve_vjp_x, convolve_vjp_w, correlate_vjp_x, correlate_vjp_w, convolve_elu)),
            *((f, X, 1) for f in (translate, translate_vjp)),
            (linear_operator, X, X.shape),
        )
    ]
    calls += [functools.partial(convolve_elu_marginal, X, X, X, *axes) for axes in ((0, 1), (0,), ())]
    for call in calls:
        for option, message in ({"mode": "mirror"}, "boundary='mirror' says it"), ({"cval": 0}, "boundary='zero' ext"):
            with pytest.raises(TypeError, match=message):
                call(**given, **option)


@pytest.mark.parametrize(
    "function",
    [convolve, convolve_elu, convolve_elu_marginal, convolve_vjp_x, convolve_vjp_w, correlate, correlate_vjp_x,
     correlate_vjp_w, linear_operator, autodiff.convolve, autodiff.convolve_vjp_w, autodiff.correlate],
)  # fmt: skip
def test_signatures_show_every_option(function: Any) -> None:
    shown = inspect.signature(function).parameters.values()
    options = {p.name: p.default for p in shown if p.kind is p.KEYWORD_ONLY}
    assert options == {"boundary": inspect.Parameter.empty, "sum_axes": (), "stride": 1, "method": "auto"}
    assert not [p for p in shown if p.name in ("axes", "axis") and p.default is not p.empty and p.default is not None]
    assert not [p for p in shown if p.kind is p.VAR_KEYWORD]


@pytest.mark.parametrize(
    ("x", "w", "summed", "example"),
    [
        ((3, 4), (3,), (), "0"),
        ((3, 4, 5), (2, 2), (), r"\(0, 1\)"),
        ((3, 4), (3, 4, 2), (), r"\(0, 1\)"),
        ((3, 4, 5), (3, 2), 0, "1"),
        ((3, 4, 5), (4, 5, 2), (1, 2), "0"),
        ((1,) * 8, (1,) * 7, (), r"\(0, 1, 2, 3, 4, 5\)"),
        ((3, 4), (3,), 0, None),
        ((), (3,), (), None),
    ],
)
def test_the_axes_that_a_message_names_as_an_example_are_taken(
    x: Any, w: Any, summed: Any, example: str | None
) -> None:
    options: dict[str, Any] = {"boundary": "zero", "sum_axes": summed}
    cure = "" if example is None else f", as in axes={example}"
    with pytest.raises(TypeError, match=f"name those to convolve{cure}$") as caught:
        convolve(np.ones(x), np.ones(w), **options)
    if example is not None:
        convolve(np.ones(x), np.ones(w), ast.literal_eval(str(caught.value).partition("axes=")[2]), **options)


def test_boundary_and_axes_must_be_named() -> None:
    with pytest.raises(TypeError, match="boundary"):
        convolve(X, W, (0, 1))  # type: ignore[call-arg]
    for call in (convolve, autodiff.convolve, functools.partial(convolve_elu_marginal, X[0])):
        with pytest.raises(TypeError, match="axes are left out, which means all where x and w have as many"):
            call(X, W, boundary="zero")
    with pytest.raises(TypeError, match="axis is None"):
        convolve_elu_marginal(X, W, X, (0, 1), boundary="zero")  # type: ignore[call-arg]


@pytest.mark.parametrize("function", [convolve, autodiff.convolve])
def test_axes_left_out_are_all(function: Any) -> None:
    from scipy import ndimage

    x, w = noise(0, (7, 9, 4), "float64"), noise(1, (3, 4, 2), "float64")
    np.testing.assert_allclose(function(x, w, boundary="zero"), ndimage.convolve(x, w, mode="constant"), atol=1e-13)
    g = noise(2, x.shape, "float64")
    assert np.array_equal(convolve_vjp_x(g, x, w, boundary="zero"), convolve_vjp_x(g, x, w, (0, 1, 2), boundary="zero"))
    energy = lambda x, w, *axes: np.sum(autodiff.convolve(x, w, *axes, boundary="zero") ** 2)  # noqa: E731
    gradients = autodiff.grad(energy, (0, 1))
    assert all(map(np.array_equal, gradients(x, w), gradients(x, w, (0, 1, 2))))
    with pytest.raises(TypeError, match="none is summed"):
        function(x, noise(1, (4, 3, 3), "float64"), boundary="zero", sum_axes=2)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "uint64"])
def test_integers_are_computed_in_float64(dtype: str) -> None:
    from scipy import signal

    x = np.abs(50 * noise(0, (20, 9), "float64")).astype(dtype)
    v = noise(1, (3, 5), "float32")
    for w in (v, (9 * v).astype("int8"), (9 * v).astype(int).tolist()):
        found = convolve(x, w, boundary="zero")
        assert found.dtype == np.float64 and np.array_equal(found, convolve(x.astype(float), w, boundary="zero"))
        np.testing.assert_allclose(found, signal.convolve(x.astype(float), w, "same"), atol=1e-3)
    cotangent = autodiff.grad(lambda w: np.sum(autodiff.convolve(x, w, boundary="zero") ** 2))(v.astype(float))
    expected = autodiff.grad(lambda w: np.sum(autodiff.convolve(x.astype(float), w, boundary="zero") ** 2))
    assert np.array_equal(cotangent, expected(v.astype(float)))


@pytest.mark.parametrize("boundary", ["zero", "reflect"])
def test_a_spread_of_nan_is_said(boundary: Any) -> None:
    x, w = noise(0, (2, 70, 80), "float64"), noise(1, (9, 7), "float64")
    for place in ((0, 20, 30), (1, 69, 79)):
        broken = x.copy()
        broken[place] = np.nan
        with pytest.warns(RuntimeWarning, match="x is not finite everywhere, and the FFT spreads that along axes"):
            y = convolve(broken, w, (1, 2), boundary=boundary, method="fft")
        assert np.isnan(y[place[0]]).sum() > 500 and not np.isnan(y[1 - place[0]]).any()
        assert np.isnan(convolve(broken, w, (1, 2), boundary=boundary, method="direct")).sum() < 100  # and no warning
    convolve(x, w * np.nan, (1, 2), boundary=boundary, method="fft")  # which reach all of the result in any way


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, int])
def test_integers_of_any_kind_name_axes_and_strides(kind: Any) -> None:
    expected = convolve(X, W[0], 2, boundary="zero", stride=2)
    assert np.array_equal(convolve(X, W[0], kind(2), boundary="zero", stride=kind(2)), expected)
    assert np.array_equal(convolve(X, W[0], np.array([2]), boundary=["zero"], stride=np.array([2])), expected)


@settings(max_examples=20)
@given(problems(max_axes=2))
def test_shapes_stand_in_for_the_operand_that_is_differentiated(problem: Problem) -> None:
    g = noise(5, problem.y_shape, str(problem.x.dtype))
    with_arrays = problem.run(convolve_vjp_x, g, problem.x, problem.w)
    assert np.array_equal(with_arrays, problem.run(convolve_vjp_x, g, list(problem.x.shape), problem.w))
    with_arrays = problem.run(convolve_vjp_w, g, problem.x, problem.w)
    assert np.array_equal(with_arrays, problem.run(convolve_vjp_w, g, problem.x, problem.w.shape))


def test_the_answer_to_a_constant_beyond_the_ends_gives_scipys_values() -> None:
    from scipy import ndimage

    x, w, c = noise(0, (7, 9), "float64"), noise(1, (3, 4), "float64"), 2.5
    found = convolve(x - c, w, (0, 1), boundary="zero") + c * w.sum()
    assert np.allclose(found, ndimage.convolve(x, w, mode="constant", cval=c), atol=1e-13)
