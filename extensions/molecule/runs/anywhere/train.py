# SPDX-License-Identifier: MIT
"""Fit a line by the standard library alone, and tell by which Python, as whom and with which proxies."""

from __future__ import annotations

import getpass
import json
import os
import sys

STEPS = 200


def fit() -> dict[str, float]:
    slope = shift = 0.0
    points = [(index / 32 - 1, 3 * (index / 32 - 1) + 1) for index in range(65)]
    for _unused in range(STEPS):
        errors = [(slope * x + shift - y, x) for x, y in points]
        slope -= 0.5 * sum(error * x for error, x in errors) / len(points)
        shift -= 0.5 * sum(error for error, _x in errors) / len(points)
    return {"slope": slope, "shift": shift}


def save(path: str, told: dict[str, object]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(told, stream)


def main() -> None:
    out, checkpoints = os.environ["TENANT_OUTPUT_DIR"], os.environ["TENANT_CHECKPOINT_DIR"]
    os.makedirs(checkpoints, exist_ok=True)
    model = fit()
    save(os.path.join(checkpoints, f"step-{STEPS:010d}.json"), {"model": model, "step": STEPS})
    save(os.path.join(out, "metrics.json"), {"loss": abs(model["slope"] - 3), "steps": STEPS})
    proxies = {name: value for name, value in sorted(os.environ.items()) if name.lower().endswith("_proxy")}
    save(
        os.path.join(out, "surroundings.json"),
        {
            "python": sys.executable,
            "user": getpass.getuser(),
            "folder": os.getcwd(),
            "proxies": proxies,
            "hub": os.environ.get("HF_ENDPOINT", ""),
        },
    )


if __name__ == "__main__":
    main()
