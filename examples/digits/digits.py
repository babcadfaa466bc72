# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The handwritten digits, how they are distorted for training, and the network that reads them."""

from __future__ import annotations

import csv
import gzip
import math
import os
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "digits.csv.gz")
IMAGES = 1797
SIDE = 8
CLASSES = 10


class Split(NamedTuple):
    """Images (n, 1, 8, 8) in 0..1 and labels (n)."""

    images: Tensor
    labels: Tensor


def load_digits(path: str = DATA) -> tuple[Split, Split]:
    """Training and test split: every fifth image, from the first on, is held out, whatever the seed."""
    with gzip.open(path, "rt", newline="") as stream:
        rows = torch.tensor([[float(cell) for cell in row] for row in csv.reader(stream)])
    if rows.shape != (IMAGES, SIDE * SIDE + 1):
        raise ValueError(f"{path} holds {tuple(rows.shape)} numbers, not {IMAGES} digits of {SIDE}x{SIDE} and a label")
    images, labels = rows[:, :-1].reshape(-1, 1, SIDE, SIDE) / 16.0, rows[:, -1].long()
    held_out = torch.arange(IMAGES) % 5 == 0
    return Split(images[~held_out], labels[~held_out]), Split(images[held_out], labels[held_out])


def distort(images: Tensor) -> Tensor:
    """Each image turned, scaled, sheared and shifted a little, and made noisy; draws from torch's CPU generator."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * math.radians(30)
    scale = 1.0 + (torch.rand(count, 2) - 0.5) * 0.3
    shear = (torch.rand(count) - 0.5) * 0.3
    shift = (torch.rand(count, 2) - 0.5) * 0.35
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([scale[:, 0] * cos, -sin + shear, shift[:, 0]], dim=1)
    second = torch.stack([sin, scale[:, 1] * cos, shift[:, 1]], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    brightness = 0.8 + 0.4 * torch.rand(count, 1, 1, 1)
    return (moved * brightness + 0.08 * torch.randn(moved.shape)).clamp(0.0, 1.0)


class Network(nn.Module):
    """A small convolutional network; no batch norm, so that the averaged weights can be used as they are."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(2 * width * (SIDE // 2) ** 2, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


@torch.no_grad()
def measure(network: nn.Module, split: Split) -> tuple[float, float]:
    """Accuracy (0..1) and mean cross entropy of ``network`` on ``split``."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    scores = network(split.images.to(device)).cpu()
    network.train(was_training)
    right = int((scores.argmax(dim=1) == split.labels).sum())
    return right / len(split.labels), float(functional.cross_entropy(scores, split.labels))
