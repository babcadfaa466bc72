# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether what Ansible made of an inventory depends on files and environment alone, and holds no secret.

Only then it may be kept (:mod:`gpu_tenant.inventory_memory`). Runs in the process that reads the inventory, and knows
what is harmless by name: whatever is not on these lists is asked anew each time.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from jinja2 import Environment, TemplateError, nodes

from gpu_tenant.inventory_memory import FLEETING, VAULT, TooMuch, read

PROFILES = "tenant.gpu.profiles"
_BUILTIN = "ansible.builtin."
# Those that read the file that they are given, and those of ours, which are named in their file.
_SOURCES = frozenset(("host_list", "advanced_host_list", "script", "auto", "yaml", "ini", "toml", PROFILES))
_OURS = re.compile(r"tenant\.gpu\.[a-z_]+\Z")
_VARS_PLUGINS = {"host_group_vars"}
_FILTERS = frozenset(
    (
        "abs",
        "basename",
        "bool",
        "capitalize",
        "combine",
        "count",
        "d",
        "default",
        "dict2items",
        "dirname",
        "expanduser",
        "first",
        "flatten",
        "float",
        "indent",
        "int",
        "items2dict",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "max",
        "min",
        "path_join",
        "quote",
        "regex_escape",
        "regex_replace",
        "regex_search",
        "replace",
        "round",
        "sort",
        "split",
        "string",
        "tenant.gpu.ssh_word",
        "ternary",
        "title",
        "trim",
        "union",
        "unique",
        "upper",
    )
)
_TESTS = frozenset(
    (
        "defined",
        "undefined",
        "none",
        "string",
        "number",
        "integer",
        "float",
        "boolean",
        "mapping",
        "sequence",
        "iterable",
        "true",
        "false",
        "in",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "equalto",
        "sameas",
        "odd",
        "even",
        "divisibleby",
        "lower",
        "upper",
        "match",
        "search",
        "truthy",
        "falsy",
    )
)
_LOOKUPS = ("lookup", "query", "q")
# Ansible's own, which no source can set.
_MAGIC = frozenset(("groups", "omit"))
_SECRET = re.compile(
    r"(?i)(pass|passwd|password|passphrase|pwd|secret|secrets|token|tokens|pat|auth|authorization"
    r"|credential|credentials|key|(?<!host_)(?<!public_)keys)\Z"
)
# Whatever it is called: a password in an address, or given to sshpass.
_SECRET_WITHIN = re.compile(r"://[^/\s@]*:[^/\s@]+@|\bsshpass\s+-p")


def reads(sources: Iterable[str], base: str) -> list[str] | None:
    """Every path that the sources are read from; None where somebody else is asked.

    :param base: where Ansible looks for variables besides the sources' folders.
    """
    from ansible import constants

    plugins = {name.removeprefix(_BUILTIN) for name in constants.INVENTORY_ENABLED}
    if not all(name in _SOURCES or _OURS.match(name) for name in plugins):
        return None
    if constants.CACHE_PLUGIN.removeprefix(_BUILTIN) != "memory":
        return None
    if constants.DEFAULT_VAULT_IDENTITY_LIST or constants.DEFAULT_VAULT_PASSWORD_FILE:
        return None
    found = [os.path.join(base, name) for name in ("group_vars", "host_vars")]
    for source in sources:
        if "," in source:
            continue
        path = os.path.abspath(source)
        beside = path if os.path.isdir(path) else os.path.dirname(path)
        found += [path, *(os.path.join(beside, name) for name in ("group_vars", "host_vars"))]
        profiles = _profiles_of(path)
        if profiles is None:
            return None
        found += profiles
    try:
        clear = not any(VAULT in content for _path, content in read(found))
    except TooMuch:
        return None
    return sorted(set(found)) if clear else None


def has_own_variables() -> bool:
    """Whether a plugin beside Ansible's own tells variables. Ask once all is read: a loader that has been asked before
    does not look for its plugins any more."""
    from ansible import constants
    from ansible.plugins.loader import vars_loader

    known = {_plain_name(each) for each in vars_loader.all(class_only=True)}
    enabled = {name.removeprefix(_BUILTIN) for name in constants.VARIABLE_PLUGINS_ENABLED}
    return not (known | enabled) <= _VARS_PLUGINS


def _plain_name(plugin: Any) -> str:
    return str(getattr(plugin, "ansible_name", "") or getattr(plugin, "_load_name", "")).removeprefix(_BUILTIN)


