# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The options that all vast modules share, and the client's face towards a module. This file imports Ansible."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any, Callable, Mapping

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ..box.names import UnsafeName
from ..box.records import RecordError
from ..failures import TenantFailure
from ..state_store import StateStore
from .api import DEFAULT_URL, VastClient

Act = Callable[[AnsibleModule], "dict[str, Any]"]


def shared_options() -> dict[str, dict[str, Any]]:
    """The argument spec behind the documentation fragment ``tenant.gpu.vast``."""
    return {
        "api_url": {"type": "str", "default": DEFAULT_URL, "fallback": (env_fallback, ["VAST_URL"])},
        "api_key": {"type": "str", "no_log": True},
        "api_key_file": {"type": "path", "no_log": False},
        "api_timeout_s": {"type": "int", "default": 30},
    }


def volume_options() -> dict[str, dict[str, Any]]:
    """The argument spec of the volumes that a box is rented with."""
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
    client = VastClient(
        api_key_of(options), options["api_url"] or DEFAULT_URL, timeout_s=float(options["api_timeout_s"])
    )
    if options.get("api_retry_s") is not None:
        client.retry_for_s = float(options["api_retry_s"])
    return client


def store_of(options: Mapping[str, Any]) -> StateStore | None:
    """The state store of an optional ``state_dir``."""
    return StateStore(options["state_dir"]) if options["state_dir"] else None


def api_key_of(options: Mapping[str, Any], variable: str = "VAST_API_KEY") -> str:
    """The option itself, else the file, else the environment."""
    if options.get("api_key"):
        return str(options["api_key"])
    path = options.get("api_key_file")
    if not path:
        return os.environ.get(variable, "")
    try:
        with open(str(path), encoding="utf-8") as stream:
            return stream.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or "it is not text"
        raise TenantFailure(
            "config",
            f"cannot read the API key from {path}: {reason}",
            safe="nothing was asked",
            fix="put the key, and nothing else, into that file and make it readable for you only (0600)",
        ) from None


def run_module(act: Act, shared: Callable[[], dict[str, dict[str, Any]]] = shared_options, **keywords: Any) -> None:
    """Build the module with the shared options, do ``act``, end with its result or with a failure that speaks."""
    spec = dict(keywords.pop("argument_spec"), **shared())
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True, **keywords)
    try:
        result = act(module)
    except TenantFailure as failure:
        module.fail_json(**failure.as_result())
    except (UnsafeName, RecordError, ValueError) as error:
        module.fail_json(**TenantFailure("config", str(error)).as_result())
    except OSError as error:
        module.fail_json(**TenantFailure("config", f"{error.filename or 'a file'}: {error.strerror}").as_result())
    else:
        module.exit_json(**result)
