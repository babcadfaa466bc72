# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Templates: what instances are made of, kept by the account under a hash of their content.

What a create says beats its template, value by value, and variable by variable in the environment (the market's
documentation). That an unknown hash is a 404 is this market's choice, as is the spelling of the answers' messages.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from .books import Books
from .calls import Call, Route
from .filters import matching
from .pages import selected
from .refusals import MarketError
from .requests import invalid, json_parameter, number_in

CREATOR_ID = 100001
HASH_LENGTH = 32
MOST_TEMPLATES = 1000
TEXTS = ("name", "image", "tag", "href", "repo", "env", "onstart", "runtype", "jupyter_dir", "docker_login_repo",
         "readme", "desc")  # fmt: skip
TRUTHS = {"jup_direct": False, "ssh_direct": False, "use_jupyter_lab": False, "use_ssh": False,
          "readme_visible": True, "private": True}  # fmt: skip
RUNTYPES = ("args", "ssh", "jupyter")
LONGEST_TEXT = 16384
# What makes a template another one. Its name and what is written about it do not.
_CONTENT = ("image", "tag", "env", "onstart", "runtype", "jupyter_dir", "jup_direct", "ssh_direct", "use_jupyter_lab",
            "use_ssh", "docker_login_repo", "extra_filters", "recommended_disk_space")  # fmt: skip
# What a create takes from its template where it says nothing itself.
_SCALARS = ("image", "onstart", "jupyter_dir", "runtype")

Template = dict[str, Any]


class TemplateRoutes:
    def __init__(self, books: Books) -> None:
        self._books = books

    def routes(self) -> list[Route]:
        paths = ("/api/v0/template", "/api/v1/template")
        return [
            *(Route("GET", path, self.search, call="user") for path in paths),
            *(Route("POST", path, self.add, call="user") for path in paths),
            *(Route("PUT", path, self.change, call="user") for path in paths),
            *(Route("DELETE", path, self.delete, call="user") for path in paths),
        ]

    def search(self, call: Call) -> dict[str, Any]:
        filters = json_parameter(call.query, "select_filters", {})
        columns = json_parameter(call.query, "select_cols", None)
        with self._books.reading() as (state, _now):
            found = matching(list(state.templates.values()), filters)
        rows = [selected(row, columns) for row in found]
        return {"success": True, "templates_found": len(rows), "templates": rows}

    def add(self, call: Call) -> dict[str, Any]:
        template = template_in(call.body)
        with self._books.changing() as (state, now):
            if len(state.templates) >= MOST_TEMPLATES:
                raise invalid(f"an account has at most {MOST_TEMPLATES} templates")
            template.update(id=state.take_id(), creator_id=CREATOR_ID, created_at=now, recent_create_date=None)
            state.templates = {**state.templates, template["id"]: template}
        return {"success": True, "msg": f"Template {template['hash_id']} created.", "template": template}

    def change(self, call: Call) -> dict[str, Any]:
        """A new version under the same number, with the hash of what it is now."""
        number = int(number_in(call.body, "id", 0))
        changed = template_in(call.body)
        with self._books.changing() as (state, _now):
            known = state.templates.get(number)
            if known is None:
                raise _missing(f"id {number}")
            changed = {**known, **changed}
            state.templates = {**state.templates, number: changed}
        return {"success": True, "msg": f"Template {number} updated.", "template": changed}

    def delete(self, call: Call) -> dict[str, Any]:
        wanted, number = call.body.get("hash_id"), call.body.get("template_id")
        with self._books.changing() as (state, _now):
            meant = {
                one["id"]
                for one in state.templates.values()
                if one["hash_id"] == wanted or str(one["id"]) == str(number)
            }
            if not meant:
                raise _missing(f"hash {wanted}" if wanted else f"id {number}")
            state.templates = {one: row for one, row in state.templates.items() if one not in meant}
        return {"success": True, "msg": "Template deleted."}

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A create's body with what its template says where the body says nothing. MarketError (404 not_found)."""
        wanted, number = body.get("template_hash_id"), body.get("template_id")
        if not wanted and number in (None, ""):
            return dict(body)
        with self._books.reading() as (state, _now):
            found = [
                one for one in state.templates.values() if one["hash_id"] == wanted or str(one["id"]) == str(number)
            ]
        if not found:
            raise _missing(f"hash {wanted}" if wanted else f"id {number}")
        template = found[0]
        offered = {**template, "image": image_of(template), "runtype": runtype_of(template)}
        taken = {name: offered[name] for name in _SCALARS if body.get(name) in (None, "")}
        if body.get("disk") is None and template["recommended_disk_space"]:
            taken["disk"] = template["recommended_disk_space"]
        environment = {**environment_of(template), **_environment_of_request(body.get("env"))}
        identity = {name: template[key] for name, key in _IDENTITY.items()}
        return {**body, **taken, **identity, "env": environment}


