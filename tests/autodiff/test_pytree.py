"""Pytrees: every container, round trips, and trees that do not match."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff.pytree import tree_leaves, tree_map, tree_paths, tree_structure, tree_unflatten


class Layer(NamedTuple):
    h: Any
    g: Any


TREE = {"b": [1, (2, None)], "a": Layer(h=3, g={"x": 4}), "c": (), "d": None}

TREES = st.recursive(
    st.integers() | st.none(),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), children, max_size=3),
        st.builds(Layer, children, children),
    ),
    max_leaves=10,
)


def test_leaves_and_their_paths() -> None:
    assert tree_leaves(TREE) == [1, 2, 3, 4]
    assert tree_paths(TREE, "p") == ["p['b'][0]", "p['b'][1][0]", "p['a'].h", "p['a'].g['x']"]
    assert tree_leaves(5) == [5]
    assert tree_leaves(None) == []


class Pair(tuple):
    """A tuple that is neither plain nor named."""

    __slots__ = ()


@pytest.mark.parametrize("leaf", [Pair((1, 2)), OrderedDict(a=1), {1, 2}, "text"])
def test_other_containers_are_leaves(leaf: Any) -> None:
    assert tree_leaves([leaf]) == [leaf]
    assert tree_paths([leaf]) == ["[0]"]


def test_map_keeps_the_containers() -> None:
    doubled = tree_map(lambda x, y: x + y, TREE, TREE)
    assert doubled == {"b": [2, (4, None)], "a": Layer(h=6, g={"x": 8}), "c": (), "d": None}
    assert type(doubled["a"]) is Layer


def test_the_first_tree_decides_what_is_a_leaf() -> None:
    assert tree_map(lambda x, y: (x, y), {"a": 1}, {"a": [2, 3]}) == {"a": (1, [2, 3])}


def test_dicts_match_by_key() -> None:
    assert tree_map(lambda x, y: x - y, {"a": 1, "b": 2}, {"b": 2, "a": 1}) == {"a": 0, "b": 0}


def test_structure_keeps_no_leaf() -> None:
    assert tree_leaves(tree_structure(TREE)) == [...] * 4


@given(TREES)
def test_round_trip(tree: Any) -> None:
    leaves = tree_leaves(tree)
    assert tree_unflatten(tree_structure(tree), leaves) == tree
    assert tree_unflatten(tree, leaves) == tree
    assert len(tree_paths(tree)) == len(set(tree_paths(tree))) == len(leaves)
    assert tree_map(lambda x: x, tree) == tree


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"a": 1}, {"b": 1}, "a dict with keys ['a'] in one, a dict with keys ['b'] in the other"),
        ([1, 2], [1], "a list of length 2 in one, a list of length 1 in the other"),
        ([1], (1,), "a list of length 1 in one, a tuple of length 1 in the other"),
        (Layer(1, 2), (1, 2), "a Layer of length 2 in one, a tuple of length 2 in the other"),
        ({"a": [1]}, {"a": 1}, "a list of length 1 in one, a leaf (int) in the other"),
        ([None], [1], "a leaf (NoneType) in one, a leaf (int) in the other"),
    ],
)
def test_a_mismatch_says_where(one: Any, other: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        tree_map(lambda x, y: x, one, other)
    assert str(error.value) == f"trees of different structure: {message}"
