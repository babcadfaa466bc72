# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An action takes no name by accident that the class behind it uses for something else."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from ansible.plugins.action import ActionBase
from ansible_collections.tenant.gpu.plugins import action
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction

ACTIONS = sorted(path.stem for path in Path(action.__path__[0]).glob("*.py"))
MEANT = {"ARGUMENT_SPEC", "VALIDATION", "A_BOX_SPEAKS", "act", "run", "TRANSFERS_FILES"}
MEANT |= {"_supports_async", "_supports_check_mode"}
# Spot's stock modules run on the controller: what they say is read to the letter.
MEANT_BY = {"aws_spot_instance": {"_parse_returned_data", "_update_module_args"}}


def test_there_are_actions() -> None:
    assert len(ACTIONS) > 30


@pytest.mark.parametrize("name", ACTIONS)
def test_it_overrides_what_is_meant_to_be(name: str) -> None:
    made = importlib.import_module(f"ansible_collections.tenant.gpu.plugins.action.{name}").ActionModule
    behind = set(dir(ControllerAction if issubclass(made, ControllerAction) else ActionBase))
    own = {one for cls in made.__mro__ if cls not in ControllerAction.__mro__ for one in vars(cls)}
    taken = {one for one in own & behind if not one.startswith("__") and one not in ("_abc_impl", "_is_protocol")}
    assert taken <= MEANT | MEANT_BY.get(name, set())
