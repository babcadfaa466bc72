# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints that survive a box which may vanish at any instant.

One file; needs Python 3.8 and PyTorch 2.1 or newer. In a training script::

    batches = ShuffledBatches(len(images), batch_size=64, seed=seed)
    checkpoints = Checkpoints({"model": model, "optimizer": optimizer}, batches=batches, total_steps=total)
    checkpoints.resume()
    while batches.epoch < epochs:
        for indices in batches:
            loss = train_on(indices)
            checkpoints.after_step(loss=loss)
            if checkpoints.should_stop:
                sys.exit(EXIT_STOPPED)
    checkpoints.save()

``after_step`` counts the step, appends a metrics line and saves when it is time. The same command starts or goes on.
The supervisor says where things are through ``TENANT_CHECKPOINT_DIR``, ``TENANT_RESUME_DIRS``, ``TENANT_METRICS`` and
``TENANT_MU_S``; without them the folder ``checkpoints`` is used.

A run that was interrupted ends with the same weights, bit for bit, as one that was not, if every source of change is
in the checkpoint and the arithmetic is the same: same machine type, same torch build, same number of threads.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import hashlib
import json
import logging
import math
import os
import random
import re
import signal
import sys
import threading
import time
import zipfile
from typing import Any, Callable, Iterator, Mapping, NamedTuple

import torch

SCHEMA = "gpu-tenant/checkpoint/v1"
EXIT_STOPPED = 30
"""Exit code for a run that was asked to stop and has saved its state."""

DEFAULT_MU_S = 3 * 3600.0
"""Mean time between losses of a box that is assumed when nobody says better, in seconds."""

_STEP_FILE = re.compile(r"step-(\d{10})\.pt\Z")
_LEFTOVER = re.compile(r"\.step-\d{10}\.pt\.tmp\Z")
_MEMORY_FULL = ("allocate memory", "not enough memory", "out of memory")
_CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_log = logging.getLogger("tenant_checkpoint")


class CheckpointError(Exception):
    """Saving or resuming cannot go on; the message says what is safe and what to do."""


class CheckpointDamaged(CheckpointError):
    """The file is not a whole checkpoint: cut short, changed, or not one of ours."""


# ---------------------------------------------------------------------------------------------- files


def checkpoint_name(step: int) -> str:
    """``checkpoint_name(42)`` is ``step-0000000042.pt``."""
    return f"step-{step:010d}.pt"


def step_of(name: str) -> int | None:
    """The step that a file name carries; None for any other name."""
    match = _STEP_FILE.match(name)
    return int(match.group(1)) if match else None


def write_torch(path: str, value: Any, check: Callable[[str], object] | None = None) -> None:
    """Save ``value`` with ``torch.save`` so that ``path`` is whole or as it was before.

    :param check: called with the temporary file before it takes the name; may raise to refuse it.
    """
    _write(path, lambda stream: torch.save(value, stream), check)


def write_json(path: str, value: Any) -> None:
    """Save ``value`` as JSON so that ``path`` is whole or as it was before."""
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    _write(path, lambda stream: stream.write(text.encode("utf-8")))


