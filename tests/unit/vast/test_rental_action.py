# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A module of a market, done in the controller's own process: as the module would, and only where it would."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action.normal import ActionModule as RunsModule
from ansible_collections.tenant.gpu.plugins.action.vast_ssh_key import ActionModule as SshKey
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.options import shared_options
from ansible_collections.tenant.gpu.plugins.modules import vast_ssh_key
from ansible_collections.tenant.gpu.plugins.plugin_utils import rental_action
from ansible_collections.tenant.gpu.plugins.plugin_utils.rental_action import RentalAction

HERE: dict[str, Any] = {"transport": "local", "become": None}


def task_of(arguments: dict[str, Any], **more: Any) -> Any:
    settings: dict[str, Any] = {"check_mode": False, "async_val": 0, "environment": None, "action": "a"}
    return SimpleNamespace(args=arguments, **{**settings, **more})


def action_of(kind: type[RentalAction], task: Any, **connection: Any) -> RentalAction:
    reached = SimpleNamespace(**{**HERE, **connection})
    action: RentalAction = kind(task, reached, SimpleNamespace(), None, None, None)
    return action


def doing(act: Any) -> type[RentalAction]:
    class Doing(RentalAction):
        ACT = act
        SPEC: ClassVar = {"name": {"type": "str", "required": True}, **shared_options()}

    return Doing


def test_it_has_the_options_and_the_rules_of_its_module() -> None:
    assert set(SshKey.SPEC) == {*vast_ssh_key.SPEC, *shared_options()}
    assert SshKey.ACT is vast_ssh_key.act
    with pytest.raises(AnsibleActionFail, match="one of the following is required: public_key, public_key_file"):
        action_of(SshKey, task_of({})).run()
    with pytest.raises(AnsibleActionFail, match="Unsupported parameters"):
        action_of(SshKey, task_of({"public_key": "k", "publik_key": "k"})).run()


def test_options_come_with_their_types_and_their_defaults_and_check_mode_is_told() -> None:
    seen: list[Any] = []

    def act(caller: Any) -> dict[str, Any]:
        seen.append((caller.params["name"], caller.params["api_timeout_s"], caller.check_mode))
        return {"changed": True, "pair": (1, 2)}

    answer = action_of(doing(act), task_of({"name": "a", "api_timeout_s": "7"}, check_mode=True)).run()
    assert seen == [("a", 7, True)]
    assert answer == {"changed": True, "pair": [1, 2]}


def test_no_secret_option_is_told() -> None:
    answer = action_of(
        doing(lambda caller: {"changed": False, "said": f"refused {caller.params['api_key']}"}),
        task_of({"name": "a", "api_key": "the-key-of-an-account"}),
    ).run()
    assert "the-key-of-an-account" not in str(answer)
    assert "refused" in answer["said"]


def test_what_comes_back_is_no_template() -> None:
    """An option was a template of the team's, and trusted; what a stranger's answer made of it is not."""
    from ansible.template import is_trusted_as_template, trust_as_template

    given = task_of({"name": trust_as_template("{{ lookup('pipe', 'id') }}")})
    answer = action_of(doing(lambda caller: {"changed": False, "name": caller.params["name"]}), given).run()
    assert is_trusted_as_template(given.args["name"])
    assert not is_trusted_as_template(answer["name"])


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TenantFailure("budget", "too dear", box="b", safe="nothing was rented"), "budget", "too dear"),
        (ValueError("no such state"), "config", "no such state"),
        (OSError(13, "Permission denied", "/state"), "config", "/state: Permission denied"),
    ],
)
def test_a_failure_speaks(error: Exception, kind: str, said: str) -> None:
    def act(_caller: Any) -> dict[str, Any]:
        raise error

    answer = action_of(doing(act), task_of({"name": "a"})).run()
    assert answer["failed"] is True
    assert answer["failure"]["kind"] == kind
    assert said in answer["msg"]


def test_a_warning_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(rental_action.display, "warning", shown.append)

    def act(caller: Any) -> dict[str, Any]:
        caller.warn("it bills on")
        return {"changed": False}

    action_of(doing(act), task_of({"name": "a"})).run()
    assert shown == ["it bills on"]


@pytest.mark.parametrize(
    ("task", "connection"),
    [
        ({}, {"transport": "ssh"}),
        ({}, {"become": object()}),
        ({"async_val": 60}, {}),
        ({"environment": [{"VAST_API_KEY": "k"}]}, {}),
    ],
)
def test_what_only_a_process_has_gets_one(
    task: dict[str, Any], connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunsModule, "run", lambda self, tmp=None, task_vars=None: {"changed": False, "ran": "module"})

    def act(_caller: Any) -> dict[str, Any]:
        raise AssertionError("done in the controller's own process")

    assert action_of(doing(act), task_of({"name": "a"}, **task), **connection).run()["ran"] == "module"
