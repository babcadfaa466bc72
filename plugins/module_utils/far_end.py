# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A few modules of ours with a question, as one standard input of a plain ``python -c`` on the box.

Ansible would carry its own code there as well, which the box's Python compiles at every task: a quarter of a second of
a processor, for a question that takes a few milliseconds.
"""

from __future__ import annotations

import ast
import base64
import functools
import json
import os
import zlib
from typing import Any, Mapping

_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = "tenant_far_end"
# Said before the answer: whatever a login shell prints by itself stands before it.
_MARK = "tenant-far-end "

# The first line has the sources, the second one the question. A failure that speaks is an answer too.
PROGRAM = r"""
import base64, json, sys, zlib
from importlib.machinery import ModuleSpec
sources = json.loads(zlib.decompress(base64.b64decode(sys.stdin.buffer.readline())))
class Sent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, Sent, is_package=not sources[name]) if name in sources else None
    @staticmethod
    def create_module(spec):
        return None
    @staticmethod
    def exec_module(module):
        exec(compile(sources[module.__name__], module.__name__, "exec", dont_inherit=True), module.__dict__)
sys.meta_path.insert(0, Sent)
asked = json.loads(sys.stdin.buffer.readline())
far = __import__(asked["module"], fromlist=["answer"])
try:
    told = far.answer(asked["params"], asked["check"])
except Exception as error:
    if not hasattr(error, "as_result"):
        raise
    told = dict(error.as_result(), failed=True)
sys.stdout.write("\n%s%s\n" % (asked["mark"], json.dumps(told)))
""".strip()


class NoAnswer(Exception):
    """The box ran the program and answered nothing that is one; the text says what it said instead."""


@functools.lru_cache(maxsize=None)
def packed(name: str) -> bytes:
    """The module and all that it imports of ours, as the first line that the program reads.

    Whoever asks boxes calls this when it is imported: a task's worker process finds it done.
    """
    text = json.dumps(_sources(name)).encode("utf-8")
    return base64.b64encode(zlib.compress(text, 9))


def question(name: str, params: Mapping[str, Any], check_mode: bool) -> bytes:
    """What goes to the program's standard input, so that ``answer(params, check_mode)`` of the module is asked."""
    asked = {"module": f"{_PACKAGE}.{name}", "params": params, "check": check_mode, "mark": _MARK}
    return packed(name) + b"\n" + json.dumps(asked).encode("utf-8") + b"\n"


def read(status: int, out: str, err: str) -> dict[str, Any]:
    """What was answered. :raises NoAnswer: nothing was."""
    for line in reversed(out.splitlines()):
        if line.startswith(_MARK):
            try:
                told = json.loads(line[len(_MARK) :])
            except ValueError:
                break
            if isinstance(told, dict):
                return told
    last = [line.strip() for line in (err or out).splitlines() if line.strip()][-1:]
    raise NoAnswer(f"exit status {status}" + (f": {last[0]}" if last else ""))


def _sources(name: str) -> dict[str, str]:
    """Full module name to text; empty for a package."""
    found, wanted = {_PACKAGE: ""}, [name]
    while wanted:
        short = wanted.pop()
        full = f"{_PACKAGE}.{short}"
        if full in found:
            continue
        if os.path.isdir(os.path.join(_HERE, short)):
            found[full] = ""
            continue
        with open(os.path.join(_HERE, short.replace(".", os.sep) + ".py"), encoding="utf-8") as stream:
            found[full] = stream.read()
        wanted += _imported(short, found[full])
    return found


def _imported(name: str, text: str) -> list[str]:
    """The modules of ours that a module of ours imports, and the packages that they lie in, without the first one."""
    package = name.split(".")[:-1]
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        base = [each for each in base if each]
        # ``from . import a`` names modules, ``from .a import b`` what is in one.
        below = [".".join([*base, each.name]) for each in node.names]
        found += [each for each in below if _is_module(each)] or [".".join(base)]
        found += [".".join(base[:depth]) for depth in range(1, len(base))]
    return [each for each in found if each]


def _is_module(name: str) -> bool:
    return os.path.isfile(os.path.join(_HERE, name.replace(".", os.sep) + ".py"))
