"""The small CNN of `benchmarks.few`, in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

STEPS, BATCH, SHIFT = 1000, 32, 2


class Cnn:
    """Three blocks of convolution, batch normalisation, ReLU and a maximum over 2; then means and a linear layer."""

    def __init__(self, *, seed: int, mirrored: bool, width: int, rate: float) -> None:
        self.seed, self.mirrored, self.width, self.rate = seed, mirrored, width, rate

    def _samples(self, x: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(np.moveaxis((x - self.mean) / self.std, -1, 1).astype(np.float32))

    def fit(self, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Cnn:
        """Train on samples (N, *space, C)."""
        torch.manual_seed(self.seed)
        rng, axes = np.random.default_rng(self.seed), tuple(range(x.ndim - 1))
        self.mean, self.std = x.mean(axis=axes), x.std(axis=axes)
        self.classes, labels = np.unique(y, return_inverse=True)
        signals = x.ndim == 3
        conv, norm, pool = (
            (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d) if signals else (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)
        )
        layers: list[nn.Module] = []
        channels = x.shape[-1]
        for width in (self.width, 2 * self.width, 4 * self.width):
            layers += [conv(channels, width, 9 if signals else 3, padding="same"), norm(width), nn.ReLU(), pool(2)]
            channels = width
        mean = nn.AdaptiveAvgPool1d(1) if signals else nn.AdaptiveAvgPool2d(1)
        self.net = nn.Sequential(*layers, mean, nn.Flatten(), nn.Linear(channels, len(self.classes)))
        samples, targets = self._samples(x), torch.from_numpy(labels)
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=STEPS)
        order = np.concatenate([rng.permutation(len(x)) for _ in range(1 + STEPS * BATCH // len(x))])
        for step in range(STEPS):
            part = order[step * BATCH : (step + 1) * BATCH]
            batch = samples[part]
            if self.mirrored and rng.random() < 0.5:
                batch = batch.flip(-1)
            batch = _shifted(batch, rng.integers(-SHIFT, SHIFT + 1, batch.ndim - 2))
            loss = nn.functional.cross_entropy(self.net(batch), targets[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.net.eval()
        return self

    def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the class of each sample."""
        with torch.no_grad():
            return np.asarray(self.classes[self.net(self._samples(x)).argmax(1).numpy()])


def _shifted(x: torch.Tensor, shifts: np.ndarray[Any, Any]) -> torch.Tensor:
    """Move samples along each axis of space; what moves in is zero."""
    pads = [SHIFT] * (2 * len(shifts))
    x = nn.functional.pad(x, pads)
    for axis, shift in enumerate(shifts, 2):
        x = x.narrow(axis, SHIFT - int(shift), x.shape[axis] - 2 * SHIFT)
    return x
