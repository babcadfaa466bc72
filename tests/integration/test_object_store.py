# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Routes through an object store, against a moto server and through a real sshd."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    copies,
    object_client,
    object_fetch,
    object_requests,
    object_store,
    object_upload,
    roster,
)
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import object_transfer
from loopback_sshd import REPOSITORY, LoopbackBox, descendants_named, end_pids, loopback_box, parse_ad_hoc
from object_server import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectServer, object_server
from run_folder import BIG, BIG_BYTES, MIB, PART, RunFolder, same_tree

pytestmark = pytest.mark.integration
SYNC = "tenant.gpu.checked_sync"
URI = f"s3://{BUCKET}/demo/r1/box1/g1"


@pytest.fixture(scope="module")
def running_server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def server(running_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ObjectServer:
    running_server.reset()
    monkeypatch.setattr(object_requests, "_FIRST_WAIT_S", 0.01)
    for name, value in keys(tmp_path).items():
        monkeypatch.setenv(name, value)
    return running_server


def keys(folder: Path) -> dict[str, str]:
    """An environment with the test's keys and nobody's configuration."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Run(RunFolder):
    def __init__(self, server: ObjectServer, folder: Path, big: bool = False) -> None:
        super().__init__(folder, big)
        self.server = server

    def order(self, **changes: Any) -> object_transfer.Order:
        location = object_client.locate(URI, {"endpoint_url": self.server.url})
        manifest = roster.parse_manifest(self.record())
        order = object_transfer.Order(location, str(self.folder), manifest, box="box1", part_bytes=PART)
        return dataclasses.replace(order, **{"first_wait_s": 0.01, "retries": 2, **changes})


@pytest.fixture
def run(server: ObjectServer, tmp_path: Path) -> Run:
    return Run(server, tmp_path / "box")


@pytest.fixture
def big_run(server: ObjectServer, tmp_path: Path) -> Run:
    """One file goes in two parts."""
    return Run(server, tmp_path / "box", big=True)


# --- there and back -----------------------------------------------------------------------------------------------


def test_a_run_is_stored_proven_and_fetched(big_run: Run, tmp_path: Path) -> None:
    stored = big_run.store()
    assert stored["verified"]
    assert stored["transferred_files"] == 3
    assert big_run.server.requests[-2][1].endswith("/manifest.json"), "the manifest is written after everything else"
    assert not big_run.server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    copy = stored["copies"][0]
    assert object_store.reread(copy) == (stored["manifest_digest"], ())
    fetched = big_run.fetch(tmp_path / "home")
    assert fetched["verified"]
    assert same_tree(big_run.folder, tmp_path / "home")
    assert roster.read_manifest(str(tmp_path / "home")).digest == stored["manifest_digest"]


def test_a_second_run_sends_and_brings_nothing(run: Run, tmp_path: Path) -> None:
    run.store()
    run.fetch(tmp_path / "home")
    run.server.requests.clear()
    again, fetched = run.store(), run.fetch(tmp_path / "home")
    assert (again["changed"], again["verified"], again["transport"]) == (False, True, "none")
    assert (fetched["changed"], fetched["verified"]) == (False, True)
    assert run.server.puts() == []


def test_check_mode_lists_and_touches_nothing(run: Run, tmp_path: Path) -> None:
    planned = run.store(check_mode=True)
    assert (planned["changed"], planned["transferred_files"], planned["verified"]) == (True, 3, False)
    assert BIG in planned["diff"]["after"]
    assert (run.orders, run.server.listing()) == ([], [])
    run.store()
    planned = run.fetch(tmp_path / "home", check_mode=True)
    assert (planned["changed"], planned["transferred_files"]) == (True, 3)
    assert not (tmp_path / "home").exists()


def test_the_store_itself_may_vouch(big_run: Run) -> None:
    stored = big_run.store(verify="provider_checksum")
    assert stored["verified"]
    assert big_run.server.requests.count(("GET", f"/{BUCKET}/demo/r1/box1/g1/{BIG}", 0)) == 0
    assert object_store.reread(stored["copies"][0]) == (stored["manifest_digest"], ())
    # The same number of bytes, written by someone else: their checksum is not the one of the parts.
    big_run.server.client.put_object(Bucket=BUCKET, Key=f"demo/r1/box1/g1/{BIG}", Body=os.urandom(BIG_BYTES))
    assert "no SHA-256" in object_store.reread(stored["copies"][0])[1][0]


def test_many_small_files_cost_one_call(run: Run) -> None:
    for number in range(100):
        run.write(f"c0/small/{number:03}.bin", os.urandom(100))
    assert run.store()["transferred_files"] == 103
    assert [len(order.get("sends", ())) for order in run.orders if order.get("sends")] == [103]


def test_files_that_nobody_promised_are_reported_or_refused(run: Run, tmp_path: Path) -> None:
    run.server.client.put_object(Bucket=BUCKET, Key="demo/r1/box1/g1/stranger", Body=b"x")
    with pytest.raises(TenantFailure, match="stranger"):
        run.store(extra="refuse")
    assert run.store()["extra"] == ["stranger"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "old.bin").write_bytes(b"old")
    fetched = run.fetch(tmp_path / "home")
    assert fetched["extra"] == ["old.bin"]
    assert (Path(fetched["quarantine"]) / "old.bin").read_bytes() == b"old"


def test_another_runs_prefix_is_refused(run: Run) -> None:
    run.store()
    other = roster.parse_manifest(run.record(generation=2))
    with pytest.raises(TenantFailure, match="g1"):
        run.store(manifest=other)


def test_check_mode_of_a_passage_lists_what_is_missing_here(run: Run, tmp_path: Path) -> None:
    run.store()
    order = run.order(folder=str(tmp_path / "home"), check_mode=True)
    planned = object_transfer.through_store(order, str(run.folder), run.ask)
    assert (planned["changed"], planned["transferred_files"], planned["via"]) == (True, 3, URI)
    assert not (tmp_path / "home").exists()


def test_a_passage_sends_again_what_the_store_has_wrong(run: Run, tmp_path: Path) -> None:
    run.store()
    key = "demo/r1/box1/g1/c0/a1/metrics é.json"
    etag = run.server.client.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"')
    run.server.client.put_object(Bucket=BUCKET, Key=key, Body=b'{"loss": 0.2}')
    # A record that was made to fit the damage: only the hash taken here tells.
    record = json.loads(
        run.server.client.get_object(Bucket=BUCKET, Key="demo/r1/box1/g1/.tenant-objects.json")["Body"].read()
    )
    wrong = run.server.client.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"')
    text = json.dumps(record).replace(etag, wrong)
    run.server.client.put_object(Bucket=BUCKET, Key="demo/r1/box1/g1/.tenant-objects.json", Body=text.encode())
    order = run.order(folder=str(tmp_path / "home"), extra="quarantine")
    through = object_transfer.through_store(order, str(run.folder), run.ask)
    assert through["verified"], through
    assert same_tree(run.folder, tmp_path / "home")


# --- damage and cuts ----------------------------------------------------------------------------------------------


def corrupt(times: int) -> Callable[[dict[str, Any], bytes], bytes]:
    """Flip a bit on the wire in the first ``times`` bodies that are large."""
    left = [times]

    def fault(_environ: dict[str, Any], body: bytes) -> bytes:
        if len(body) < MIB or not left[0]:
            return body
        left[0] -= 1
        return body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]

    return fault


def test_a_store_that_checks_refuses_a_corrupted_part_and_it_is_sent_again(big_run: Run) -> None:
    big_run.server.fault = corrupt(1)
    stored = big_run.store()
    assert stored["verified"]
    assert len([length for _target, length in big_run.server.puts() if length > MIB]) == 3


def test_corruption_that_lasts_is_named_and_leaves_no_manifest(big_run: Run) -> None:
    big_run.server.fault = corrupt(10**6)
    failed = big_run.store()
    assert failed["failed"]
    assert failed["failure"]["kind"] == "unreachable"
    assert "BadDigest" in failed["msg"]
    assert [entry["path"] for entry in failed["mismatches"]] == [BIG]
    assert "demo/r1/box1/g1/manifest.json" not in big_run.server.listing()


def test_a_store_that_checks_nothing_is_caught_by_the_reread(big_run: Run) -> None:
    big_run.server.checks = False
    big_run.server.fault = corrupt(1)
    stored = big_run.store()
    assert stored["verified"]
    assert stored["attempts"] == 2, stored
    big_run.server.fault = corrupt(10**6)
    big_run.write(BIG, os.urandom(BIG_BYTES))
    failed = big_run.store()
    assert failed["failed"]
    assert failed["failure"]["kind"] == "evidence_missing"
    assert "other bytes" in failed["msg"]
    assert "demo/r1/box1/g1/manifest.json" not in big_run.server.listing(), "withdrawn before anything was replaced"


def test_a_cut_upload_continues_with_the_parts_that_are_missing(big_run: Run) -> None:
    def die_half_way(order: dict[str, Any]) -> None:
        if order.get("sends"):
            order["sends"] = [sending for sending in order["sends"] if sending["offset"] == 0]
            object_upload.carry_out(object_upload.parse_order(order))
            raise TenantFailure("unreachable", "the connection to the box was lost")

    big_run.tamper = die_half_way
    assert big_run.store(retries=0)["failed"]
    assert len(big_run.server.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]) == 1
    big_run.tamper = lambda order: None
    big_run.server.requests.clear()
    stored = big_run.store()
    assert stored["verified"]
    bodies = [
        length for target, length in big_run.server.puts() if "/.tenant-" not in target and "manifest" not in target
    ]
    assert bodies == [BIG_BYTES - PART], "one part of two, and no small file again"


def test_a_lost_connection_to_the_store_is_waited_out(big_run: Run) -> None:
    cuts = [3]

    def cut(_environ: dict[str, Any], body: bytes) -> bytes | None:
        if len(body) > MIB and cuts[0]:
            cuts[0] -= 1
            return None
        return body

    big_run.server.fault = cut
    assert big_run.store()["verified"]


def test_only_our_own_abandoned_uploads_are_aborted(big_run: Run) -> None:
    def die(order: dict[str, Any]) -> None:
        if order.get("sends"):
            raise TenantFailure("unreachable", "the connection to the box was lost")

    big_run.tamper = die
    assert big_run.store(retries=0)["failed"]
    client = big_run.server.client
    client.create_multipart_upload(Bucket=BUCKET, Key="demo/r1/box1/g1/theirs.bin")
    big_run.tamper = lambda order: None
    big_run.write(BIG, os.urandom(PART + 7))
    stored = big_run.store()
    assert stored["verified"]
    assert stored["unfinished_uploads"] == ["theirs.bin"]
    left = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [entry["Key"] for entry in left] == ["demo/r1/box1/g1/theirs.bin"]


def test_a_file_that_is_not_what_the_manifest_says_is_named_and_not_taken(big_run: Run, tmp_path: Path) -> None:
    order = big_run.order()
    (tmp_path / "secret").write_bytes(b"x" * 13)
    (big_run.folder / "c0/a1/metrics é.json").unlink()
    (big_run.folder / "c0/a1/metrics é.json").symlink_to(tmp_path / "secret")
    data = bytearray((big_run.folder / BIG).read_bytes())
    data[PART + 5] ^= 1
    (big_run.folder / BIG).write_bytes(data)
    failed = object_transfer.store(order, big_run.ask)
    assert failed["failed"]
    assert sorted(entry["path"] for entry in failed["mismatches"]) == ["c0/a1/metrics é.json", BIG]
    assert f"demo/r1/box1/g1/{BIG}" not in big_run.server.listing()
    assert not big_run.server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_box_that_lies_about_what_it_sent_is_caught(run: Run) -> None:
    order = run.order()
    lie = {"etag": "0" * 32, "version_id": ""}

    def ask(told: dict[str, Any]) -> dict[str, Any]:
        return {
            "hashed": [{"digest": "0" * 64}] * len(told.get("hashes", ())),
            "sent": [lie] * len(told["sends"]),
            "whole": [],
        }

    small = [file for file in order.manifest.files if file.path != BIG] if order.manifest else []
    manifest = dataclasses.replace(order.manifest, files=tuple(small)) if order.manifest else None
    failed = object_transfer.store(dataclasses.replace(order, manifest=manifest), ask)
    assert failed["failed"]
    assert "missing from" in failed["msg"]
    with pytest.raises(TenantFailure, match="makes no sense"):
        object_transfer.store(order, lambda told: {"hashed": "yes", "sent": None})


def test_a_cut_fetch_continues_inside_the_file(big_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big_run.store()
    monkeypatch.setattr(object_fetch, "SEGMENT_BYTES", MIB)
    served = [0]

    def cut_after_four(environ: dict[str, Any], body: bytes) -> bytes | None:
        if environ.get("HTTP_RANGE"):
            served[0] += 1
            return body if served[0] <= 4 else None
        return body

    big_run.server.fault = cut_after_four
    failed = big_run.fetch(tmp_path / "home", retries=0, connections=1)
    assert failed["failed"]
    assert failed["failure"]["kind"] == "unreachable"
    big_run.server.fault = None
    fetched = big_run.fetch(tmp_path / "home")
    assert fetched["verified"]
    assert fetched["wire_bytes"] == BIG_BYTES - 4 * MIB
    assert same_tree(big_run.folder, tmp_path / "home")


def test_what_the_store_no_longer_has_right_is_named_by_fetch(run: Run, tmp_path: Path) -> None:
    run.store()
    key = "demo/r1/box1/g1/c0/a1/metrics é.json"
    run.server.client.put_object(Bucket=BUCKET, Key=key, Body=b'{"loss": 0.2}')
    failed = run.fetch(tmp_path / "home")
    assert failed["failed"]
    assert [entry["path"] for entry in failed["mismatches"]] == ["c0/a1/metrics é.json"]
    assert not (tmp_path / "home" / "c0/a1/metrics é.json").exists()
    run.server.client.delete_object(Bucket=BUCKET, Key=key)
    assert "is missing from" in run.fetch(tmp_path / "home")["msg"]


def test_a_hostile_manifest_in_the_store_writes_nothing(run: Run, tmp_path: Path) -> None:
    run.store()
    for path in ("../escape", "/etc/cron.d/x", "a\\b", ".tenant-incoming/x", "a/../../b"):
        record = run.record()
        record["files"][0]["path"] = path
        record["digest"] = roster.manifest_digest(record)
        body = json.dumps(record).encode()
        run.server.client.put_object(Bucket=BUCKET, Key="demo/r1/box1/g1/manifest.json", Body=body)
        with pytest.raises(TenantFailure) as caught:
            run.fetch(tmp_path / "home")
        assert caught.value.kind == "evidence_missing"
    assert not (tmp_path / "home").exists()


# --- the copy as evidence -----------------------------------------------------------------------------------------


def test_every_loss_in_a_bucket_without_versions_is_named(run: Run) -> None:
    copy = run.store()["copies"][0]
    client, prefix = run.server.client, "demo/r1/box1/g1/"
    client.put_object(Bucket=BUCKET, Key=prefix + "c0/a1/metrics é.json", Body=b'{"loss": 9.9}')
    client.delete_object(Bucket=BUCKET, Key=prefix + BIG)
    problems = " | ".join(object_store.reread(copy)[1])
    assert "metrics é.json has other bytes" in problems
    assert f"{BIG} is missing" in problems
    client.put_object(Bucket=BUCKET, Key=prefix + ".tenant-objects.json", Body=b"{}")
    assert "not a objects record" in object_store.reread(copy)[1][0] or "damaged" in object_store.reread(copy)[1][0]
    client.delete_object(Bucket=BUCKET, Key=prefix + "manifest.json")
    assert object_store.reread(copy)[0] == ""


def test_a_bucket_with_versions_keeps_what_was_overwritten(run: Run) -> None:
    client, prefix = run.server.client, "demo/r1/box1/g1/"
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    stored = run.store()
    copy = stored["copies"][0]
    assert copy["version_id"]
    assert copy["objects_version_id"]
    small = prefix + "c0/a1/metrics é.json"
    version = client.head_object(Bucket=BUCKET, Key=small)["VersionId"]
    client.put_object(Bucket=BUCKET, Key=small, Body=b'{"loss": 9.9}')
    for name in (BIG, "manifest.json", ".tenant-objects.json"):
        client.delete_object(Bucket=BUCKET, Key=prefix + name)
    assert object_store.reread(copy) == (stored["manifest_digest"], ())
    client.delete_object(Bucket=BUCKET, Key=small, VersionId=version)
    assert "metrics é.json is missing" in object_store.reread(copy)[1][0]


def test_the_gate_reads_the_copy_where_it_lies(run: Run) -> None:
    copy = run.store()["copies"][0]
    found = copies._reread_objects(copy["uri"], copy)
    assert (found.digest, found.problems) == (copy["sha256"], ())
    run.server.client.delete_bucket_policy(Bucket=BUCKET)
    run.server.demand_keys()
    assert "does not accept the credentials" in " ".join(copies._reread_objects(copy["uri"], copy).problems) or (
        "access denied" in " ".join(copies._reread_objects(copy["uri"], copy).problems)
    )


# --- refusals that speak ------------------------------------------------------------------------------------------


def test_without_credentials(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(TenantFailure, match="no usable credentials") as caught:
        run.store()
    assert caught.value.kind == "config"


def test_with_a_profile_that_is_not_there(run: Run) -> None:
    location = dataclasses.replace(run.order().location, profile="nobody")
    with pytest.raises(TenantFailure, match="no AWS profile 'nobody'"):
        run.store(location=location)


def test_with_keys_that_the_store_does_not_know(run: Run) -> None:
    run.server.demand_keys()
    with pytest.raises(TenantFailure) as caught:
        run.store()
    assert caught.value.kind == "config"
    assert SECRET_KEY not in str(caught.value)


def test_without_the_bucket(run: Run) -> None:
    location = dataclasses.replace(run.order().location, bucket="not-there")
    with pytest.raises(TenantFailure, match="no such bucket"):
        run.store(location=location)


def test_without_boto3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(TenantFailure, match="pip install boto3"):
        run.store()


def test_a_store_that_the_box_cannot_reach(run: Run) -> None:
    def wrong_address(order: dict[str, Any]) -> None:
        for sending in order.get("sends", ()):
            sending["url"] = sending["url"].replace(run.server.url, "http://127.0.0.1:9")

    run.tamper = wrong_address
    failed = run.store(retries=1)
    assert failed["failure"]["kind"] == "unreachable"
    assert "the box cannot reach" in failed["msg"]
    assert "X-Amz" not in json.dumps(failed)


def test_a_store_that_the_controller_cannot_reach(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    location = dataclasses.replace(run.order().location, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(TenantFailure, match="the controller cannot reach it") as caught:
        run.store(location=location)
    assert caught.value.kind == "unreachable"


def test_no_key_of_the_store_reaches_the_box(run: Run) -> None:
    stored = run.store()
    told = json.dumps(run.orders)
    assert SECRET_KEY not in told
    # The id of the key is part of every presigned URL, and of nothing else.
    urls = [sending["url"] for order in run.orders for sending in order.get("sends", ())]
    assert told.count(ACCESS_KEY) == len(urls)
    assert ACCESS_KEY not in json.dumps(stored)
    assert "X-Amz-Signature" not in json.dumps(stored)


def test_a_url_takes_no_other_bytes(run: Run) -> None:
    forged = os.urandom(13)

    def other_bytes(order: dict[str, Any]) -> None:
        run.write("c0/a1/metrics é.json", forged)
        for sending in order.get("sends", ()):
            sending["sha256"] = ""

    run.tamper = other_bytes
    failed = run.store(retries=0)
    assert failed["failed"]
    assert "demo/r1/box1/g1/c0/a1/metrics é.json" not in run.server.listing()


# --- through Ansible ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box() -> Iterator[LoopbackBox]:
    with loopback_box() as running:
        yield running


def test_through_ansible_store_fetch_and_a_proxied_pull(box: LoopbackBox, server: ObjectServer, tmp_path: Path) -> None:
    run = Run(server, box.home / "runs" / "r1")
    settings = {"endpoint_url": server.url}
    order = {"direction": "store", "src": str(run.folder), "dest": URI, "manifest": run.record()}
    command = box.ad_hoc_command(SYNC, {**order, "object_store": settings}, "-vvvv")
    log = tmp_path / "ansible.log"
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=dict(box.environment(), ANSIBLE_LOG_PATH=str(log)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    stored = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("=> ") + 3 :])[0]
    assert stored["verified"], stored
    assert stored["copies"][0]["uri"] == URI
    for secret in (SECRET_KEY, "X-Amz-Signature", ACCESS_KEY):
        assert secret not in done.stdout + done.stderr + log.read_text()

    fetch = {"direction": "fetch", "src": URI, "dest": str(tmp_path / "home"), "object_store": settings}
    assert box.ad_hoc(SYNC, fetch)["verified"]
    assert same_tree(run.folder, tmp_path / "home")

    pull = {"direction": "pull", "src": str(run.folder), "dest": str(tmp_path / "pulled"), "manifest": run.record()}
    pull |= {"proxy_limit_bytes": 1000, "object_store": settings}
    profile = {"platform_ssh_proxies": [{"host": "127.0.0.*", "instead": "expose TCP port 22 of the pod"}]}
    refused = box.ad_hoc(SYNC, pull, **profile)
    assert refused["failed"]
    assert "via" in refused["failure"]["fix"]
    assert "expose TCP port 22 of the pod" in refused["failure"]["fix"]
    through = box.ad_hoc(SYNC, {**pull, "via": f"s3://{BUCKET}/passage/r1"}, **profile)
    assert through["verified"], through
    assert (through["transport"], through["via"]) == ("object_store", f"s3://{BUCKET}/passage/r1")
    assert same_tree(run.folder, tmp_path / "pulled")


def test_a_killed_ssh_is_another_attempt_of_the_same_task(box: LoopbackBox, server: ObjectServer) -> None:
    run = Run(server, box.home / "runs" / "cut")
    run.write(BIG, os.urandom(2 * MIB))
    begun, again = threading.Event(), threading.Event()

    def hold_the_first(environ: dict[str, Any], body: bytes) -> bytes:
        # Let go on the kill, it could be answered whole by the shared connection before that notices its dead client.
        if len(body) > MIB and begun.is_set():
            again.set()
        elif len(body) > MIB:
            begun.set()
            again.wait(timeout=600)
        return body

    server.fault = hold_the_first
    order = {"direction": "store", "src": str(run.folder), "dest": URI, "manifest": run.record(), "first_wait_s": 0.1}
    command = box.ad_hoc_command(SYNC, {**order, "object_store": {"endpoint_url": server.url}})
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=box.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as playing:
        assert begun.wait(timeout=600)
        clients = descendants_named(playing.pid, "ssh")
        assert clients, "the play is waiting for the box, over ssh"
        end_pids(clients, signal.SIGKILL)
        out, errors = playing.communicate(timeout=600)
    stored = parse_ad_hoc(out, errors)
    assert stored.get("verified"), stored
    assert stored["attempts"] == 2, stored
