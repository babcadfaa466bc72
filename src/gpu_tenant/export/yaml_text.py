# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""YAML that every reader takes for the same values.

Readers differ in what they hold for a number, a truth value or a date (``1e3``, ``0o17``, ``on``, ``1:30``), so texts
are quoted without exception; scripts become blocks where they are plain enough to read the same everywhere.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_BLOCK = re.compile(r"[\x21-\x7e][\x20-\x7e\n]*\n\Z")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
_NOT_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class _Quoting(yaml.SafeDumper):
    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, _value in node.value:
            if _PLAIN_KEY.match(key.value) and key.value.lower() not in _NOT_TEXT:
                key.style = None
        return node

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if _BLOCK.match(value) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Quoting.add_representer(str, _text)


def dump(value: Any) -> str:
    """``value`` as one document, without the line that opens it."""
    return str(yaml.dump(value, Dumper=_Quoting, sort_keys=False, width=2**30, allow_unicode=False))
