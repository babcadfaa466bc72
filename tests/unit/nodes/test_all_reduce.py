# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The proof program, as the boxes run it: real sockets, real torch over gloo, each way in which it can fail."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import random
import socket
import subprocess
import sys
from concurrent import futures
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import all_reduce, node_look, node_proof


@pytest.fixture
def port() -> int:
    """Free, and below those that the kernel gives out: nobody takes it by chance before it is used."""
    for number in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", number))
            return number
    raise AssertionError("no port is free")


def proofs(port: int, ranks: tuple[int, ...], within_s: float, **changes: Any) -> list[dict[str, Any]]:
    """What each of ``ranks`` says; all run at once."""
    request = {"world": 2, "boxes": ["node-a", "node-b"], "address": "127.0.0.1", "port": port, "backend": "gloo"}
    children = []
    for rank in ranks:
        asked = {**request, "rank": rank, "nonce": "n", "within_s": within_s, **changes}
        argv = [sys.executable, "-c", inspect.getsource(all_reduce), json.dumps(asked)]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
        children.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment))
    answers = [node_look.marked(child.communicate(timeout=600)[0], all_reduce.MARK) for child in children]
    assert all(answer is not None for answer in answers)
    return [answer for answer in answers if answer is not None]


def test_two_boxes_that_can_train_together_prove_it(port: int) -> None:
    pytest.importorskip("torch")
    for answer in proofs(port, (0, 1), 300):
        assert answer["problem"] == ""
        assert answer["reduce_ms"] > 0


def test_a_box_that_finds_nobody_says_whom_it_cannot_reach(port: int) -> None:
    (answer,) = proofs(port, (1,), 6)
    assert answer["problem"] == f"it cannot reach node-a at 127.0.0.1 port {port}: Connection refused"
    assert answer["waited"] is False


def test_the_box_that_listens_names_who_did_not_come(port: int) -> None:
    (answer,) = proofs(port, (0,), 7)
    assert answer["problem"] == f"nothing came from node-b on port {port} within the deadline"
    assert answer["waited"] is True


def test_when_one_of_three_does_not_come_the_others_end_at_once_and_name_it(port: int) -> None:
    answers = proofs(port, (0, 1), 15, world=3, boxes=["node-a", "node-b", "node-c"])
    assert [answer["waited"] for answer in answers] == [True, True]
    assert "node-c" in answers[0]["problem"]
    assert answers[1]["problem"] == "it reached node-a, but node-c did not"


def test_a_port_that_is_taken_is_told_by_its_owner(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        (answer,) = proofs(port, (0,), 5)
    assert answer["problem"] == f"port {port} cannot be listened on: Address already in use"


def test_a_stranger_on_the_port_is_not_taken_for_a_box(port: int) -> None:
    """Two groups that use one port by mistake must not prove anything to each other."""
    children = [(0, "mine"), (1, "another")]
    with futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda child: proofs(port, (child[0],), 8, nonce=child[1])[0], children))
    assert answers[0]["problem"] == f"nothing came from node-b on port {port} within the deadline"
    assert "it cannot reach node-a" in answers[1]["problem"]


def test_nccl_without_a_gpu_says_so(port: int) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for answer in proofs(port, (0, 1), 300, backend="nccl"):
        assert "backend nccl needs a GPU" in answer["problem"]


def test_the_request_of_each_box_follows_the_launch() -> None:
    launch = {"members": [{"box": "node-b", "address": "10.0.0.1"}, {"box": "node-a", "address": "10.0.0.2"}]}
    spec = {"nodes": {"port": 29500, "backend": "gloo"}}
    request = node_proof.request_of(spec, launch, "node-a", "x", 30)
    assert (request["rank"], request["world"], request["address"]) == (1, 2, "10.0.0.1")
    assert node_proof.request_of(spec, launch, "node-b", "x", 30)["rank"] == 0


def test_own_addresses_are_told_from_those_of_others() -> None:
    assert node_look.read_network("127.0.0.1", "") == ("lo", "")
    assert node_look.read_network("127.0.0.2", "") == ("", "")
    for interface in ("", "lo"):
        assert "is not an address of this box itself" in node_look.read_network("192.0.2.7", interface)[1]
    assert node_look.read_network("127.0.0.1", "lo") == ("lo", "")
    assert "no network interface 'eth77'" in node_look.read_network("127.0.0.1", "eth77")[1]
