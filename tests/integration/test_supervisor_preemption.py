# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Preemption notices, from the providers' own metadata paths to a trainer that saved and a supervisor that waits."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, last_save, preemption, records
from metadata_server import Metadata, azure_event, metadata_service
from supervised_box import SupervisedBox, python38, supervised_box, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def service() -> Iterator[Metadata]:
    with metadata_service() as state:
        yield state


def first_look(source: str, service: Metadata) -> preemption.Notice | preemption.Unavailable | None:
    return next(preemption.SOURCES[source](preemption.MetadataService(service.url)))


def in_future(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


@pytest.mark.parametrize("source", sorted(preemption.SOURCES))
def test_a_machine_that_stays_has_no_notice(source: str, service: Metadata) -> None:
    assert first_look(source, service) is None


def test_aws_tells_of_an_interruption_with_its_time(service: Metadata) -> None:
    service.aws_action = {"action": "terminate", "time": "2026-11-21T08:22:00Z"}
    assert first_look("aws_imds", service) == preemption.Notice("stop", "spot terminate", "2026-11-21T08:22:00Z")


def test_aws_recommends_long_before(service: Metadata) -> None:
    service.aws_rebalance = {"noticeTime": "2026-11-21T08:00:00Z"}
    found = first_look("aws_imds", service)
    assert isinstance(found, preemption.Notice)
    assert (found.kind, found.event) == ("advice", "rebalance recommendation")


def test_aws_asks_for_a_new_token_when_the_old_one_is_refused(service: Metadata) -> None:
    service.aws_tokens_refused = 1
    assert first_look("aws_imds", service) is None
    assert [line for line in service.asked if line.startswith("PUT")] == ["PUT /latest/api/token"] * 2


def test_law_6_aws_that_refuses_each_fresh_token_is_asked_for_no_more_than_one_a_look(service: Metadata) -> None:
    service.aws_tokens_refused = 1000
    with pytest.raises(preemption.Unavailable, match="instance-action with status 401"):
        first_look("aws_imds", service)
    assert [line.split()[0] for line in service.asked] == ["PUT", "GET"] * 2


def test_a_token_that_runs_out_while_it_is_watched_is_renewed(service: Metadata) -> None:
    looks = preemption.aws_imds(preemption.MetadataService(service.url))
    for _look in range(3):
        service.aws_tokens_refused = 1
        assert next(looks) is None


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("aws_imds", "/latest/meta-data/events/recommendations/rebalance"),
        ("gcp_metadata", "/computeMetadata/v1/instance/maintenance-event"),
    ],
)
def test_an_advice_that_cannot_be_had_is_told_and_the_end_is_looked_for_as_ever(
    source: str, told: str, service: Metadata
) -> None:
    service.advice_status = 500
    watcher = preemption.Watcher(source, service.url, poll_s=0.01)
    watcher.start()
    wait_for("the problem", lambda: watcher.problem)
    assert watcher.problem == f"the metadata service answers {told} with status 500"
    assert watcher.notice is None
    preempt(source, service)
    wait_for("the notice", watcher.ends)
    watcher.stop()


def test_gcp_is_awaited_and_answers_at_once(service: Metadata) -> None:
    looks = preemption.gcp_metadata(preemption.MetadataService(service.url))
    assert next(looks) is None
    service.preempt_gcp()
    assert next(looks) == preemption.Notice("stop", "preempted")
    assert any("wait_for_change=true" in line and "last_etag=false" in line for line in service.asked)


def test_gcp_maintenance_that_ends_the_machine_is_advice(service: Metadata) -> None:
    service.gcp_maintenance = "TERMINATE_ON_HOST_MAINTENANCE"
    found = first_look("gcp_metadata", service)
    assert isinstance(found, preemption.Notice)
    assert found.kind == "advice"


