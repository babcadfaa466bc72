# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Faults of the marketplace: how a script is read, which calls it hits, what an answer becomes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from hypothesis import given
from hypothesis import strategies as st
from test_market_wire import DEADLINE_S, Client

from gpu_tenant.marketplace.api import Api
from gpu_tenant.marketplace.fault_answers import refusal_of, spoiled
from gpu_tenant.marketplace.faults import (
    CALLS,
    KINDS,
    BadFault,
    Fault,
    FaultPlan,
    fault_in,
    plan_of,
    read_script,
    script_in,
)
from gpu_tenant.marketplace.replies import Reply

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "marketplace-faults.md"
EXAMPLE = ROOT / "examples" / "marketplace-faults.yml"


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(sorted(KINDS)))
    return Fault(
        kind=kind,
        call=draw(st.sampled_from(KINDS[kind].calls)),
        times=draw(st.none() | st.integers(1, 4)),
        after=draw(st.integers(0, 4)),
        probability=draw(st.floats(0.05, 1.0)),
        instance=draw(st.none() | st.integers(1, 4)),
    )


calls = st.tuples(st.sampled_from(CALLS[:-1]), st.lists(st.integers(1, 4), max_size=2, unique=True).map(tuple))


def hits(seed: int, script: list[Fault], asked: list[tuple[str, tuple[int, ...]]]) -> list[Any]:
    """What strikes at each call, in a market of the instances 1 to 3."""
    plan = FaultPlan(seed)
    for fault in script:
        plan.add(fault)
    return [
        (
            [entry.number for entry in plan.of_answers(call, named)],
            [(entry.number, target) for entry, target in plan.of_state(call, named, (1, 2, 3))],
        )
        for call, named in asked
    ]


@given(seed=st.integers(), script=st.lists(faults(), max_size=5), asked=st.lists(calls, max_size=30))
def test_the_same_seed_and_calls_meet_the_same_faults(seed: int, script: list[Fault], asked: Any) -> None:
    assert hits(seed, script, asked) == hits(seed, script, asked)


@given(seed=st.integers(), fault=faults(), asked=st.lists(calls, max_size=40))
def test_counts_are_kept(seed: int, fault: Fault, asked: Any) -> None:
    plan = FaultPlan(seed)
    number = plan.add(fault)
    struck = 0
    for call, named in asked:
        before = plan.entries[number]
        answers = plan.of_answers(call, named)
        states = plan.of_state(call, named, (1, 2, 3))
        now = len(answers) + len(states)
        assert now <= 1
        assert not (answers and fault.of_state)
        assert not (states and not fault.of_state)
        if now:
            struck += 1
            assert before.calls >= fault.after
            assert fault.call in (call, "any")
        if answers and fault.instance is not None:
            assert fault.instance in named
        for _entry, target in states:
            assert target in (1, 2, 3)
            assert fault.instance in (None, target)
    entry = plan.entries[number]
    assert entry.struck == struck
    assert fault.times is None or struck <= fault.times
    assert entry.calls <= len(asked)
    if fault.probability == 1.0 and not entry.is_spent:
        assert struck == max(0, entry.calls - fault.after)


@given(script=st.lists(faults(), min_size=2, max_size=5), asked=st.lists(calls, max_size=30))
def test_a_fault_does_not_change_when_another_strikes(script: list[Fault], asked: Any) -> None:
    def struck_by_the_first(faults: list[Fault]) -> list[bool]:
        return [1 in answers or 1 in dict(states) for answers, states in hits(7, faults, asked)]

    assert struck_by_the_first(script[:1]) == struck_by_the_first(script)


def test_another_seed_is_another_run() -> None:
    fault = Fault("lost_answer", "list", times=None, probability=0.5)
    runs = {str(hits(seed, [fault], [("list", ())] * 40)) for seed in range(5)}
    assert len(runs) == 5


