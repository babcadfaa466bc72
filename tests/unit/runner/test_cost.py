# SPDX-License-Identifier: MIT
"""Money: every interval at its rate, the bill before the estimate, and unknown never 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from click.testing import CliRunner
from rich.console import Console

from gpu_tenant import cost, hosts, report
from gpu_tenant.cli import cli
from gpu_tenant.hosts import BoxHost

NOW = "2026-11-21T20:00:00Z"


def act(verb: str, hour: int, **more: Any) -> dict[str, Any]:
    place = {"project": "p", "box": "b", "provider_id": "7"}
    return {"kind": "effect", "verb": verb, "at": f"2026-11-21T{hour:02d}:00:00Z", **place, **more}


RENT = act("rent", 10, price_per_hour=0.5, stopped_per_hour=0.1)
BOX = {"project": "p", "box": "b", "generation": 1, "provider_id": "7", "platform": "vast"}


def machine(*acts: dict[str, Any], billed: dict[str, float] | None = None, now: str = NOW) -> cost.Machine:
    [found] = cost.machines([BOX], acts, [], [], billed or {}, now)
    return found


def test_the_bill_counts_before_the_estimate() -> None:
    found = machine(RENT, act("destroy", 12), billed={"7": 0.7})
    assert (found.cost, found.accrued) == (0.7, 1.0)
    assert found.as_dict()["billed_minus_accrued"] == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("acts", "why"),
    [
        ([], "does not say when it was rented"),
        ([act("rent", 10)], "while running"),
        ([act("rent", 10, price_per_hour=0.5), act("stop", 12)], "while stopped"),
        ([act("rent", 10, price_per_hour=float("nan"))], "while running"),
    ],
)
def test_unknown_is_no_zero(acts: list[dict[str, Any]], why: str) -> None:
    found = machine(*acts)
    assert (found.cost, found.accrued) == (None, None)
    assert why in found.why_unknown
    totals = cost.sums([found, machine(RENT, billed={"7": 2.0})])
    for by in totals.values():
        [one] = by.values()
        assert one.as_dict() == {"machines": 2, "known": 2.0, "unknown": 1, "total": None}


def test_a_machine_of_several_runs_counts_for_them_together() -> None:
    identity = {"project": "p", "box": "b", "provider_id": "7"}
    contact = {**identity, "runs": {"second": {}}}
    [found] = cost.machines([BOX], [RENT], [{**identity, "run_id": "first"}], [contact], {}, NOW)
    assert cost.run_of(found) == "first + second"
    assert list(cost.sums([found])["run"]) == ["first + second"]
    assert cost.run_of(machine(RENT)) == cost.NO_RUN


# --- the report -----------------------------------------------------------------------------------------------------


class Api:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def provider_now(self) -> None:
        return None

    def charges(self, since: float, until: float) -> Any:
        if isinstance(self.answer, TenantFailure):
            raise self.answer
        return self.answer


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[BoxHost]:
    monkeypatch.delenv("GPU_TENANT_DATABASE_URL", raising=False)
    store = StateStore(str(tmp_path / "state"))
    for box, provider_id in (("a", "41"), ("b", "42"), ("not-asked-for", "43")):
        identity = BoxIdentity("p", box, 1, provider_id)
        Journal(store).append("effect", "rent", **identity.as_dict(), price_per_hour=3600.0, stopped_per_hour=1.0)
        store.update_box("p", box, 1, provider_id=provider_id, platform="vast", created_at=records.utc_now())
    variables = {"tenant_state_dir": store.root, "platform_driver": "vast"}
    return [BoxHost(name, dict(variables)) for name in ("a", "b")]


def test_a_report_joins_journal_and_bill(team: list[BoxHost]) -> None:
    api = Api([{"source": "instance-41", "amount": 0.25, "items": []}])
    told = report.draw_up("p", team, lambda box: api)
    assert json.loads(json.dumps(told)) == told
    assert [(one["box"], one["billed"]) for one in told["machines"]] == [("a", 0.25), ("b", None)]
    assert told["machines"][1]["accrued"] is not None
    assert told["sums"]["platform"]["vast"]["machines"] == 2
    assert told["notes"] == []


def test_a_bill_that_cannot_be_read_is_noted_once(team: list[BoxHost]) -> None:
    api = Api(TenantFailure("provider", "the market is away"))
    told = report.draw_up("p", team, lambda box: api)
    assert len(told["notes"]) == 1
    assert "the market is away" in told["notes"][0]
    assert [one["billed"] for one in told["machines"]] == [None, None]
    console = Console(width=120, record=True)
    console.print(report.render(told))
    text = console.export_text()
    assert "unknown" in text
    assert "the market is away" in text


def test_the_command_tells_it_in_json(team: list[BoxHost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    boxes = tuple(BoxHost(box.name, {**box.variables, "tenant_project": "p", "platform_driver": ""}) for box in team)
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory(boxes, "", (), ()))
    done = CliRunner().invoke(cli, ["report", "-l", "all", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["event"], told["sums"]["project"]["p"]["machines"]) == ("report", 2)
    refused = CliRunner().invoke(cli, ["report", "-l", "all", "--database", "oracle://x"])
    assert refused.exit_code == 10
    assert "no database that the index can be in" in refused.output
