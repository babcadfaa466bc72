# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Small real checkpoints of every format, and damage done to them: shared by the attack tests and by the bench."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks, roster, settling
from safetensors.torch import load_file, save


@dataclass(frozen=True)
class Specimen:
    """One checkpoint: its files by name, all of one loader."""

    name: str
    loader: str
    files: dict[str, bytes]

    def written(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder

    def entries(self, below: str) -> list[dict[str, str]]:
        return [{"path": f"{below}/{name}", "loader": self.loader} for name in self.files]

    def with_file(self, name: str, data: bytes) -> Specimen:
        return replace(self, files={**self.files, name: data})

    def without(self, name: str) -> Specimen:
        return replace(self, files={other: data for other, data in self.files.items() if other != name})


def weights(step: int, size: int = 24) -> dict[str, torch.Tensor]:
    """Tensors that differ from step to step, but not in shape."""
    generator = torch.Generator().manual_seed(step)
    return {
        "layer.weight": torch.randn(size, 8, generator=generator),
        "layer.bias": torch.randn(8, generator=generator).to(torch.bfloat16),
        "head.weight": torch.randn(8, 4, generator=generator).to(torch.float16),
    }


def resume_state(step: int) -> dict[str, Any]:
    model = weights(step)
    moments = {
        number: {"step": torch.tensor(float(step)), "exp_avg": w * 0.1} for number, w in enumerate(model.values())
    }
    return {
        "step": step,
        "model": model,
        "optimizer": {"state": moments, "param_groups": [{"lr": 0.001, "params": [0, 1, 2]}]},
        "rng": {"torch": torch.get_rng_state()[:64]},
    }


def specimens(scratch: Path, step: int = 400) -> dict[str, Specimen]:
    """One whole checkpoint of every format."""
    buffer, arrays = io.BytesIO(), io.BytesIO()
    torch.save(resume_state(step), buffer)
    np.savez(arrays, **{name: tensor.float().numpy() for name, tensor in weights(step).items()})
    metrics = {"step": step, "loss": 0.25 + step / 1e6, "val": {"accuracy": [0.5, 0.75]}}
    return {
        "torch": Specimen("torch", "torch", {f"step-{400:010d}.pt": buffer.getvalue()}),
        "safetensors": Specimen("safetensors", "safetensors", {"model.safetensors": save(weights(step))}),
        "npz": Specimen("npz", "npz", {"arrays.npz": arrays.getvalue()}),
        "json": Specimen("json", "json", {"metrics.json": json.dumps(metrics).encode()}),
        "hf": hugging_face(step),
        "dcp": distributed(scratch / f"dcp-{step}", step),
    }


def hugging_face(step: int) -> Specimen:
    """A model in two shards with its index."""
    tensors = weights(step)
    parts = [dict(list(tensors.items())[:1]), dict(list(tensors.items())[1:])]
    names = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {key: name for name, part in zip(names, parts, strict=True) for key in part},
    }
    files = {name: save(part) for name, part in zip(names, parts, strict=True)}
    return Specimen("hf", "hf", {"model.safetensors.index.json": json.dumps(index).encode(), **files})


def distributed(folder: Path, step: int) -> Specimen:
    """What torch.distributed.checkpoint writes, in two files."""
    from torch.distributed.checkpoint import FileSystemWriter, save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = FileSystemWriter(folder, thread_count=2)
        save(resume_state(step), storage_writer=writer, no_dist=True)
    return Specimen("dcp", "dcp", {path.name: path.read_bytes() for path in sorted(folder.iterdir())})


_TWO_RANKS = """
import os, sys, torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
for step in (100, 200):
    torch.manual_seed(step)
    sharded = lambda: distribute_tensor(torch.randn(8, 4), mesh, [Shard(0)])
    state = {name: {"step": torch.tensor(float(step)), "exp_avg": sharded()} for name in ("a", "b", "c")}
    model = {name: sharded() for name in ("a", "b", "c")}
    loader = {f"rank{rank}": {"step": step, "seen": rank}}
    whole = {"model": model, "optim": {"state": state}, "loader": loader, "rng": torch.get_rng_state()}
    dcp.save(whole, checkpoint_id=f"{folder}/{step}")
dist.barrier()
dist.destroy_process_group()
"""