def test_a_written_fault_is_read_back() -> None:
    for kind, facts in KINDS.items():
        amounts = {name: 3 for name in ("seconds", "kb_per_s", "free_mb") if name in facts.options}
        fault = fault_in({"kind": kind, "call": facts.calls[0], **amounts}, "faults[0]")
        assert fault_in(fault.as_dict(), "faults[0]") == fault


BAD: list[tuple[Any, str]] = [
    ([], "the script"),
    ({}, "faults: must be a list"),
    ({"faults": [], "sead": 1}, "sead: is unknown"),
    ({"faults": [], "seed": "x"}, "seed: must be a whole number"),
    ({"faults": ["slow"]}, "faults[0]: must be a mapping"),
    ({"faults": [{"kind": "slow"}]}, "faults[0].call: is missing"),
    ({"faults": [{"call": "list"}]}, "faults[0].kind: is missing"),
    ({"faults": [{"kind": "lost", "call": "list"}]}, "faults[0].kind: must be one of lost_answer"),
    ({"faults": [{"kind": ["slow"], "call": "list"}]}, "faults[0].kind: must be one of"),
    ({"faults": [{"kind": "garbled", "call": "lists"}]}, "faults[0].call: must be one of search"),
    ({"faults": [{"kind": "garbled", "call": "list", "time": 1}]}, "faults[0].time: is unknown"),
    ({"faults": [{"kind": "garbled", "call": "list", "rows": 1}]}, "faults[0].rows: is no key of the kind garbled"),
    ({"faults": [{"kind": "garbled", "call": "list", "times": 0}]}, "faults[0].times: must be a whole number from 1"),
    ({"faults": [{"kind": "garbled", "call": "list", "times": True}]}, "not True"),
    ({"faults": [{"kind": "garbled", "call": "list", "after": -1}]}, "faults[0].after"),
    ({"faults": [{"kind": "garbled", "call": "list", "probability": 0}]}, "faults[0].probability"),
    ({"faults": [{"kind": "garbled", "call": "list", "probability": float("nan")}]}, "faults[0].probability"),
    ({"faults": [{"kind": "garbled", "call": "list", "instance": "7"}]}, "faults[0].instance"),
    ({"faults": [{"kind": "slow", "call": "list"}]}, "faults[0].seconds: is missing"),
    ({"faults": [{"kind": "slow", "call": "list", "seconds": -1}]}, "faults[0].seconds: must be a number above 0"),
    ({"faults": [{"kind": "server_error", "call": "list", "status": 404}]}, "must be one of 500, 502, 503, 504"),
    ({"faults": [{"kind": "server_error", "call": "list", "done": "yes"}]}, "must be true or false"),
    ({"faults": [{"kind": "empty_list", "call": "show"}]}, "empty_list can only hit list, search, volumes"),
    ({"faults": [{"kind": "malformed_list", "call": "list", "shape": "x"}]}, "must be one of no_list"),
    ({"faults": [{"kind": "host_offline", "call": "list", "shows": "gone"}]}, "must be one of offline, unknown"),
    ({"faults": [{"kind": "slow_destroy", "call": "destroy", "lingers": "x"}]}, "must be one of everywhere, list"),
    ({"faults": [{"kind": "rate_limited", "call": "list", "retry_after_s": "4"}]}, "must be a number from 0"),
    ({"faults": [{"kind": "slow_link", "call": "create"}]}, "faults[0].kb_per_s: is missing"),
    ({"faults": [{"kind": "disk_full", "call": "create"}]}, "faults[0].free_mb: is missing"),
    ({"faults": [{"kind": "disk_full", "call": "show", "free_mb": 1}]}, "disk_full can only hit create"),
    ({"faults": [{"kind": "slow_destroy", "call": "list", "seconds": 4}]}, "slow_destroy can only hit destroy"),
]


