"""The tape: primitives, nesting, what ends with a trace, what memory it holds, and what traced values refuse."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import pydoc
import re
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import autodiff
import hcnn_core
from autodiff import check_grads, checkpoint, defvjp, defvjp_argnums, getval, grad, primitive, value_and_grad, vjp
from autodiff.tape import FusedSum, Primitive, Traced

X = np.random.default_rng(5).standard_normal((3, 4))
EPS = np.finfo(np.float64).eps


def cube() -> Primitive:
    """A primitive without a rule yet."""

    @primitive
    def cube(x: Any, scale: float = 1.0) -> Any:
        """Scale times x cubed."""
        return scale * x * x * x

    return cube


def test_a_primitive_looks_like_its_function() -> None:
    f = cube()
    assert f.__name__ == "cube"
    assert f.__doc__ == "Scale times x cubed."
    assert f.__wrapped__(2.0) == 8
    assert f(2.0, scale=0.5) == 4
    assert repr(f) == "<differentiable cube(x, scale=1.0)>"


def test_a_primitive_and_its_rule() -> None:
    f = cube()
    defvjp(f, lambda ans, x, scale=1.0: lambda g: g * (3 * scale * x**2))
    check_grads(f, order=3)(X)
    check_grads(lambda x: f(x, scale=2.0), order=2)(X)


def test_rules_for_some_arguments() -> None:
    f = primitive(lambda n, x, y: n * x * y)
    defvjp(f, lambda ans, n, x, y: lambda g: g * n * y, None, argnums=(1, 2))
    assert grad(lambda x: f(3, x, x))(2.0) == 6  # None is a zero gradient
    with pytest.raises(TypeError, match=r"<lambda> has no derivative for argument 0: give one with autodiff\.defvjp"):
        grad(lambda n: f(n, 1.0, 1.0))(2.0)
    with pytest.raises(ValueError):
        defvjp(f, None, argnums=(1, 2))
    for plain in (np.clip, lambda x: x):
        with pytest.raises(TypeError, match="is no primitive, so its derivative would not be used"):
            defvjp(plain, None)  # type: ignore[arg-type]


def test_a_joint_rule_shares_work() -> None:
    calls = []
    product = primitive(lambda x, y: x * y)

    def maker(argnums: tuple[int, ...], ans: Any, args: Any, kwargs: Any) -> Any:
        def pullback(g: Any) -> Any:
            calls.append(argnums)
            return [g * args[1 - argnum] for argnum in argnums]

        return pullback

    defvjp_argnums(product, maker)
    check_grads(product)(X, X + 1)
    calls.clear()
    grad(lambda x, y: np.sum(product(x, y)), (0, 1))(X, X)
    grad(lambda y: np.sum(product(X, y)))(X)
    assert calls == [(0, 1), (1,)]


def test_a_joint_rule_gives_as_many_cotangents_as_it_is_asked_for() -> None:
    product = primitive(lambda x, y: x * y)
    for cotangents in ([1.0 * X], [X, X, X]):
        defvjp_argnums(product, lambda argnums, ans, args, kwargs, c=cotangents: lambda g: c)
        with pytest.raises(ValueError):
            grad(lambda x, y: np.sum(product(x, y)), (0, 1))(X, X)


def test_a_primitive_may_return_a_tuple() -> None:
    parts = primitive(lambda x: (np.sin(x), 7, np.cos(x)))

    def maker(argnums: Any, ans: Any, args: Any, kwargs: Any) -> Any:
        return lambda g: (g.get(0, 0.0) * np.cos(args[0]) - g.get(2, 0.0) * np.sin(args[0]),)

    defvjp_argnums(parts, maker)
    check_grads(lambda x: parts(x)[0] * parts(x)[2], order=3)(X)
    check_grads(lambda x: parts(x)[2])(X)
    seen = []
    grad(lambda x: (seen.append(parts(x)), np.sum(x))[1])(X)
    assert [type(part) for part in seen[0]] == [Traced, int, Traced]


def test_a_primitive_returns_arrays() -> None:
    for answer in ([X, X], None, "x"):
        f = primitive(lambda x, answer=answer: answer)
        defvjp(f, None)
        with pytest.raises(TypeError, match=r"<lambda> returned (list|NoneType|str); a primitive returns arrays"):
            vjp(f, X)
    assert vjp(primitive(lambda x: 3), X)[0] == 3


def test_broadcast_cotangents_are_summed_and_cast() -> None:
    f = primitive(lambda x, y: x + y)
    defvjp(f, lambda ans, x, y: lambda g: g, lambda ans, x, y: lambda g: g)
    gx, gy = grad(lambda x, y: np.sum(f(x, y)), (0, 1))(np.ones((4, 1), np.float32), np.ones((3, 1, 5)))
    assert gx.dtype == np.float32
    assert np.array_equal(gx, np.full((4, 1), 15))
    assert np.array_equal(gy, np.full((3, 1, 5), 4))
    g = grad(lambda x: np.sum(f(x, 1j * X[0]).imag))(X[0])
    assert g.dtype == np.float64
    assert np.array_equal(g, np.zeros(4))
    z = X[0].astype(np.complex64)
    g = grad(lambda z: np.sum(f(z, 1j * X[0]).imag))(z)
    assert g.dtype == np.complex64
    assert np.array_equal(g, np.full(4, -1j))


@pytest.mark.parametrize(
    ("cotangent", "error", "message"),
    [
        (lambda g: 2.0, TypeError, "the derivative of cube returned float where an array is needed"),
        (lambda g: g[0], ValueError, r"the derivative of cube has shape \(4,\) for an argument of shape \(3, 4\)"),
        (lambda g: g[:, :2], ValueError, r"the derivative of cube has shape \(3, 2\) for an argument"),
    ],
)
def test_a_rule_of_the_wrong_kind(cotangent: Any, error: Any, message: str) -> None:
    f = cube()
    defvjp(f, lambda ans, x: cotangent)
    with pytest.raises(error, match=message):
        grad(lambda x: np.sum(f(x)))(X)


def test_traced_values_reach_a_primitive_by_position_only() -> None:
    f = primitive(lambda x, y=1.0: np.stack(x) * y if isinstance(x, list) else x * y)
    defvjp(f, lambda ans, x, y=1.0: lambda g: g * y)
    with pytest.raises(TypeError, match="<lambda> got a traced value as keyword 'y': pass it by position"):
        grad(lambda x: np.sum(f(X, y=x)))(X)
    with pytest.raises(TypeError, match=r"uses a traced value from a closure, a keyword or a list: pass it as an arg"):
        grad(lambda x: np.sum(f([x, x])))(X)
    with pytest.raises(TypeError, match=r"uses a traced value from a closure, a keyword or a list: pass it as an arg"):
        grad(lambda x: np.sum(primitive(lambda y: x * y)(X)))(X)


# Nesting


def test_derivatives_nest() -> None:
    third = grad(grad(grad(lambda x: np.sin(2 * x))))
    assert abs(third(0.3) + 8 * np.cos(0.6)) <= 32 * EPS
    mixed = grad(lambda x: grad(lambda y: np.sin(x * y))(2.0))
    assert abs(mixed(0.3) - (np.cos(0.6) - 0.6 * np.sin(0.6))) <= 16 * EPS


def test_inner_and_outer_variables_do_not_mix() -> None:
    # d/dx [x * d/dy (x + y)] = 1, not 2
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(1.0) == 1


def test_a_pullback_is_differentiable_by_its_cotangent() -> None:
    _, pull = vjp(np.sin, X)
    check_grads(lambda w: pull(w)[0])(X + 1)


# Traces that have ended


def test_a_leaked_value_is_a_constant() -> None:
    leaked: list[Any] = []
    grad(lambda x: (leaked.append(x * 2), np.sum(x))[1])(X)
    assert isinstance(leaked[0], Traced)
    for result in (
        leaked[0] + 1,
        np.exp(leaked[0]),
        leaked[0].sum(),
        np.stack(leaked),
        leaked[0][0],
        np.var(leaked[0]),
    ):
        assert not isinstance(result, Traced)
    assert np.array_equal(leaked[0] + 1, 2 * X + 1)
    assert np.array_equal(grad(lambda y: np.sum(y * leaked[0]))(X), 2 * X)
    assert np.array_equal(grad(lambda y: np.sum(y * y))(leaked[0]), 4 * X)
    value, gradient = value_and_grad(lambda y: leaked[0].sum())(X)
    assert type(value) is np.float64
    assert np.array_equal(gradient, np.zeros_like(X))


def test_a_value_leaked_from_an_inner_trace_keeps_the_outer_gradient() -> None:
    def outer(x: Any) -> Any:
        leaked: list[Any] = []
        grad(lambda y: (leaked.append(x * y), np.sum(y))[1])(2 * X)
        return np.sum(leaked[0])

    assert np.array_equal(grad(outer)(X), 2 * X)


def test_a_failed_function_ends_its_trace() -> None:
    leaked: list[Any] = []

    def fails(x: Any) -> Any:
        leaked.append(x)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        grad(fails)(X)
    assert np.array_equal(leaked[0] * 2, 2 * X)


def test_threads_trace_side_by_side() -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: grad(lambda x: np.sum(np.sin(x * i)))(X), range(32)))
    for i, g in enumerate(results):
        np.testing.assert_array_equal(g, np.cos(X * i) * i)


# Memory


class Watch:
    """A primitive x -> 2 x that can tell which of its arrays are alive."""

    def __init__(self, keep: bool) -> None:
        self.answers: list[weakref.ref[Any]] = []
        self.alive_in_backward: list[int] = []
        self.double = primitive(self.forward)
        if keep:
            defvjp(self.double, lambda ans, x: lambda g: self.backward(g, ans))
        else:
            defvjp(self.double, lambda ans, x: lambda g: self.backward(g, None))

    def forward(self, x: Any) -> Any:
        ans = 2 * x
        self.answers.append(weakref.ref(ans))
        return ans

    def backward(self, g: Any, saved: Any) -> Any:
        self.alive_in_backward.append(self.alive())
        return 2 * g

    def alive(self) -> int:
        return sum(answer() is not None for answer in self.answers)


def chain(watch: Watch, x: Any, length: int = 5) -> Any:
    for _ in range(length):
        x = watch.double(x)
    return np.sum(x)


@pytest.fixture
def no_collector() -> Any:
    """Only reference counts free memory, so that a cycle shows."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_arrays_no_rule_uses_die_in_the_forward_pass() -> None:
    watch = Watch(keep=False)
    value_and_grad(lambda x: chain(watch, x))(X)
    assert watch.alive_in_backward == [0] * 5


