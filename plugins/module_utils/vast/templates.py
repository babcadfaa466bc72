# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Templates of the account: what a box is made of where its order says nothing.

The template is read before anything is rented, and what it says is written out in the create: what was shown, checked
against the limits and the offers, and compared later is what is sent. The provider's own rule, by which a create beats
its template value by value and variable by variable, then has nothing left to decide about these.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import Any, Mapping

from ..failures import TenantFailure
from ..stamp import ENVIRONMENT_NAME
from .api import VastClient
from .ports import ports_asked_in, ports_in
from .rental import Order

_NUMBER = re.compile(r"[1-9][0-9]{0,17}\Z")
_HASH = re.compile(r"[0-9a-zA-Z]{8,128}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Docker options that would change where the box is or what it sees, past what the order declares.
_VOLUME, _NETWORK, _HOST = "a volume (declare it in volumes)", "a network", "a host name"
_FOREIGN = {
    "-v": _VOLUME, "--volume": _VOLUME, "--mount": _VOLUME, "-n": _NETWORK, "--net": _NETWORK, "--network": _NETWORK,
    "-h": _HOST, "--hostname": _HOST,
}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """``hash_id`` is of the content, so that it names the same for ever. All of it is untrusted text."""

    number: int
    hash_id: str
    name: str
    image: str
    onstart: str
    env: Mapping[str, str]
    ports: tuple[str, ...]

    def as_result(self) -> dict[str, Any]:
        """What can be shown: of the environment the names only."""
        return {
            "id": self.number,
            "hash_id": self.hash_id,
            "name": self.name,
            "image": self.image,
            "env": sorted(self.env),
            "ports": list(self.ports),
            "onstart_characters": len(self.onstart),
        }


def find(client: VastClient, wanted: str) -> Template:
    """The template with this hash id or number. TenantFailure where there is none, or one that no box of ours has."""
    if _NUMBER.match(wanted):
        column, value = "id", wanted
    elif _HASH.match(wanted):
        column, value = "hash_id", wanted
    else:
        raise _bad(
            f"{wanted[:60]!r} is neither a template's hash id nor its number", "look with: vastai search templates"
        )
    rows = client.find_templates({column: {"eq": int(value) if column == "id" else value}})
    # The filter is the provider's affair; what is taken is what was asked for.
    meant = [row for row in rows if str(row.get(column)) == value]
    if not meant:
        raise _bad(f"the account sees no template with the {column} {wanted}", "look with: vastai search templates")
    return _template(min(meant, key=lambda row: int(row["id"])))


def resolved(order: Order, template: Template) -> Order:
    """The order with what the template says where the order says nothing.

    Image and onstart: the order's, else the template's. Environment and ports: both, and the order's value where both
    name a variable. The disk's size, the price and how the box is reached are always the order's.
    """
    ports = ports_in([*order.ports, *template.ports])
    asked = order.wanted.direct_ports or 0
    wanted = replace(order.wanted, direct_ports=max(asked, 1 + len(ports))) if ports else order.wanted
    return replace(
        order,
        image=order.image or template.image,
        onstart=order.onstart or template.onstart,
        env={**template.env, **order.env},
        ports=ports,
        wanted=wanted,
        template_hash=template.hash_id,
    )


def _template(row: Mapping[str, Any]) -> Template:
    name = _text(row, "name")
    image, tag = _text(row, "image"), _text(row, "tag")
    if not image or not _text(row, "hash_id"):
        raise _bad(f"template {row['id']} has no image or no hash id", "use another, or give image without template")
    variables, ports = _options(f"template {row['id']} ({name[:60]})", row.get("env"))
    return Template(
        number=int(row["id"]),
        hash_id=_text(row, "hash_id"),
        name=name,
        image=f"{image}:{tag}" if tag else image,
        onstart=_text(row, "onstart"),
        env=variables,
        ports=ports,
    )


def _options(what: str, written: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables and ports among a template's docker options. TenantFailure for those that no box of ours has.

    Others, such as ``--shm-size``, are the provider's to apply or to drop: no order can say them.
    """
    try:
        words = iter(shlex.split(written if isinstance(written, str) else ""))
    except ValueError:
        raise _bad(f"the docker options of {what} cannot be read: a quote does not end") from None
    variables: dict[str, str] = {}
    flags: dict[str, str] = {}
    for word in words:
        flag = word.partition("=")[0]
        if flag in _FOREIGN:
            raise _bad(f"{what} brings {_FOREIGN[flag]} by its docker option {flag}")
        if word == "-e":
            name, _sign, value = next(words, "").partition("=")
            if not _VARIABLE.match(name) or name == ENVIRONMENT_NAME:
                raise _bad(f"{what} sets {name[:60]!r}, which no template may or which is no variable's name")
            variables[name] = value
        elif word == "-p":
            flags[f"-p {next(words, '')}"] = "1"
    if len(ports_asked_in(flags)) + ("-p 22:22" in flags) != len(flags):
        raise _bad(f"{what} asks for ports that are not single ones: {', '.join(sorted(flags))[:200]}")
    return variables, ports_asked_in(flags)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value.strip() if isinstance(value, str) else ""


def _bad(what: str, fix: str = "use another template, or say image, env and onstart without one") -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was rented", fix=fix)