def test_azure_counts_only_events_of_this_machine(service: Metadata) -> None:
    service.azure_events = [azure_event("Preempt", "neighbour")]
    assert first_look("azure_scheduled_events", service) is None
    service.azure_events += [azure_event("Freeze", "box-1"), azure_event("Preempt", "neighbour", "box-1", in_s=30)]
    found = first_look("azure_scheduled_events", service)
    assert isinstance(found, preemption.Notice)
    assert (found.kind, found.event) == ("stop", "Preempt")
    assert 0 < records.parse_utc(found.at).timestamp() - time.time() <= 31


def test_azure_has_two_minutes_for_its_first_answer_and_seconds_for_the_others(
    service: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scheduled events are switched on by the first question, which they may answer after two minutes."""
    waits: list[tuple[str, float]] = []

    class Watched(http.client.HTTPConnection):
        def request(self, method: str, url: str, *rest: Any, **more: Any) -> None:
            if "scheduledevents" in url:
                assert isinstance(self.timeout, float)
                waits.append((method, self.timeout))
            super().request(method, url, *rest, **more)

    monkeypatch.setattr(http.client, "HTTPConnection", Watched)
    for _begun in range(2):
        # After a failure it may be switched on anew, so a new series is as patient.
        looks = preemption.azure_scheduled_events(preemption.MetadataService(service.url))
        assert [next(looks) for _look in range(3)] == [None] * 3
    patient, brief = ("GET", preemption._AZURE_WITHIN_S), ("GET", preemption._ANSWER_WITHIN_S)
    assert waits == [patient, brief, brief] * 2
    assert patient[1] > 120 > brief[1]


@pytest.mark.parametrize("source", sorted(preemption.SOURCES))
def test_a_broken_service_is_told_and_is_no_notice(source: str, service: Metadata) -> None:
    service.down = True
    with pytest.raises(preemption.Unavailable, match="metadata service"):
        first_look(source, service)


def test_a_service_that_nobody_runs_is_told() -> None:
    with pytest.raises(preemption.Unavailable, match="does not answer"):
        next(preemption.aws_imds(preemption.MetadataService("http://127.0.0.1:9")))


def test_a_source_that_falls_silent_keeps_its_last_word(service: Metadata) -> None:
    service.aws_action = {"action": "stop", "time": in_future(60)}
    watcher = preemption.Watcher("aws_imds", service.url, poll_s=0.01)
    watcher.start()
    wait_for("the notice", lambda: watcher.notice)
    service.down = True
    wait_for("the problem", lambda: watcher.problem)
    assert watcher.notice is not None
    watcher.stop()


# --- the supervisor -----------------------------------------------------------------------------------------------


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path, python38()) as made:
        yield made


def preempt(source: str, service: Metadata) -> None:
    if source == "aws_imds":
        service.aws_action = {"action": "terminate", "time": in_future(100)}
    elif source == "gcp_metadata":
        service.preempt_gcp()
    else:
        service.azure_events = [azure_event("Preempt", "box-1", in_s=40)]


@pytest.mark.parametrize("source", sorted(preemption.SOURCES))
def test_a_notice_becomes_a_last_save_and_nothing_is_started_on_a_dying_machine(
    source: str, box: SupervisedBox, service: Metadata
) -> None:
    box.register_held(preemption={"source": source, "url": service.url})
    box.verb("start")
    trainer = box.await_trainer()
    preempt(source, service)
    run = box.await_state("preempted")
    assert "this machine ends" in run["cells"][0]["why"]
    # What the trainer saves on SIGTERM, under its last step's name.
    assert (Path(box.paths().checkpoints) / "step-0000000002.pt").exists()
    assert attempt.read(box.paths().exit, "exit")["stop_asked"] is True
    told = wait_for("the supervisor to tell", lambda: box.verb("status")["daemon"]["preemption"])
    assert (told[0]["source"], told[0]["notice"]["kind"]) == (source, "stop")
    assert box.verb("status")["daemon"]["alive"]
    assert box.layout.attempt_numbers("digits", "c1") == [1], box.log()
    assert trainer.pid


def test_a_trainer_has_what_is_left_of_the_notice_and_no_more(box: SupervisedBox, service: Metadata) -> None:
    """Six seconds ahead, and a run that would like sixty: two are kept for its exit record and the machine's end."""
    command = ["python", "train.py", "--steps", "4", "--hold-at", "2", "--gate", str(box.gate), "--on-term", "ignore"]
    box.register(command=command, grace_s=60, preemption={"source": "aws_imds", "url": service.url})
    box.verb("start")
    box.await_trainer()
    service.aws_action = {"action": "terminate", "time": in_future(6)}
    box.await_state("preempted")
    assert 0 <= records.read_record(box.paths().stop, "stop")["grace_s"] <= 6 - last_save.MARGIN_S
    ended = attempt.read(box.paths().exit, "exit")
    assert (ended["stop_asked"], ended["child"]) == (True, -signal.SIGKILL)


def test_a_platform_that_says_sigterm_leaves_a_trainer_what_it_leaves(box: SupervisedBox) -> None:
    """A pod of RunPod has five seconds: what lasts longer would be ended by the platform, without an exit record."""
    command = ["python", "train.py", "--steps", "4", "--hold-at", "2", "--gate", str(box.gate), "--on-term", "ignore"]
    box.register(command=command, grace_s=60, preemption={"grace_s": 5})
    box.verb("start")
    trainer = box.await_trainer()
    assert b"TENANT_GRACE_S=3" in Path(f"/proc/{trainer.pid}/environ").read_bytes().split(b"\0")
    assert box.verb("leave")["cells"] == ["digits/c1"]
    assert records.read_record(box.paths().stop, "stop")["grace_s"] == 3
    ended = attempt.read(box.paths().exit, "exit")
    assert (ended["stop_asked"], ended["child"]) == (True, -signal.SIGKILL)


def test_a_notice_reaches_the_whole_group_of_the_trainer(box: SupervisedBox, service: Metadata, tmp_path: Path) -> None:
    note = tmp_path / "child"
    command = ["python", "train.py", "--steps", "4", "--hold-at", "2", "--gate", str(box.gate)]
    source = {"source": "aws_imds", "url": service.url}
    box.register(command=[*command, "--with-child", str(note)], grace_s=600, preemption=source)
    box.verb("start")
    box.await_trainer()
    service.aws_action = {"action": "terminate", "time": in_future(3000)}
    box.await_state("preempted")
    assert note.read_text() == "SIGTERM"
    assert attempt.read(box.paths().exit, "exit")["child"] == 30, "the trainer saved and left once its child had"


def test_a_notice_that_is_taken_back_lets_the_run_go_on(box: SupervisedBox, service: Metadata) -> None:
    box.register_held(preemption={"source": "azure_scheduled_events", "url": service.url})
    box.verb("start")
    box.await_trainer()
    service.azure_events = [azure_event("Reboot", "box-1")]
    box.await_state("preempted")
    service.azure_events = []
    box.await_state("done")
    metrics = Path(box.paths(2).metrics).read_text().splitlines()
    assert json.loads(metrics[0]) == {"resumed_from": 2}


def test_advice_is_told_and_stops_nothing(box: SupervisedBox, service: Metadata) -> None:
    service.aws_rebalance = {"noticeTime": in_future(-5)}
    box.register_held(preemption={"source": "aws_imds", "url": service.url})
    box.verb("start")
    box.await_trainer()
    told = wait_for(
        "the advice", lambda: [each["notice"] for each in box.verb("status")["daemon"]["preemption"] if each["notice"]]
    )
    assert told[0]["kind"] == "advice"
    box.release()
    box.await_state("done")


def test_a_metadata_service_that_is_not_there_stops_nothing(box: SupervisedBox) -> None:
    box.register(preemption={"source": "aws_imds", "url": "http://127.0.0.1:9"})
    box.verb("start")
    box.await_state("done")
    assert "does not answer" in attempt.read(box.layout.daemon, "daemon")["preemption"][0]["problem"]


def test_an_unknown_source_is_refused(box: SupervisedBox) -> None:
    record = box.run_record(preemption={"source": "crystal_ball"})
    code, answer = box.ask("register", "--run-file", "-", stdin=json.dumps(record))
    assert code == 10
    assert "aws_imds" in answer["error"]
