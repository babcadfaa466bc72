# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which CUDA an image brings, as far as its name says, and whether a host's driver runs it.

A driver runs every CUDA of its own major version and of those before (NVIDIA's minor version compatibility). Images
that are built on ``nvidia/cuda`` ask for more: on a GeForce they refuse to start below their own minor version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NVIDIA = re.compile(r"(?:^|/)nvidia/cuda:([0-9]{1,2})\.([0-9]{1,2})(?![0-9])")
_SPELT = re.compile(r"(?<![a-z])cuda[-_.]?([0-9]{1,2})\.([0-9]{1,2})(?![0-9])")
_SHORT = re.compile(r"(?<![a-z])cu([0-9]{2})([0-9])(?![0-9])")


@dataclass(frozen=True)
class ImageCuda:
    """:param exact: the image does not start with a driver of a lower minor version."""

    major: int
    minor: int
    exact: bool


def image_cuda(image: str) -> ImageCuda | None:
    """The CUDA that an image's name tells, None when it tells none."""
    name = image.lower()
    official = _NVIDIA.search(name)
    if official is not None:
        return ImageCuda(int(official.group(1)), int(official.group(2)), True)
    tag = name.partition("@")[0].rpartition(":")[2]
    told = _SPELT.search(tag) or _SHORT.search(tag)
    return None if told is None else ImageCuda(int(told.group(1)), int(told.group(2)), "devel" in tag)


def driver_problem(image: str, cuda_max: float | None) -> str:
    """Why a host whose driver supports CUDA up to ``cuda_max`` cannot run an image; empty when it can."""
    wanted = image_cuda(image)
    if wanted is None:
        return ""
    said = f"the image has CUDA {wanted.major}.{wanted.minor}"
    if cuda_max is None:
        return f"{said}, and the host does not say what its driver supports"
    major, minor = (int(part) for part in f"{cuda_max:.1f}".split("."))
    least = (wanted.major, wanted.minor if wanted.exact else 0)
    return f"{said}, and the host's driver supports {major}.{minor} at most" if (major, minor) < least else ""