@pytest.mark.usefixtures("no_collector")
def test_arrays_a_rule_uses_die_once_it_has() -> None:
    watch = Watch(keep=True)
    value_and_grad(lambda x: chain(watch, x))(X)
    assert watch.alive_in_backward == [5, 4, 3, 2, 1]
    assert watch.alive() == 0


@pytest.mark.usefixtures("no_collector")
def test_a_checkpoint_frees_what_it_recomputed_as_it_goes() -> None:
    watch = Watch(keep=True)
    value_and_grad(lambda x: checkpoint(lambda y: chain(watch, y))(x))(X)
    assert watch.alive_in_backward == [5, 4, 3, 2, 1]


@pytest.mark.usefixtures("no_collector")
def test_a_pullback_keeps_its_arrays_and_can_be_called_again() -> None:
    watch = Watch(keep=True)
    _, pull = vjp(lambda x: chain(watch, x), X)
    assert np.array_equal(pull(1.0)[0], np.full_like(X, 32))
    assert np.array_equal(pull(2.0)[0], np.full_like(X, 64))
    assert watch.alive_in_backward == [5] * 10
    del pull
    assert watch.alive() == 0


@pytest.mark.usefixtures("no_collector")
def test_an_unused_branch_dies_at_once() -> None:
    watch = Watch(keep=True)

    def loss(x: Any) -> Any:
        chain(watch, x)
        assert watch.alive() == 0
        return np.sum(x)

    grad(loss)(X)


