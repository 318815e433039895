"""One factored layer in PyTorch, in the ways its users could write it; `python -m benchmarks.layer` times them.

Activations are (N, u1, u2, v1, v2, v3) and contiguous, which makes attributes the channels of a `channels_last` array:
measured, the layout PyTorch is fastest in. Its convolutions correlate, so h (Q, 1, s, s) and g (K, Q, s1, s2) are the
project's factors with every axis flipped. Kernels are odd and no longer than the axes.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Arrays = dict[str, np.ndarray[Any, Any]]


class Layer:
    """Eq. (8), forward, for one problem."""

    def __init__(
        self, boundary: str, lengths: tuple[int, int], factors: Arrays, stride: int, epsilon: float, device: str
    ) -> None:
        self.periodic = boundary == "periodic"
        self.lengths, self.stride, self.epsilon = lengths, stride, epsilon
        _, *self.kernel_size, self.filters = factors["g"].shape
        self.half = [size // 2 for size in self.kernel_size]
        self.out_lengths = [-(-n // stride) for n in lengths]
        self.selection = torch.from_numpy(self._selection()).to(device)  # (taps, outputs, inputs)
        self.met = self.selection.sum(2)  # whether an output's tap meets data

    def _selection(self) -> np.ndarray[Any, Any]:
        """Which tap of a filter along v stands between each input and each output."""
        axes = []
        for n, size, out in zip(self.lengths, self.kernel_size, self.out_lengths, strict=True):
            i, o, t = np.ogrid[:n, :out, :size]
            source = self.stride * o + t - size // 2
            axes.append((i == (source % n if self.periodic else source)).transpose(2, 1, 0))
        both = np.einsum("aoi,bpj->abopij", *(axis.astype(np.float32) for axis in axes))
        return both.reshape(math.prod(self.kernel_size), math.prod(self.out_lengths), math.prod(self.lengths))

    def written(self, x: Tensor, h: Tensor, g: Tensor, bias: Tensor, *, nonlinear: bool = False) -> Tensor:
        """As printed: Q copies of the layer, batch norm, convolution along v, sum over q; (+) with rho in between.

        As a 3D convolution over (u1, u2, v) the first factor writes its copies where the second reads them; with conv2d
        there is a transposition of all copies between the two, which takes longer.
        """
        x = self._marginal(x)  # (N, u1, u2, v)
        x = _wrap(x, {1: h.shape[2] // 2, 2: h.shape[3] // 2}) if self.periodic else x
        padding = (0, 0, 0) if self.periodic else (h.shape[2] // 2, h.shape[3] // 2, 0)
        copies = functional.conv3d(x[..., None].movedim(-1, 1), h[..., None], padding=padding)  # (N, Q, u1, u2, v)
        copies = functional.batch_norm(copies, None, None, training=True, eps=self.epsilon)
        if nonlinear:
            copies = functional.elu(copies)
        return self._along_attributes(copies.movedim(1, -1), g, bias)

    def merged(self, x: Tensor, h: Tensor, g: Tensor, bias: Tensor) -> Tensor:
        """The normalised factors merged into one filter, applied to the spatial patches along v."""
        patches = torch.stack(self._shifted(self._marginal(x), h), -1)  # (N, u1, u2, v, taps)
        flat = patches.flatten(1, 3)
        mean = flat.mean((0, 1))
        second = torch.bmm(flat.transpose(1, 2), flat).mean(0) / flat.shape[1]  # by image: one long sum loses digits
        w, shift = self._merge(mean, second - torch.outer(mean, mean), h, g)
        w = w.reshape(self.filters, -1, *self.kernel_size).to(memory_format=torch.channels_last)
        if self.periodic:
            return self._along_attributes(patches, w, bias - shift[0, 0])
        return self._along_attributes(patches, w, bias - shift)

    def toeplitz(self, x: Tensor, h: Tensor, g: Tensor, bias: Tensor, *, pairwise: bool = False) -> Tensor:
        """All attributes as channels of one 2D convolution, whose weight repeats the merged filter."""
        x = self._marginal(x)  # (N, u1, u2, v)
        moments = self._moments_by_pairs if pairwise else self._moments_by_products
        w, shift = self._merge(*moments(x, h), h, g)
        y = self.convolution(x, self.weight(w, h), (bias - shift).flatten())
        return functional.elu(y).unflatten(3, (*self.out_lengths, self.filters))

    def convolution(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The block-Toeplitz convolution alone: x (N, u1, u2, v) -> (N, u1, u2, v' * K)."""
        half = weight.shape[2] // 2
        x = _wrap(x, {1: half, 2: half}) if self.periodic else x
        y = functional.conv2d(x.movedim(-1, 1), weight, bias, padding=0 if self.periodic else half)
        return y.movedim(1, -1)

    def weight(self, w: Tensor, h: Tensor) -> Tensor:
        """Merged filters (K, s * s, s1 * s2) as weight (v' * K, v, s, s): block-Toeplitz, or block-circulant."""
        weight = (w @ self.selection.flatten(1)).reshape(self.filters, *h.shape[2:], *self.selection.shape[1:])
        weight = weight.permute(3, 0, 4, 1, 2).flatten(0, 1)
        return weight.to(memory_format=torch.channels_last)

    def _marginal(self, x: Tensor) -> Tensor:
        """Mean over v_{j-3}, (N, u1, u2, v); a sum first, whose gradient is a view where that of `mean` is a copy."""
        return (x.sum(3) * (1 / x.shape[3])).flatten(3)

    def _along_attributes(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution along v, summed over channels, of x (N, u1, u2, v, channels), and rho."""
        space = x.shape[:3]
        x = x.reshape(-1, *self.lengths, x.shape[-1])  # (N * pixels, v1, v2, channels)
        x = _wrap(x, {2: self.half[1], 1: self.half[0]}) if self.periodic else x
        padding = 0 if self.periodic else self.half
        whole = bias.ndim == 1  # one number per filter, which conv2d can add
        y = functional.conv2d(x.movedim(-1, 1), weight, bias if whole else None, stride=self.stride, padding=padding)
        y = y.movedim(1, -1)
        return functional.elu(y if whole else y + bias).reshape(*space, *self.out_lengths, self.filters)

    def _shifted(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """The s * s translations of x (N, u1, u2, v) that make up its patches."""
        s1, s2 = h.shape[2:]
        n1, n2 = x.shape[1:3]
        pads = {1: s1 // 2, 2: s2 // 2}
        x = _wrap(x, pads) if self.periodic else functional.pad(x, (0, 0, pads[2], pads[2], pads[1], pads[1]))
        return [x[:, i : i + n1, j : j + n2] for i in range(s1) for j in range(s2)]

    def _moments_by_products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of patches by matrix products, the fastest without the compiler."""
        patches = torch.stack(self._shifted(x, h), 1).flatten(2)  # (N, taps, pixels * v)
        mean = patches.mean((0, 2))
        second = torch.bmm(patches, patches.transpose(1, 2)).mean(0) / patches.shape[2]
        return mean, second - torch.outer(mean, mean)

    def _moments_by_pairs(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of patches entry by entry, which the compiler fuses into few loops."""
        shifted = self._shifted(x, h)
        taps = list(itertools.product(*map(range, h.shape[2:])))
        means: dict[Any, Tensor] = {}
        entries = []
        for (i, a), (j, b) in itertools.product(enumerate(taps), repeat=2):
            i, j, a, b = (i, j, a, b) if i <= j else (j, i, b, a)
            key = (b[0] - a[0], b[1] - a[1]) if self.periodic else (i, j)  # periodic: the difference alone matters
            if key not in means:
                means[key] = (shifted[i] * shifted[j]).mean()
            entries.append(means[key])
        mean = torch.stack([s.mean() for s in (shifted[:1] * len(taps) if self.periodic else shifted)])
        return mean, torch.stack(entries).reshape(len(taps), len(taps)) - torch.outer(mean, mean)

    def _merge(self, mean: Tensor, covariance: Tensor, h: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Merged filters (K, s * s, s1 * s2), and what they make of the mean patch, (v1', v2', K)."""
        taps = h.flatten(1)
        sigma = torch.sqrt((taps @ covariance * taps).sum(1) + self.epsilon)
        normal = taps / sigma[:, None]
        g = g.flatten(2)
        shift = torch.einsum("q,kqa->ka", normal @ mean, g) @ self.met
        return torch.einsum("qt,kqa->kta", normal, g), shift.T.unflatten(0, self.out_lengths)


class Step:
    """Forward and backward of one formulation for a given cotangent."""

    order = (0, 1, 2, 3, 4, 5)

    def __init__(
        self, name: str, arrays: Arrays, *, boundary: str, stride: int, epsilon: float, device: str = "cpu"
    ) -> None:
        _, formulation, *variant = name.split("-")
        x, h, g = arrays["x"], arrays["h"], arrays["g"]
        layer = Layer(boundary, (x.shape[4], x.shape[5]), arrays, stride, epsilon, device)
        self.cotangent = torch.from_numpy(np.ascontiguousarray(arrays["cotangent"])).to(device)
        self.selection = layer.selection
        compiled = variant == ["compiled"]
        self.layer: Callable[..., Tensor]
        if formulation == "conv":
            dtype = getattr(torch, variant[0])
            w = arrays["w"]
            filters = torch.from_numpy(_flip(w).reshape(-1, math.prod(w.shape[2:4]), w.shape[4]))
            space = torch.empty(1, 1, *w.shape[:2])
            weight = layer.weight(filters.permute(2, 0, 1), space)
            self.inputs = {"x": torch.from_numpy(np.ascontiguousarray(x.mean(3))).flatten(3), "w": weight}
            self.inputs = {key: value.to(dtype) for key, value in self.inputs.items()}
            self.cotangent = self.cotangent.flatten(3).to(dtype)
            self.layer = layer.convolution
        else:
            self.inputs = {
                "x": torch.from_numpy(np.ascontiguousarray(x)),
                "h": torch.from_numpy(_flip(h, (1, 2))[:, None].copy()),
                "g": torch.from_numpy(_flip(g, (1, 2)).transpose(3, 0, 1, 2).copy()),
                "bias": torch.from_numpy(arrays["bias"].copy()),
            }
            if formulation in ("written", "plus"):
                self.inputs["g"] = self.inputs["g"].to(memory_format=torch.channels_last)
                self.layer = lambda *inputs: layer.written(*inputs, nonlinear=formulation == "plus")
            elif formulation == "merged":
                self.layer = layer.merged
            else:
                self.layer = lambda *inputs: layer.toeplitz(*inputs, pairwise=compiled)
        self.inputs = {key: value.to(device) for key, value in self.inputs.items()}
        for value in self.inputs.values():
            value.requires_grad_()
        if compiled:
            self.layer = torch.compile(self.layer, dynamic=False)

    def __call__(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        y = self.layer(*self.inputs.values())
        return y, torch.autograd.grad(y, tuple(self.inputs.values()), self.cotangent)

    def to_numpy(self, result: tuple[Tensor, tuple[Tensor, ...]]) -> Arrays:
        """The result and the cotangents in the project's conventions."""
        y, cotangents = result
        arrays = {"y": y.detach().float().cpu().numpy()}
        for key, value in zip(self.inputs, cotangents, strict=True):
            value = value.float().cpu()
            if key == "w":  # (v' * K, v, s, s): each tap of the merged filter gathers the entries it was copied to
                _, outputs, inputs = self.selection.shape
                blocks = value.reshape(outputs, -1, inputs, *value.shape[2:])
                arrays[key] = _flip(torch.einsum("aoi,okist->stak", self.selection.cpu(), blocks).numpy(), (0, 1, 2))
            elif key == "h":
                arrays[key] = _flip(value[:, 0].numpy(), (1, 2))
            elif key == "g":
                arrays[key] = _flip(value.numpy(), (2, 3)).transpose(1, 2, 3, 0)
            else:
                arrays[key] = value.numpy()
        return arrays


def use_threads(threads: int) -> None:
    torch.set_num_threads(threads)


def describe() -> dict[str, Any]:
    """What PyTorch is and may use."""
    return {
        "torch": torch.__version__,
        "torch threads": torch.get_num_threads(),
        "torch instructions": torch.backends.cpu.get_cpu_capability(),
        "torch has oneDNN": torch.backends.mkldnn.is_available(),
    }


def _wrap(x: Tensor, pads: dict[int, int]) -> Tensor:
    """Extend axes periodically; `functional.pad` does the same more slowly."""
    for axis, width in pads.items():
        n = x.shape[axis]
        x = torch.cat((x.narrow(axis, n - width, width), x, x.narrow(axis, 0, width)), axis)
    return x


def _flip(array: np.ndarray[Any, Any], axes: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(np.flip(array, axes))