def _profiles_of(source: str) -> list[str] | None:
    """The folders of profiles that a source's files name; None where one of them is run, or names another plugin."""
    found: list[str] = []
    try:
        listed = list(read([source]))
    except TooMuch:
        return None
    for path, content in listed:
        mark, text = content[:1], content[1:]
        if content == b"folder":
            continue
        if content == b"absent" or mark == b"x" or text.startswith(b"#!"):
            return None
        plugin, own = _named_plugin(text)
        if plugin == PROFILES:
            found += [_shipped(), *([os.path.join(os.path.dirname(path), os.path.expanduser(own))] if own else [])]
        elif plugin:
            return None
    return found


def _named_plugin(text: bytes) -> tuple[str, str]:
    """The inventory plugin that a file names, and its ``path``; empty for a file of hosts, whatever its form."""
    try:
        told = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # noqa: S506 - makes text only
    except (yaml.YAMLError, UnicodeDecodeError):
        # No plugin can read its settings from it either.
        return "", ""
    if not isinstance(told, Mapping) or not {"plugin", "<<"} & set(map(str, told)):
        return "", ""
    return str(told.get("plugin") or "unknown"), str(told.get("path") or "")


def _shipped() -> str:
    from ansible_collections.tenant.gpu.plugins import module_utils
    from ansible_collections.tenant.gpu.plugins.module_utils.platform_groups import shipped_profiles_dir

    return shipped_profiles_dir(os.path.join(next(iter(module_utils.__path__)), "any.py"))


class Purity:
    """Judges variables as they were before they were templated. One and the same value, as hosts of a group share it,
    is judged once, and so is one and the same template."""

    def __init__(self) -> None:
        self._judged: dict[str, bool] = {}
        # By identity, which is that of nothing else as long as the value is kept.
        self._shared: dict[int, Any] = {}
        self._pure = True
        self._environment = Environment(autoescape=False)  # noqa: S701 - nothing is rendered by it

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Whether nothing in ``variables``, nor in those of before, calls anything but the environment."""
        new = [value for name, value in variables.items() if name not in _MAGIC and id(value) not in self._shared]
        self._shared.update((id(value), value) for value in new)
        self._pure = self._pure and all(map(self._value, new))
        return self._pure

    def _value(self, value: Any) -> bool:
        if isinstance(value, Mapping):
            return all(self._value(item) for pair in value.items() for item in pair)
        if isinstance(value, (list, tuple, set)):
            return all(map(self._value, value))
        if isinstance(value, str):
            return "{" not in value or self._template(str(value))
        return value is None or isinstance(value, (bool, int, float, datetime.date))

    def _template(self, text: str) -> bool:
        if text not in self._judged:
            try:
                self._judged[text] = not text.startswith("#jinja2:") and _harmless(self._environment.parse(text))
            except TemplateError:
                self._judged[text] = False
        return self._judged[text]


def _harmless(tree: nodes.Template) -> bool:
    filters = {str(each.name).removeprefix(_BUILTIN) for each in tree.find_all(nodes.Filter)}
    tests = {str(each.name).removeprefix(_BUILTIN) for each in tree.find_all(nodes.Test)}
    odd = (
        nodes.CallBlock,
        nodes.FilterBlock,
        nodes.Include,
        nodes.Import,
        nodes.FromImport,
        nodes.Extends,
        nodes.Macro,
    )
    calls = all(map(_asks_the_environment, tree.find_all(nodes.Call)))
    return calls and filters <= _FILTERS and tests <= _TESTS and next(tree.find_all(odd), None) is None


def _asks_the_environment(call: nodes.Call) -> bool:
    words = [each.value for each in call.args if isinstance(each, nodes.Const)]
    plain = isinstance(call.node, nodes.Name) and call.node.name in _LOOKUPS and len(words) == len(call.args) > 1
    if not plain or call.kwargs or call.dyn_args or call.dyn_kwargs:
        return False
    return str(words[0]).removeprefix(_BUILTIN) == "env" and FLEETING.isdisjoint(map(str, words[1:]))


def has_secret(value: Any, name: str = "") -> bool:
    """Whether something that is called like a secret has a value. A path of a key file is none."""
    if isinstance(value, Mapping):
        return any(has_secret(item, str(key)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return any(has_secret(item, name) for item in value)
    return isinstance(value, str) and bool((value and _SECRET.search(name)) or _SECRET_WITHIN.search(value))
