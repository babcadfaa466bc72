# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The options that all modules of rental markets share, and how such a module runs. This file imports Ansible."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Mapping, Protocol, TypeVar

from ansible.module_utils.basic import AnsibleModule, env_fallback

from .box.names import UnsafeName
from .box.records import RecordError
from .failures import TenantFailure
from .rental_key import api_key_of
from .rest_client import RestClient

AnyClient = TypeVar("AnyClient", bound=RestClient[Any])
Options = Dict[str, Dict[str, Any]]


class Caller(Protocol):
    """What ``act`` of such a module needs of whoever calls it: a module's process, or the controller's own."""

    params: dict[str, Any]
    check_mode: bool

    def warn(self, warning: str) -> None: ...


Act = Callable[[Any], Dict[str, Any]]


def client_options(client: type[RestClient[Any]]) -> Options:
    """The argument spec behind the documentation fragment ``tenant.gpu.rental``."""
    return {
        "api_url": {"type": "str", "default": client.URL, "fallback": (env_fallback, [client.URL_VARIABLE])},
        "api_key": {"type": "str", "no_log": True},
        "api_key_file": {"type": "path", "no_log": False},
        "api_timeout_s": {"type": "int", "default": 30},
    }


def client_of(kind: type[AnyClient], options: Mapping[str, Any]) -> AnyClient:
    """The client that these options ask for. TenantFailure when there is no usable key."""
    key = api_key_of(options, kind.KEY_VARIABLE)
    return kind(key, options["api_url"] or "", timeout_s=float(options["api_timeout_s"]))


def environment_of(given: Mapping[str, Any]) -> dict[str, str]:
    """A box's environment variables. TenantFailure for what is none."""
    for name, value in given.items():
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", str(name)):
            raise TenantFailure("config", f"{str(name)[:60]!r} in env is not the name of an environment variable")
        if not isinstance(value, (str, int, float)):
            raise TenantFailure("config", f"the value of {name} in env is a {type(value).__name__}, not text")
    return {str(name): str(value) for name, value in given.items()}


def outcome(act: Act, caller: Caller) -> dict[str, Any]:
    """The result of ``act``, or as a result the failure that speaks."""
    try:
        return act(caller)
    except TenantFailure as failure:
        return dict(failure.as_result(), failed=True)
    except (UnsafeName, RecordError, ValueError) as error:
        return dict(TenantFailure("config", str(error)).as_result(), failed=True)
    except OSError as error:
        what = f"{error.filename or 'a file'}: {error.strerror}"
        return dict(TenantFailure("config", what).as_result(), failed=True)


def run_module(act: Act, shared: Options, **keywords: Any) -> None:
    """Build the module with the shared options, do ``act``, end with its result or with a failure that speaks."""
    spec = dict(keywords.pop("argument_spec"), **shared)
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True, **keywords)
    result = outcome(act, module)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)
