"""ConvNd under PyTorch's DistributedDataParallel: two processes take the step that one takes on the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from hcnn_core.torch import ConvNd  # noqa: E402


def layer() -> torch.nn.Module:
    torch.manual_seed(0)
    return ConvNd(2, 3, (3, 3, 3, 3), padding=1, padding_mode="circular")


def batch() -> torch.Tensor:
    return torch.randn(4, 2, 4, 4, 5, 3, generator=torch.Generator().manual_seed(1))


def one_rank(rank: int, file: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(layer())
    model(batch()[2 * rank : 2 * rank + 2]).square().mean().backward()
    if rank:
        torch.save([p.grad for p in model.parameters()], out)
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_rank, (str(tmp_path / "meeting"), str(tmp_path / "gradients")), nprocs=2)
    model = layer()
    model(batch()).square().mean().backward()
    gradients = torch.load(tmp_path / "gradients")
    assert len(gradients) == 2
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    model.zero_grad()
    model(batch()[2:]).square().mean().backward()  # what it would be if ranks did not average
    assert not torch.allclose(gradients[0], next(model.parameters()).grad)
