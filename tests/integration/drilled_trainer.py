# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Somebody's own trainer, without torch: real gradient descent, real checkpoints, and on request a mistake in resuming
that training scripts make in practice."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable

STEPS_PER_EPOCH = 50


def save(path: str, state: dict[str, float]) -> None:
    """A zip archive shaped like one of torch.save, renamed into place."""
    with zipfile.ZipFile(f"{path}.tmp", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(state, 2))
        archive.writestr("archive/data/0", bytes(64))
    os.replace(f"{path}.tmp", path)


def load_newest() -> dict[str, float]:
    folders = [os.environ["TENANT_CHECKPOINT_DIR"], *os.environ["TENANT_RESUME_DIRS"].split(os.pathsep)]
    found = [path for folder in folders if folder for path in glob.glob(f"{folder}/step-*.pt")]
    if not found:
        return {}
    with zipfile.ZipFile(max(found, key=os.path.basename)) as archive:
        state: dict[str, float] = pickle.loads(archive.read("archive/data.pkl"))  # noqa: S301  # its own file
    return state


def note(**line: object) -> None:
    with open(os.environ["TENANT_METRICS"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def teller(how: str) -> Callable[[int, float], None]:
    """Tells step and loss in the way of a trainer that does not know of TENANT_METRICS."""
    if how == "events":
        from tensorboard.summary import Writer

        writer = Writer(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "tb"))

        def tell(step: int, loss: float) -> None:
            writer.add_scalar("train/loss", loss, step)
            writer.flush()

        return tell
    if how == "log":
        return lambda step, loss: print(f"step {step} loss={loss}", flush=True)
    if how == "steps":
        return lambda step, _loss: print(f"step {step}", flush=True)
    return lambda step, loss: note(step=step, epoch=step // STEPS_PER_EPOCH, loss=loss)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", default="", choices=["", "zero", "weights", "skips", "unsaved", "crash", "silent"])
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="0: without end")
    parser.add_argument("--work", type=int, default=10_000, help="how much there is to do in a step")
    parser.add_argument("--tell", default="metrics", choices=["metrics", "events", "log", "steps"])
    options = parser.parse_args()
    tell = teller(options.tell)
    state = {"step": 0, "weight": 40.0}
    found = {} if options.broken == "zero" else load_newest()
    if found:
        state.update(found)
        if options.tell == "metrics":
            note(resumed_from=state["step"], deterministic=options.deterministic)
        if options.broken == "crash":
            raise KeyError("optimizer")
        if options.broken == "weights":
            state["weight"] = 40.0
        if options.broken == "skips":
            state["step"] += STEPS_PER_EPOCH
    while not options.steps or state["step"] < options.steps:
        hashlib.pbkdf2_hmac("sha256", b"a batch", b"takes its time", options.work)
        state["step"] += 1
        state["weight"] -= 0.02 * state["weight"]
        step = int(state["step"])
        if options.broken != "silent":
            tell(step, state["weight"] ** 2)
        if step % options.save_every == 0 and options.broken != "unsaved":
            save(f"{os.environ['TENANT_CHECKPOINT_DIR']}/step-{step:010d}.pt", state)
    with open(f"{os.environ['TENANT_OUTPUT_DIR']}/model.json", "w", encoding="utf-8") as stream:
        json.dump(state, stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
