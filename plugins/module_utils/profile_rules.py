# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is wrong with a platform profile: its keys and values, and the rules that span them.

A profile is checked twice: as written (a value that holds ``{{ }}`` is left for later) and after the merge with the
team's own vars, when every template has been resolved.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Callable

from . import artifact_tiers
from .profile_schema import SCHEMA, VERB_PLANS
from .schema_check import Problem, check, is_template, type_name

# A provider's prices and rules hold for about so long after somebody looked them up.
FRESH_MONTHS = 12
_ENDS_FOR_GOOD = re.compile(r"\b(destroy|terminate|delete|release)\b|释放|销毁|归还", re.IGNORECASE)


def problems_as_written(profile: Any, name: str = "") -> list[Problem]:
    """Problems of a profile file; values that hold a template are not judged yet.

    :param name: the inventory group (the file's stem) that ``platform_name`` must equal.
    """
    found = _problems(profile, name, is_template)
    # Whoever overrides the mount for one box does not repeat the table of the tiers; whoever writes a profile does.
    return found or (_system_disk_problems(profile) if isinstance(profile, dict) else [])


def problems_after_merge(profile: Any, name: str = "") -> list[Problem]:
    """Problems of one box's ``platform_*`` values with every template resolved."""
    return _problems(profile, name, lambda value: False)


def months_old(verified: str, today: datetime.date) -> int:
    """How many months ago somebody checked the facts of a profile; ``verified`` as ``platform_verified``."""
    year, month = (int(part) for part in verified.split("-"))
    return (today.year - year) * 12 + today.month - month


def stale(verified: str, today: datetime.date, where: str) -> str:
    """What to tell of facts that nobody has checked for a year; empty for fresh ones.

    :param where: file and line that say when.
    """
    months = months_old(verified, today)
    if months <= FRESH_MONTHS:
        return ""
    return (
        f"{where}: platform_verified: these facts were last checked {months} months ago ({verified}). Prices, paths "
        "and clocks change: compare them with platform_source, then write the month in which you did."
    )


def platform_values(variables: dict[str, Any]) -> dict[str, Any]:
    """The ``platform_*`` part of a host's variables."""
    return {key: value for key, value in variables.items() if key.startswith("platform_")}


def _problems(profile: Any, name: str, undecided: Callable[[Any], bool]) -> list[Problem]:
    if not isinstance(profile, dict):
        return [Problem("(file)", f"a mapping is wanted, found {type_name(profile)}", "write platform_* keys")]
    found = list(check(profile, SCHEMA, "", undecided))
    if not found:
        found = _cross_checks(profile, name, undecided)
    return found


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
    if kind != "mount":
        return []
    fix = "name another mount, or use durable kind pull: a copy on the same disk dies with it"
    if path == profile["platform_data_dir"]:
        return [Problem(key, "is the data folder itself", fix)]
    if path == "/":
        return [Problem(key, "is the system disk", fix)]
    tier = _tier_holding(path, profile)
    if tier and tier["path"] != "/" and tier["survives_destroy"] is False:
        return [Problem(key, f"lies on tier {tier['tier']!r}, which does not outlive the box", fix)]
    return []


def _tier_holding(path: str, profile: dict[str, Any]) -> dict[str, Any]:
    """The storage tier that a path lies on; empty where that is not decided yet, or for none."""
    storage = profile["platform_storage"]
    if is_template(storage) or is_template(path) or any(is_template(tier["path"]) for tier in storage):
        return {}
    name = artifact_tiers.tier_of(path, storage)
    return next((tier for tier in storage if tier["tier"] == name), {})


def _system_disk_problems(profile: dict[str, Any]) -> list[Problem]:
    path = profile["platform_durable_path"]
    if profile["platform_durable_kind"] != "mount" or _tier_holding(path, profile).get("path") != "/":
        return []
    what = f"{path} lies on the system disk (tier {_tier_holding(path, profile)['tier']!r})"
    return [Problem("platform_durable_path", what, "give the mount a tier of its own in platform_storage, or use pull")]


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
        if operation["reversible"] is True:
            found += _reversible_problems(key, operation, profile)
        if ".park[" not in key:
            continue
        if operation["reversible"] is False:
            fix = "park holds reversible operations only; leave it [] when the platform has none"
            found.append(Problem(f"{key}.reversible", f"{operation['verb']} cannot be undone", fix))
        if operation["stops_compute"] is True and "disk" not in operation["keeps"]:
            fix = "a box is parked only with its data: keep disk, or leave park []"
            found.append(Problem(f"{key}.keeps", f"{operation['verb']} loses the data folder", fix))
    return found


def _reversible_problems(key: str, operation: dict[str, Any], profile: dict[str, Any]) -> list[Problem]:
    """What is told of an operation that is said to be undone, and is not."""
    fix = "write false: only what comes back with the data folder is reversible, and only that passes without evidence"
    if _ENDS_FOR_GOOD.search(operation["verb"]):
        return [Problem(f"{key}.reversible", f"{operation['verb']} ends a rental for good", fix)]
    tiers = profile["platform_storage"]
    has_disk = not is_template(tiers) and any(tier["tier"] == "disk" for tier in tiers)
    # A stop that merely wipes the disk later comes back; one that gives it up does not.
    gives_up = operation["stops_storage"] is True or (operation["stops_compute"] is True and not operation["keeps"])
    # A park that does so is told of in its own words.
    if has_disk and gives_up and "disk" not in operation["keeps"] and ".park[" not in key:
        return [Problem(f"{key}.reversible", f"{operation['verb']} gives up the data folder (tier 'disk')", fix)]
    return []


def _spot_problems(profile: dict[str, Any]) -> list[Problem]:
    spot = profile["platform_spot"]
    if isinstance(spot, dict) and spot["available"] is True and spot["grace_s"] is None:
        what = "is null although spot boxes can be taken"
        return [Problem("platform_spot.grace_s", what, "write seconds, 0 for none")]
    return []
