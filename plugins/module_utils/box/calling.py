# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What every process that calls out from the box is told, trainers included: the file that ``mirror_select`` writes.

The platform's proxy hook stands in it by its path and is sourced at each start, because what it sets may change with a
power cycle. Nothing of it is set box-wide.
"""

from __future__ import annotations

import os
from typing import Any, Mapping

from . import no_proxy, proxy_hook, records, run_record
from .proxy_hook import LISTED_HOSTS

FILE = "mirrors.env"
FAILURES = "mirror-failures"
HOOK = "TENANT_PROXY_HOOK"
# Endpoints of Hugging Face that worked, best first, each ``route=url``, separated by blanks; and ModelScope's address.
HUB_ENDPOINTS, MODELSCOPE = "TENANT_HF_ENDPOINTS", "TENANT_MODELSCOPE"


def path(root: str) -> str:
    return os.path.join(root, FILE)


def told(root: str) -> dict[str, str]:
    """The lines of the file as they stand; empty where no mirrors were chosen. Refused when it cannot be read."""
    return run_record.read_env_file(path(root)) if os.path.exists(path(root)) else {}


def variables(
    root: str,
    inherited: Mapping[str, str],
    env: Mapping[str, Any],
    hook: str = "",
    over: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What is added to ``inherited``: the file's, then ``env``, then what the hook sets, then ``over``.

    :param hook: the platform's, where the caller knows it; else the file's.
    """
    of_file = told(root)
    hook = hook or of_file.get(HOOK, "")
    of_file.pop(HOOK, None)
    hosts = of_file.pop(LISTED_HOSTS, "").split()
    said = {str(name): str(text) for name, text in env.items()}
    of_hook = proxy_hook.listed(proxy_hook.variables(hook, {**inherited, **said}), hosts)
    found = {**of_file, **said, **of_hook, **(over or {})}
    return {**found, **_exempted(found, {**inherited, **said, **(over or {})}, of_hook, of_file)}


def prepare(root: str, env: Mapping[str, Any], hook: str) -> None:
    """Give this process what its calls to other hosts need."""
    os.environ.update(variables(root, dict(os.environ), env, hook))


def _exempted(found: Mapping[str, str], *said: Mapping[str, str]) -> dict[str, str]:
    """``no_proxy`` in both spellings where a proxy is in play: whoever said a part of it keeps that part."""
    named = {name for each in (found, *said) for name, text in each.items() if text and name.lower().endswith("_proxy")}
    if not named.difference(no_proxy.SPELLINGS):
        return {}
    texts = [each.get(spelling, "") for each in said for spelling in no_proxy.SPELLINGS]
    return dict.fromkeys(no_proxy.SPELLINGS, no_proxy.merged(texts))


def note_failure(root: str, url: str, why: str) -> None:
    """A real transfer failed: the next ``mirror_select`` measures again and avoids that source where it can."""
    if not os.path.exists(record_path(root)):
        return
    try:
        known = records.read_record_or_none(failures_path(root), FAILURES) or {}
    except records.RecordError:
        known = {}
    urls = [each for each in known.get("urls") or [] if each != url]
    records.write_record(
        failures_path(root), FAILURES, {"urls": [*urls[-9:], url], "why": why, "at": records.utc_now()}
    )


def record_path(root: str) -> str:
    """What ``mirror_select`` measured and wrote."""
    return os.path.join(root, "mirrors.json")


def failures_path(root: str) -> str:
    return os.path.join(root, "mirrors.failed.json")
