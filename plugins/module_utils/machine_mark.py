# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which machine a box is, where its address says nothing of it: a platform that gives another port after each start.

Three witnesses have to agree. The *mark* is a random id in a file on the box's data disk, made at its first admission
and part of its provider id from then on. The *instance* is what the platform itself calls the machine, read on the
box; a clone carries the mark of its original and, it may be, its host key, and never its instance. The host key is the
third: it is pinned under the name of the box, and ssh asks for it before anything here is read.

Evidence names the provider id. So it goes on to hold for a machine that has moved, and for no other one.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any, Mapping

from .box import records
from .box.names import UnsafeName, check_name
from .failures import TenantFailure

MARK_NAME = ".gpu-tenant-box.json"
SCHEMA = "box-mark"
_VALUE = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_ID = re.compile(r"[0-9a-f]{16}\Z")
_MOST_BYTES = 8192

_LOOK = r"""
say() { printf '%s %s\n' "$n" "$*"; }
say begin
say hostname "$( (hostname || uname -n) 2>/dev/null)"
[ -z "$v" ] || say env "$(cat /proc/1/environ 2>/dev/null | tr '\0' '\n' | sed -n "s/^$v=//p" | head -n 1)"
[ -d "$d" ] && say folder
[ -e "$d/$f" ] && say there && say mark "$(head -c MOST "$d/$f" 2>/dev/null | tr -d '\r\n')"
say end
"""
_WRITE = r"""
umask 077
t="$d/$f.new.$$"
mkdir -p "$d" && printf '%s\n' "$m" >"$t" && mv -f "$t" "$d/$f" && sync "$d/$f" 2>/dev/null
[ "$(cat "$d/$f" 2>/dev/null)" = "$m" ] && printf '%s written\n' "$n"
"""


class NoAnswer(Exception):
    """The box ran no command, or not to its end."""


@dataclass(frozen=True)
class Seen:
    """What a machine shows: its instance by ``env`` and ``hostname``, each if it has it, and its mark.

    ``is_damaged``: there is a file for the mark, and no mark in it. ``has_folder``: the data folder is there.
    """

    instance: Mapping[str, str] = field(default_factory=dict)
    mark: Mapping[str, Any] | None = None
    is_damaged: bool = False
    has_folder: bool = True


@dataclass(frozen=True)
class Verdict:
    """``id`` of the machine, empty where it can have none that outlives its address; ``write``: a mark to leave."""

    id: str
    write: dict[str, Any] | None = None


def identity_wanted(value: object) -> dict[str, str]:
    """``platform_instance_id`` as ``{env, hostname}``; empty where a platform names its machines nowhere."""
    known = value if isinstance(value, Mapping) else {}
    return {key: str(known[key]) for key in ("env", "hostname") if known.get(key)}


def provider_id(mark_id: str) -> str:
    return f"ssh:{mark_id}"


def lasting_id(record: Mapping[str, Any]) -> str:
    """The provider id of a machine on record that has a mark; empty for one that is known by its address."""
    return str(record.get("provider_id") or "") if isinstance(record.get("machine"), Mapping) else ""


def address_of(endpoint: Mapping[str, Any]) -> str:
    return f"{endpoint['host']}:{endpoint['port']}"


# --- on the box ---------------------------------------------------------------------------------------------------


def look_script(nonce: str, data_dir: str, wanted: Mapping[str, str]) -> str:
    """Plain sh, for a box whose Python nobody has found yet."""
    names = {"n": nonce, "d": data_dir, "f": MARK_NAME, "v": wanted.get("env", "")}
    return _settings(names) + _LOOK.strip().replace("MOST", str(_MOST_BYTES)) + "\n"


def write_script(nonce: str, data_dir: str, mark: Mapping[str, Any]) -> str:
    """Leaves the mark whole or not at all, and says ``written`` once it reads it back."""
    text = json.dumps(mark, sort_keys=True, ensure_ascii=True)
    return _settings({"n": nonce, "d": data_dir, "f": MARK_NAME, "m": text}) + _WRITE.strip() + "\n"


def was_written(output: str, nonce: str) -> bool:
    return f"{nonce} written" in output.splitlines()


def parse(output: str, nonce: str, wanted: Mapping[str, str]) -> Seen:
    """What the script said. :raises NoAnswer: its first or last line is not there."""
    ours = [line.partition(nonce + " ")[2] for line in output.splitlines() if nonce + " " in line]
    said = {word: rest for word, _space, rest in (line.partition(" ") for line in ours)}
    if "begin" not in said or "end" not in said:
        raise NoAnswer
    mark = _mark_in(said.get("mark", "")) if "there" in said else None
    return Seen(_instance(said, wanted), mark, "there" in said and mark is None, "folder" in said)


def _settings(names: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in names.items())