def two_ranks(folder: Path) -> dict[int, Specimen]:
    """The same model at two steps, saved by two real processes, each of them half of every tensor."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")
    command = [sys.executable, "-W", "ignore", "-c", _TWO_RANKS, str(folder)]
    ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in (0, 1)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return {
        step: Specimen("dcp", "dcp", {path.name: path.read_bytes() for path in sorted((folder / str(step)).iterdir())})
        for step in (100, 200)
    }


# --- damage -----------------------------------------------------------------------------------------------------


def flipped(specimen: Specimen, count: int, seed: int = 1) -> Iterator[Specimen]:
    """``specimen`` with one bit flipped at each of ``count`` random places of its bytes."""
    dice = random.Random(f"{specimen.name}/{seed}")
    spans = [(name, len(data)) for name, data in specimen.files.items()]
    for _number in range(count):
        # A file is as likely to be hit as it is long.
        (name, length) = dice.choices(spans, [length for _name, length in spans])[0]
        data = bytearray(specimen.files[name])
        data[dice.randrange(length)] ^= 1 << dice.randrange(8)
        yield specimen.with_file(name, bytes(data))


def truncated(specimen: Specimen) -> Iterator[Specimen]:
    """``specimen`` with each of its files cut at every 1/64 of its length."""
    for name, data in specimen.files.items():
        for part in range(64):
            yield specimen.with_file(name, data[: len(data) * part // 64])


def with_nan(specimen: Specimen, scratch: Path) -> Specimen:
    """``specimen`` with NaN in one number of one tensor, saved as its library saves it."""
    bad = weights(400)
    bad["head.weight"][3, 1] = float("nan")
    if specimen.name == "torch":
        buffer = io.BytesIO()
        torch.save({**resume_state(400), "model": bad}, buffer)
        return specimen.with_file(next(iter(specimen.files)), buffer.getvalue())
    if specimen.name == "npz":
        arrays = io.BytesIO()
        np.savez(arrays, **{name: tensor.float().numpy() for name, tensor in bad.items()})
        return specimen.with_file("arrays.npz", arrays.getvalue())
    if specimen.name == "json":
        return specimen.with_file("metrics.json", specimen.files["metrics.json"].replace(b"0.2504", b"NaN"))
    if specimen.name == "dcp":
        from torch.distributed.checkpoint import FileSystemWriter
        from torch.distributed.checkpoint import save as save_distributed

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save_distributed({"model": bad}, storage_writer=FileSystemWriter(scratch / "nan"), no_dist=True)
        return Specimen("dcp", "dcp", {path.name: path.read_bytes() for path in (scratch / "nan").iterdir()})
    name = [name for name in specimen.files if name.endswith(".safetensors")][-1]
    held = [key for key in bad if key in _keys(specimen.files[name])]
    return specimen.with_file(name, save({key: bad[key] for key in held}))


def _keys(data: bytes) -> str:
    return data[8 : 8 + int.from_bytes(data[:8], "little")].decode()


def stale(specimen: Specimen, older: Specimen) -> Specimen:
    """``specimen`` with its largest file as it was at an older step, of the same size."""
    name = max(specimen.files, key=lambda name: len(specimen.files[name]))
    assert len(older.files[name]) == len(specimen.files[name])
    return specimen.with_file(name, older.files[name])


# --- what finds it ----------------------------------------------------------------------------------------------


def found(variants: Iterable[Specimen], folder: Path, level: str, **expect: Any) -> list[bool]:
    """Of each variant, whether some check of it fails. All of them in one roster, the manifest withheld."""
    files, owners = [], []
    variants = list(variants)
    for number, variant in enumerate(variants):
        entries = variant.entries(f"v{number}")
        variant.written(folder / f"v{number}")
        files += entries
        owners += [number] * len(entries)
    checks = load_checks.check_roster(str(folder), files, level, expect if level == "expect" else {})
    caught = {owner for owner, check in zip(owners, checks, strict=True) if not check["ok"]}
    return [number in caught for number in range(len(variants))]


def content(specimen: Specimen, folder: Path) -> Any:
    """Everything that the format's own library reads, for comparing what two checkpoints say."""
    first = folder / next(iter(specimen.files))
    if specimen.name == "torch":
        return _plain(torch.load(first, weights_only=True))
    if specimen.name == "json":
        return json.loads(first.read_text())
    if specimen.name == "npz":
        with np.load(first) as archive:
            return {name: archive[name].tobytes() for name in archive.files}
    if specimen.name == "dcp":
        from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            dcp_to_torch_save(folder, folder / "whole.pt")
        return _plain(torch.load(folder / "whole.pt", weights_only=True))
    shards = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    return _plain({name: tensor for path in shards for name, tensor in load_file(path).items()})


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def found_by_manifest(whole: Specimen, variants: Iterable[Specimen], folder: Path) -> list[bool]:
    """Of each variant, whether the manifest of the whole checkpoint finds it."""
    files = [
        roster.RosterFile(name, len(data), hashlib.sha256(data).hexdigest(), "checkpoint", whole.loader)
        for name, data in whole.files.items()
    ]
    return [
        bool(settling.check_files(str(variant.written(folder / f"m{number}")), files))
        for number, variant in enumerate(variants)
    ]