@pytest.mark.usefixtures("no_collector")
def test_cotangents_die_once_they_are_used() -> None:
    cotangents: list[weakref.ref[Any]] = []
    alive: list[int] = []

    @primitive
    def double(x: Any) -> Any:
        return 2 * x

    def pullback(g: Any) -> Any:
        alive.append(sum(ref() is not None for ref in cotangents))
        cotangents.append(weakref.ref(out := 2 * g))
        return out

    defvjp(double, lambda ans, x: pullback)

    def loss(x: Any) -> Any:
        for _ in range(5):
            x = double(x)
        return np.sum(x)

    grad(loss)(X)
    assert alive == [0, 1, 1, 1, 1]


def test_a_long_chain_needs_no_recursion() -> None:
    def loss(x: Any) -> Any:
        for _ in range(20_000):
            x = x + 1
        return x

    assert grad(loss)(0.5) == 1
    vjp(loss, 0.5)  # dropped without a backward pass


# Gradients are the caller's to change


def test_gradients_share_no_memory_and_are_writable() -> None:
    def loss(a: Any, b: Any, c: Any) -> Any:
        return np.sum(a + b) + np.sum(c.T)

    gradients = grad(loss, (0, 1, 2))(X, X, X)
    for g in gradients:
        g += 1
        assert np.array_equal(g, np.full_like(X, 2))
    w = np.ones_like(X)
    (g,) = vjp(lambda x: x, X)[1](w)
    g += 1
    assert np.array_equal(w, np.ones_like(X))