_IDENTITY = {"template_id": "id", "template_hash_id": "hash_id", "template_name": "name"}


def template_in(body: Mapping[str, Any]) -> Template:
    """What a body says of a template, without what the market adds. MarketError (400 invalid_args)."""
    found: Template = {name: _text_in(body, name) for name in TEXTS}
    found.update({name: bool(body.get(name, default)) for name, default in TRUTHS.items()})
    if not found["image"]:
        raise invalid("a template needs an image")
    found["runtype"] = found["runtype"] or "args"
    if found["runtype"] not in RUNTYPES:
        raise invalid(f"runtype is one of {', '.join(RUNTYPES)}")
    docker_options(found["env"] or "")
    filters = body.get("extra_filters") or {}
    if not isinstance(filters, Mapping):
        raise invalid("extra_filters must be an object")
    space = number_in(body, "recommended_disk_space", 0.0)
    if not 0 <= space < float("inf"):
        raise invalid("recommended_disk_space must be a number of GB")
    found.update(extra_filters=dict(filters), recommended_disk_space=space or None)
    content = json.dumps([found[name] for name in _CONTENT], sort_keys=True)
    return {**found, "hash_id": hashlib.sha256(content.encode()).hexdigest()[:HASH_LENGTH]}


def _text_in(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or "\0" in value:
        raise invalid(f"{name} must be a text of at most {LONGEST_TEXT} characters")
    return value


def image_of(template: Template) -> str:
    return f"{template['image']}:{template['tag']}" if template["tag"] else str(template["image"])


def runtype_of(template: Template) -> str:
    """How its instances are reached, in the words of a create."""
    if template["runtype"] == "jupyter":
        return "jupyter_direc ssh_direc ssh_proxy" if template["jup_direct"] else "jupyter_proxy ssh_proxy"
    if template["runtype"] == "ssh":
        return "ssh_direc ssh_proxy" if template["ssh_direct"] else "ssh_proxy"
    return "args"


def environment_of(template: Template) -> dict[str, str]:
    """Its docker options, as the environment of a create says them; what is no such option is passed over."""
    return docker_options(template["env"] or "")


def docker_options(text: str) -> dict[str, str]:
    """``-e A=b -p 80:80`` as ``{"A": "b", "-p 80:80": "1"}``. MarketError (400) for quotes that do not end."""
    try:
        words = iter(shlex.split(text))
    except ValueError as reason:
        raise invalid(f"env is not docker options: {reason}") from reason
    found: dict[str, str] = {}
    for word in words:
        if word == "-e":
            name, _sign, value = next(words, "").partition("=")
            found.update({name: value} if name else {})
        elif word in ("-p", "-v", "-n"):
            found[f"{word} {next(words, '')}"] = "1"
        elif word == "-h":
            found["-h"] = next(words, "")
    return found


def _environment_of_request(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        return dict(docker_options(given))
    if not isinstance(given, Mapping) and given is not None:
        raise invalid("env must be an object or docker flags")
    return dict(given or {})


def _missing(what: str) -> MarketError:
    return MarketError(404, "not_found", f"There is no template with {what}.")
