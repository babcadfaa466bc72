# SPDX-License-Identifier: MIT
"""Walk down a parabola, and tell which task of the job array did so."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, required=True)
    rate, x = parser.parse_args().rate, 1.0
    for _step in range(20):
        x -= rate * 2 * x
    told = {"rate": rate, "loss": x * x, "task": os.environ["SLURM_ARRAY_TASK_ID"], "cell": os.environ["TENANT_CELL"]}
    path = Path(os.environ["TENANT_OUTPUT_DIR"]) / "metrics.json"
    path.with_suffix(".tmp").write_text(json.dumps(told), encoding="utf-8")
    path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
    main()