def _instance(said: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    found = {}
    if wanted.get("env") and _VALUE.match(said.get("env", "")):
        found["env"] = said["env"]
    host = said.get("hostname", "")
    if wanted.get("hostname") and _VALUE.match(host) and fnmatch.fnmatchcase(host, wanted["hostname"]):
        found["hostname"] = host
    return found


def _mark_in(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("schema") != records.schema(SCHEMA):
        return None
    try:
        named = all(check_name(key, found.get(key)) for key in ("project", "box"))
    except UnsafeName:
        return None
    whole = named and _ID.match(str(found.get("id"))) and records.is_count(found.get("generation"))
    return found if whole and _is_instance(found) else None


def _is_instance(record: Mapping[str, Any]) -> bool:
    instance = record.get("instance")
    return isinstance(instance, dict) and all(_VALUE.match(str(value)) for value in instance.values())


# --- the decision -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """The box that is asked about, where its mark lies, and how its record says that it was known."""

    project: str
    box: str
    generation: int
    data_dir: str

    @property
    def mark_path(self) -> str:
        return f"{self.data_dir.rstrip('/')}/{MARK_NAME}"

    @property
    def next_generation(self) -> str:
        return (
            f"write tenant_generation: {self.generation + 1} for this box, provision and deploy again; what was "
            "harvested and approved stays with the machine that it was harvested from"
        )

    def refusal(self, what: str, fix: str) -> TenantFailure:
        safe = "nothing was changed on it, and no evidence of another machine counts for it"
        return TenantFailure("probe_refused", f"generation {self.generation}: {what}", self.box, safe=safe, fix=fix)


def proven(subject: Subject, machine: Mapping[str, Any], seen: Seen) -> None:
    """TenantFailure unless what answers is the machine on record. Pure.

    :param machine: ``{id, instance, address}`` of the box's record.
    """
    known = machine.get("instance") if isinstance(machine.get("instance"), Mapping) else {}
    _refuse_clone(subject, dict(known or {}), seen, str(machine.get("id")))
    if seen.mark is None:
        why = "cannot be read" if seen.is_damaged else "is gone" if seen.has_folder else "is gone with its folder"
        raise subject.refusal(
            f"its mark {subject.mark_path} {why}: its data disk was emptied, replaced, or is not mounted",
            f"mount the disk, or put the file back from where it was moved to; if its data is lost, "
            f"{subject.next_generation}",
        )
    if seen.mark["id"] != machine.get("id") or not _is_of(seen.mark, subject):
        carried = f"{seen.mark['id']} of {_owner(seen.mark)}"
        raise subject.refusal(
            f"its data disk carries the mark {carried}, and {machine.get('id')} is on record",
            "correct ansible_host and ansible_port from the provider's console, they lead to another box; if the "
            f"machine is a new one, {subject.next_generation}",
        )


def first_mark(subject: Subject, record: Mapping[str, Any], address: str, seen: Seen, new_id: str, now: str) -> Verdict:
    """What a machine is known by from now on, that has no ``machine`` on record. Pure.

    :param record: the box's record, of a version that wrote down addresses only; empty for a new box.
    :raises TenantFailure: it carries the mark of another one, or may not be the one on record.
    """
    before = str(record.get("provider_id") or "")
    if before not in ("", f"ssh:{address}") and (record.get("admitted_at") or record.get("deploy_started_at")):
        raise subject.refusal(
            f"it is on record as {before} and stands at {address} now; that record was written before boxes were "
            "marked, so that nothing tells it from a clone",
            f"if it is the same machine or not: {subject.next_generation}",
        )
    if seen.is_damaged:
        raise subject.refusal(
            f"{subject.mark_path} on it is no mark that can be read",
            "look at that file on the box, and delete it there",
        )
    if not seen.instance:
        return Verdict("")
    carried = seen.mark
    if carried is not None and not _may_be_replaced(carried, subject):
        if not _is_of(carried, subject):
            raise _foreign(subject, carried)
        _refuse_clone(subject, carried["instance"], seen, carried["id"])
        return Verdict(carried["id"])
    mark = {
        "schema": records.schema(SCHEMA),
        "project": subject.project,
        "box": subject.box,
        "generation": subject.generation,
        "id": new_id,
        "instance": dict(seen.instance),
        "marked_at": now,
    }
    return Verdict(new_id, mark)


def _is_of(mark: Mapping[str, Any], subject: Subject) -> bool:
    mine = (subject.project, subject.box, subject.generation)
    return (mark["project"], mark["box"], mark["generation"]) == mine


def _may_be_replaced(mark: Mapping[str, Any], subject: Subject) -> bool:
    """An earlier machine of this very name, which the team says was followed by this one."""
    same = (mark["project"], mark["box"]) == (subject.project, subject.box)
    return bool(same and mark["generation"] < subject.generation)


def _foreign(subject: Subject, mark: Mapping[str, Any]) -> TenantFailure:
    if (mark["project"], mark["box"]) == (subject.project, subject.box):
        return subject.refusal(
            f"its data disk carries the mark of {_owner(mark)}, a later one",
            f"write tenant_generation: {mark['generation']}, or correct ansible_host and ansible_port",
        )
    return subject.refusal(
        f"its data disk carries the mark of {_owner(mark)}: it is that box, or a clone of it",
        "if it is that box, use that name; if it is a clone and is to be a box of its own, see that nothing there is "
        f"wanted any more, then delete {subject.mark_path} and {subject.data_dir.rstrip('/')}/gpu-tenant on it",
    )


def _refuse_clone(subject: Subject, known: Mapping[str, str], seen: Seen, mark_id: str) -> None:
    both = [key for key in known if key in seen.instance]
    if both and all(known[key] == seen.instance[key] for key in both):
        return
    if both:
        shown, recorded = (", ".join(sorted({one[key] for key in both})) for one in (seen.instance, known))
        carries = seen.mark is not None and seen.mark["id"] == mark_id
        is_clone = ", a clone of it that carries its mark" if carries else ""
        raise subject.refusal(
            f"it is instance {shown}{is_clone}, and {recorded} is on record",
            "correct ansible_host and ansible_port from the provider's console, they lead to another instance; if this "
            f"one is to take its place, {subject.next_generation}",
        )
    raise subject.refusal(
        f"it does not say which instance it is, and {', '.join(sorted(set(known.values())))} is on record",
        "see its instance id in the provider's console; if it is another machine, or its name was changed by hand and "
        f"cannot be set back, {subject.next_generation}",
    )


def _owner(mark: Mapping[str, Any]) -> str:
    return f"{mark['box']} g{mark['generation']} (project {mark['project']})"