def test_sums_of_many_terms_leave_shared_cotangents_alone() -> None:
    def loss(x: Any, y: Any) -> Any:
        total = x + y
        return np.sum(total + total + total + x + x + y)

    gx, gy = grad(loss, (0, 1))(X, X)
    assert np.array_equal(gx, np.full_like(X, 5))
    assert np.array_equal(gy, np.full_like(X, 4))


def test_sums_of_plain_and_traced_terms() -> None:
    for inner in (lambda x, y: y * x + y * 2 + y * 3, lambda x, y: y * 2 + y * x + y * x * x, lambda x, y: y * x):
        slope = grad(lambda x, f=inner: grad(lambda y: f(x, y))(5.0))  # all are linear in y: f_xy(x, y) = f_x(x, 1)
        assert slope(3.0) == grad(lambda x, f=inner: f(x, 1.0))(3.0)


def test_a_cotangent_made_onto_another() -> None:
    others: list[Any] = []

    def make(other: Any, g: Any) -> Any:
        others.append(other)
        return 2 * g if other is None else other + 2 * g

    twice = primitive(lambda x: 2 * x)
    defvjp_argnums(twice, lambda argnums, ans, args, kwargs: lambda g: (FusedSum(lambda other: make(other, g)),))
    assert np.array_equal(grad(lambda x: np.sum(twice(x)))(X), np.full_like(X, 2))
    assert others.pop() is None
    seed = np.arange(12.0).reshape(3, 4)

    def later_first(x: Any) -> Any:
        y = twice(x)  # its cotangent comes after that of the product
        return np.sum(x * seed + y)

    assert np.array_equal(grad(later_first)(X), seed + 2)
    assert np.array_equal(others.pop(), seed)
    others.clear()

    def of_traced(a: Any) -> Any:
        return grad(lambda x: later_first(x) + np.sum(x * x * a))(X)[0, 0]  # whose other cotangent is traced

    assert grad(of_traced)(5.0) == 2 * X[0, 0]
    assert others == [None]


# What traced values are, and what they refuse


def test_attributes() -> None:
    def loss(x: Any) -> Any:
        assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((3, 4), 2, 12, np.float64, 3)
        assert repr(x[0, 0]).startswith("Traced(")
        assert "Traced(array(" in repr(x)
        assert np.array_equal(getval(x.T), X.T)
        assert getval(x) is X
        assert getval("other") == "other"
        return x.sum()

    grad(loss)(X)