@pytest.mark.parametrize(("data", "said"), BAD, ids=[said for _data, said in BAD])
def test_a_bad_script_names_the_key(data: Any, said: str) -> None:
    with pytest.raises(BadFault) as caught:
        script_in(data)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["faults: [", "faults: [{kind: slow, call: list}]", "\x00", "- a\n"])
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "script.yml"
    path.write_text(text)
    with pytest.raises(TenantFailure, match=r"script\.yml") as caught:
        read_script(path)
    assert caught.value.kind == "config"
    with pytest.raises(TenantFailure, match=r"nothing\.yml"):
        read_script(tmp_path / "nothing.yml")


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"seed": 4, "faults": [{"kind": "lost_answer", "call": "create"}]}))
    script = read_script(path)
    assert (script.seed, script.faults) == (4, (Fault("lost_answer", "create"),))
    assert plan_of(script, 9).seed == 4
    assert plan_of(script_in({"faults": []}), 9).seed == 9


def test_the_example_is_valid_and_the_page_tells_every_kind_and_key() -> None:
    script = read_script(EXAMPLE)
    page = PAGE.read_text(encoding="utf-8")
    assert {fault.kind for fault in script.faults} == set(KINDS)
    for name in {*KINDS, *CALLS, *(one.name for one in fields(Fault)), "seed", "faults"}:
        assert f"`{name}`" in page, name


# -- answers -------------------------------------------------------------------------------------------------------

LIST = Reply(200, {"success": True, "instances_found": 3, "total_instances": 3, "label_counts": {"": 3},
                   "next_token": "t", "instances": [{"id": 1}, {"id": 2}, {"id": 3}]})  # fmt: skip


def rewritten(**fault: Any) -> dict[str, Any]:
    body: dict[str, Any] = spoiled(LIST, Fault(call="list", **fault)).body
    return body


def test_a_partial_list_may_admit_it_or_not() -> None:
    told = rewritten(kind="partial_list", rows=2)
    assert ([row["id"] for row in told["instances"]], told["total_instances"], told["instances_found"]) == ([1], 3, 1)
    hidden = rewritten(kind="partial_list", rows=2, admitted=False)
    assert ([row["id"] for row in hidden["instances"]], hidden["total_instances"]) == ([1], 1)
    assert rewritten(kind="partial_list", rows=9)["instances"] == []


def test_an_empty_list_is_well_formed() -> None:
    empty = rewritten(kind="empty_list")
    assert (empty["instances"], empty["total_instances"], empty["next_token"]) == ([], 0, None)
    assert empty["success"] is True


def test_lists_are_malformed_in_three_ways() -> None:
    assert rewritten(kind="malformed_list", shape="no_list")["instances"] is None
    assert "instances" not in rewritten(kind="malformed_list", shape="no_key")
    assert rewritten(kind="malformed_list", shape="no_ids")["instances"] == [{"id": None}] * 3


def test_a_refusal_is_no_list() -> None:
    refusal = Reply(404, {"success": False, "error": "auth_error"})
    assert spoiled(refusal, Fault("empty_list", "list")) == refusal


def test_a_garbled_answer_is_no_json() -> None:
    reply = spoiled(LIST, Fault("garbled", "list"))
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)


def test_the_rate_limiter_speaks_plain_text() -> None:
    reply = refusal_of([Fault("rate_limited", "create", retry_after_s=4.5)], 4.5)
    assert reply is not None
    assert (reply.status, reply.headers["Retry-After"]) == (429, "4.5")
    assert reply.body == "API requests too frequent: endpoint threshold=4.5"
    bare = refusal_of([Fault("rate_limited", "search")], 0)
    assert bare is not None
    assert (bare.body, dict(bare.headers)) == ("API requests too frequent", {})


# -- the market ----------------------------------------------------------------------------------------------------


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    one = Client(tmp_path / "state")
    yield one
    one.close()


def inject(client: Client, **fault: Any) -> int:
    status, answer = client.call("POST", "/control/faults", {"faults": [fault]})
    assert status == 200, answer
    return int(answer["ids"][0])


def shown(client: Client) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = client.call("GET", "/control/state")[1]["faults"]
    return listed


