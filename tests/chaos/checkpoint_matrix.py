# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The crash matrix: trainings killed with SIGKILL at every file event of their saves, and started again.

    python tests/chaos/checkpoint_matrix.py whole torch.save sharded:2 replicated:2 --stride 1

``checkpoint_killer.c`` is preloaded and counts the events below the checkpoint folder in libc, so that the saves of
others are killed by the same rule as ours. Every training is forked from one process that has imported torch. Under
ranks one of them is killed, each in turn, and the rest after it, as torchrun does. Said of each way to save:

- *resumable*: started again with the same command it ends, and it goes on from the save before the last at worst
- *lost*: the most steps that had to be done again
- *interval*: the most that may be: for ours what the cadence says, whose clock counts steps here, so that a save begins
  at every second; for the others, which hold the training while they save, these two steps
- *more*: kills that lost more than their own interval
- *diverged*: ended without an error and with other weights

CHECKPOINT_KEEP names a folder for the folders of kills that ended badly.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HELPER = HERE.parents[1] / "roles" / "deploy" / "files"
STEPS, EVERY, INTERVAL = 7, 2, 3.0
LIMIT_S = 900
KEEP = os.environ.get("CHECKPOINT_KEEP", "")


def build_killer(folder: Path) -> Path:
    target = folder / "killer.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, HERE / "checkpoint_killer.c", "-ldl"], check=True)
    return target


# ---------------------------------------------------------------------------------------------- the trainings


class Told:
    """Lines that a training writes outside the watched folder: what it has done, for the judge."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __call__(self, **line: Any) -> None:
        os.write(self._descriptor, (json.dumps(line) + "\n").encode())


def network() -> Any:
    import torch

    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.Dropout(0.2), torch.nn.Linear(32, 4))


def train_step(model: Any, optimizer: Any) -> None:
    import torch

    loss = model(torch.randn(8, 6)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def checkpointer(folder: Path, tell: Told, rank: int, world: int, sharded: bool = False) -> None:
    """Ours: one process, or ranks with a replicated or a sharded model."""
    import torch
    from step_clock import WRITE, count_steps
    from tenant_checkpoint import Checkpointer

    model = network()
    if world > 1:
        model = wrap(model, sharded)
    torch.manual_seed(10 + rank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    class Telling(Checkpointer):
        def save(self, wait: bool = False) -> str:
            path: str = super().save(wait)
            tell(saved=self.step)
            return path

    average, count = Average(model), Count()
    checkpoints = Telling(
        {"model": model, "optimizer": optimizer, "average": average, "count": count},
        directory=str(folder),
        environ={"TENANT_MU_S": "1e12"},
        longest_interval_s=INTERVAL,
        per_rank=["average"] if world > 1 else [],
    )
    count_steps(checkpoints)
    tell(resumed=checkpoints.load_latest())
    checkpoints.cadence.begin(save_s=1.0, write_s=WRITE)
    while checkpoints.step < STEPS:
        train_step(model, optimizer)
        average.follow()
        count.of_steps += 1
        checkpoints.after_step()
        tell(step=checkpoints.step, interval=checkpoints.cadence.interval_s)
    checkpoints.save(wait=True)
    tell(weights=local_weights(model) + json.dumps([average.of_weights.tolist(), count.of_steps.item()]))


class Average:
    """Of a rank's own weights over the steps, in place: a state that neither torch nor the model knows of."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.of_weights = self._weights().zero_()

    def _weights(self) -> Any:
        import torch

        return torch.cat([piece.flatten() for piece in local_parts(self._model)])

    def follow(self) -> None:
        self.of_weights.lerp_(self._weights(), 0.5)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.of_weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.of_weights.copy_(state["weights"])


