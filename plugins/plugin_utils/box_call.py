# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Call a function of ``module_utils`` on the box, in one command and without Ansible's own code.

A module would carry that along: half a megabyte which the controller parses for what it imports and the box compiles,
each time. Here goes what the function imports of ours, and nothing is written to the box's disk for it.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import shlex
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ansible_collections.tenant.gpu.plugins.module_utils import failures
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import EXIT_CODES, TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S

_PACKAGE = "ansible_collections.tenant.gpu.plugins.module_utils"
_MARK = "tenant-gpu-answer:"
_LONGEST = 1000
# Starts soonest, and reads names of files as bytes whatever the login's locale says.
_ALONE = ["-I", "-S", "-X", "utf8"]
# The first line says how long the sources are, which follow, deflated; the rest is the order. Whatever else is printed,
# by a login or by what is called, is not the answer.
_FAR_END = r"""
import sys
if sys.version_info < (3, 8):
    sys.exit("Python 3.8 or newer is needed, this is " + sys.version.split()[0])
# What lies in the folder of the login is nobody's library.
sys.path[:] = [path for path in sys.path if path]
import json, os, zlib
from importlib.machinery import ModuleSpec
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
stdin = sys.stdin.buffer
sources = json.loads(zlib.decompress(stdin.read(int(stdin.readline()))))
order = json.loads(stdin.read())


class Sources:
    def find_spec(self, name, path=None, target=None):
        if name in sources:
            return ModuleSpec(name, self, origin=name, is_package=sources[name] is None)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(sources[module.__name__] or "", module.__name__, "exec", dont_inherit=True), module.__dict__)


sys.meta_path.insert(0, Sources())
from PACKAGE.failures import TenantFailure
try:
    function = getattr(__import__(order["module"], fromlist=["*"]), order["function"])
    answer = {"answer": function(order["arguments"], order["check_mode"])}
except TenantFailure as failure:
    answer = {"failure": failure.as_result()}
answers.write("\nMARK" + json.dumps(answer) + "\n")
answers.close()
""".replace("MARK", _MARK).replace("PACKAGE", _PACKAGE)


class NoAnswer(TenantFailure):
    """The box did not say what came of it. ``status`` is what the command ended with."""

    def __init__(self, status: int, what: str, box: str) -> None:
        super().__init__(
            "unreachable" if status < 0 or status == 255 else "config",
            what,
            box,
            safe="what it had begun, the same task goes on with",
            fix=(
                f"signal {status - 128} ended it; look at the memory of the box"
                if 128 < status < 255
                else "see that ansible_python_interpreter names a Python of the box, 3.8 or newer, and look at its disk"
            ),
        )
        self.status = status

    @property
    def lost(self) -> bool:
        """Whether it was the way to the box that failed: the box's own program ends with another status."""
        return self.kind == "unreachable"


class RefusedOnBox(TenantFailure):
    """A failure that the function raised: a stranger's words, shortened and printable. ``checks`` may come with it."""

    def __init__(self, told: Mapping[str, Any], box: str) -> None:
        failure = told.get("failure")
        named = failure if isinstance(failure, dict) else {}
        what, safe, fix = (printable(str(named.get(name) or ""))[:_LONGEST] for name in ("what", "safe", "fix"))
        kind = named.get("kind")
        kind = kind if isinstance(kind, str) and kind in EXIT_CODES else "config"
        super().__init__(kind, what or "the box gave no reason", box, safe=safe, fix=fix)
        self.checks = told.get("checks")

    def as_result(self) -> dict[str, Any]:
        return {**super().as_result(), **({"checks": self.checks} if isinstance(self.checks, list) else {})}


