r"""
Which cells of two views belong together
========================================

Two views of one scene are cut into cells. The similarity of each cell of one view to each cell of the other is an array
with four axes, ``c(i1, j1, i2, j2)``. A single cell is ambiguous, since many cells look alike. A correct match has
neighbours whose matches are moved as it is, so a convolution along all four axes can tell it: the neighbourhood
consensus of `Rocco et al. 2018 <https://arxiv.org/abs/1810.10510>`_. Here :class:`hcnn.core.torch.ConvNd` is that
convolution, trained by PyTorch. Where PyTorch is missing, the site shows the script without its results.
"""

# sphinx_gallery_thumbnail_path = '_static/thumbnails/plot_31_consensus_4d.png'

import matplotlib.pyplot as plt
import torch

from hcnn.core.torch import ConvNd

n, most, materials = 8, 3, 10  # cells along each axis, the farthest that a view is moved, kinds of cells
pairs, steps = 4, 80
torch.manual_seed(0)

# %%
# A scene has cells of ten materials at random. Views are windows of it, moved by up to three cells, with noise.

codes = torch.nn.functional.normalize(torch.randn(materials, 6), dim=1)


def views(count):
    """Similarities (count, 1, n, n, n, n), and the moves (count, 2)."""
    scene = torch.randint(materials, (count, n + 2 * most, n + 2 * most))
    move = torch.randint(-most, most + 1, (count, 2))
    first = scene[:, most : most + n, most : most + n]
    corners = zip(scene, (most + move).tolist(), strict=True)
    second = torch.stack([s[a : a + n, b : b + n] for s, (a, b) in corners])
    f, g = (codes[view] + 0.3 * torch.randn(count, n, n, codes.shape[1]) for view in (first, second))
    return torch.einsum("nabf,ncdf->nabcd", f, g)[:, None], move


def truth(move):
    """Where each cell of the first view is in the second, as one number, and whether it is there."""
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    a, b = i - move[:, 0, None, None], j - move[:, 1, None, None]
    inside = (a >= 0) & (a < n) & (b >= 0) & (b < n)
    return n * a + b, inside


def correct(scores, move):
    """The share of cells whose best match is the right one, of those that both views have."""
    target, inside = truth(move)
    return (scores.flatten(4).argmax(4)[:, 0] == target)[inside].float().mean().item()


# %%
# Two layers of 4-D filters. The loss is a cross-entropy over the cells of the second view.

net = torch.nn.Sequential(ConvNd(1, 8, (3, 3, 3, 3), padding=1), torch.nn.ReLU(), ConvNd(8, 1, (3, 3, 3, 3), padding=1))
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
losses = []
for _ in range(steps):
    similarity, move = views(pairs)
    target, inside = truth(move)
    scores = net(similarity).flatten(4)[:, 0]  # (pairs, n, n, n * n)
    loss = torch.nn.functional.cross_entropy(scores[inside], target[inside])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %%
# Views that it has not seen.

similarity, move = views(20)
with torch.no_grad():
    scores = net(similarity)
before, after = correct(similarity, move), correct(scores, move)
print(f"right matches: {before:.0%} by similarity, {after:.0%} by consensus")
assert after > before + 0.2
assert 1 / n**2 < before < materials / n**2, "between chance, and chance among the cells of one material"

fig, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
panels[0].semilogy(losses)
panels[0].set(title="training", xlabel="step", ylabel="cross-entropy")
cell = n // 2
for ax, title, values in ((panels[1], "similarity", similarity), (panels[2], "consensus", scores)):
    ax.imshow(values[0, 0, cell, cell], cmap="viridis")
    a, b = (cell - move[0]).tolist()
    ax.plot(b, a, "rx", markersize=10)
    ax.set(title=title, xlabel="matches of the middle cell", xticks=[], yticks=[])

# %%
# Views are moved, not turned or scaled, and features of a trained network in place of the codes were not tried.