def test_faults_are_added_listed_and_cleared(client: Client) -> None:
    first = inject(client, kind="server_error", call="user", status=502, times=2)
    second = inject(client, kind="rate_limited", call="user", times=None)
    assert [client.http.get("/api/v0/users/current").status_code for _unused in range(3)] == [502, 502, 429]
    assert [(one["id"], one["struck"], one["spent"]) for one in shown(client)] == [(first, 2, True), (second, 3, False)]
    assert client.call("DELETE", f"/control/faults/{second}")[0] == 200
    assert client.call("DELETE", f"/control/faults/{second}")[0] == 404
    assert client.http.get("/api/v0/users/current").status_code == 200
    client.call("DELETE", "/control/faults")
    assert shown(client) == []


def test_a_bad_fault_is_refused_with_its_key(client: Client) -> None:
    status, answer = client.call("POST", "/control/faults", {"faults": [{"kind": "slow", "call": "list"}]})
    assert (status, answer["error"]) == (400, "invalid_args")
    assert "faults[0].seconds" in answer["msg"]
    assert client.call("POST", "/control/faults", {})[0] == 400
    assert shown(client) == []


def test_the_endpoint_needs_the_key_and_is_hit_by_no_fault(client: Client) -> None:
    inject(client, kind="server_error", call="any", times=None)
    assert client.http.get("/api/v0/ssh/").status_code == 503
    client.http.headers = {}
    assert client.http.post("/control/faults", json={"faults": []}).status_code == 403


def test_a_lost_answer_ends_the_connection_and_the_request_was_done(client: Client) -> None:
    inject(client, kind="lost_answer", call="create")
    with pytest.raises(ConnectionResetError):
        client.rent(client.offers()[0])
    assert len(client.market.listing.instance_rows()) == 1


def test_a_lost_request_was_not_done(client: Client) -> None:
    inject(client, kind="lost_request", call="create")
    with pytest.raises(ConnectionResetError):
        client.rent(client.offers()[0])
    assert client.market.listing.instance_rows() == []


def test_every_call_of_the_api_that_needs_a_key_can_be_hit(client: Client) -> None:
    routes = Api(client.market, "key").routes()
    assert {route.call for route in routes if route.call} == set(CALLS) - {"any"}
    unnamed = {route.path for route in routes if not route.call and not route.public}
    assert {path for path in unnamed if not path.startswith("/control/")} == {
        "/api/v0/instances",
        "/api/v0/instances/filters",
    }


def billed(client: Client, kind: str) -> float:
    return sum(item.amount for line in client.market.money.charges() for item in line.items if item.kind == kind)


def test_a_stuck_box_bills_no_card_and_comes_up_when_the_fault_ends(client: Client) -> None:
    fault = inject(client, kind="stuck_loading", call="create")
    number = client.rent(client.offers()[0])[1]["new_contract"]
    row = client.wait(number, actual_status="loading")
    assert (row["intended_status"], row["cur_state"]) == ("running", "running")
    assert row["ports"] == {}
    held = client.call("GET", "/control/faults")[1]["held"]
    assert held == [{"instance": number, "state": "loading", "left_s": None, "fault": fault}]
    assert not client.engine.alive(number)
    # It had its card from the create to the fault, and pays for no more of it while the disk goes on being paid for.
    gpu, disk = billed(client, "gpu"), billed(client, "disk")
    deadline = time.monotonic() + DEADLINE_S
    while billed(client, "disk") <= disk:
        assert time.monotonic() < deadline
    assert billed(client, "gpu") == gpu
    client.call("DELETE", f"/control/faults/{fault}")
    assert client.wait(number, actual_status="running")["ports"]
    assert client.call("GET", "/control/faults")[1]["held"] == []


def test_a_lost_host_takes_the_processes_and_gives_them_back(client: Client) -> None:
    number = client.running(client.offers()[0])
    inject(client, kind="host_offline", call="show", shows="unknown")
    row = client.row(number)
    assert row is not None
    assert (row["actual_status"], row["intended_status"], row["ports"]) == ("unknown", "running", {})
    assert not client.engine.alive(number)
    client.call("DELETE", "/control/faults")
    client.wait(number, actual_status="running")