class Count:
    """Of the steps, in place; the same on every rank."""

    def __init__(self) -> None:
        import torch

        self.of_steps = torch.zeros((), dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.of_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.of_steps.copy_(state["steps"])


def wrap(model: Any, sharded: bool) -> Any:
    import torch.distributed as dist

    if not sharded:
        return __import__("torch.nn.parallel").nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def local_weights(model: Any) -> str:
    return json.dumps([part.flatten().tolist() for part in local_parts(model)])


def local_parts(model: Any) -> list[Any]:
    return [getattr(parameter.detach(), "_local_tensor", parameter.detach()) for parameter in model.parameters()]


def plain_torch_save(folder: Path, tell: Told, rank: int, world: int) -> None:
    """As most scripts do it: ``torch.save`` to one file, over and over."""
    import torch

    model = network()
    torch.manual_seed(10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    folder.mkdir(parents=True, exist_ok=True)
    path, step = folder / "latest.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        step = state["step"]
    tell(resumed=step)
    while step < STEPS:
        train_step(model, optimizer)
        step += 1
        if step % EVERY == 0 or step == STEPS:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step, "rng": torch.get_rng_state()}, path)
            tell(saved=step)
        tell(step=step)
    tell(weights=local_weights(model))


def hugging_face(folder: Path, tell: Told, rank: int, world: int, ours: bool = False) -> None:
    """The Trainer's own saving, resumed as its documentation says; or with our callback."""
    import torch
    import transformers
    from transformers.trainer_utils import get_last_checkpoint

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            return {"loss": (self.inner(x).mean(dim=1) - labels).square().mean()}

    class Tells(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            control.should_save = control.should_save or (ours and state.global_step % EVERY == 0)
            tell(step=state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            tell(saved=state.global_step)

    torch.manual_seed(1)
    data = [{"x": torch.randn(6), "labels": torch.tensor(0.5)} for _item in range(STEPS * 4)]
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        save_strategy="no" if ours else "steps",
        save_steps=EVERY,
        save_total_limit=2,
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model, callbacks = Wrapped(), [Tells()]
    if ours:
        from tenant_checkpoint import trainer_callback

        callback = trainer_callback(str(folder), environ={"TENANT_MU_S": "1e12"}, longest_interval_s=1e12)
        latest = callback.load_latest()
        callbacks.insert(0, callback)
    else:
        latest = get_last_checkpoint(str(folder)) if folder.exists() else None
    tell(resumed=int(latest.rpartition("-")[2]) if latest else 0)
    transformers.Trainer(model, arguments, train_dataset=data, callbacks=callbacks).train(resume_from_checkpoint=latest)
    tell(weights=local_weights(model))


WAYS: dict[str, Callable[..., None]] = {
    "whole": checkpointer,
    "replicated": checkpointer,
    "sharded": lambda *given: checkpointer(*given, sharded=True),
    "torch.save": plain_torch_save,
    "trainer": hugging_face,
    "trainer+callback": lambda *given: hugging_face(*given, ours=True),
}


# ---------------------------------------------------------------------------------------------- one attempt


def rank_main(way: str, cell: Path, attempt: int, rank: int, world: int, kill: int | None) -> None:
    import torch

    signal.alarm(LIMIT_S)
    torch.set_num_threads(1)
    os.dup2(os.open(cell / f"err{attempt}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
    killer = ctypes.CDLL(None)
    # The memory map of the folder's name is prefix enough: siblings of it do not begin with it.
    killer.killer_arm(str(cell / "checkpoints").encode(), ctypes.c_long(-1 if kill is None else kill))
    tell = Told(cell / f"told{attempt}-{rank}")
    if world > 1:
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{cell}/rendezvous{attempt}", rank=rank, world_size=world)
    WAYS[way](cell / "checkpoints", tell, rank, world)
    tell(events=killer.killer_count())


def attempt_of(way: str, cell: Path, attempt: int, world: int, kill: tuple[int, int] | None) -> bool:
    """Fork the ranks; one that dies takes the others with it. True if all ended well."""
    pids = {}
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            exit_code = 1
            try:
                own = kill[1] if kill is not None and kill[0] == rank else None
                rank_main(way, cell, attempt, rank, world, own)
                exit_code = 0
            except BaseException:
                import traceback

                with (cell / f"err{attempt}").open("a") as stream:
                    traceback.print_exc(file=stream)
            finally:
                os._exit(exit_code)
        pids[pid] = rank
    well = True
    while pids:
        pid, status = os.waitpid(-1, 0)
        if pids.pop(pid, None) is not None and status != 0:
            well = False
            for other in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
    return well


def told(cell: Path, attempt: int, rank: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (cell / f"told{attempt}-{rank}").read_text().splitlines():
            for key, value in json.loads(line).items():
                found.setdefault(key, []).append(value)
    return found


def judge(cell: Path, calm: Path, world: int, ended: bool) -> dict[str, Any]:
    first, second = told(cell, 1, 0), told(cell, 2, 0)
    done = max(first.get("step", [0]), default=0)
    saved = sorted(first.get("saved", []))
    resumed = (second.get("resumed") or [0])[0]
    # A save that has returned may still be on its way to the disk; the one before it must be there.
    promised = saved[-2] if len(saved) > 1 else 0
    interval = max(first.get("interval", [float(EVERY)]))
    same = all(told(cell, 2, rank).get("weights") == told(calm, 1, rank).get("weights") for rank in range(world))
    return {
        "resumable": ended and resumed >= promised,
        "lost": max(0, done - resumed),
        "interval": interval,
        "diverged": ended and not same,
        "why": "" if ended else (cell / "err2").read_text().strip().splitlines()[-1:],
    }


def matrix(way: str, world: int, stride: int, scratch: Path, offset: int = 0) -> dict[str, Any]:
    calm = scratch / f"{way}-{world}-calm"
    calm.mkdir(parents=True)
    if not attempt_of(way, calm, 1, world, None):
        raise SystemExit(f"{way}: the undisturbed training failed: {(calm / 'err1').read_text()[-2000:]}")
    points = [
        (rank, event) for rank in range(world) for event in range(offset, told(calm, 1, rank)["events"][0], stride)
    ]
    verdicts, whys, more = [], set(), []
    for rank, event in points:
        cell = scratch / f"{way}-{world}-{rank}-{event}"
        cell.mkdir()
        if attempt_of(way, cell, 1, world, (rank, event)):
            continue  # fewer events this time: it got through
        verdict = judge(cell, calm, world, attempt_of(way, cell, 2, world, None))
        verdicts.append(verdict)
        whys.update(verdict["why"])
        lost_more = verdict["lost"] > verdict["interval"]
        if lost_more:
            more.append(f"rank {rank} at event {event}: {verdict['lost']} of {verdict['interval']:g}")
        if KEEP and (not verdict["resumable"] or verdict["diverged"] or lost_more):
            print("kept", shutil.copytree(cell, Path(KEEP) / cell.name), verdict, file=sys.stderr)
        shutil.rmtree(cell)
    return {
        "way": f"{way}:{world}",
        "kills": len(verdicts),
        "resumable": sum(verdict["resumable"] for verdict in verdicts),
        "lost": max((verdict["lost"] for verdict in verdicts), default=0),
        "interval": max((verdict["interval"] for verdict in verdicts), default=0),
        "lost_more": len(more),
        "more": more[:6],
        "diverged": sum(verdict["diverged"] for verdict in verdicts),
        "whys": sorted(whys)[:6],
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ways", nargs="+", help="whole, torch.save, replicated:2, sharded:4, trainer, …")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th event")
    parser.add_argument("--offset", type=int, default=0, help="begin with this event")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        if "killer.so" not in os.environ.get("LD_PRELOAD", ""):
            killer = build_killer(Path(scratch))
            path = os.pathsep.join([str(HELPER), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
            quiet = {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
            environ = {**os.environ, **quiet, "LD_PRELOAD": str(killer), "PYTHONPATH": path}
            sys.exit(subprocess.run([sys.executable, __file__, *arguments], env=environ, check=False).returncode)
        import tenant_checkpoint  # noqa: F401 - imported once, for all that are forked
        import torch._dynamo
        import torch.distributed.checkpoint
        import torch.distributed.fsdp
        import torch.distributed.tensor  # noqa: F401

        if any(way.startswith("trainer") for way in options.ways):
            import transformers.trainer  # noqa: F401
        for way in options.ways:
            name, _colon, world = way.partition(":")
            begun = time.monotonic()
            found = matrix(name, int(world or 1), options.stride, Path(scratch), options.offset)
            print(json.dumps(dict(found, seconds=round(time.monotonic() - begun, 1))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
