r"""
A volume over time, denoised
============================

Blobs move through a volume ``x(u1, u2, u3, t)`` and are seen with much noise. A blob is at nearly the same place at the
next time, so a filter along all four axes has more to average over than one along space. Two layers of
:class:`hcnn.core.torch.ConvNd` learn how, and are compared with the best Gaussian filter along four axes. Where PyTorch
is missing, the site shows the script without its results.
"""

# sphinx_gallery_thumbnail_path = '_static/thumbnails/plot_32_denoising_4d.png'

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import ndimage

from hcnn.core.torch import ConvNd

lengths = (12, 12, 12, 12)  # u1, u2, u3, t
steps, noise = 150, 0.5
torch.manual_seed(0)
rng = np.random.default_rng(0)

# %%
# Each blob has a place, a constant velocity and a sign. Space and time are periodic.


def volumes(count):
    """Clean arrays (count, 1, u1, u2, u3, t), single precision."""
    grid = np.meshgrid(*map(np.arange, lengths), indexing="ij")
    x = np.zeros((count, 1, *lengths), np.float32)
    for volume in x:
        for _ in range(12):
            place, velocity = rng.uniform(0, lengths[0], 3), rng.integers(-1, 2, 3)
            moving = zip(grid, place, velocity, lengths, strict=False)  # the three axes of space
            away = [(u - p - v * grid[3] + n / 2) % n - n / 2 for u, p, v, n in moving]
            volume[0] += rng.choice([-1, 1]) * np.exp(-sum(a**2 for a in away) / 2)
    return torch.from_numpy(x)


# %%
# The network returns what is to be subtracted from its input. Circular padding is the periodic boundary, which
# :func:`hcnn.core.convolve` computes without padding.

first, second = (ConvNd(*channels, (3,) * 4, padding=1, padding_mode="circular") for channels in ((1, 8), (8, 1)))
net = torch.nn.Sequential(first, torch.nn.ELU(), second)
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
losses = []
for _ in range(steps):
    clean = volumes(1)
    seen = clean + noise * torch.randn_like(clean)
    loss = (seen - net(seen) - clean).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %%
# Widths of the best Gaussian filter are chosen on the volume that it is judged on, to its advantage.

clean = volumes(1)
seen = clean + noise * torch.randn_like(clean)
with torch.no_grad():
    denoised = seen - net(seen)


def error(found):
    """Mean squared error in units of the noise's."""
    return float(np.mean((np.asarray(found) - clean.numpy()) ** 2) / noise**2)


widths = np.arange(0.0, 1.6, 0.1)
pairs = [(space, time) for space in widths for time in widths[::3]]
smoothed = {(s, t): ndimage.gaussian_filter(seen[0, 0].numpy(), (s, s, s, t), mode="wrap") for s, t in pairs}
best = min(smoothed, key=lambda width: error(smoothed[width]))
print(f"left of the noise: {error(smoothed[best]):.1%} by a Gaussian, {error(denoised):.1%} by the network")
assert abs(error(seen) - 1) < 4 * np.sqrt(2 / clean.numel()), "the unit is the noise, by four standard errors"
assert error(denoised) < error(smoothed[best]) < 1

fig, panels = plt.subplots(1, 5, figsize=(13, 2.8), layout="constrained")
at = (0, 0, lengths[0] // 2, slice(None), slice(None), 3)
shown = {"clean": clean, "seen": seen, "Gaussian": torch.from_numpy(smoothed[best])[None, None], "network": denoised}
for ax, (title, volume) in zip(panels, shown.items(), strict=False):
    ax.imshow(volume[at], cmap="RdBu", vmin=-1, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
panels[4].semilogy(np.array(losses) / noise**2)
panels[4].set(title="training", xlabel="step", ylabel="left of the noise")

# %%
# The noise has the same strength in training and in the test. Noise of another strength was not tried.
