# SPDX-License-Identifier: MIT
"""Count steps with a checkpoint each. In the first life of its job it stays at the third until Slurm takes it away."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

STEPS, STAYS_AT = 6, 3


def resumed_step(folders: list[str]) -> int:
    found = [int(path.stem[5:]) for folder in folders for path in Path(folder).glob("step-*.json")]
    return max(found, default=0)


def save(path: Path, told: dict[str, object]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(told), encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    out, checkpoints = Path(os.environ["TENANT_OUTPUT_DIR"]), Path(os.environ["TENANT_CHECKPOINT_DIR"])
    checkpoints.mkdir(parents=True, exist_ok=True)
    began = step = resumed_step([str(checkpoints), *os.environ["TENANT_RESUME_DIRS"].split(os.pathsep)])
    first_life = not int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    with open(os.environ["TENANT_METRICS"], "a", encoding="utf-8") as metrics:
        if began:
            metrics.write(json.dumps({"resumed_from": began}) + "\n")
        while step < STEPS:
            step += 1
            save(checkpoints / f"step-{step:010d}.json", {"step": step})
            metrics.write(json.dumps({"step": step, "steps": STEPS}) + "\n")
            metrics.flush()
            if first_life and step == STAYS_AT:
                signal.pause()
    told = {name: os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SRUN_CPUS_PER_TASK", "CUDA_VISIBLE_DEVICES")}
    save(out / "metrics.json", {"steps": step, "resumed_from": began, "user": os.getuid(), **told})


if __name__ == "__main__":
    main()
