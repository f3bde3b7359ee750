"""Shards of FSDP2 and other DTensors on two CPU processes against one process with the whole tensors."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from langadapt_kernels import FusedAdamW
from langadapt_kernels.adamw.modes import ElementIndex
from langadapt_kernels.adamw.sharding import element_index

SHAPES = {"rows": (33, 8), "columns": (6, 32), "one row": (1, 16), "vector": (40,), "odd": (7, 3), "whole": (5, 8)}
SHAPES |= {"groups": (33, 192), "groups in columns": (6, 256), "groups of one": (1, 64)}
FROZEN = torch.arange(8) % 3 == 0
SETTINGS = {"lr": 1e-2, "rounding": "stochastic", "max_grad_norm": 0.5, "seed": 3, "stale_meter": True}


def whole_tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in SHAPES.items()}


def train_whole(state_dtype: torch.dtype | None) -> tuple[dict[str, torch.Tensor], float]:
    params = {name: nn.Parameter(value) for name, value in whole_tensors(0).items()}
    optimizer = FusedAdamW(params.values(), **SETTINGS, state_dtype=state_dtype)
    optimizer.freeze_columns(params["rows"], FROZEN)
    for step in range(3):
        for name, value in whole_tensors(step + 1).items():
            params[name].grad = value
        optimizer.step()
    return {name: param.detach() for name, param in params.items()}, float(optimizer.grad_norm)


def work(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        for state_dtype in (None, torch.int8):
            step_shards(rank, state_dtype)
        refuse_cut_groups()
        step_under_fsdp()
        Path(folder, f"done-{rank}").touch()
    finally:
        dist.destroy_process_group()


def refuse_cut_groups() -> None:
    """Columns of half a group have no scale of their own."""
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    param = nn.Parameter(distribute_tensor(torch.zeros(4, 64), init_device_mesh("cpu", (2,)), [Shard(1)]))
    param.grad = torch.zeros_like(param)
    with pytest.raises(ValueError, match="sharded into columns of 32, but int8 moments share a scale by 64"):
        FusedAdamW([param], state_dtype=torch.int8).step()


def step_shards(rank: int, state_dtype: torch.dtype | None) -> None:
    """Uneven, inner, empty and whole shards: the same bits as without sharding, and a state dict of DTensors."""
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (2,))
    placements = {name: [Shard(0)] for name in SHAPES} | {"columns": [Shard(1)], "whole": [Replicate()]}
    placements["groups in columns"] = [Shard(1)]

    def shard(values):
        return {name: distribute_tensor(value, mesh, placements[name]) for name, value in values.items()}

    params = {name: nn.Parameter(value) for name, value in shard(whole_tensors(0)).items()}
    settings = {**SETTINGS, "state_dtype": state_dtype}
    optimizer = FusedAdamW(params.values(), **settings)
    optimizer.freeze_columns(params["rows"], FROZEN)
    assert params["one row"].to_local().numel() == (16 if rank == 0 else 0)
    for step in range(3):
        if step == 2:
            saved, optimizer = optimizer.state_dict(), FusedAdamW(params.values(), **{**settings, "seed": 0})
            assert isinstance(saved["state"][0]["exp_avg"], DTensor)
            optimizer.load_state_dict(saved)
        for name, value in shard(whole_tensors(step + 1)).items():
            params[name].grad = value
        optimizer.step()
    coded = optimizer.state[params["groups"]]["exp_avg"].dtype == torch.int8
    assert coded == (state_dtype == torch.int8)
    expected, norm = train_whole(state_dtype)
    for name, param in params.items():
        assert torch.equal(param.detach().full_tensor(), expected[name]), name
    assert abs(float(optimizer.grad_norm) - norm) <= 1e-6 * norm
    assert 0 <= float(optimizer.stale_share()) <= 1


def step_under_fsdp() -> None:
    """A model wrapped by `fully_shard`, saved and loaded through torch's distributed state dicts."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
    from torch.distributed.fsdp import fully_shard

    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def step(model, optimizer, seed):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    plain, sharded = build(), build()
    for module in (sharded[0], sharded[2], sharded):
        fully_shard(module)
    single = FusedAdamW(plain.parameters(), 1e-2, max_grad_norm=0.1)
    # Shards have no hooks: their norm is taken by the step.
    optimizer = FusedAdamW(sharded.parameters(), 1e-2, max_grad_norm=0.1, norm_in_backward=True)
    for seed in range(4):
        if seed == 2:
            saved = get_optimizer_state_dict(sharded, optimizer)
            optimizer = FusedAdamW(sharded.parameters(), 0.5, max_grad_norm=0.1)
            set_optimizer_state_dict(sharded, optimizer, saved)
        step(plain, single, seed)
        step(sharded, optimizer, seed)
    for a, b in zip(plain.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), b.detach().full_tensor(), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_two_processes_of_shards_are_one_process(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(port, str(tmp_path)), nprocs=2)
    assert {path.name for path in tmp_path.iterdir()} == {"done-0", "done-1"}


def test_places_of_plain_tensors():
    assert element_index(torch.zeros(3, 4), 16) == ElementIndex(16, 12, 12)
