# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Classes of artifacts that mirrors have."""

from __future__ import annotations

PIP, CONDA, HUB, GIT, TORCH, DOCKER = "pip", "conda", "hf", "git", "torch", "docker"
# Measured by the box's own package lists; and not measured, because what comes from there is proven by the Hub's hash.
APT, MODELSCOPE = "apt", "modelscope"
MEASURED = (PIP, CONDA, HUB, GIT, TORCH, DOCKER)
CLASSES = (*MEASURED, APT, MODELSCOPE)
