# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Mutants of a module's conditions, made in this process: one function's syntax tree is changed and compiled, and
stands in for the original while a table or a scene is looked at again."""

from __future__ import annotations
import __future__

import ast
import contextlib
import copy
import inspect
import itertools
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ansible_collections.tenant.gpu.plugins.module_utils import delivery

_SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Mutant:
    function: types.FunctionType
    where: str
    code: types.CodeType

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        original = self.function.__code__
        self.function.__code__ = self.code
        try:
            yield
        finally:
            self.function.__code__ = original


def _edits(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    """Ways to make this very node wrong, each as a change to the node in place."""
    if isinstance(node, (ast.If, ast.IfExp)):
        yield lambda found: setattr(found, "test", ast.UnaryOp(ast.Not(), found.test))  # type: ignore[attr-defined]
    if isinstance(node, ast.comprehension):
        for number in range(len(node.ifs)):
            yield lambda found, number=number: found.ifs.__setitem__(  # type: ignore[misc,attr-defined]
                number,
                ast.UnaryOp(ast.Not(), found.ifs[number]),  # type: ignore[attr-defined]
            )
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield lambda found: setattr(found, "ops", [_SWAPS[type(found.ops[0])]()])  # type: ignore[attr-defined]
    if isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield lambda found: setattr(found, "op", other())
        for number in range(len(node.values)):
            yield lambda found, number=number: found.values.pop(number)  # type: ignore[misc,attr-defined]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield lambda found: setattr(found, "op", _Truth())
    if isinstance(node, ast.Name) and node.id in ("any", "all"):
        yield lambda found: setattr(found, "id", "all" if found.id == "any" else "any")  # type: ignore[attr-defined]
    if isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        yield lambda found: setattr(
            found,
            "value",
            not found.value if isinstance(found.value, bool) else found.value + 1,  # type: ignore[attr-defined]
        )
    if isinstance(node, (ast.AugAssign, ast.Expr)) and not isinstance(getattr(node, "value", None), ast.Constant):
        yield _drop


class _Truth(ast.Not):
    """Marks a ``not`` that :class:`_Dropper` takes away."""


def _drop(node: ast.AST) -> None:
    node.dropped = True  # type: ignore[attr-defined]


class _Dropper(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> Any:
        if getattr(node, "dropped", False):
            return ast.copy_location(ast.Pass(), node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, _Truth):
            return self.visit(node.operand)
        if isinstance(node, ast.BoolOp) and len(node.values) == 1:
            return self.visit(node.values[0])
        return self.generic_visit(node)


def mutants_of(module: types.ModuleType, names: set[str] | None = None) -> Iterator[Mutant]:
    """Every way to make one condition of the module's functions and methods wrong."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for node, owner in _functions(tree, module):
        if names is None or node.name in names:
            function = _function(owner, node.name)
            for place, found in enumerate(ast.walk(node)):
                for number, _edit in enumerate(_edits(found)):
                    yield _mutant(module, function, node, place, number)


def _functions(tree: ast.Module, module: types.ModuleType) -> Iterator[tuple[ast.FunctionDef, object]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node, module
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                yield inner, getattr(module, node.name)  # type: ignore[union-attr]


def _function(owner: object, name: str) -> types.FunctionType:
    found = inspect.getattr_static(owner, name)
    found = found.fget if isinstance(found, property) else found
    return inspect.unwrap(getattr(found, "__func__", found))


def _mutant(
    module: types.ModuleType, function: types.FunctionType, node: ast.FunctionDef, place: int, number: int
) -> Mutant:
    whole = copy.deepcopy(node)
    target = list(ast.walk(whole))[place]
    shown = ast.unparse(target.iter if isinstance(target, ast.comprehension) else target).partition("\n")[0][:100]
    list(_edits(target))[number](target)
    whole.decorator_list = []
    made = ast.fix_missing_locations(ast.Module([_Dropper().visit(whole)], []))
    flags = __future__.annotations.compiler_flag
    compiled = compile(made, str(module.__file__), "exec", flags=flags, dont_inherit=True)
    code = next(
        const for const in compiled.co_consts if isinstance(const, types.CodeType) and const.co_name == node.name
    )
    name = module.__name__.rpartition(".")[2]
    return Mutant(function, f"{name}.{node.name}: {shown} #{number}", code)


# --- stories ------------------------------------------------------------------------------------------------------

Stories = Mapping[str, Callable[[], Iterable[Any]]]


def survivors(stories: Stories, module: types.ModuleType, names: set[str] | None = None) -> tuple[list[str], int]:
    """The mutants that no story tells from the original, and of how many.

    A story is what the code under test makes of a prepared place, the same each time. It is told until the first
    difference, and the one that found a mutant is told first to the next, because what finds one finds more.
    """
    wanted = {name: list(tell()) for name, tell in stories.items()}
    for name, tell in stories.items():
        assert list(tell()) == wanted[name], f"the story {name!r} does not end the same way twice"
    order, alive, found = list(stories), [], list(mutants_of(module, names))
    for mutant in found:
        with mutant.standing_in():
            finder = next((name for name in order if not _ends_as(wanted[name], stories[name])), None)
        if finder is None:
            alive.append(mutant.where)
        else:
            order.insert(0, order.pop(order.index(finder)))
    return alive, len(found)


@contextlib.contextmanager
def no_waiting_for_disks() -> Iterator[None]:
    """What thousands of small worlds are asked here does not depend on when their bytes reach a platter."""

    def at_once(*_where: object) -> None:
        pass

    with mock.patch.object(os, "fsync", at_once), mock.patch.object(delivery, "flush", at_once):
        yield


def _ends_as(wanted: list[Any], tell: Callable[[], Iterable[Any]]) -> bool:
    try:
        return all(seen == known for seen, known in itertools.zip_longest(tell(), wanted))
    except Exception:
        return False
