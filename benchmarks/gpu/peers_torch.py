"""The paper's network and ResNet-20 in PyTorch: `python -m benchmarks.gpu.peers_torch` times their training steps.

Specs preset:precision:batch:side choose steps.

The network is written as well as a user of PyTorch could: attributes are channels, filters of Eq. (8) are merged and
expanded to block-Toeplitz matrices. `Peer.load` takes weights of this project, so that values and gradients can be
compared. Steps are CUDA graphs.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    raise SystemExit(f"PyTorch's steps are not timed: {error}") from None

ELU_SQUARED = 0.6449419
"""Mean square of the ELU of a normal variable."""

ROUNDS, REPEATS = 7, 5

SPECS = [
    f"{what}:{precision}:{sizes}"
    for what, sizes in (
        *(("hcnn-best", f"{n}:{side}") for n in (100, 500) for side in (32, 16)),
        ("resnet20", "128:32"),
    )
    for precision in ("bf16", "tf32", "float32")
    if (sizes[:3], precision) != ("500", "float32")
]
"""Steps that are timed unless others are asked for."""


def toeplitz(a: int, b: int, s1: int, s2: int, stride: int = 2) -> torch.Tensor:
    """0/1 map (a_out, b_out, a, b, s1 * s2) of a zero-padded convolution along two attribute axes."""
    e = torch.zeros(-(-a // stride), -(-b // stride), a, b, s1 * s2)
    for i, j, t, u in np.ndindex(e.shape[0], e.shape[1], s1, s2):
        p, q = stride * i - (t - s1 // 2), stride * j - (u - s2 // 2)
        if 0 <= p < a and 0 <= q < b:
            e[i, j, p, q, t * s2 + u] += 1
    return e


def autocovariance(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (9,) and covariance (9, 9) of all zero-padded 3 x 3 patches of every channel."""
    h, w = x.shape[-2:]
    q = F.pad(x, (1, 1, 1, 1)).float()
    s = [q[:, :, a : a + h, b : b + w] for a in range(3) for b in range(3)]
    mean = torch.stack([t.sum() for t in s]) / x.numel()
    rows: list[list[Any]] = [[None] * 9 for _ in range(9)]
    for i in range(9):
        for k in range(i, 9):
            rows[i][k] = rows[k][i] = (s[i] * s[k]).sum()
    moments = torch.stack([torch.stack(r) for r in rows]) / x.numel()
    return mean, moments - mean[:, None] * mean