def test_a_loss_can_be_printed() -> None:
    seen: list[str] = []

    def loss(x: Any) -> Any:
        total = np.sum(x * x)
        seen.extend([f"{total:.3f}", f"{total:8.1e}", format(x[0], ""), str(total)])
        return grad(lambda y: (seen.append(f"{np.sum(y):.2f}"), np.sum(y))[1])(x)[0, 0] * total  # traced twice

    grad(loss)(X)
    total = np.sum(X * X)
    assert seen[:2] == [f"Traced({total:.3f})", f"Traced({total:8.1e})"]
    assert seen[4] == f"Traced({np.sum(X):.2f})"
    assert "Traced(" in seen[2] and "Traced(" in seen[3]


@pytest.mark.parametrize(
    "number",
    [
        lambda x: float(f"{x[0, 0]:.3f}"),
        lambda x: float(np.array2string(x[0, 0])),
        lambda x: float(np.array_str(x[0, 0])),
        lambda x: float(str(x[0, 0])),
        lambda x: float(x[0, 0].astype(str)),
        lambda x: x[0].astype("S").astype(float)[0],
    ],
)
def test_a_number_read_from_a_text_loses_no_gradient_in_silence(number: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"Traced\(|has dtype [<|][US]\d+, which has no derivative"):
        grad(number)(X)


def test_copies_are_the_value_itself() -> None:
    def loss(p: Any) -> Any:
        return np.sum(copy.deepcopy(p)["x"] * copy.copy(p["x"]) * p["x"].copy())

    np.testing.assert_allclose(grad(loss)({"x": X})["x"], 3 * X**2, rtol=4 * EPS)


METHODS = [
    *("sum", "mean", "prod", "var", "std", "max", "min", "cumsum", "ravel", "flatten", "squeeze", "copy", "conj"),
    *("conjugate", "transpose", "argmax", "argmin", "trace", "diagonal", "round", "argsort", "any", "all"),
]


@pytest.mark.parametrize("name", METHODS)
def test_methods_do_what_those_of_arrays_do(name: str) -> None:
    traced, plain = vjp(lambda x: getattr(x, name)(), X)[0], getattr(X, name)()
    np.testing.assert_allclose(traced, plain, rtol=64 * EPS)
    assert traced.shape == plain.shape


def test_methods_with_arguments() -> None:
    for call in (
        lambda x: x.reshape(2, 6),
        lambda x: x.reshape((2, -1), order="F"),
        lambda x: x.reshape(-1),
        lambda x: x[:1, :1].reshape(()),
        lambda x: x.transpose(1, 0),
        lambda x: x.transpose((1, 0)),
        lambda x: x[0].transpose(0),
        lambda x: x.astype(np.float32),
        lambda x: x.mT,
        lambda x: x.max(where=X < 0, initial=-3.0),
        lambda x: x.real + x.imag,
    ):
        traced, plain = vjp(call, X)[0], call(X)
        assert traced.dtype == plain.dtype
        np.testing.assert_array_equal(traced, plain)


IN_PLACE = r"in-place writes \(x\[i\] = y, x \+= y, out=\): make a new array"
NO_ARRAY = r"np\.asarray, np\.array or assignment into an array of a traced value: build arrays with np\.stack"


def assign(x: Any) -> None:
    x[0] = 1


def delete(x: Any) -> None:
    del x[0]


def add_in_place(x: Any) -> None:
    x += 1


def add_to_array(x: Any) -> None:
    total = np.zeros_like(X)
    total += x


