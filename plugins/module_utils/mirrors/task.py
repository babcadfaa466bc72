# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the module ``mirror_select`` does on the box: measure where that is due, choose, write, and take back."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterable, Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..box import calling, no_proxy, proxy_hook, records
from ..box.http_wire import PLAIN, PROXIED, proxy_of
from ..box.proxy_hook import LISTED_HOSTS, LISTED_PROXY
from ..box.refusal import Refused
from ..failures import TenantFailure
from . import choice, files, order, probe, store
from .choice import DIRECT, Choice, Sample
from .kinds import APT, CONDA, DOCKER, GIT, HUB, MODELSCOPE, PIP, TORCH
from .order import Order

RECORD = "mirrors"
_AT_ONCE = 4
_SAFE = "nothing was changed on the box"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def act(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """The module's result. :raises TenantFailure: the order or the box cannot be used."""
    try:
        if params["state"] == "absent":
            return _absent(params, check)
        return _present(params, order.order_of(params), check)
    except Refused as refused:
        raise TenantFailure("config", refused.what, safe=_SAFE, fix=refused.fix) from refused
    except (OSError, ValueError, records.RecordError) as error:
        where = getattr(error, "filename", None) or "a file of the box"
        what = f"the mirrors cannot be kept: {where}: {getattr(error, 'strerror', None) or error}"
        fix = "see its permissions and content, then run the same command again"
        raise TenantFailure("config", what, safe="every file is either as it was or as it shall be", fix=fix) from error


def _absent(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    root = params["tenant_root"]
    known = records.read_record_or_none(calling.record_path(root), RECORD)
    written = (known or {}).get("written") or {}
    found = store.plan({}, written)
    if not check:
        store.carry_out(found, written)
        for path in (calling.record_path(root), calling.failures_path(root)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    return _result(found.differences, known is not None, {"chosen": {}, "environment": {}, "pip_args": ""})


# --- present --------------------------------------------------------------------------------------------------


def _present(params: Mapping[str, Any], wanted: Order, check: bool) -> dict[str, Any]:
    root = params["tenant_root"]
    of_hook = _call_out(wanted)
    known = records.read_record_or_none(calling.record_path(root), RECORD) or {}
    failed = records.read_record_or_none(calling.failures_path(root), calling.FAILURES)
    archives = _archives(params, wanted, known)
    fresh = not params["remeasure"] and failed is None and _is_valid(known, wanted, archives)
    if not fresh:
        known = dict(known, **_measured(wanted, _kinds(params, wanted), archives, known, failed))
    samples = [choice.sample_of(each) for each in known["samples"]]
    chosen = {kind: Choice(**told) for kind, told in known["chosen"].items()}
    environment = _environment(wanted, chosen, samples)
    written = known.get("written") or {}
    found = store.plan(_files(params, chosen, archives, environment, root), written)
    if not check:
        if not fresh or found.differences:
            records.write_record(calling.record_path(root), RECORD, dict(known, written=found.written))
        store.carry_out(found, written)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(calling.failures_path(root))
    told = {
        "measured": not fresh,
        "measured_at": known["measured_at"],
        "chosen": {kind: each.as_dict() for kind, each in chosen.items()},
        "samples": known["samples"],
        "blocked": choice.blocked_hosts(samples),
        "unusable": sorted({each.kind for each in samples} - set(chosen)),
        "environment": _evaluated(environment, of_hook),
        "pip_args": '--proxy ""' if _is_past_proxy(chosen.get(PIP)) else "",
    }
    return _result(found.differences, False, told)


def _call_out(wanted: Order) -> dict[str, str]:
    """Let this process call out as those will that use what it chooses; what the hook sets."""
    of_hook = proxy_hook.listed(proxy_hook.variables(wanted.hook, os.environ), wanted.proxy_hosts)
    texts = [each.get(name, "") for each in (os.environ, of_hook) for name in no_proxy.SPELLINGS]
    os.environ.update(of_hook)
    if getproxies():
        os.environ.update(dict.fromkeys(no_proxy.SPELLINGS, no_proxy.merged(texts, wanted.no_proxy)))
    return of_hook


def _is_valid(known: Mapping[str, Any], wanted: Order, archives: Iterable[str]) -> bool:
    """Whether what was measured can still be relied on. A clock that was set back proves nothing."""
    if not known or known.get("order") != wanted.digest or known.get("archives") != sorted(archives):
        return False
    age = time.time() - float(known.get("measured_s") or 0)
    return 0 <= age < wanted.valid_s


def _kinds(params: Mapping[str, Any], wanted: Order) -> list[str]:
    """The classes that something on the box would use."""
    return [kind for kind in wanted.classes if kind != DOCKER or _may_tell_docker(params)]


def _may_tell_docker(params: Mapping[str, Any]) -> bool:
    """Whether there is a daemon, and this user may write to its folder."""
    return os.access(os.path.dirname(params["docker_config"]), os.W_OK)


def _measured(
    wanted: Order,
    kinds: Iterable[str],
    archives: Iterable[str],
    known: Mapping[str, Any],
    failed: Mapping[str, Any] | None,
) -> dict[str, Any]:
    groups = [wanted.sources(kind) for kind in kinds] + [_apt_sources(wanted, each) for each in archives]
    # One source over one route is no choice.
    groups = [each for each in groups if len(each) > 1 or len(_routes(each[0])) > 1]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        samples = [each for found in pool.map(lambda group: _sampled(group, wanted), groups) for each in found]
    avoided = (failed or {}).get("urls") or []
    before = {kind: Choice(**told) for kind, told in (known.get("chosen") or {}).items()}
    chosen = {}
    for group in groups:
        kind = group[0].kind
        of_kind = [each for each in samples if each.kind == kind]
        winner = choice.choose(of_kind, before.get(kind), wanted.margin, avoided)
        if winner:
            chosen[kind] = winner.as_dict()
    return {
        "order": wanted.digest,
        "archives": sorted(archives),
        "measured_at": records.utc_now(),
        "measured_s": time.time(),
        "samples": [each.as_dict() for each in samples],
        "chosen": chosen,
    }


def _sampled(group: list[probe.Source], wanted: Order) -> list[Sample]:
    """One after the other: those of a class would take each other's bandwidth."""
    samples = [probe.measure(source, route, wanted.limits) for source in group for route in _routes(source)]
    return choice.with_blame(samples)


def _routes(source: probe.Source) -> list[str]:
    """The ways that a real transfer from there can be sent: nobody tells Docker's daemon of the platform's proxy."""
    if source.kind == DOCKER:
        return [PLAIN]
    parts = urlsplit(source.url)
    host = parts.hostname or ""
    proxied = proxy_of(parts.scheme, host) and not proxy_bypass(host)
    return [PLAIN, PROXIED] if proxied else [PLAIN]


def _is_past_proxy(chosen: Choice | None) -> bool:
    return bool(chosen and chosen.route == PLAIN and getproxies().get(urlsplit(chosen.url).scheme))


# --- what is written ------------------------------------------------------------------------------------------


def _environment(wanted: Order, chosen: Mapping[str, Choice], samples: list[Sample]) -> dict[str, str]:
    """The lines of the environment file."""
    found = {}
    hub = [each for each in samples if each.kind == HUB]
    ladder = choice.hub_endpoints(hub)
    if ladder:
        found[calling.HUB_ENDPOINTS] = ladder
    if _is_mirror(chosen.get(HUB)):
        found["HF_ENDPOINT"] = chosen[HUB].url.rstrip("/")
    if choice.needs_plain_transfers(hub, chosen.get(HUB), wanted.hook):
        found.update(HF_HUB_DISABLE_XET="1", HF_HUB_ENABLE_HF_TRANSFER="0")
    for entry in wanted.mirrors(MODELSCOPE)[:1]:
        found[calling.MODELSCOPE] = entry["url"].rstrip("/")
    found.update(_of_git(wanted, chosen.get(GIT)))
    if TORCH in chosen:
        found["TENANT_TORCH_INDEX"] = chosen[TORCH].url
    if getproxies():
        told = [each for kind, each in chosen.items() if kind != DOCKER]
        urls = choice.exempted(told, [each for each in samples if each.kind != DOCKER])
        hosts = dict.fromkeys([*wanted.no_proxy, *(urlsplit(url).hostname or "" for url in urls)])
        found.update(dict.fromkeys(no_proxy.SPELLINGS, no_proxy.merged([], hosts)))
    if wanted.hook:
        found[calling.HOOK] = wanted.hook
    if wanted.hook and wanted.proxy_hosts:
        found[LISTED_HOSTS] = " ".join(wanted.proxy_hosts)
    return found


def _of_git(wanted: Order, chosen: Choice | None) -> dict[str, str]:
    """git takes one setting for one host: a mirror in its place, or a proxy that lets only some hosts through."""
    if chosen is None:
        return {}
    if _is_mirror(chosen):
        direct = f"{str(wanted.classes[GIT]['direct']).rstrip('/')}/"
        key, value = f"url.{chosen.url.rstrip('/')}/.insteadOf", direct
    elif chosen.route == PROXIED and os.environ.get(LISTED_PROXY):
        key, value = f"http.{chosen.url.rstrip('/')}/.proxy", os.environ[LISTED_PROXY]
    else:
        return {}
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": value}


def _is_mirror(chosen: Choice | None) -> bool:
    return chosen is not None and chosen.name != DIRECT


def _evaluated(environment: Mapping[str, str], of_hook: Mapping[str, str]) -> dict[str, str]:
    """The environment for tasks that call out on the box by other programs than ours."""
    named = {name: text for name, text in environment.items() if name != calling.HOOK}
    if not any(name.lower().endswith("_proxy") for name in of_hook):
        return {**named, **of_hook}
    # What this process exempts by now is everybody's list.
    texts = [each.get(name, "") for each in (os.environ, named) for name in no_proxy.SPELLINGS]
    return {**named, **of_hook, **dict.fromkeys(no_proxy.SPELLINGS, no_proxy.merged(texts))}


def _files(
    params: Mapping[str, Any],
    chosen: Mapping[str, Choice],
    archives: Mapping[str, list[str]],
    environment: Mapping[str, str],
    root: str,
) -> dict[str, store.Wanted]:
    found: dict[str, store.Wanted] = {}
    for kind, path in ((PIP, params["pip_conf"]), (CONDA, params["conda_file"]), (DOCKER, params["docker_config"])):
        there = kind != DOCKER or _may_tell_docker(params)
        if there and _is_mirror(chosen.get(kind)):
            found[_real(path)] = store.Wanted(kind, {"choice": chosen[kind].as_dict()})
    for archive, paths in archives.items():
        winner = chosen.get(_apt_kind(archive))
        if _is_mirror(winner) and winner is not None:
            for path in paths:
                found[path] = store.Wanted(APT, {"choice": winner.as_dict(), "archive": archive})
    # Without a line of ours too: what somebody else writes there would be told to every trainer.
    text = files.environment_text(environment)
    found[calling.path(root)] = store.Wanted("text", {"text": text}, mode=0o600)
    return found


def _real(path: str) -> str:
    """A link stays one: what it leads to is written."""
    return os.path.realpath(os.path.expanduser(path))


# --- apt ------------------------------------------------------------------------------------------------------


def _archives(params: Mapping[str, Any], wanted: Order, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """The archives that this box's package lists name and that a mirror has, with the files that name them."""
    if not wanted.mirrors(APT) or not os.access(params["apt_dir"], os.W_OK):
        return {}
    written = known.get("written") or {}
    patterns = ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources")
    paths = [_real(path) for each in patterns for path in sorted(glob.glob(os.path.join(params["apt_dir"], each)))]
    found: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        text = store.base(path, written.get(path)) or ""
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        for archive in {str(each["archive"]).rstrip("/") for each in wanted.mirrors(APT)}:
            words = {word.rstrip("/") for line in lines for word in line.split()}
            if archive in words:
                found.setdefault(archive, []).append(path)
    return found


def _apt_kind(archive: str) -> str:
    return f"{APT} {archive}"


def _apt_sources(wanted: Order, archive: str) -> list[probe.Source]:
    arch = _MACHINES.get(platform.machine(), platform.machine())
    mirrors = [each for each in wanted.mirrors(APT) if str(each["archive"]).rstrip("/") == archive]
    suite = str(mirrors[0].get("suite") or "{codename}").replace("{codename}", _codename())
    told = {"way": "apt", "suite": suite, "arch": arch}
    kind = _apt_kind(archive)
    direct = probe.Source(kind, DIRECT, archive, told)
    return [direct, *(probe.Source(kind, each["name"], each["url"], told) for each in mirrors)]


def _codename() -> str:
    text = store.read("/etc/os-release") or ""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value.strip("\"'") for name, _equals, value in pairs}.get("VERSION_CODENAME", "stable")


def _result(differences: list[dict[str, str]], otherwise: bool, told: dict[str, Any]) -> dict[str, Any]:
    diff = [
        {"before_header": each["path"], "after_header": each["path"], "before": each["before"], "after": each["after"]}
        for each in differences
    ]
    fact = {key: told[key] for key in ("chosen", "environment", "pip_args")}
    changed = bool(differences) or otherwise
    return {"changed": changed, "mirrors": told, "diff": diff, "ansible_facts": {"box_mirrors": fact}}