def _write(path: str, fill: Callable[[Any], object], check: Callable[[str], object] | None = None) -> None:
    """Temporary file in the same folder, flush, fsync, rename, fsync of the folder: in this order."""
    folder, name = os.path.split(os.path.abspath(path))
    _make_folder(folder)
    temporary = os.path.join(folder, f".{name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _make_folder(folder: str) -> None:
    """Make ``folder`` so that it is still there after a power cut."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder; there the rename is all one can have.
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def read_checkpoint(path: str, mmap: bool = False) -> dict[str, Any]:
    """The checkpoint at ``path``, on the CPU, nothing in it executed.

    :param mmap: leave the tensors in the file, for a look at a checkpoint that memory may not hold twice.
    :raises CheckpointDamaged: it is not a whole checkpoint.
    :raises OSError: it cannot be read now, which says nothing about its worth.
    """
    problem = _archive_problem(path)
    if problem:
        raise CheckpointDamaged(f"{path}: {problem}")
    state = _load_tensors(path, mmap)
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise CheckpointDamaged(f"{path}: it is not a {SCHEMA} file")
    missing = {"step", "epoch", "config", "objects", "rng", "best", "trained_s"} - set(state)
    if missing:
        raise CheckpointDamaged(f"{path}: {', '.join(sorted(missing))} missing")
    return state


def _archive_problem(path: str) -> str:
    """What is wrong with the zip file at ``path``: every byte is read and compared with its CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            return f"its part {bad} has changed" if bad else ""
    except OSError as error:
        # A damaged directory can send a seek to before the start, which is the file's fault, not the disk's.
        if error.errno not in (None, errno.EINVAL):
            raise
        return f"it is damaged ({error})"
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        return f"it is cut short or damaged ({error})"


def _load_tensors(path: str, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        # All bytes are right by now. Too little memory must not condemn a good checkpoint.
        if any(words in str(error) for words in _MEMORY_FULL):
            raise CheckpointError(f"{path} is whole, but does not fit into memory: {_first_line(error)}") from error
        raise CheckpointDamaged(f"{path}: torch cannot load it safely ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


# ---------------------------------------------------------------------------------------------- newest valid


class Skipped(NamedTuple):
    """A checkpoint that was passed over."""

    path: str
    reason: str
    quarantined: bool
    damaged: bool


class Found(NamedTuple):
    """The newest valid checkpoint (``state`` None: there is none) and what was passed over on the way to it."""

    path: str
    state: dict[str, Any] | None
    skipped: tuple[Skipped, ...]


def find_newest(folders: list[str]) -> Found:
    """The valid checkpoint with the highest step in ``folders``; for equal steps the earlier folder wins.

    A damaged one moves to ``quarantine/`` in its folder, where that can be written; nothing is ever deleted.
    """
    skipped: list[Skipped] = []
    for path in _candidates(folders, skipped):
        try:
            state = read_checkpoint(path)
            if state["step"] != step_of(os.path.basename(path)):
                raise CheckpointDamaged(f"{path}: its name says another step than its content, {state['step']!r}")
        except CheckpointDamaged as error:
            skipped.append(Skipped(path, str(error), _quarantine(path), True))
        except OSError as error:
            skipped.append(Skipped(path, f"{path}: cannot be read now ({error})", False, False))
        else:
            return Found(path, state, tuple(skipped))
    return Found("", None, tuple(skipped))


def _candidates(folders: list[str], skipped: list[Skipped]) -> list[str]:
    """Paths of step files, highest step first."""
    found = []
    for order, folder in enumerate(folders):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.append(Skipped(folder, f"{folder}: cannot be listed ({error})", False, False))
            continue
        steps = ((step_of(name), name) for name in names)
        found += [(-step, order, os.path.join(folder, name)) for step, name in steps if step is not None]
    return [path for _step, _order, path in sorted(found)]


def _quarantine(path: str) -> bool:
    """Move ``path`` to ``quarantine/`` beside it; False where the folder cannot be written."""
    folder, name = os.path.split(path)
    place = os.path.join(folder, "quarantine")
    try:
        os.makedirs(place, exist_ok=True)
        target, number = os.path.join(place, name), 1
        while os.path.lexists(target):
            target, number = os.path.join(place, f"{name}.{number}"), number + 1
        os.rename(path, target)
    except OSError:
        return False
    return True


# ---------------------------------------------------------------------------------------------- random numbers


def random_state() -> dict[str, Any]:
    """The state of the generators of Python, NumPy (if imported), torch and every CUDA device (if in use)."""
    version, words, gauss = random.getstate()
    return {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": _numpy_random_state(),
        "torch": torch.get_rng_state(),
        # Asking an idle CUDA for its state would start it, and cost memory on every device.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _numpy_random_state() -> list[Any] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    state = numpy.random.get_state()
    if not isinstance(state, tuple):
        raise CheckpointError("numpy.random uses another bit generator than MT19937, whose state cannot be saved")
    name, words, position, has_gauss, gauss = state
    return [str(name), torch.tensor(words.tolist(), dtype=torch.int64), int(position), int(has_gauss), float(gauss)]


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set every generator to ``state``, as :func:`random_state` gave it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    torch.set_rng_state(state["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and state["numpy"] is not None:
        name, words, position, has_gauss, gauss = state["numpy"]
        numpy.random.set_state((name, words.numpy().astype("uint32"), position, has_gauss, gauss))
    if state["cuda"] and torch.cuda.is_available():
        for device in range(min(len(state["cuda"]), torch.cuda.device_count())):
            torch.cuda.set_rng_state(state["cuda"][device], device)


# ---------------------------------------------------------------------------------------------- batches


class ShuffledBatches:
    """Batches of indices in an order that depends on seed and epoch alone, from a position that can be saved.

    Iterating gives the rest of the current epoch, so it can be a ``DataLoader``'s ``batch_sampler``. The position moves
    by :meth:`advance` (which ``Checkpoints.after_step`` calls), not by iterating: a loader reads ahead of the training.
    """

    def __init__(self, length: int, batch_size: int, seed: int = 0, shuffle: bool = True, drop_last: bool = False):
        if length < 1 or batch_size < 1 or (drop_last and length < batch_size):
            raise ValueError(f"no batch of {batch_size} can be made of {length} items")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch = 0
        self.batch = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order(self.epoch)
        for batch in range(self.batch, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def advance(self, batches: int = 1) -> None:
        """Say that ``batches`` more batches have been trained on."""
        epochs, self.batch = divmod(self.batch + batches, len(self))
        self.epoch += epochs

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.length))
        # A hash, because seed + epoch would give seed 1 the shuffles of seed 0, one epoch late.
        mixed = hashlib.sha256(f"{self.seed}/{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return order

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "length": self.length,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        ours = self.state_dict()
        changed = [key for key in ours if key not in ("epoch", "batch") and ours[key] != state[key]]
        if changed:
            pairs = ", ".join(f"{key} was {state[key]}, is {ours[key]}" for key in changed)
            raise CheckpointError(f"the position in the data fits other batches: {pairs}. Keep them or start a new run")
        self.epoch, self.batch = state["epoch"], state["batch"]


# ---------------------------------------------------------------------------------------------- cadence


def young_daly(mu_s: float, save_s: float) -> float:
    """Seconds between saves that lose least time: ``sqrt(2 * mu * C)`` (Young 1974, Daly 2006)."""
    return math.sqrt(2.0 * mu_s * save_s)


class Cadence:
    """When to save next: after Young/Daly's interval for the measured cost of a save, rounded down to a whole step.

    The first save is due after the first step: it measures the cost, and shows early whether saving works at all.
    """

    def __init__(self, mu_s: float, longest_s: float, clock: Callable[[], float] = time.monotonic):
        if not (mu_s > 0 and longest_s > 0):
            raise ValueError(f"mu ({mu_s}) and the longest interval ({longest_s}) are seconds above 0")
        self.mu_s, self.longest_s = mu_s, longest_s
        self.save_s: float | None = None
        self.step_s = 0.0
        self._clock = clock
        self._last_save = self._last_step = clock()

    @property
    def interval_s(self) -> float:
        return 0.0 if self.save_s is None else min(self.longest_s, young_daly(self.mu_s, self.save_s))

    def step_done(self) -> None:
        now = self._clock()
        took = now - max(self._last_step, self._last_save)
        self.step_s = took if self.step_s == 0.0 else 0.8 * self.step_s + 0.2 * took
        self._last_step = now

    @property
    def due(self) -> bool:
        """True if the interval would be over before the next step is done."""
        return self.save_s is None or self._clock() - self._last_save + self.step_s > self.interval_s

    def saved(self, seconds: float) -> None:
        """Say that a save took ``seconds``."""
        self.save_s = seconds if self.save_s is None else (self.save_s + seconds) / 2
        self._last_save = self._clock()


# ---------------------------------------------------------------------------------------------- metrics, signal


class Metrics:
    """JSON lines that the supervisor reads progress from. Never stops the training: the checkpoint is what counts."""

    def __init__(self, path: str):
        self.path = path
        self._descriptor: int | None = None

    def write(self, line: Mapping[str, Any]) -> None:
        if not self.path:
            return
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.write(self._descriptor, (json.dumps(_finite(line)) + "\n").encode("utf-8"))
        except OSError as error:
            _log.warning("cannot write metrics to %s (%s); training goes on without them", self.path, error)
            self.path = ""

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # an earlier writer died in mid-line
        return descriptor


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: such a value becomes null and its name is listed under ``non_finite``."""
    whole = {key: value.item() if isinstance(value, torch.Tensor) else _plain(value) for key, value in line.items()}
    bad = sorted(key for key, value in whole.items() if isinstance(value, float) and not math.isfinite(value))
    if bad:
        whole.update(dict.fromkeys(bad), non_finite=bad)
    return whole


def _plain(value: Any) -> Any:
    """A NumPy scalar or an instance of a subclass of int or float as the plain number that it is."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, (int, float)) and type(value) not in (bool, int, float):
        return int(value) if isinstance(value, int) else float(value)
    return value


class StopFlag:
    """Becomes true at SIGTERM. The handler does nothing else, so a save in progress is never disturbed."""

    def __init__(self) -> None:
        self.is_set = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._set)

    def _set(self, _signal: int, _frame: object) -> None:
        self.is_set = True


# ---------------------------------------------------------------------------------------------- all together


class Checkpoints:
    """Saves and restores the whole state of a training run.

    :param objects: everything with ``state_dict``/``load_state_dict`` that training changes, by name: model, optimizer,
        scheduler, gradient scaler, EMA, … Random number generators are saved without being named.
    :param batches: the position in the data; moved by :meth:`after_step`.
    :param total_steps: for the metrics; None if unknown.
    :param config: plain values that must not change between start and resume, such as seed and learning rate.
    :param directory: default ``TENANT_CHECKPOINT_DIR``, else ``checkpoints``.
    :param keep_last: how many of the newest checkpoints stay; the one with the best metric stays too.
    :param best: ``max`` or ``min``, which end of the metric given to :meth:`after_step` is better.
    :param longest_interval_s: save at least this often, whatever Young and Daly say.
    :param metrics: path; default ``TENANT_METRICS``, else none.
    :param metrics_every: write a metrics line at every so many steps.
    :param environ: where the ``TENANT_`` variables are read, default ``os.environ``.
    """

    def __init__(
        self,
        objects: Mapping[str, Any],
        batches: ShuffledBatches | None = None,
        total_steps: int | None = None,
        config: Mapping[str, Any] | None = None,
        directory: str | None = None,
        keep_last: int = 2,
        best: str = "max",
        longest_interval_s: float = 900.0,
        metrics: str | None = None,
        metrics_every: int = 1,
        environ: Mapping[str, str] | None = None,
    ):
        environ = os.environ if environ is None else environ
        self._objects = _stateful(objects, batches)
        if keep_last < 1 or metrics_every < 1 or best not in ("max", "min"):
            raise ValueError("keep_last and metrics_every are at least 1, best is 'max' or 'min'")
        self.batches, self.total_steps, self.config = batches, total_steps, dict(config or {})
        self.directory = os.path.abspath(directory or environ.get("TENANT_CHECKPOINT_DIR") or "checkpoints")
        self.resume_dirs = [part for part in environ.get("TENANT_RESUME_DIRS", "").split(os.pathsep) if part]
        self.step = 0
        self.resumed_from: int | None = None
        self.best: dict[str, Any] | None = None
        self._keep_last, self._best_is, self._metrics_every = keep_last, best, metrics_every
        self.cadence = Cadence(_mean_time_between_losses(environ), longest_interval_s)
        self._metrics = Metrics(environ.get("TENANT_METRICS", "") if metrics is None else metrics)
        self._stop = StopFlag()
        self._saved_path = ""
        self._saved_step: int | None = None
        self._started, self._trained_before_s = time.monotonic(), 0.0

    @property
    def should_stop(self) -> bool:
        """True after SIGTERM. :meth:`after_step` has saved by then: leave with :data:`EXIT_STOPPED`."""
        return self._stop.is_set

    @property
    def epoch(self) -> int:
        return self.batches.epoch if self.batches is not None else 0

    @property
    def trained_s(self) -> float:
        """Seconds spent on the work so far, over all attempts; work that was lost is not counted."""
        return self._trained_before_s + time.monotonic() - self._started

    def resume(self) -> int:
        """Go on from the newest valid checkpoint; returns its step, 0 for a new run. Call it last before the loop.

        :raises CheckpointError: the checkpoint belongs to another configuration, or none could be read though some are
            there: to start again at 0 would throw work away.
        """
        _remove_leftovers(self.directory)
        found = find_newest([self.directory, *self.resume_dirs])
        for skipped in found.skipped:
            place = "moved to quarantine/" if skipped.quarantined else "left where it is"
            _log.warning("skipped a checkpoint, %s: %s", place, skipped.reason)
        if found.state is not None:
            self._restore(found.state, found.path)
        elif any(not skipped.damaged for skipped in found.skipped):
            raise CheckpointError(
                f"no checkpoint can be read now: {'; '.join(skipped.reason for skipped in found.skipped)}. "
                "Nothing was changed. Make the folder readable, or move it away to start at step 0"
            )
        self._report_resume(found)
        self._started = time.monotonic()
        return self.step

    def _restore(self, state: dict[str, Any], path: str) -> None:
        self._check_fits(state, path)
        for name, thing in self._objects.items():
            thing.load_state_dict(state["objects"][name])
        self.step, self.best = state["step"], state["best"]
        self._trained_before_s = state["trained_s"]
        self.resumed_from = self.step
        if os.path.dirname(os.path.abspath(path)) == self.directory:
            self._saved_path, self._saved_step = path, self.step
        restore_random_state(state["rng"])

    def _check_fits(self, state: dict[str, Any], path: str) -> None:
        keys = set(state["config"]) | set(self.config)
        changed = sorted(key for key in keys if state["config"].get(key) != self.config.get(key))
        if changed:
            pairs = ", ".join(f"{key} was {state['config'].get(key)!r}, is {self.config.get(key)!r}" for key in changed)
            raise CheckpointError(f"{path} is of another run: {pairs}. It is as it was. Give this run its own folder")
        if set(state["objects"]) != set(self._objects):
            theirs, ours = sorted(state["objects"]), sorted(self._objects)
            raise CheckpointError(f"{path} holds {theirs}, this script has {ours}. Nothing was changed. Name the same")

    def _report_resume(self, found: Found) -> None:
        if found.state is None and not found.skipped:
            return
        line: dict[str, Any] = {"resumed_from": self.step, "path": found.path}
        if found.skipped:
            line["skipped"] = [dict(item._asdict()) for item in found.skipped]
        self._metrics.write(line)

    def after_step(self, loss: Any = None, metric: Any = None, batches: int = 1, **values: Any) -> None:
        """Count one finished step; save if it is time, if the metric is the best so far, or if asked to stop.

        :param metric: of the model as it is now, for instance a validation accuracy; None if not measured.
        :param batches: how many batches the step used (gradient accumulation).
        :param values: further numbers for the metrics line.
        """
        self.step += 1
        if self.batches is not None:
            self.batches.advance(batches)
        self.cadence.step_done()
        better = self._note_metric(metric)
        if self.step % self._metrics_every == 0 or self.step == self.total_steps:
            self._write_metrics(loss, metric, values)
        if better or self.should_stop or self.cadence.due:
            self.save()

    def _note_metric(self, metric: Any) -> bool:
        if metric is None or not math.isfinite(metric):
            return False
        sign = 1.0 if self._best_is == "max" else -1.0
        if self.best is not None and sign * float(metric) <= sign * self.best["metric"]:
            return False
        self.best = {"step": self.step, "metric": float(metric)}
        return True

    def _write_metrics(self, loss: Any, metric: Any, values: Mapping[str, Any]) -> None:
        line: dict[str, Any] = {"step": self.step, "steps": self.total_steps, "epoch": self.epoch}
        line.update({} if loss is None else {"loss": loss})
        line.update({} if metric is None else {"metric": metric})
        self._metrics.write(dict(line, trained_s=round(self.trained_s, 3), **values))

    def save(self) -> str:
        """Save now, unless this step is saved already; returns the path.

        :raises CheckpointError: it could not be saved. Earlier checkpoints are as they were.
        """
        if self._saved_step == self.step:
            return self._saved_path
        path = os.path.join(self.directory, checkpoint_name(self.step))
        started = time.monotonic()
        # The first save of a process is read back: a state that cannot be loaded must show now, not after a loss.
        check = functools.partial(read_checkpoint, mmap=True) if self.cadence.save_s is None else None
        try:
            write_torch(path, self._state(), check)
        except (OSError, RuntimeError, MemoryError, CheckpointDamaged) as error:
            raise CheckpointError(self._save_failure(path, error)) from error
        self.cadence.saved(time.monotonic() - started)
        self._saved_path, self._saved_step = path, self.step
        self._prune()
        return path

    def _save_failure(self, path: str, error: BaseException) -> str:
        safe = f"{self._saved_path} is safe" if self._saved_path else "no checkpoint of this process exists yet"
        fix = "Make room there, or make the folder writable, and run the same command again"
        if isinstance(error, CheckpointDamaged):
            fix = "Let every state_dict hold tensors, numbers, text, lists and dicts only"
        return f"cannot save {path}: {_first_line(error)}. {safe}. {fix}"

    def _state(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "step": self.step,
            "epoch": self.epoch,
            "config": _storable(self.config),
            "objects": {name: _storable(thing.state_dict()) for name, thing in self._objects.items()},
            "rng": random_state(),
            "best": self.best,
            "trained_s": self.trained_s,
        }

    def _prune(self) -> None:
        """Remove what is older than the newest ``keep_last``, except the best. Later steps are not ours to judge."""
        steps = [step for step in map(step_of, os.listdir(self.directory)) if step is not None and step <= self.step]
        kept = set(sorted(steps)[-self._keep_last :])
        if self.best is not None:
            kept.add(self.best["step"])
        for step in set(steps) - kept:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, checkpoint_name(step)))


def _stateful(objects: Mapping[str, Any], batches: ShuffledBatches | None) -> dict[str, Any]:
    whole = dict(objects)
    if batches is not None:
        if "batches" in whole:
            raise ValueError("the name 'batches' is taken by the position in the data")
        whole["batches"] = batches
    for name, thing in whole.items():
        if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
            raise TypeError(f"{name!r} ({type(thing).__name__}) has no state_dict and load_state_dict")
    return whole


def _storable(value: Any) -> Any:
    """``value`` with NumPy scalars and subclasses of numbers made plain, which a safe load would refuse."""
    if isinstance(value, dict):
        whole = copy.copy(value)  # keeps the class, and the version notes that a module's state_dict carries
        for key in value:
            whole[key] = _storable(value[key])
        return whole
    if type(value) in (list, tuple):
        return type(value)(_storable(item) for item in value)
    return _plain(value)


def _mean_time_between_losses(environ: Mapping[str, str]) -> float:
    text = environ.get("TENANT_MU_S", "").strip()
    if not text:
        return DEFAULT_MU_S
    try:
        return float(text)
    except ValueError as error:
        raise CheckpointError(f"TENANT_MU_S is {text!r}, which is not a number of seconds") from error


def _remove_leftovers(folder: str) -> None:
    """Remove the unfinished files that a process killed in mid-save left in its own folder."""
    with contextlib.suppress(OSError):
        for name in filter(_LEFTOVER.match, os.listdir(folder)):
            os.unlink(os.path.join(folder, name))