def fill_array(x: Any) -> None:
    np.zeros_like(X)[...] = x


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (assign, IN_PLACE),
        (delete, IN_PLACE),
        (add_in_place, IN_PLACE),
        (add_to_array, IN_PLACE),
        (lambda x: np.exp(x, out=np.ones_like(X)), IN_PLACE),
        (lambda x: np.sum(x, out=np.ones(())), IN_PLACE),
        (lambda x: np.sum(x, 0, None, np.ones(4)), IN_PLACE),
        (lambda x: np.clip(x, 1, 2, np.ones_like(X)), IN_PLACE),
        (lambda x: np.dot(x, X.T, np.ones((3, 3))), IN_PLACE),
        (lambda x: np.concatenate((x, x), 0, np.ones((6, 4))), IN_PLACE),
        (lambda x: np.take(x, [0], 0, np.ones((1, 4))), IN_PLACE),
        (lambda x: x.sum(axis=0, out=np.ones(4)), IN_PLACE),
        (lambda x: x.max(0, np.ones(4)), IN_PLACE),
        (lambda x: x.cumsum(out=np.ones(12)), IN_PLACE),
        (lambda x: x.T.__imul__(2), IN_PLACE),
        (lambda x: x.sort(), IN_PLACE),
        (lambda x: np.fill_diagonal(x, 0.0), IN_PLACE),
        (lambda x: np.copyto(np.zeros_like(X), x), IN_PLACE),
        (np.asarray, NO_ARRAY),
        (lambda x: np.array([x, x]), NO_ARRAY),
        (lambda x: np.sum([x, x]), NO_ARRAY),
        (fill_array, NO_ARRAY),
        (lambda x: X[x], NO_ARRAY),
        (lambda x: float(x[0, 0]), r"float\(\) of a traced value: stay with NumPy functions; for y\[0\] = x\[0\]"),
        (lambda x: int(x[0, 0]), r"int\(\) of a traced value"),
        (lambda x: complex(x[0, 0]), r"complex\(\) of a traced value"),
        (lambda x: bool(x[0, 0]), r"bool\(\) of a traced value: compare it first"),
        (lambda x: 1 if x.sum() else 0, r"bool\(\) of a traced value: compare it first"),
        (lambda x: range(x[0, 0]), r"an index of a traced value"),
        (lambda x: x[0, 0].item(), r"item\(\) of a traced value"),
        (lambda x: x.tolist(), r"tolist\(\) of a traced value"),
        (pickle.dumps, r"pickling of a traced value"),
        (lambda x: {x}, r"unhashable"),
        (lambda x: iter(x[0, 0]).__next__(), r"has no len\(\)"),
    ],
)
def test_refusals_are_one_line_that_says_what_to_do(action: Any, message: str) -> None:
    def loss(x: Any) -> Any:
        with pytest.raises(TypeError, match=message) as error:
            action(x)
        assert "\n" not in str(error.value)
        return np.sum(x)

    grad(loss)(X)


def test_help_shows_a_signature_and_the_documentation() -> None:
    shown = pydoc.plain(pydoc.render_doc(autodiff.convolve))
    assert re.search(r"convolve\(\s*x:", shown) and "boundary:" in shown  # from 3.13 on in a line of its own
    assert inspect.getdoc(hcnn_core.convolve).splitlines()[0] in shown


@pytest.mark.parametrize("name", autodiff.__all__)
def test_functions_are_pickled_by_name(name: str) -> None:
    function = getattr(autodiff, name)
    assert pickle.loads(pickle.dumps(function)) is function


def test_a_primitive_in_a_class_body_is_a_method() -> None:
    class Cube:
        scale = 2.0

        @primitive
        def value(self, x: Any) -> Any:
            return self.scale * x**3

    defvjp(Cube.value, lambda ans, self, x: lambda g: g * (3 * self.scale * x**2), argnums=(1,))
    check_grads(Cube().value)(X)


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda x: x.flat, AttributeError, r"traced values have no 'flat': call x\.ravel\(\)"),
        (lambda x: x.view(np.int64), AttributeError, r"no 'view': x\.astype"),
        (lambda x: x.missing, AttributeError, "no 'missing': use NumPy functions"),
        (lambda x: round(x), TypeError, r"round\(\) of a traced value: call np\.round"),
    ],
)
def test_what_a_traced_value_has_not_is_answered_by_what_to_do(use: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        grad(lambda x: np.sum(use(x)))(np.ones(3))
