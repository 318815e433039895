"""hcnn_core's functions on traced values: the derivative of each stands below it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

import hcnn_core
from autodiff.functional import vjp
from autodiff.tape import FusedSum, Primitive, Traced, defvjp, defvjp_argnums, getval, primitive
from hcnn_core.backend import Array, array_namespace, lasting_zeros, library_of, on_host, require_floating
from hcnn_core.convolution import convolve_and_parts as _convolve_and_parts
from hcnn_core.convolution import convolve_cotangents
from hcnn_core.factored import factor_options, factored_adjoints
from hcnn_core.filters import fitting, merging
from hcnn_core.loss import cross_entropy_and_gradient, targets
from hcnn_core.moments import moments_and_mean, shard_cotangents
from hcnn_core.moments import patch_covariance as _patch_covariance
from hcnn_core.moments import patch_filter as _patch_filter
from hcnn_core.normalization import (
    batch_normalized_and_moments,
    normalized_and_moments,
    normalized_marginal_and_moments,
    rectified_vjp,
    require_epsilon,
)
from hcnn_core.normalization import rectified_and_moments as _rectified_and_moments
from hcnn_core.pooling import make_windows, maxima_and_taps, picked_samples, picked_samples_vjp

Function = TypeVar("Function", bound=Callable[..., Any])

convolve = primitive(hcnn_core.convolve)
convolve_vjp_x = primitive(hcnn_core.convolve_vjp_x)
convolve_vjp_w = primitive(hcnn_core.convolve_vjp_w)


def _convolve_pullback(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the way back from `convolve_elu` of x, w and a bias; without an answer, from `convolve` of x and w."""
    count = 2 if ans is None else 3
    (x, w, *bias), axes = map(_operand, args[:count]), args[count:]

    def separately(g: Array) -> list[Array]:
        g = g if ans is None else elu_vjp(g, ans)
        pullbacks = (
            lambda: convolve_vjp_x(g, x.shape, w, *axes, **kwargs),
            lambda: convolve_vjp_w(g, x, w.shape, *axes, **kwargs),
            lambda: g,
        )
        return [pullbacks[argnum]() for argnum in argnums]

    def together(g: Array) -> Any:
        if isinstance(g, Traced) or g.dtype != x.dtype:
            return separately(g)
        wanted = 0 in argnums, 1 in argnums
        cotangents: list[Any] = list(convolve_cotangents(g, x, w, *axes, **kwargs, ans=ans, wanted=wanted))
        if 2 in argnums and np.broadcast_shapes(bias[0].shape, cotangents[2].shape) != cotangents[2].shape:
            cotangents[2] = elu_vjp(g, ans)  # the bias varies where it was summed
        return [cotangents[argnum] for argnum in argnums]

    arrays = (x, w) if ans is None else (x, w, ans)
    return together if {0, 1} & set(argnums) and _alike(*arrays) else separately


def _alike(*arrays: Any) -> bool:
    """Whether all are plain arrays of one dtype."""
    return not any(isinstance(a, Traced) for a in arrays) and len({a.dtype for a in arrays}) == 1


def _operand(a: Any) -> Any:
    """Return an operand as the forward call took it: lists, numbers and other libraries' arrays go the same way."""
    if a is None or isinstance(a, np.ndarray | Traced):
        return a
    xp = array_namespace(a)
    return xp.asarray(on_host(a) if xp is np else a)


def _define_transposes(forward: Primitive, vjp_x: Primitive, vjp_w: Primitive) -> None:
    """Define the derivatives of both VJPs of a map that is linear in x and in w: each is one of the three."""
    defvjp(
        vjp_x,
        lambda ans, g, x, w, *axes, **kwargs: lambda h: forward(h, w, *axes, **kwargs),
        None,
        lambda ans, g, x, w, *axes, **kwargs: lambda h: vjp_w(g, h, w.shape, *axes, **kwargs),
    )
    defvjp(
        vjp_w,
        lambda ans, g, x, w, *axes, **kwargs: lambda h: forward(x, h, *axes, **kwargs),
        lambda ans, g, x, w, *axes, **kwargs: lambda h: vjp_x(g, x.shape, h, *axes, **kwargs),
        None,
    )


