# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Measure a trained model again, from the copy that came home: ``python evaluate.py out/model.pt`` prints JSON.

Nothing in the file is executed (``weights_only``), and it must fit the network exactly.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import digits
import torch


def evaluate(path: str) -> dict[str, Any]:
    model = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    network = digits.Network()
    network.load_state_dict(model["state_dict"], strict=True)
    _training, held_out = digits.load_digits()
    accuracy, loss = digits.measure(network, held_out)
    return {
        "accuracy": accuracy,
        "loss": loss,
        "held_out": len(held_out.labels),
        "tensors": len(model["state_dict"]),
        "parameters": sum(tensor.numel() for tensor in model["state_dict"].values()),
        "finite": all(bool(torch.isfinite(tensor).all()) for tensor in model["state_dict"].values()),
        "step": model["meta"]["step"],
        "accuracy_in_training": model["meta"]["accuracy"],
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure a model of the digits example on the held-out digits.")
    parser.add_argument("model", help="path of model.pt")
    path = parser.parse_args(arguments).model
    try:
        print(json.dumps(evaluate(path)))
    except Exception as error:  # whatever a damaged file makes torch raise, the user needs one line
        print(f"evaluate.py: {path} is not a usable model of this example: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