def test_a_box_in_scheduling_gets_its_card_when_the_fault_ends(client: Client) -> None:
    number = client.running(client.offers()[0])
    client.call("PUT", f"/api/v0/instances/{number}/", {"state": "stopped"})
    inject(client, kind="stuck_scheduling", call="change", seconds=0.3)
    client.call("PUT", f"/api/v0/instances/{number}/", {"state": "running"})
    row = client.row(number)
    assert row is not None
    assert (row["intended_status"], row["cur_state"]) == ("running", "stopped")
    client.wait(number, actual_status="running")


def test_on_demand_cannot_be_outbid_and_the_call_goes_on(client: Client) -> None:
    number = client.running(client.offers(type="on-demand")[0])
    inject(client, kind="outbid", call="show", instance=number)
    assert client.row(number) is not None
    assert client.market.books.instance(number).phase == "running"


def test_an_engine_without_host_keys_has_none_to_change(client: Client) -> None:
    number = client.running(client.offers()[0])
    inject(client, kind="host_key_change", call="show")
    assert client.row(number) is not None
    assert client.market.books.instance(number).phase == "running"


def test_a_destroyed_box_stays_listed_and_bills_no_more(client: Client) -> None:
    number = client.running(client.offers()[0])
    inject(client, kind="slow_destroy", call="destroy", seconds=3600)
    client.call("DELETE", f"/api/v0/instances/{number}/", {})
    assert client.wait(number, cur_state="unloaded")["id"] == number
    billed = client.market.money.charges()
    assert number not in client.market.books.living()
    client.call("GET", "/control/state")
    assert client.market.money.charges() == billed
    client.call("DELETE", "/control/faults")
    client.wait_until_gone(number)


# -- over a restart -------------------------------------------------------------------------------------------------


def restarted(client: Client, state: Path, **settings: Any) -> Client:
    client.close()
    return Client(state, **settings)


def test_faults_go_on_after_a_restart_and_hold_whom_they_held(tmp_path: Path) -> None:
    client = Client(tmp_path / "state")
    box = client.running(client.offers()[0], price=1.0)
    inject(client, kind="lost_answer", call="search", after=1)
    inject(client, kind="outbid", call="show", instance=box)
    client.row(box)
    client.offers()
    before = client.call("GET", "/control/faults")[1]
    assert [fault["calls"] for fault in before["faults"]] == [1, 1]
    client = restarted(client, tmp_path / "state")
    try:
        assert client.call("GET", "/control/faults")[1] == before
        assert client.row(box)["actual_status"] == "exited"  # type: ignore[index]
        with pytest.raises(ConnectionResetError):
            client.offers()
        client.call("DELETE", "/control/faults")
        client.wait(box, actual_status="running")
    finally:
        client.close()


def test_another_script_begins_anew_and_lets_go_whom_the_old_one_held(tmp_path: Path) -> None:
    client = Client(tmp_path / "state")
    box = client.running(client.offers()[0], price=1.0)
    inject(client, kind="outbid", call="show", instance=box)
    client.row(box)
    raised = client.market.books.state.raised
    assert raised
    script = script_in({"faults": [{"kind": "slow", "call": "user", "seconds": 1}]})
    client = restarted(client, tmp_path / "state", faults=script)
    try:
        shown = client.call("GET", "/control/faults")[1]
        assert ([fault["id"] for fault in shown["faults"]], shown["held"]) == ([2], [])
        assert client.market.books.state.raised == {}
    finally:
        client.close()


@pytest.mark.parametrize(("kind", "amount"), [("slow_link", {"kb_per_s": 1}), ("disk_full", {"free_mb": 1})])
def test_an_engine_without_boxes_has_no_link_and_no_disk(client: Client, kind: str, amount: dict[str, int]) -> None:
    inject(client, kind=kind, call="create", **amount)
    number = client.rent(client.offers()[0])[1]["new_contract"]
    assert client.market.incidents.held() == []
    assert client.market.books.instance(number).live
