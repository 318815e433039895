"""The network against the paper's table, and its layers against Eq. (8) written out plainly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hcnn_core as hc
from autodiff import check_grads, cross_entropy
from train.config import make_config
from train.networks import hierarchical
from train.networks.hierarchical import hierarchy, layers
from train.networks.presets import HIERARCHICAL
from train.networks.registry import build
from train.settings import ConfigError

COUNTS = {
    ("hcnn", "cifar10"): 97_650,
    ("hcnn-plus", "cifar10"): 344_640,
    ("hcnn", "cifar100"): 250_308,
    ("hcnn-plus", "cifar100"): 887_424,
}
CLASSES = {"cifar10": 10, "cifar100": 100}


@pytest.mark.parametrize(("preset", "dataset"), COUNTS)
def test_counts_of_the_paper(preset, dataset):
    config = make_config(preset, {"dataset": dataset})
    table = layers(config, 32, CLASSES[dataset])
    assert sum(layer.counted for layer in table) == COUNTS[preset, dataset]
    assert f"{COUNTS[preset, dataset]:,}" in build(config, 32, CLASSES[dataset]).describe()


def test_counts_of_systems_that_the_paper_names():
    """Filters (3, 3, 7, 16) of x_{j-2} for layers 3 to 10; a map from z_j to 39,712 coefficients, and seven z_j."""
    assert build(make_config("hcnn", {"skip": "dense"})).counted == 97_650 + 8 * 3 * 3 * 7 * 16 == 105_714
    plus = build(make_config("hcnn-plus", {"hypernetwork": 4}))
    assert plus.counted == 344_640 - 7 * 39_712 + 4 * 39_712 + 7 * 4 == 225_532
    with pytest.raises(ConfigError, match="hypernetwork is 4, for layers 4 to J-2; depth is 5: take 6 or more"):
        make_config("hcnn", {"hypernetwork": 4, "depth": 5})


def test_a_hypernetwork_is_a_network_whose_factors_are_the_map_of_z():
    small, rng = {"depth": 7, "width": 4, "factors": 3}, np.random.default_rng(0)
    network, plain = (build(make_config("hcnn", {**small, "hypernetwork": k}), 8) for k in (2, 0))
    weights, x = network.initialize(rng), rng.standard_normal((2, 8, 8, 3)).astype("float32")
    own, maps = {**weights}, weights["layer04"]
    for name in ("layer04", "layer05"):
        a, b = weights[name]["z"]
        own[name] = {key: a * maps[f"{key}_map"][0] + b * maps[f"{key}_map"][1] for key in "hg"}
        own[name]["bias"] = weights[name]["bias"]
    assert "z" not in weights["layer03"] and "z" not in weights["layer06"]
    np.testing.assert_allclose(network(weights, x)[0], plain(own, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", sorted(HIERARCHICAL))
@pytest.mark.parametrize(
    "changes",
    [{}, {"normalization": "both"}, {"head": "sum"}, {"head": "dense"}, {"skip": "dense"}, {"hypernetwork": 3}],
    ids=str,
)
def test_trainable_numbers_are_those_of_the_weights(preset, changes):
    config = make_config(preset, changes)
    weights = build(config).initialize(np.random.default_rng(0))
    count = sum(array.size for arrays in weights.values() for array in arrays.values())
    assert f"with biases, scales and the head: {count:,}." in build(config, 32, 10).describe()


def test_the_authors_network_has_their_numbers():
    """Of layers 11: 16 filters; beside the filters 928 scales and biases, 160 weights and 10 biases of the head."""
    config = make_config("released")
    parameters = build(config).initialize(np.random.default_rng(0))
    assert sum(a.size for arrays in parameters.values() for a in arrays.values()) == 360_522
    assert "360,522" in build(config, 32, 10).describe()
    table = layers(config, 32, 10)
    assert [la.outputs[0] for la in table] == [32] * 3 + [16] * 4 + [8] * 4
    assert table[-1].outputs == (8, 8, 4, 8, 16)
    assert sum(la.counted for la in table) == 344_640 + 39_712 - 24_928


@pytest.mark.parametrize("preset", ["hcnn", "hcnn-plus"])
def test_counts_are_those_of_the_arrays(preset):
    """The factors of both; what is counted of the plain network's is merged, and test_shipped counts it."""
    network = build(make_config(preset))
    parameters = network.initialize(np.random.default_rng(0))
    arrays = sum(a.size for name in parameters for key, a in parameters[name].items() if key in ("w", "h", "g"))
    assert arrays == 344_640 == sum(layer.trained for layer in hierarchy(network))


