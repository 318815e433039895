"""Functions whose answers have no gradient: comparisons, roundings, searches, questions about shapes and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np

from autodiff._rules.table import composite, plain
from autodiff.tape import HANDLERS, getval, in_place
from hcnn_core.backend import Array


@composite(np.full_like)
def full_like(a: Array, fill_value: Array, dtype: Any = None, *, shape: Any = None) -> Array:
    like = np.zeros_like(a, dtype=dtype, shape=shape)
    return (like + fill_value).astype(like.dtype)


for _function in (
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
    *(np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.isfinite, np.isinf, np.isnan, np.signbit),
    *(np.isneginf, np.isposinf, np.iscomplex, np.isreal, np.isin, np.array_equiv),
    *(np.floor, np.ceil, np.rint, np.trunc, np.fix, np.round, np.around, np.floor_divide),
    *(np.argmax, np.argmin, np.nanargmax, np.nanargmin, np.argsort, np.argpartition, np.argwhere, np.lexsort),
    *(np.nonzero, np.flatnonzero, np.count_nonzero, np.searchsorted, np.digitize),
    *(np.all, np.any, np.allclose, np.isclose, np.array_equal, np.zeros_like, np.ones_like, np.empty_like),
    *(np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj, np.isrealobj, np.may_share_memory),
    *(np.tril_indices_from, np.triu_indices_from, np.diag_indices_from),
):
    plain(_function)


def _text_of(function: Any) -> Any:
    """Return a function whose text of an array says that it is traced: float() of the text would lose the gradient."""
    return lambda a, *args, **kwargs: f"Traced({function(np.asarray(getval(a)), *args, **kwargs)})"


for _showing in (np.array_repr, np.array_str, np.array2string):
    HANDLERS[_showing] = _text_of(_showing)

for _writing in (np.copyto, np.fill_diagonal, np.put, np.put_along_axis, np.place, np.putmask):
    HANDLERS[_writing] = in_place