class BoxCall(ControllerAction):
    """An action whose work on the box is done by functions ``work(arguments, check_mode) -> answer``.

    ``WORKS`` names them, as ``module.function`` below ``module_utils``: what they import is gathered when the action is
    loaded, once for all boxes.
    """

    WORKS: ClassVar[tuple[str, ...]] = ()
    A_BOX_SPEAKS = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for work in cls.WORKS:
            packed(work)

    def call_on_box(
        self,
        work: str,
        arguments: Mapping[str, Any],
        task_vars: Mapping[str, Any],
        python: str = "",
        site: bool = False,
        within_s: float = ANSWER_S,
    ) -> dict[str, Any]:
        """What the function answers: a stranger's word, which never becomes a result whole (``strangers_answer``).

        :param work: one of ``WORKS``; it takes and gives what JSON can hold.
        :param python: the interpreter; by default the one that modules would use.
        :param site: whether it needs what is installed for that Python, and its environment variables.
        :raises RefusedOnBox: the failure that the function raised.
        :raises Silent: it does not answer ``within_s`` seconds.
        :raises NoAnswer: there is no such interpreter, it is too old, or the function ended without an answer.
        """
        box = str(task_vars.get("inventory_hostname", ""))
        order = {
            "module": _module(work),
            "function": work.rpartition(".")[2],
            "arguments": dict(arguments),
            "check_mode": self.check_mode,
        }
        sources = packed(work)
        words = [*shlex.split(python or self.box_python(task_vars)), *([] if site else _ALONE), "-c", _FAR_END]
        with self.answered_within(within_s, box):
            done = self._low_level_execute_command(
                " ".join(part for part in (self._compute_environment_string(), shlex.join(words)) if part),
                in_data=b"%d\n" % len(sources) + sources + json.dumps(order).encode(),
                executable="/bin/sh",
            )
        answer = _answer(done["stdout"])
        if answer is None:
            said = _last_line(done["stderr"]) or _last_line(done["stdout"]) or "it said nothing"
            raise NoAnswer(done["rc"], f"{words[0]} on the box ended with {done['rc']}: {said}", box)
        if "failure" in answer:
            raise RefusedOnBox(answer["failure"], box)
        return dict(answer["answer"])


def _answer(text: str) -> dict[str, Any] | None:
    for line in reversed(text.splitlines()):
        if line.startswith(_MARK):
            try:
                answer = json.loads(line[len(_MARK) :])
            except (ValueError, RecursionError):
                return None
            whole = isinstance(answer, dict) and len(answer) == 1 and isinstance(next(iter(answer.values())), dict)
            return answer if whole and answer.keys() <= {"answer", "failure"} else None
    return None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1].strip())[:_LONGEST] if lines else ""


# --- the sources ----------------------------------------------------------------------------------------------------


def _module(work: str) -> str:
    return f"{_PACKAGE}.{work.rpartition('.')[0]}"


@functools.cache
def packed(work: str) -> bytes:
    """The sources of a function's module and of all of ours that it imports, deflated."""
    root = os.path.dirname(os.path.abspath(failures.__file__))
    return zlib.compress(json.dumps(sources(_module(work), root)).encode(), 9)


def sources(module: str, root: str) -> dict[str, str | None]:
    """Name to source of ``module``, what it imports of ours, and the packages around them, which have none."""
    found: dict[str, str | None] = {}
    waiting = [module, f"{_PACKAGE}.failures"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = os.path.join(root, *name[len(_PACKAGE) + 1 :].split("."))
        for package in _parents(name):
            found[package] = None
        if os.path.isdir(path):
            found[name] = None
            continue
        with open(f"{path}.py", encoding="utf-8") as stream:
            text = stream.read()
        found[name] = text
        waiting += _imported(ast.parse(text), name, root)
    return found


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(1, len(parts)):
        yield ".".join(parts[:count])


def _imported(tree: ast.AST, name: str, root: str) -> Iterator[str]:
    """Modules of ours that are imported, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(_PACKAGE + "."))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".")[: -node.level]
                base = ".".join([*package, *([base] if base else [])])
            if base == _PACKAGE or base.startswith(_PACKAGE + "."):
                yield from _named(base, node.names, root)


def _named(base: str, names: list[ast.alias], root: str) -> Iterator[str]:
    """``from base import names``: modules of a package, or what a module has."""
    folder = os.path.join(root, *base[len(_PACKAGE) + 1 :].split(".")) if base != _PACKAGE else root
    if os.path.isdir(folder):
        yield from (f"{base}.{alias.name}" for alias in names)
    else:
        yield base
