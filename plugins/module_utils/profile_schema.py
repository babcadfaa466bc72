# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The schema of a platform profile, and its validator.

A profile is the vars of one inventory group: flat ``platform_*`` values plus the ``ansible_*`` values that reach its
boxes. ``SCHEMA`` is plain JSON Schema (draft 2020-12); the docs tables are rendered from its descriptions. The
validator here understands the part of JSON Schema that ``SCHEMA`` uses, so that the inventory plugin and the box need
no library, and it answers with sentences that name file, key and fix.

A profile is checked twice: as written (a value that holds ``{{ }}`` is left for later) and after the merge with the
team's own vars, when every template has been resolved.
"""

from __future__ import annotations

import difflib
import os
import re
from typing import Any, Callable, NamedTuple

from . import artifact_tiers
from .box.preemption import SOURCES
from .mirrors.kinds import CLASSES as MIRROR_CLASSES

KINDS = ("ssh-rental", "cloud-api", "slurm", "kubernetes")
DURABLE_KINDS = ("mount", "object", "pull", "none", "")
DETACH = ("onstart", "tmux", "setsid", "systemd", "sbatch", "k8s-job")
REBOOT_HOOKS = ("", "auto", "cron", "systemd")
TRANSPORTS = ("api", "cli", "console", "box", "none")
CLOCK_STARTS = ("always", "created", "started", "stopped", "idle", "unpaid", "rental_end", "released")

_ABSOLUTE = r"^(|/\S*)$"
_HOME_OR_ABSOLUTE = r"^(|[/~]\S*)$"
_HTTP = r"^https?://\S+$"
_TEMPLATE = re.compile(r"\{\{|\{%")


def _path(description: str, fix: str) -> dict[str, Any]:
    return {"type": "string", "pattern": _ABSOLUTE, "description": description, "x-fix": fix}


def _yes_no_unknown(description: str) -> dict[str, Any]:
    return {
        "type": ["boolean", "null"],
        "description": description,
        "x-fix": "write true, false, or null when it differs from host to host (then it is measured)",
    }


_OPERATION: dict[str, Any] = {
    "type": "object",
    "required": ["verb", "transport", "stops_compute", "stops_storage", "keeps", "reversible"],
    "additionalProperties": False,
    "x-fix": "give each operation verb, transport, stops_compute, stops_storage, keeps and reversible",
    "properties": {
        "verb": {"type": "string", "minLength": 1, "description": "the platform's own word for it"},
        "transport": {"type": "string", "enum": list(TRANSPORTS), "description": "who can do it"},
        "stops_compute": {"type": "boolean", "description": "the price per hour ends"},
        "stops_storage": {"type": "boolean", "description": "the price of the disk ends"},
        "keeps": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "storage tiers that are still there afterwards",
        },
        "reversible": {"type": "boolean", "description": "the box comes back with what `keeps` names"},
        "command": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "transport box: what is run on the box itself, word by word",
        },
    },
}
VERB_PLANS = ("compute_stop", "park", "full_stop")
_OPERATIONS: dict[str, Any] = {"type": "array", "items": _OPERATION, "x-fix": "write a list of operations, [] for none"}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "gpu-tenant platform profile",
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^ansible_[a-z0-9_]+$": {}},
    "required": [],  # filled below: an empty value means none, and nothing else does
    "properties": {
        "platform_name": {
            "type": "string",
            "pattern": r"^[a-z][a-z0-9_]*$",
            "description": "the inventory group that carries this profile",
            "x-fix": "use the file's own name, lower case letters, digits and _",
        },
        "platform_kind": {"type": "string", "enum": list(KINDS), "description": "what sort of market it is"},
        "platform_driver": {
            "type": "string",
            "pattern": r"^(|[a-z][a-z0-9_]*)$",
            "description": "which of our drivers talks to its API; empty: no API is used",
            "x-fix": "name a driver (vast, runpod, lambda) or leave it empty",
        },
        "platform_ssh_user": {
            "type": "string",
            "pattern": r"^(|[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})$",
            "description": "login name on a fresh box",
            "x-fix": "write the login name, for example root",
        },
        "platform_python": _path(
            "the Python that trains: absolute path on the box",
            "write the absolute path of the interpreter that has torch",
        ),
        "platform_data_dir": _path(
            "folder for code, runs and caches; fast and large enough",
            "write an absolute path on the box",
        ),
        "platform_durable_kind": {
            "type": "string",
            "enum": list(DURABLE_KINDS),
            "description": "where results outlive the box: mount, object (S3), pull (to the controller), none",
        },
        "platform_durable_path": {
            "type": "string",
            "pattern": r"^(|/\S*|[a-z][a-z0-9]*://\S+)$",
            "description": "path of the durable mount or URI of the bucket; empty for pull and none",
            "x-fix": "write an absolute path or a URI such as s3://bucket/prefix",
        },
        "platform_hf_home": _path("HF_HOME on the box", "write an absolute path on the data disk"),
        "platform_proxy_hook": {
            "type": "string",
            "pattern": r"^(|/\S+|https?://\S+)$",
            "description": "shell file to source, or proxy URL, for processes that call out; empty: none",
            "x-fix": "write the path of the file itself (no `source`, no `|| true`) or the URL of the proxy",
        },
        "platform_proxy_hosts": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"},
            "description": "domains that its proxy lets through, where it refuses all others; empty: it refuses none",
            "x-fix": "write a list of domains such as github.com, which stands for all below it too, [] for none",
        },
        "platform_cred_file": {
            "type": "string",
            "pattern": _HOME_OR_ABSOLUTE,
            "description": "where a tracker key lies on the box (0600); empty: environment only",
            "x-fix": "write a path on a disk that no other tenant shares",
        },
        "platform_prune_globs": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "scratch that may be deleted once its durable copy is verified",
            "x-fix": "write a list of globs, [] for none",
        },
        "platform_detach": {
            "type": "string",
            "enum": list(DETACH),
            "description": "what keeps a run alive after logout (onstart also revives it after a restart)",
        },
        "platform_reboot_hook": {
            "type": "string",
            "enum": list(REBOOT_HOOKS),
            "description": "what goes on with a run after a reboot; auto: systemd or cron; empty: nothing, or onstart",
        },
        "platform_tensorboard_logdir": _path(
            "log folder that the platform's own TensorBoard shows", "write an absolute path or leave it empty"
        ),
        "platform_spot": {
            "type": "object",
            "required": ["available", "grace_s", "signal"],
            "additionalProperties": False,
            "description": "can it be taken away, after how long a warning, told by which signal",
            "x-fix": "write {available: bool, grace_s: seconds or null, signal: SIGTERM, a metadata service or ''}",
            "properties": {
                "available": {"type": "boolean"},
                "grace_s": {"type": ["number", "null"], "minimum": 0},
                # SIGTERM: the platform signals the job itself. A metadata service: the supervisor watches it.
                "signal": {"enum": ["", "SIGTERM", *SOURCES]},
            },
        },
        "platform_shared_fs": _yes_no_unknown("several boxes see one file system"),
        "platform_private_network": _yes_no_unknown("boxes reach each other on every port, without a NAT between them"),
        "platform_inode_cap": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "known limit on the number of files of the durable mount",
            "x-fix": "write a whole number, or null when none is known",
        },
        "platform_durable_cap_gb": {
            "type": ["number", "null"],
            "minimum": 0.001,
            "description": "quota of the durable mount (10^9 bytes), which the mount itself may not tell",
            "x-fix": "write a number of GB, or null when none is known",
        },
        "platform_free_egress": _yes_no_unknown("traffic costs nothing"),
        "platform_china_mirrors": _yes_no_unknown("package and model mirrors inside China are needed"),
        "platform_mirrors": {
            "type": "array",
            "description": "mirrors that are measured from a box there; the fastest is used, direct included",
            "x-fix": "write a list of {class, name, url, source}, [] for none",
            "items": {
                "type": "object",
                "required": ["class", "name", "url", "source"],
                "additionalProperties": False,
                "properties": {
                    "class": {"type": "string", "enum": list(MIRROR_CLASSES), "description": "what it has"},
                    "name": {"type": "string", "minLength": 1, "description": "name of its own within its class"},
                    "url": {"type": "string", "pattern": _HTTP, "description": "where it begins"},
                    "source": {"type": "string", "pattern": _HTTP, "description": "where that can be looked up"},
                    "archive": {"type": "string", "pattern": _HTTP, "description": "apt: the address it stands for"},
                    "suite": {"type": "string", "minLength": 1, "description": "apt: the suite that is measured"},
                },
            },
        },
        "platform_no_proxy": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[^\s,]+$"},
            "description": "hosts that its proxy only slows down and does not exempt by itself",
            "x-fix": "write a list of domains such as .modelscope.cn, [] for none",
        },
        "platform_cuda_max": {
            "type": "string",
            "pattern": r"^(|[0-9]+\.[0-9]+)$",
            "description": "highest CUDA that the hosts' driver runs; empty: differs, the probe reads it",
            "x-fix": "quote a version such as '12.4', or leave it empty",
        },
        "platform_local_nvme": _yes_no_unknown("the data folder is local flash"),
        "platform_endpoint_stable": {
            "type": "boolean",
            "description": "host and port stay the same over stop and start",
        },
        "platform_ssh_proxies": {
            "type": "array",
            "description": "hosts of the platform's ssh proxy, which carries no large file, and what to use instead",
            "x-fix": "write a list of {host, instead}, [] for none",
            "items": {
                "type": "object",
                "required": ["host", "instead"],
                "additionalProperties": False,
                "properties": {
                    "host": {
                        "type": "string",
                        "pattern": r"^[A-Za-z0-9*?.-]+$",
                        "description": "name of the host; * and ? stand for any characters and for one",
                        "x-fix": "write a host name such as ssh*.vast.ai",
                    },
                    "instead": {"type": "string", "minLength": 1, "description": "what to do for a direct connection"},
                },
            },
        },
        "platform_storage": {
            "type": "array",
            "description": "storage tiers and what each survives; tier `disk` holds the data folder",
            "x-fix": "write a list of tiers",
            "items": {
                "type": "object",
                "required": ["tier", "path", "survives_stop", "survives_destroy", "cap", "locked_to"],
                "additionalProperties": False,
                "properties": {
                    "tier": {"type": "string", "pattern": r"^[a-z][a-z0-9_]*$", "description": "name used by `keeps`"},
                    "path": {"type": "string", "description": "where it is mounted; empty: not on the box"},
                    "survives_stop": {"type": ["boolean", "null"]},
                    "survives_destroy": {"type": ["boolean", "null"]},
                    "cap": {"type": "string", "description": "size or file limit, in words"},
                    "locked_to": {"type": "string", "description": "machine, region or zone; empty: nothing"},
                },
            },
        },
        "platform_verbs": {
            "type": "object",
            "required": list(VERB_PLANS),
            "additionalProperties": False,
            "description": "how charges end: compute_stop (compute only), park (comes back), full_stop (in order); "
            "repair (may be left out) restarts a box that goes on billing",
            "x-fix": "give compute_stop, park and full_stop, each a list of operations ([] for none)",
            "properties": dict.fromkeys((*VERB_PLANS, "repair"), _OPERATIONS),
        },
        "platform_clocks": {
            "type": "array",
            "description": "what happens by itself: after how long, starting when",
            "x-fix": "write a list of {after, effect, starts_at}",
            "items": {
                "type": "object",
                "required": ["after", "effect", "starts_at"],
                "additionalProperties": False,
                "properties": {
                    "after": {
                        "type": "string",
                        "pattern": r"^(|[0-9]+(s|m|h|d))$",
                        "description": "'0s': at once, '15d': after 15 days, '': nobody says",
                        "x-fix": "write a number and one of s, m, h, d, for example '15d'",
                    },
                    "effect": {"type": "string", "minLength": 1},
                    "starts_at": {"type": "string", "enum": list(CLOCK_STARTS)},
                },
            },
        },
        "platform_conveniences": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "what the platform offers that saves work",
            "x-fix": "write a list of sentences, [] for none",
        },
        "platform_gotchas": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[A-Z][A-Z0-9-]*$"},
            "description": "ids of known traps",
            "x-fix": "write a list of ids such as VAST1, [] for none",
        },
        "platform_verified": {
            "type": "string",
            "pattern": r"^20[0-9]{2}-(0[1-9]|1[0-2])$",
            "description": "month in which somebody last checked these facts",
            "x-fix": "quote a month, for example '2026-11'",
        },
        "platform_source": {
            "type": "string",
            "pattern": r"^https?://\S+$",
            "description": "where the facts can be looked up",
            "x-fix": "write a URL",
        },
    },
}
# What few platforms have may be left out, so that a team's own profile does not end with a new release.
OPTIONAL = ("platform_proxy_hosts", "platform_reboot_hook", "platform_durable_cap_gb")
SCHEMA["required"] = [key for key in SCHEMA["properties"] if key not in OPTIONAL]
PLATFORM_GROUPS_VARIABLE = "tenant_platform_groups"
PLATFORM_KEYS = tuple(SCHEMA["properties"])


class Problem(NamedTuple):
    """One thing wrong with a profile: the dotted key, what is wrong, what to write instead."""

    key: str
    what: str
    fix: str

    def sentence(self, where: str) -> str:
        return f"{where}: {self.key}: {self.what}. Fix: {self.fix}."


def problems_as_written(profile: Any, name: str = "") -> list[Problem]:
    """Problems of a profile file; values that hold a template are not judged yet.

    :param name: the inventory group (the file's stem) that ``platform_name`` must equal.
    """
    return _problems(profile, name, _is_template)


def problems_after_merge(profile: Any, name: str = "") -> list[Problem]:
    """Problems of one box's ``platform_*`` values with every template resolved."""
    return _problems(profile, name, lambda value: False)


def platform_values(variables: dict[str, Any]) -> dict[str, Any]:
    """The ``platform_*`` part of a host's variables."""
    return {key: value for key, value in variables.items() if key.startswith("platform_")}


def _problems(profile: Any, name: str, undecided: Callable[[Any], bool]) -> list[Problem]:
    if not isinstance(profile, dict):
        return [Problem("(file)", f"a mapping is wanted, found {_type_name(profile)}", "write platform_* keys")]
    found = list(_check(profile, SCHEMA, "", undecided))
    if not found:
        found = _cross_checks(profile, name, undecided)
    return found


# --- the part of JSON Schema that SCHEMA uses -------------------------------------------------------------------


def _check(value: Any, schema: dict[str, Any], key: str, undecided: Callable[[Any], bool]) -> list[Problem]:
    if undecided(value) or not schema:
        return []
    types = schema.get("type", [])
    allowed = [types] if isinstance(types, str) else types
    if allowed and not any(_is_type(value, one) for one in allowed):
        return [_problem(schema, key, f"{_or(allowed)} is wanted, found {_type_name(value)} {_shown(value)}")]
    if isinstance(value, dict):
        return _check_object(value, schema, key, undecided)
    if isinstance(value, list):
        found = []
        for index, item in enumerate(value):
            found += _check(item, schema.get("items", {}), f"{key}[{index}]", undecided)
        return found
    return _check_scalar(value, schema, key)


def _check_object(
    value: dict[str, Any], schema: dict[str, Any], key: str, undecided: Callable[[Any], bool]
) -> list[Problem]:
    prefix = key + "." if key else ""
    known = schema.get("properties", {})
    found = []
    for name in schema.get("required", []):
        if name not in value:
            found.append(_problem(known.get(name, schema), prefix + name, "is missing (an empty value means none)"))
    for name, item in value.items():
        if name in known:
            found += _check(item, known[name], prefix + str(name), undecided)
        elif not any(re.match(pattern, str(name)) for pattern in schema.get("patternProperties", {})):
            found.append(_unknown_key(str(name), prefix, list(known)))
    return found


def _check_scalar(value: Any, schema: dict[str, Any], key: str) -> list[Problem]:
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(repr(choice) for choice in schema["enum"])
        return [Problem(key, f"{_shown(value)} is not one of {choices}", "choose one of them")]
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return [_problem(schema, key, "is empty")]
        if "pattern" in schema and not re.search(_anchored(schema["pattern"]), value):
            return [_problem(schema, key, f"{_shown(value)} does not look right")]
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and value < schema.get("minimum", value):
        return [_problem(schema, key, f"{value} is below {schema['minimum']}")]
    return []


def _anchored(pattern: str) -> str:
    """``$`` of JSON Schema is the very end; Python's also matches before a last newline."""
    return pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern


def _problem(schema: dict[str, Any], key: str, what: str) -> Problem:
    return Problem(key or "(file)", what, schema.get("x-fix") or schema.get("description") or "see docs/platforms.md")


def _unknown_key(name: str, prefix: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if near:
        return Problem(prefix + name, "is not a key of a profile", f"did you mean {prefix}{near[0]}?")
    return Problem(prefix + name, "is not a key of a profile", "other variables belong into your own group_vars")


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and bool(_TEMPLATE.search(value))


def _is_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "object": (dict,),
        "array": (list,),
        "integer": (int,),
        "number": (int, float),
        "null": (type(None),),
    }
    return name in kinds and isinstance(value, kinds[name])


def _type_name(value: Any) -> str:
    for name in ("boolean", "integer", "number", "string", "array", "object", "null"):
        if _is_type(value, name):
            return name
    return type(value).__name__


def _or(names: list[str]) -> str:
    return " or ".join(names)


def _shown(value: Any) -> str:
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- rules that span keys ---------------------------------------------------------------------------------------


def _cross_checks(profile: dict[str, Any], name: str, undecided: Callable[[Any], bool]) -> list[Problem]:
    checks = (
        _name_problems(profile, name),
        _durable_problems(profile, undecided),
        _tier_problems(profile, undecided),
        _mirror_problems(profile, undecided),
    )
    found = [problem for each in checks for problem in each]
    return found + _proxy_problems(profile) + _verb_problems(profile) + _spot_problems(profile)


def _mirror_problems(profile: dict[str, Any], undecided: Callable[[Any], bool]) -> list[Problem]:
    mirrors = profile["platform_mirrors"]
    if undecided(mirrors) or undecided(profile["platform_china_mirrors"]):
        return []
    if profile["platform_china_mirrors"] and not mirrors:
        return [Problem("platform_mirrors", "is empty, and platform_china_mirrors is true", "list the mirrors")]
    found = []
    for index, entry in enumerate(mirrors):
        if entry["class"] == "apt" and not entry.get("archive"):
            fix = "write the address in the package lists that it stands for"
            found.append(Problem(f"platform_mirrors[{index}].archive", "is missing for a mirror of apt", fix))
    return found


def _name_problems(profile: dict[str, Any], name: str) -> list[Problem]:
    actual = profile["platform_name"]
    if name and actual != name:
        return [Problem("platform_name", f"is {actual!r} in the profile of group {name!r}", f"write {name}")]
    return []


def _proxy_problems(profile: dict[str, Any]) -> list[Problem]:
    if profile.get("platform_proxy_hosts") and not profile["platform_proxy_hook"]:
        fix = "name the proxy in platform_proxy_hook, or leave the list out"
        return [Problem("platform_proxy_hosts", "names hosts of a proxy, and there is none", fix)]
    return []


def _durable_problems(profile: dict[str, Any], undecided: Callable[[Any], bool]) -> list[Problem]:
    kind, path = profile["platform_durable_kind"], profile["platform_durable_path"]
    if undecided(kind) or undecided(path):
        return []
    key = "platform_durable_path"
    if kind == "mount" and not path.startswith("/"):
        return [Problem(key, f"a durable mount needs a path, found {path!r}", "write where it is mounted")]
    if kind == "object" and "://" not in path:
        return [Problem(key, f"a durable object store needs a URI, found {path!r}", "write s3://bucket/prefix")]
    if kind in ("pull", "none", "") and path:
        return [Problem(key, f"{path!r} contradicts platform_durable_kind {kind!r}", "leave it empty")]
    if kind == "mount" and path == profile["platform_data_dir"]:
        fix = "name another mount, or use durable kind pull: a copy on the same disk dies with it"
        return [Problem(key, "is the data folder itself", fix)]
    return []


def _tier_problems(profile: dict[str, Any], undecided: Callable[[Any], bool]) -> list[Problem]:
    storage = profile["platform_storage"]
    if undecided(storage):
        return []
    tiers = [tier["tier"] for tier in storage]
    found = []
    for twice in sorted({tier for tier in tiers if tiers.count(tier) > 1}):
        found.append(Problem("platform_storage", f"tier {twice!r} stands there twice", "name each tier once"))
    data_dir = profile["platform_data_dir"]
    if data_dir and not undecided(data_dir) and not any(undecided(tier["path"]) for tier in storage):
        holder = artifact_tiers.tier_of(data_dir, storage)
        if holder != "disk":
            what = f"{data_dir} lies on tier {holder or 'none'!r}, not on tier 'disk'"
            found.append(Problem("platform_data_dir", what, "call the tier that holds the data folder disk"))
    for key, operation in _operations(profile):
        for tier in operation["keeps"]:
            if tier not in tiers:
                what = f"{tier!r} is not a tier of platform_storage"
                found.append(Problem(f"{key}.keeps", what, f"use one of {', '.join(tiers) or '(none declared)'}"))
    return found


def _operations(profile: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    verbs = profile["platform_verbs"]
    if not isinstance(verbs, dict):
        return []
    found = []
    for plan in (*VERB_PLANS, "repair"):
        operations = verbs.get(plan)
        if isinstance(operations, list):
            found += [(f"platform_verbs.{plan}[{index}]", one) for index, one in enumerate(operations)]
    return found


def _verb_problems(profile: dict[str, Any]) -> list[Problem]:
    found = []
    for key, operation in _operations(profile):
        if (operation["transport"] == "box") != bool(operation.get("command")):
            fix = "give transport box its command as a list of words, and no other transport one"
            found.append(Problem(f"{key}.command", f"does not fit transport {operation['transport']!r}", fix))
        if operation["transport"] == "box" and operation["reversible"] is False:
            fix = "what a box does to itself passes no gate of ours: only what comes back may be done so"
            found.append(Problem(f"{key}.transport", f"{operation['verb']} cannot be undone", fix))
        if ".park[" not in key:
            continue
        if operation["reversible"] is False:
            fix = "park holds reversible operations only; leave it [] when the platform has none"
            found.append(Problem(f"{key}.reversible", f"{operation['verb']} cannot be undone", fix))
        if operation["stops_compute"] is True and "disk" not in operation["keeps"]:
            fix = "a box is parked only with its data: keep disk, or leave park []"
            found.append(Problem(f"{key}.keeps", f"{operation['verb']} loses the data folder", fix))
    return found


def _spot_problems(profile: dict[str, Any]) -> list[Problem]:
    spot = profile["platform_spot"]
    if isinstance(spot, dict) and spot["available"] is True and spot["grace_s"] is None:
        what = "is null although spot boxes can be taken"
        return [Problem("platform_spot.grace_s", what, "write seconds, 0 for none")]
    return []


# --- one box, one platform --------------------------------------------------------------------------------------


class PlatformError(ValueError):
    """A box belongs to no platform group or to several; ``fix`` says what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


def check_one_platform(host_groups: list[str], platform_groups: list[str]) -> str:
    """The one platform group that a host is in; :class:`PlatformError` for none or several."""
    found = sorted(set(host_groups) & set(platform_groups))
    if len(found) == 1:
        return found[0]
    if found:
        raise PlatformError(
            f"the box is in {len(found)} platform groups: {', '.join(found)}",
            "a box is bound to one platform for ever: keep it in one of them and give the other machine its own name",
        )
    raise PlatformError(
        "the box is in no platform group",
        f"put it into one of: {', '.join(sorted(platform_groups)) or 'none (enable tenant.gpu.profiles)'}",
    )


# --- where profiles lie -----------------------------------------------------------------------------------------

EXTENSIONS = (".yml", ".yaml")


def shipped_profiles_dir(plugin_file: str) -> str:
    """The collection's own profiles, seen from a file in ``plugins/<kind>/``."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(plugin_file))))
    return os.path.join(root, "inventories", "profiles", "group_vars")


def profile_files(folder: str) -> list[str]:
    """Paths of the profiles in a folder, sorted by name. OSError when it is not one."""
    names = [name for name in os.listdir(folder) if name.endswith(EXTENSIONS) and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(names)]


def group_name(path: str) -> str:
    """The inventory group of a profile file: its stem."""
    return os.path.splitext(os.path.basename(path))[0]
