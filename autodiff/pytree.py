"""Pytrees: nested dicts, lists, tuples and named tuples of leaves; None is an empty leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["tree_leaves", "tree_map", "tree_paths", "tree_structure", "tree_unflatten"]


def tree_map(fun: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply a function to the leaves of a tree.

    Parameters
    ----------
    fun : callable
        Called as ``fun(leaf, *leaves)`` with the leaves at the same place of `tree` and of each tree in `rest`.
    tree : pytree
        Dict, list, tuple or named tuple, nested at will. None stands for no leaf; all else is a leaf.
    *rest : pytree
        Trees of the same structure; where `tree` has a leaf, any object.

    Returns
    -------
    pytree
        The results of `fun`, in the structure of `tree`.

    Raises
    ------
    ValueError
        If a tree of `rest` has another structure.
    """
    kind = type(tree)
    if kind is dict:
        for other in rest:
            if type(other) is not dict or other.keys() != tree.keys():
                raise _mismatch(tree, other)
        return {key: tree_map(fun, tree[key], *(other[key] for other in rest)) for key in tree}
    if kind is list or kind is tuple or (isinstance(tree, tuple) and hasattr(kind, "_fields")):
        for other in rest:
            if type(other) is not kind or len(other) != len(tree):
                raise _mismatch(tree, other)
        children = [tree_map(fun, *nodes) for nodes in zip(tree, *rest, strict=True)]
        return children if kind is list else kind(children) if kind is tuple else kind(*children)
    if tree is None:
        for other in rest:
            if other is not None:
                raise _mismatch(tree, other)
        return None
    return fun(tree, *rest)


def tree_leaves(tree: Any) -> list[Any]:
    """Return the leaves of a tree, in the order in which `tree_map` visits them."""
    leaves: list[Any] = []
    tree_map(leaves.append, tree)
    return leaves


def tree_structure(tree: Any) -> Any:
    """Return a tree with an ellipsis for every leaf, so that no array is kept alive."""
    return tree_map(lambda _: ..., tree)


def tree_unflatten(structure: Any, leaves: Iterable[Any]) -> Any:
    """Return the tree of a structure, or of any such tree, with these leaves in the order of `tree_leaves`.

    ValueError if there are more or fewer.
    """
    values = list(leaves)
    count = len(tree_leaves(structure))
    if len(values) != count:
        raise ValueError(f"{len(values)} leaves for a tree with {count}")
    remaining = iter(values)
    return tree_map(lambda _: next(remaining), structure)


def tree_paths(tree: Any, prefix: str = "") -> list[str]:
    """Return how each leaf is reached, in the order of `tree_leaves`, such as ``"['layer1'].weight[0]"``.

    `prefix` is what to call the tree itself.
    """
    if type(tree) is dict:
        children = [(f"{prefix}[{key!r}]", child) for key, child in tree.items()]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        children = [(f"{prefix}.{field}", child) for field, child in zip(tree._fields, tree, strict=True)]
    elif type(tree) in (list, tuple):
        children = [(f"{prefix}[{i}]", child) for i, child in enumerate(tree)]
    else:
        return [] if tree is None else [prefix]
    return [path for name, child in children for path in tree_paths(child, name)]


def _mismatch(tree: Any, other: Any) -> ValueError:
    """Return the error for two trees that part ways at these nodes."""

    def describe(node: Any) -> str:
        kind = type(node).__name__
        if type(node) is dict:
            return f"a dict with keys {sorted(map(str, node))}"
        return f"a {kind} of length {len(node)}" if isinstance(node, list | tuple) else f"a leaf ({kind})"

    return ValueError(f"trees of different structure: {describe(tree)} in one, {describe(other)} in the other")
