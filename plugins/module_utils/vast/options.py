# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The options that all vast modules share, and the client's face towards a module. This file imports Ansible."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Mapping

from .. import rental_options
from ..rental_options import Act, client_options
from ..state_store import StateStore
from .api import VastClient


def shared_options() -> dict[str, dict[str, Any]]:
    """The argument spec behind the documentation fragments ``tenant.gpu.vast`` and ``tenant.gpu.rental``."""
    return client_options(VastClient)


def volume_options() -> dict[str, dict[str, Any]]:
    """The argument spec behind the documentation fragment ``tenant.gpu.vast_volumes``."""
    parts = {"volume": {"type": "str", "required": True}, "path": {"type": "str", "required": True}}
    return {"volumes": {"type": "list", "elements": "dict", "default": [], "options": parts}}


def ranking_options() -> dict[str, dict[str, Any]]:
    """The argument spec behind the documentation fragment ``tenant.gpu.vast_ranking``."""
    # Only those who rank pay for it: Ansible compiles a collection's files anew in each process.
    from .ranking import Assumptions

    assumptions = {one.name: {"type": "float", "default": one.default} for one in fields(Assumptions)}
    return {
        "hours_expected": {"type": "float", "default": 4.0},
        "download_gb": {"type": "float", "default": 5.0},
        "upload_gb": {"type": "float", "default": 1.0},
        "assumptions": {"type": "dict", "options": assumptions, "apply_defaults": True},
    }


def client_of(options: Mapping[str, Any]) -> VastClient:
    """The client that these options ask for. TenantFailure when there is no usable key."""
    return rental_options.client_of(VastClient, options)


def store_of(options: Mapping[str, Any]) -> StateStore | None:
    """The state store of an optional ``state_dir``."""
    return StateStore(options["state_dir"]) if options["state_dir"] else None


def run_module(act: Act, **keywords: Any) -> None:
    """Run a module of vast's."""
    rental_options.run_module(act, shared_options(), **keywords)
