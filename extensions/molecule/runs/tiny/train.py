# SPDX-License-Identifier: MIT
"""Fit a line, with the checkpoint helper, so that a role test has a real checkpoint in a second or two."""

from __future__ import annotations

import json
import os

import torch

STEPS = 200


def main() -> None:
    out = os.environ["TENANT_OUTPUT_DIR"]
    torch.manual_seed(int(os.environ["TENANT_SEED"]))
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.linspace(-1, 1, 64).unsqueeze(1)
    for _unused in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), 3 * inputs + 1)
        loss.backward()
        optimizer.step()
    checkpoints = os.environ["TENANT_CHECKPOINT_DIR"]
    os.makedirs(checkpoints, exist_ok=True)
    torch.save({"model": model.state_dict(), "step": STEPS}, os.path.join(checkpoints, f"step-{STEPS:010d}.pt"))
    torch.save(model.state_dict(), os.path.join(out, "model.pt"))
    with open(os.path.join(out, "metrics.json"), "w", encoding="utf-8") as stream:
        json.dump({"loss": loss.item(), "steps": STEPS}, stream)


if __name__ == "__main__":
    main()