def test_table_of_the_paper():
    """Sizes of Figure 2 and section 4.1: K/4 x K/2 x K attributes, space halved at j = 5 and 9."""
    outputs = [layer.outputs for layer in layers(make_config("hcnn"), 32, 10)]
    assert outputs[:3] == [(32, 32, 16), (32, 32, 8, 16), (32, 32, 4, 8, 16)]
    assert [o[0] for o in outputs] == [32, 32, 32, 32, 16, 16, 16, 16, 8, 8, 8]
    assert outputs[-1] == (8, 8, 4, 8, 10)


@pytest.mark.parametrize("nonlinear", [False, True], ids=["plain", "plus"])
def test_multiply_adds_are_counted_by_convolving_ones(nonlinear):
    config = make_config("hcnn", {"width": 4, "factors": 3, "depth": 5, "nonlinear_factors": nonlinear})
    for la in layers(config, 8, 6):
        x, taps, boundary = np.ones(la.inputs), la.kernel_size, {"boundary": "periodic"}
        if la.nonlinear:
            y = hc.convolve(x, np.ones((*taps[:2], la.factors)), (0, 1), stride=la.stride[:2], **boundary)
            g = np.ones((*taps[2:], la.filters))
            count = y.sum() + hc.convolve(np.ones_like(y), g, (2, 3), stride=la.stride[2:], **boundary).sum()
        else:
            summed = (2,) if la.attributes == 0 else ()
            w = np.ones((*(x.shape[axis] for axis in summed), *taps, la.filters))
            y = hc.convolve(x, w, tuple(range(len(taps))), sum_axes=summed, stride=la.stride, **boundary)
            count = y.sum()
        assert la.multiply_adds == count, la


def plainly(network, parameters, x):
    """The network of Eqs. (3), (4), (6), (7), (8), every one of the Q copies made, normalised and convolved."""
    config = network.config
    periodic_along = {"zero": (), "periodic": (1, 2, 3, 4), "attributes": (3, 4)}[config.boundary]
    for layer in hierarchy(network):
        if x.ndim == 6:
            x = x.sum(3) if config.reduction == "sum" else x.mean(3)
        weights = parameters[layer.name]

        def along(*axes):
            boundary = ["periodic" if axis in periodic_along else "zero" for axis in axes]
            return {"axes": axes, "boundary": boundary, "method": "direct"}

        if layer.attributes == 0:
            z = hc.convolve(x, weights["w"], sum_axes=3, stride=layer.stride, **along(1, 2))
        elif not layer.factors:
            z = hc.convolve(x, weights["w"], stride=layer.stride, **along(1, 2, 3))
        else:
            copies = hc.convolve(x, np.moveaxis(weights["h"], 0, -1), **along(1, 2))
            everywhere = (0, 1, 2, 3, 4)
            copies = (copies - copies.mean(everywhere)) / np.sqrt(copies.var(everywhere) + config.epsilon)
            if "h_scale" in weights:
                copies = copies * weights["h_scale"] + weights["h_bias"]
            if layer.nonlinear:
                copies = np.where(copies > 0, copies, np.exp(np.minimum(copies, 0)) - 1)
            s1, s2 = layer.stride[:2]
            copies = copies[:, ::s1, ::s2]
            z = hc.convolve(copies, weights["g"], sum_axes=5, stride=layer.stride[2:], **along(3, 4))
        if config.normalization == "both":
            everywhere = tuple(range(z.ndim - 1))
            z = (z - z.mean(everywhere)) / np.sqrt(z.var(everywhere) + config.epsilon) * weights["scale"]
        c = z + weights["bias"]
        x = np.where(c > 0, c, np.exp(np.minimum(c, 0)) - 1)
    if config.head == "sum":
        return x.sum((1, 2, 3, 4))
    if config.head == "dense":
        return x.mean((1, 2, 3, 4)) @ parameters["head"]["w"] + parameters["head"]["bias"]
    return x.mean((1, 2, 3, 4)) * parameters["head"]["scale"]