# the answer of a convolution is not kept
defvjp_argnums(convolve, lambda argnums, ans, args, kwargs: _convolve_pullback(argnums, None, args, kwargs))
convolve_and_parts = primitive(_convolve_and_parts)  # parts are for `normalize_elu`, by keyword and untraced
defvjp_argnums(
    convolve_and_parts,
    lambda argnums, ans, args, kwargs: lambda g: _convolve_pullback(argnums, None, args, kwargs)(g[0]),
)
_define_transposes(convolve, convolve_vjp_x, convolve_vjp_w)

correlate = primitive(hcnn_core.correlate)
correlate_vjp_x = primitive(hcnn_core.correlate_vjp_x)
correlate_vjp_w = primitive(hcnn_core.correlate_vjp_w)
defvjp(
    correlate,
    lambda ans, x, w, *axes, **kwargs: _with_shape(
        x.shape, lambda shape, g: correlate_vjp_x(g, shape, w, *axes, **kwargs)
    ),
    lambda ans, x, w, *axes, **kwargs: _with_shape(
        w.shape, lambda shape, g: correlate_vjp_w(g, x, shape, *axes, **kwargs)
    ),
)
_define_transposes(correlate, correlate_vjp_x, correlate_vjp_w)

translate = primitive(hcnn_core.translate)
translate_vjp = primitive(hcnn_core.translate_vjp)
defvjp(translate, lambda ans, x, *where, **kwargs: lambda g: translate_vjp(g, *where, **kwargs))
defvjp(translate_vjp, lambda ans, g, *where, **kwargs: lambda h: translate(h, *where, **kwargs))


def _rectifier(function: Function, cotangent: Primitive) -> Function:
    """Return an activation with a bias by keyword, which the tape has by position."""
    plain = primitive(functools.wraps(function)(lambda x, bias=None: function(x, bias=bias)))
    # x and bias share one cotangent, which the tape sums where the bias was broadcast
    defvjp_argnums(plain, lambda argnums, ans, args, kwargs: lambda g: (cotangent(g, ans),) * len(argnums))

    @functools.wraps(function)
    def with_keyword(x: Array, /, *, bias: Array | None = None) -> Array:
        return plain(x) if bias is None else plain(x, bias)

    return cast(Function, with_keyword)


elu_vjp, relu_vjp = primitive(hcnn_core.elu_vjp), primitive(hcnn_core.relu_vjp)
elu, relu = _rectifier(hcnn_core.elu, elu_vjp), _rectifier(hcnn_core.relu, relu_vjp)
defvjp(elu_vjp, lambda ans, g, y: lambda h: elu_vjp(h, y), lambda ans, g, y: lambda h: h * g * (y < 0))
defvjp(relu_vjp, lambda ans, g, y: lambda h: relu_vjp(h, y), None)

convolve_elu = primitive(hcnn_core.convolve_elu)
defvjp_argnums(convolve_elu, _convolve_pullback)

factored_layer = primitive(hcnn_core.factored_layer)


