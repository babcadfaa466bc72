# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""SkyPilot's own parser, in a Python that has it: of each task on stdin, what SkyPilot understands or why it refuses.

It takes ``[{text, envs, secrets}]`` as JSON, the last two as ``sky jobs launch --env --secret`` gives them.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import sky  # type: ignore[import-not-found, unused-ignore]
import yaml


def main() -> None:
    print(json.dumps([_told(one) for one in json.load(sys.stdin)]))


def _told(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        task = sky.Task.from_yaml_config(yaml.safe_load(asked["text"]), asked["envs"], asked["secrets"])
    except ValueError as refusal:
        return {"refused": str(refusal)}
    (resources,) = task.resources
    return {
        "name": task.name,
        "use_spot": resources.use_spot,
        "accelerators": resources.accelerators,
        "recovery": resources.job_recovery,
        "image": resources.image_id,
        "buckets": {where: [store.source, store.mode.value] for where, store in task.storage_mounts.items()},
        "envs": task.envs,
        "secrets": sorted(task.secrets),
    }


if __name__ == "__main__":
    main()