SMALL = {"depth": 7, "width": 6, "factors": 5, "strided_layers": (4, 5), "dtype": "float64"}


def small_network(rng, **changes):
    network = build(make_config("hcnn", {**SMALL, **changes}), image_size=8, classes=4)
    parameters = network.initialize(rng)
    for weights in parameters.values():
        if "bias" in weights:
            weights["bias"] += rng.standard_normal(weights["bias"].shape)
        for name in ("scale", "h_scale", "h_bias"):
            if weights.get(name, np.zeros(())).ndim:
                weights[name] += rng.uniform(-0.5, 1, weights[name].shape)
    return network, parameters


@pytest.mark.parametrize("nonlinear", [False, True], ids=["plain", "plus"])
@pytest.mark.parametrize("boundary", ["zero", "periodic", "attributes"])
@pytest.mark.parametrize(
    ("reduction", "head", "normalization"),
    [("mean", "mean", "factors"), ("sum", "sum", "factors"), ("mean", "dense", "both"), ("sum", "sum", "both")],
)
def test_layers_equal_the_normalised_factors_written_out(nonlinear, boundary, reduction, head, normalization):
    rng = np.random.default_rng(1)
    settings = {"boundary": boundary, "reduction": reduction, "head": head, "normalization": normalization}
    network, parameters = small_network(rng, nonlinear_factors=nonlinear, **settings)
    x = rng.standard_normal((3, 8, 8, 3))
    expected = plainly(network, parameters, x)
    np.testing.assert_allclose(network(parameters, x)[0], expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_writing_out_notices_a_missing_mean():
    """Negative control: at zero boundaries the mean's share is an array over v, not a constant."""
    rng = np.random.default_rng(2)
    network, parameters = small_network(rng, boundary="zero")
    x = rng.standard_normal((3, 8, 8, 3)) + 1
    expected = plainly(network, parameters, x)
    exact = hierarchical.merge_factors

    def constant_share(*args, **kwargs):
        w, offset = exact(*args, **kwargs)
        return w, np.broadcast_to(offset.mean((0, 1)), offset.shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hierarchical, "merge_factors", constant_share)
        assert np.abs(network(parameters, x)[0] - expected).max() > 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("nonlinear", [False, True], ids=["plain", "plus"])
def test_gradients(nonlinear):
    rng = np.random.default_rng(3)
    network, parameters = small_network(rng, nonlinear_factors=nonlinear, depth=6, width=4)
    x, labels = rng.standard_normal((2, 8, 8, 3)), np.array([0, 3])
    check_grads(lambda p: cross_entropy(network(p, x)[0], labels, label_smoothing=0.1), order=1)(parameters)


@pytest.mark.parametrize("nonlinear", [False, True], ids=["plain", "plus"])
@pytest.mark.parametrize("boundary", ["zero", "periodic", "attributes"])
@pytest.mark.parametrize(("reduction", "normalization"), [("mean", "both"), ("sum", "factors")])
def test_merged_filters_give_the_logits(nonlinear, boundary, reduction, normalization):
    rng = np.random.default_rng(7)
    settings = {"boundary": boundary, "reduction": reduction, "normalization": normalization}
    network, parameters = small_network(rng, nonlinear_factors=nonlinear, **settings)
    x = rng.standard_normal((3, 8, 8, 3))
    logits, moments = network(parameters, x)
    merged = network.merged(parameters, moments)
    np.testing.assert_allclose(network.apply_merged(merged, x), logits, rtol=0, atol=1e-12 * np.abs(logits).max())
    merged["layer04"]["bias"] = merged["layer04"]["bias"] + 1
    assert np.abs(network.apply_merged(merged, x) - logits).max() > 1e-3


@pytest.mark.parametrize("nonlinear", [False, True], ids=["plain", "plus"])
@pytest.mark.parametrize("boundary", ["zero", "periodic", "attributes"])
def test_initial_scale_is_kept_at_every_depth(nonlinear, boundary):
    """Second moment 1 before rho means E[rho^2] near 0.645; sixteen draws of weights average out."""
    second_moments = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        config = make_config("hcnn", {"width": 8, "factors": 9, "boundary": boundary, "nonlinear_factors": nonlinear})
        network = build(config, image_size=16, classes=8)
        x = rng.standard_normal((4, 16, 16, 3)).astype(np.float32)
        parameters = network.initialize(rng)
        second_moments.append([float(np.mean(y**2)) for _, y, _ in network.trace(parameters, x)][:-1])  # not the logits
    means = np.mean(second_moments, axis=0)
    assert np.all((means > 0.4) & (means < 1.0)), means


@pytest.mark.parametrize("nonlinear", [False, True], ids=["plain", "plus"])
def test_initial_variance_is_one_over_the_second_moment_of_all_terms(nonlinear):
    z = np.linspace(-12, 12, 100_001)
    of_rho = np.mean(np.where(z > 0, z, np.expm1(z)) ** 2 * np.exp(-(z**2) / 2)) * 24 / math.sqrt(2 * math.pi)
    config = make_config("hcnn", {"width": 64, "boundary": "periodic", "nonlinear_factors": nonlinear})
    network = build(config, image_size=32, classes=64)
    parameters = network.initialize(np.random.default_rng(0))
    for layer in hierarchy(network):
        weights = parameters[layer.name]
        w = weights["g"] if layer.factors else weights["w"]
        normalised = layer.j == 1 or (layer.factors and not nonlinear)  # images, or what Eq. (8) normalises
        found = np.mean(w.astype(float) ** 2) * w.size / layer.filters * (1 if normalised else of_rho)
        assert abs(found - 1) < 6 * math.sqrt(2 / w.size), layer  # six deviations of a mean of squares


@settings(max_examples=30)
@given(
    n=st.integers(1, 12),
    size=st.integers(1, 15),
    stride=st.integers(1, 3),
    boundary=st.sampled_from(["zero", "periodic"]),
)
def test_average_taps(n, size, stride, boundary):
    """The mean of a convolution of ones with ones."""
    met = hc.convolve(np.ones(n), np.ones(size), 0, boundary=boundary, stride=stride, method="direct").mean()
    assert math.isclose(hierarchical._average_taps(n, size, stride, boundary), met, rel_tol=1e-12)


def test_any_configuration_describes_itself():
    config = make_config("hcnn", {"depth": 5, "width": 5, "factors": 3, "attribute_stride": 1, "space_kernel": 1})
    text = build(config, 32, 10).describe()
    assert "MiB" in text and len(text.splitlines()) == 11
    assert [" sum" in line for line in text.splitlines()[1:4]] == [True, False, False]  # channels, in layer 1 alone
    mebibytes = 32 * 32 * 5 * 4 * config.batch_size / 2**20
    assert text.splitlines()[1].split()[-1] == f"{mebibytes:.1f}" != "0.0"
    network = build(config, image_size=4, classes=3)
    logits, _ = network(network.initialize(np.random.default_rng(0)), np.ones((2, 4, 4, 3), np.float32))
    assert logits.shape == (2, 3) and logits.dtype == np.float32
