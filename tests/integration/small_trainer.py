# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A trainer without torch: real checkpoints, real metrics, resumes, obeys SIGTERM. Runs on Python 3.8."""

from __future__ import annotations

import argparse
import glob
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import zipfile


def save(path: str, step: int) -> None:
    """A zip archive shaped like one of torch.save, renamed into place."""
    temporary = f"{path}.tmp"
    with zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"step": step}, 2))
        archive.writestr("archive/data/0", bytes(range(256)) * 16)
    os.replace(temporary, path)


def resumed_step() -> int:
    own = os.environ["TENANT_CHECKPOINT_DIR"]
    for folder in [own, *filter(None, os.environ["TENANT_RESUME_DIRS"].split(os.pathsep))]:
        steps = [int(re.findall(r"\d+", os.path.basename(name))[0]) for name in glob.glob(f"{folder}/step-*.pt")]
        if steps:
            return max(steps)
    return 0


def note(**line: object) -> None:
    with open(os.environ["TENANT_METRICS"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


CHILD = """
import signal, sys
# Its parent may ignore the signal, and hand that on.
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
number = signal.sigwait([signal.SIGTERM])
open(sys.argv[1], "w").write(signal.Signals(number).name)
"""


def start_child(path: str) -> subprocess.Popen[bytes]:
    """A data loader's worker, so to speak: of the trainer's own group. It notes the signal that ends it in ``path``."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--hold-at", type=int, default=0)
    parser.add_argument("--gate", default="")
    parser.add_argument("--exit-code", type=int, default=0)
    parser.add_argument("--on-term", choices=["save", "ignore", "leave"], default="save")
    parser.add_argument("--model", choices=["whole", "cut", "none", "link"], default="whole")
    parser.add_argument("--with-worker", action="store_true")
    parser.add_argument("--with-child", default="")
    options = parser.parse_args()
    output, checkpoints = os.environ["TENANT_OUTPUT_DIR"], os.environ["TENANT_CHECKPOINT_DIR"]
    step = resumed_step()
    child = start_child(options.with_child) if options.with_child else None

    def asked_to_stop(_number: int, _frame: object) -> None:
        save(f"{checkpoints}/step-{step:010d}.pt", step)
        if child is not None:
            # Nobody but whoever signals the whole group ends it.
            child.wait()
        sys.exit(0 if options.on_term == "leave" else 30)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.on_term == "ignore" else asked_to_stop)
    print("trainer starts", sys.argv[1:], "stdin is empty:", sys.stdin.read() == "")
    if step:
        note(resumed_from=step)
    if options.with_worker:
        # In a session of its own, as torchrun starts its workers: no signal to the trainer's group reaches it.
        worker = subprocess.Popen(["cat", options.gate], start_new_session=True)
        note(worker=worker.pid)
    while step < options.steps:
        step += 1
        save(f"{checkpoints}/step-{step:010d}.pt", step)
        note(step=step, steps=options.steps, loss=1.0 / step)
        if step == options.hold_at:
            with open(options.gate, encoding="ascii") as stream:
                stream.read()
    if options.exit_code:
        print("KeyError: 'lr'")
        return options.exit_code
    make_model(output, step, options.model)
    return 0


def make_model(output: str, step: int, kind: str) -> None:
    path = f"{output}/model.pt"
    if kind == "none":
        return
    if kind == "link":
        os.symlink("/etc/hostname", path)
        return
    save(path, step)
    if kind == "cut":
        with open(path, "r+b") as stream:
            stream.truncate(os.path.getsize(path) // 2)


if __name__ == "__main__":
    sys.exit(main())