def _factored_pullback(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args = *map(_operand, args[:5]), *args[5:]
    real = np.finfo(ans.dtype).dtype  # of the precision that all of it was computed in

    def widened(a: Array) -> Array:
        wide = np.result_type(a.dtype, real)
        return a if a.dtype == wide else a.astype(wide)

    x, h, shift, g = map(widened, args[:4])
    bias, *axes = args[4:]

    def written_out(cotangent: Array) -> list[Array]:
        h_options, g_options = factor_options(x.ndim, *axes, **kwargs)
        first = cotangent if bias is None else elu_vjp(cotangent, ans)
        z = convolve_elu(x, h, shift, **h_options)
        middle = elu_vjp(convolve_vjp_x(first, z.shape, g, **g_options), z)
        pullbacks = (
            lambda: convolve_vjp_x(middle, x.shape, h, **h_options),
            lambda: convolve_vjp_w(middle, x, h.shape, **h_options),
            lambda: middle,
            lambda: convolve_vjp_w(first, z, g.shape, **g_options),
            lambda: first,
        )
        return [pullbacks[argnum]() for argnum in argnums]

    def at_once(cotangent: Array) -> list[Array]:
        if isinstance(cotangent, Traced) or cotangent.dtype != x.dtype:
            return written_out(cotangent)
        cotangents: tuple[Any, ...] = factored_adjoints(cotangent, ans, *args, **kwargs)
        return [cotangents[argnum] for argnum in argnums]

    # shift and bias are converted to the dtype of the result, so theirs does not matter
    plain = not any(isinstance(a, Traced) for a in args[:5])
    return at_once if plain and _alike(ans, args[0], args[1], args[3]) else written_out


defvjp_argnums(factored_layer, _factored_pullback)

marginal = primitive(hcnn_core.marginal)
marginal_vjp = primitive(hcnn_core.marginal_vjp)
defvjp(
    marginal,
    lambda ans, x, axes, **kwargs: _with_shape(x.shape, lambda shape, g: marginal_vjp(g, shape, axes, **kwargs)),
)
defvjp(marginal_vjp, lambda ans, g, x, axes, **kwargs: lambda h: marginal(h, axes, **kwargs), None)


convolve_elu_marginal = primitive(hcnn_core.convolve_elu_marginal)


def _convolve_elu_marginal_pullback(
    argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    axis, of_layer, options = _without_axis(*args, **kwargs)
    shape, layer = ans[0].shape, _convolve_pullback(argnums, ans[0], of_layer, options)

    def pullback(g: dict[int, Array]) -> Any:
        if 1 not in g:
            return layer(g[0])
        of_total = marginal_vjp(g[1], shape, axis)
        return layer(of_total + g[0] if 0 in g else of_total)

    return pullback


def _without_axis(x: Any, w: Any, bias: Any, axes: Any, axis: int, **options: Any) -> tuple[int, Any, Any]:
    """Return the axis of the marginal, and the arguments of the layer, by position and by keyword."""
    return axis, (x, w, bias, axes), options


defvjp_argnums(convolve_elu_marginal, _convolve_elu_marginal_pullback)


def _with_shape(shape: tuple[int, ...], pullback: Any) -> Any:
    """Return a pullback that keeps the argument's shape and not the argument."""
    return lambda g: pullback(shape, g)


def _with_memory(function: Any, computed: Callable[..., Any], count: int = 3) -> tuple[Primitive, Callable[..., Any]]:
    """Return a primitive of `count` answers and what the way back needs beside them, and the function without that."""
    primary = primitive(functools.wraps(function)(computed))
    return primary, functools.wraps(function)(lambda *args, **kwargs: primary(*args, **kwargs)[:count])


_moments_and_mean, patch_moments = _with_memory(hcnn_core.patch_moments, moments_and_mean, 2)
patch_covariance = primitive(_patch_covariance)
patch_filter = primitive(_patch_filter)


def _patch_moments_pullback(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, *rest = args
    exact = getval(ans[2])
    kwargs = dict(kwargs)
    shard = kwargs.pop("shard", None)

    def pullback(g: dict[int, Array]) -> tuple[Any]:
        mean, covariance = _with_zeros(g, ans[:2])
        if shard is not None:
            _refuse_second_order(mean, covariance, x)
            mean, covariance = shard_cotangents(mean, covariance, shard)
        if any(isinstance(a, Traced) for a in (mean, covariance, x)):
            return (patch_filter(mean, covariance + covariance.T, x, *rest, **kwargs),)
        options = {**kwargs, "mean": exact, "symmetric": True}
        return (FusedSum(lambda addend: _patch_filter(mean, covariance, x, *rest, **options, addend=addend)),)

    return pullback


def _with_zeros(g: dict[int, Array], ans: tuple[Array, ...]) -> list[Array]:
    """Return the cotangents of the parts of an answer, zeros for those that have none."""
    return [g[i] if i in g else np.zeros_like(getval(a)) for i, a in enumerate(ans)]


def _refuse_second_order(*arrays: Any) -> None:
    """Raise TypeError where a derivative of moments of shards is to be differentiated again."""
    if any(isinstance(a, Traced) for a in arrays):
        raise TypeError("moments of shards have first derivatives only: leave out `shard` for second ones")


defvjp_argnums(_moments_and_mean, _patch_moments_pullback)
defvjp(
    patch_filter,
    lambda ans, c, m, x, *rest, **kwargs: lambda h: patch_moments(h, *rest, **kwargs)[0],
    lambda ans, c, m, x, *rest, **kwargs: lambda h: patch_covariance(h, x, *rest, **kwargs),
    lambda ans, c, m, x, *rest, **kwargs: lambda h: patch_filter(np.zeros_like(getval(c)), m.T, h, *rest, **kwargs),
)
defvjp(
    patch_covariance,
    lambda ans, x, y, *rest, **kwargs: lambda g: patch_filter(np.zeros_like(getval(g)[0]), g, y, *rest, **kwargs),
    lambda ans, x, y, *rest, **kwargs: lambda g: patch_filter(np.zeros_like(getval(g)[0]), g.T, x, *rest, **kwargs),
)

_normalized_and_moments, normalize_elu = _with_memory(hcnn_core.normalize_elu, normalized_and_moments)
_normalized_marginal_and_moments, normalize_elu_marginal = _with_memory(
    hcnn_core.normalize_elu_marginal, normalized_marginal_and_moments
)
_batch_normalized_and_moments, batch_normalize = _with_memory(hcnn_core.batch_normalize, batch_normalized_and_moments)
rectified_and_moments = primitive(_rectified_and_moments)


def _normalization_pullback(
    adjoint: Any, written_out: Any, argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    zeros, moments = [lasting_zeros(getval(a)) for a in ans[1:3]], getval(ans[3])
    kwargs = {name: value for name, value in kwargs.items() if name != "parts"}

    def pullback(g: dict[int, Array]) -> list[Array]:
        of_ans = g[0] if 0 in g else np.zeros_like(getval(args[0]))
        of_results = of_ans, g.get(1, zeros[0]), g.get(2, zeros[1])
        if kwargs.get("shard") is not None:
            _refuse_second_order(*of_results, *args)
        if any(isinstance(a, Traced) for a in (*of_results, *args)):
            of_operands = vjp(functools.partial(written_out, epsilon=kwargs["epsilon"]), *args)[1](of_results)
        else:
            of_operands = adjoint(*of_results, *args, moments, **kwargs)
        return [of_operands[argnum] for argnum in argnums]

    return pullback


def _batch_normalize_written_out(y: Array, scale: Array, bias: Array, *, epsilon: float) -> Any:
    """`batch_normalize` of operations that are differentiable any number of times."""
    axes = tuple(range(y.ndim - 1))
    mean = np.mean(y, axis=axes)
    deviation = y - mean
    variance = np.mean(np.square(deviation), axis=axes)
    return deviation * (scale / np.sqrt(variance + epsilon)) + bias, mean, variance


def _normalize_elu_written_out(y: Array, shift: Array, scale: Array, bias: Array, *, epsilon: float) -> Any:
    ans, mean, variance = _batch_normalize_written_out(y + shift, scale, bias, epsilon=epsilon)
    return elu(ans), mean, variance


def _rectified_written_out(y: Array, scale: Array, bias: Array, *skipping: Array, epsilon: float) -> Any:
    ans, mean, variance = _batch_normalize_written_out(y, scale, bias, epsilon=epsilon)
    return relu(ans + skipping[0] if skipping else ans), mean, variance


def _rectified_pullback(argnums: tuple[int, ...], ans: Any, *call: Any) -> Any:
    adjoint = functools.partial(rectified_vjp, ans=getval(ans[0]))
    return _normalization_pullback(adjoint, _rectified_written_out, argnums, ans, *call)


defvjp_argnums(rectified_and_moments, _rectified_pullback)
defvjp_argnums(
    _normalized_and_moments,
    functools.partial(_normalization_pullback, hcnn_core.normalize_elu_vjp, _normalize_elu_written_out),
)
defvjp_argnums(
    _batch_normalized_and_moments,
    functools.partial(_normalization_pullback, hcnn_core.batch_normalize_vjp, _batch_normalize_written_out),
)


def _normalized_marginal_pullback(
    argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    (y, *_), axis, options = args, *_axis_of_marginal(*args[4:], **kwargs)
    of_ans = _normalization_pullback(
        hcnn_core.normalize_elu_vjp, _normalize_elu_written_out, argnums, ans, args[:4], options
    )
    return lambda g: of_ans({**g, 0: marginal_vjp(g[0], getval(y).shape, axis)} if 0 in g else g)


def _axis_of_marginal(axis: int, **options: Any) -> tuple[int, dict[str, Any]]:
    """Return the axis, given by position or keyword, and the other options."""
    return axis, options


defvjp_argnums(_normalized_marginal_and_moments, _normalized_marginal_pullback)

_maxima_and_taps = primitive(maxima_and_taps)
_picked_samples, _picked_samples_vjp = primitive(picked_samples), primitive(picked_samples_vjp)
mean_pool, mean_pool_vjp = primitive(hcnn_core.mean_pool), primitive(hcnn_core.mean_pool_vjp)


@functools.wraps(hcnn_core.max_pool)
def max_pool(x: Array, axes: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0) -> Array:  # noqa: D103
    if not isinstance(x, Traced):
        return hcnn_core.max_pool(x, axes, kernel_size, stride=stride, padding=padding)
    for axis, window in reversed(make_windows(x.shape, axes, kernel_size, stride, padding)):
        x, _ = _maxima_and_taps(x, axis, window)
    return x


def _maxima_pullback(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    taps, where = getval(ans[1]), args[1:]
    return lambda g: [_picked_samples_vjp(g[0], taps, *where)]


defvjp_argnums(_maxima_and_taps, _maxima_pullback)
defvjp(_picked_samples, lambda ans, x, taps, *where: lambda g: _picked_samples_vjp(g, taps, *where), None)
defvjp(_picked_samples_vjp, lambda ans, g, taps, *where: lambda h: _picked_samples(h, taps, *where), None)
defvjp(
    mean_pool,
    lambda ans, x, *where, **kwargs: _with_shape(x.shape, lambda shape, g: mean_pool_vjp(g, shape, *where, **kwargs)),
)
defvjp(mean_pool_vjp, lambda ans, g, x, *where, **kwargs: lambda h: mean_pool(h, *where, **kwargs), None)

_normalized_filters = primitive(hcnn_core.normalize_filters)


def _of_filters_pullback(
    adjoint: Any, written_out: Any, argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    def pullback(g: dict[int, Array]) -> list[Array]:
        of_results = tuple(_with_zeros(g, ans))
        if any(isinstance(a, Traced) for a in (*of_results, *args)):
            of_operands = vjp(functools.partial(written_out, **kwargs), *args)[1](of_results)
        else:
            of_operands = adjoint(*of_results, *args, **kwargs)
        return [of_operands[argnum] for argnum in argnums]

    return pullback


def _normalized_filters_written_out(
    h: Array, mean: Array, covariance: Array, /, *, epsilon: float
) -> tuple[Array, Array]:
    """`normalize_filters` of operations that are differentiable any number of times, for complex filters too."""
    epsilon = require_epsilon(epsilon)
    taps = np.reshape(h, (h.shape[0], -1))  # (Q, T)
    variance = np.real(np.sum((taps @ covariance) * np.conj(taps), axis=1))
    sigma = np.sqrt(np.where(variance < 0, 0, variance) + epsilon)  # rounding may leave less than nothing
    normal = taps / sigma[:, None]
    return np.reshape(normal.T, (*h.shape[1:], h.shape[0])), normal @ mean


defvjp_argnums(
    _normalized_filters,
    functools.partial(_of_filters_pullback, hcnn_core.normalize_filters_vjp, _normalized_filters_written_out),
)


def _has_kernels(*arrays: Array) -> bool:
    """Whether these are real arrays on a GPU."""
    return library_of(getval(arrays[0])) == "cupy" and not any(getval(a).dtype.kind == "c" for a in arrays)


def _filters_normalized(h: Array, mean: Array, covariance: Array, /, *, epsilon: float) -> tuple[Array, Array]:
    """Normalise filters: by one kernel on a GPU, elsewhere by a few operations, since filters may be complex."""
    arrays = getval(h), getval(mean), getval(covariance)
    fitting(array_namespace(*arrays), *arrays, epsilon, require_floating)
    at_once = _has_kernels(h, mean, covariance)
    function = _normalized_filters if at_once else _normalized_filters_written_out
    filters, means = function(h, mean, covariance, epsilon=epsilon)
    return filters, means


normalize_filters = functools.wraps(hcnn_core.normalize_filters)(_filters_normalized)

_merged_factors = primitive(hcnn_core.merge_factors)


def _merged_factors_written_out(
    h: Array, g: Array, mean: Array, covariance: Array, bias: Array, /, *, lengths: Any, stride: Any, boundary: Any,
    epsilon: float,
) -> tuple[Array, Array]:  # fmt: skip
    """`merge_factors` of operations that are differentiable any number of times, for complex factors too."""
    lengths = tuple(np.atleast_1d(lengths).tolist())
    normal, means = normalize_filters(h, mean, covariance, epsilon=epsilon)
    flat = np.reshape(g, (g.shape[0], math.prod(g.shape[1:])))
    w = np.reshape(np.reshape(normal, (-1, h.shape[0])) @ flat, (*h.shape[1:], *g.shape[1:]))
    ones, axes = np.ones_like(getval(mean), shape=lengths), tuple(range(len(lengths)))
    shift = convolve(ones, np.reshape(means @ flat, g.shape[1:]), axes, boundary=boundary, stride=stride)
    return w, bias - shift


defvjp_argnums(
    _merged_factors, functools.partial(_of_filters_pullback, hcnn_core.merge_factors_vjp, _merged_factors_written_out)
)


def _factors_merged(
    h: Array, g: Array, mean: Array, covariance: Array, bias: Array, /, *, lengths: Any, stride: Any, boundary: Any,
    epsilon: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Merge factors: by one kernel on a GPU, elsewhere written out."""
    arrays = getval(h), getval(g), getval(mean), getval(covariance), getval(bias)
    merging(array_namespace(*arrays), *arrays, lengths, stride, boundary, epsilon, require_floating)
    at_once = _has_kernels(h, g, mean, covariance, bias)
    function = _merged_factors if at_once else _merged_factors_written_out
    options = {"lengths": lengths, "stride": stride, "boundary": boundary, "epsilon": epsilon}
    w, offset = function(h, g, mean, covariance, bias, **options)
    return w, offset


merge_factors = functools.wraps(hcnn_core.merge_factors)(_factors_merged)

log_softmax = primitive(hcnn_core.log_softmax)
defvjp(log_softmax, lambda ans, x: lambda g: g - np.exp(ans) * np.sum(g, axis=-1, keepdims=True))


_cross_entropy_at_once = primitive(cross_entropy_and_gradient)


def _cross_entropy_pullback(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    logits, *rest = args

    def pullback(g: dict[int, Array]) -> list[Array]:
        if isinstance(logits, Traced) or isinstance(g[0], Traced):
            return list(vjp(lambda x: _cross_entropy_written_out(x, *rest), logits)[1](g[0]))
        return [g[0] * ans[1]]

    return pullback


defvjp_argnums(_cross_entropy_at_once, _cross_entropy_pullback)


def _cross_entropy_written_out(logits: Array, labels: Array, label_smoothing: float) -> Array:
    """`cross_entropy` of operations that are differentiable any number of times."""
    target: Any = targets(getval(logits), labels, label_smoothing)
    logs = np.where(target != 0, log_softmax(logits), 0)  # -inf may stand beside a target of 0
    return -np.sum(logs * target) / target.shape[0]


def cross_entropy(logits: Array, labels: Array, /, *, label_smoothing: float = 0.0) -> Array:
    """`hcnn_core.cross_entropy` of logits that may be traced."""
    if library_of(getval(logits)) == "cupy":
        loss, _ = _cross_entropy_at_once(logits, labels, label_smoothing)
        return loss
    return _cross_entropy_written_out(logits, labels, label_smoothing)


for _name in set(hcnn_core.__all__) & set(globals()):
    globals()[_name].__module__ = __name__  # where pickle looks for it