def normalized(y: torch.Tensor, k: int, scale: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """The ELU of y normalised for each v_j, channels last."""
    n, c, h, w = y.shape
    z = y.permute(0, 2, 3, 1).reshape(-1, c // k, k).float()
    mean, var = z.mean((0, 1)), z.var((0, 1), unbiased=False)
    z = (z - mean) * (scale / torch.sqrt(var + eps)) + bias
    return F.elu(z).reshape(n, h, w, c).to(y.dtype)


def normalized_mean(
    y: torch.Tensor, k: int, first: int, scale: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """The same, and its mean over the first attribute; channels (first, rest * k) become (rest * k)."""
    z = normalized(y, k, scale, bias, eps)
    n, h, w, c = z.shape
    return z.reshape(n, h, w, first, c // first).mean(3).permute(0, 3, 1, 2)


def filters_of(
    h: torch.Tensor, g: torch.Tensor, mu: torch.Tensor, c: torch.Tensor, eps: float, e: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merged Toeplitz filter (out channels, in channels, 3, 3) of Eq. (8) and its offset, from patch moments."""
    factors = h.shape[0]
    hh = h.flip(1, 2).reshape(factors, 9)  # conv2d correlates
    sigma = torch.sqrt(torch.einsum("qa,ab,qb->q", hh, c, hh) + eps)
    w = torch.einsum("qn,qtk->ntk", hh / sigma[:, None], g.reshape(factors, -1, g.shape[-1]))
    w = torch.einsum("ijabt,ntk->ijkabn", e, w)
    i, j, k, a, b, _ = w.shape
    offset = torch.einsum("ijabt,qtk,q->ijk", e, g.reshape(factors, -1, k), (hh @ mu) / sigma).reshape(-1)
    return w.reshape(i * j * k, a * b, 3, 3), -offset


class Peer:
    """`hcnn-best` in training, on a device."""

    def __init__(
        self, device: str = "cuda", dtype: torch.dtype = torch.float32, *, compiled: bool = True, width: int = 16,
        factors: int = 32, depth: int = 12, strided: tuple[int, ...] = (5, 9), classes: int = 10,
        kernel: tuple[int, int] = (7, 11), eps: float = 1e-5,
    ) -> None:  # fmt: skip
        self.width, self.depth, self.strided, self.eps, self.dtype, self.device = (
            width, depth, strided, eps, dtype, device,
        )  # fmt: skip
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        s1, s2 = kernel
        p: dict[str, dict[str, torch.Tensor]] = {
            "layer01": {"w": randn(3, 3, 3, width) / math.sqrt(27)},
            "layer02": {"w": randn(3, 3, s2, width) / math.sqrt(9 * s2 * 0.8 * ELU_SQUARED)},
        }
        self.attributes = -(-width // 2), width
        self.maps = {2: toeplitz(1, width, 1, s2)[:1].to(device), 3: toeplitz(*self.attributes, s1, s2).to(device)}
        for j in range(1, depth):
            out = classes if j == depth - 1 else width
            if j > 2:
                scale = math.sqrt(factors * s1 * s2 * 0.55)
                p[f"layer{j:02d}"] = {"h": randn(factors, 3, 3) / 3, "g": randn(factors, s1, s2, out) / scale}
            p[f"layer{j:02d}"] |= {"bias": torch.zeros(out), "scale": torch.ones(out)}
        p["head"] = {"scale": torch.tensor(10.0)}
        self.p = {name: {n: t.to(device).requires_grad_(True) for n, t in d.items()} for name, d in p.items()}
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.moments, self.normalized, self.normalized_mean, self.filters = map(
            wrap, (autocovariance, normalized, normalized_mean, filters_of)
        )

    def load(self, weights: dict[str, dict[str, Any]]) -> None:
        """Take weights of this project, a tree of NumPy arrays."""
        for layer, tree in weights.items():
            for name, a in tree.items():
                self.p[layer][name] = torch.tensor(np.asarray(a, "f4"), device=self.device, requires_grad=True)

    def parameters(self) -> list[torch.Tensor]:
        return [t for d in self.p.values() for t in d.values()]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (N, 3, u, u), by the moments of the batch."""
        k, last = self.width, torch.channels_last
        one, two = self.p["layer01"], self.p["layer02"]
        w = one["w"].permute(3, 0, 1, 2).flip(2, 3).to(self.dtype)
        y = F.conv2d(x.to(self.dtype).contiguous(memory_format=last), w, padding=1)
        x = self.normalized(y, k, one["scale"], one["bias"], self.eps).permute(0, 3, 1, 2)
        w = torch.einsum("ijabt,yxtk->jkabyx", self.maps[2], two["w"].flip(0, 1))
        w = w.reshape(w.shape[0] * w.shape[1], -1, 3, 3).to(self.dtype)
        y = F.conv2d(x, w.contiguous(memory_format=last), padding=1)
        x = self.normalized(y, k, two["scale"], two["bias"], self.eps).permute(0, 3, 1, 2)
        for j in range(3, self.depth):
            d = self.p[f"layer{j:02d}"]
            w, offset = self.filters(d["h"], d["g"], *self.moments(x), self.eps, self.maps[3])
            w = w.to(self.dtype).contiguous(memory_format=last)
            y = F.conv2d(x, w, offset.to(self.dtype), padding=1, stride=2 if j in self.strided else 1)
            out = d["g"].shape[-1]
            x = self.normalized_mean(y, out, -(-self.attributes[0] // 2), d["scale"], d["bias"], self.eps)
        n = x.shape[0]
        return x.permute(0, 2, 3, 1).reshape(n, -1, out).float().mean(1) * self.p["head"]["scale"]


class Block(nn.Module):
    """A block of ResNet-20, with shortcuts of option A."""

    def __init__(self, i: int, o: int, r: int) -> None:
        super().__init__()
        self.i, self.o, self.r = i, o, r
        self.a, self.b = nn.Conv2d(i, o, 3, r, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.n, self.m = nn.BatchNorm2d(o), nn.BatchNorm2d(o)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.m(self.b(F.relu(self.n(self.a(x)))))
        if self.r > 1:
            more = (self.o - self.i) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
        return F.relu(x + y)


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-10."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    before = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for k in range(3):
            layers.append(Block(before, width, stride if k == 0 else 1))
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def ms_of_graph(step: Callable[[], Any]) -> float:
    """Median milliseconds of a step, recorded as a CUDA graph after four that are not."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    times = []
    for number in range(ROUNDS + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(REPEATS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        times += [begin.elapsed_time(end) / REPEATS] if number else []
    return statistics.median(times)


def step_of_peer(batch: int, side: int, dtype: torch.dtype) -> Callable[[], Any]:
    """A step of the paper's network: forward, backward, momentum."""
    net = Peer(dtype=dtype)
    x = torch.randn(batch, 3, side, side, device="cuda")
    labels = torch.randint(0, 10, (batch,), device="cuda")
    weights = net.parameters()
    velocities = [torch.zeros_like(p) for p in weights]

    def step() -> None:
        gradients = torch.autograd.grad(F.cross_entropy(net(x), labels), weights)
        with torch.no_grad():
            torch._foreach_mul_(velocities, 0.9)
            torch._foreach_add_(velocities, gradients)
            torch._foreach_add_(weights, velocities, alpha=-1e-4)

    return step


def step_of_resnet(batch: int, side: int, dtype: torch.dtype) -> Callable[[], Any]:
    """A step of ResNet-20, in `channels_last`."""
    net = torch.compile(resnet20().cuda().to(memory_format=torch.channels_last))
    descent = torch.optim.SGD(net.parameters(), 0.01, 0.9, foreach=True)
    x = torch.randn(batch, 3, side, side, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,), device="cuda")

    def step() -> None:
        descent.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(net(x), labels)
        loss.backward()
        descent.step()

    return step


def main() -> None:
    """Time steps, or those of both networks in three precisions."""
    torch.backends.cudnn.benchmark = True
    for spec in sys.argv[1:] or SPECS:
        name, precision, batch, side = spec.split(":")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        make = {"hcnn-best": step_of_peer, "resnet20": step_of_resnet}[name]
        try:
            ms = ms_of_graph(make(int(batch), int(side), torch.bfloat16 if precision == "bf16" else torch.float32))
            print(f"PyTorch {spec}: {ms:.2f} ms a step")
        except Exception as error:
            print(f"PyTorch {spec}: {type(error).__name__}: {str(error)[:200]}")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
