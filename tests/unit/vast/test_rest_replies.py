# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which answers to a create are a provider's certain "no", whichever provider it is."""

from __future__ import annotations

import json
from email.message import Message

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.api import KubernetesReply
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api import LambdaClient, LambdaReply
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.api import PaperspaceClient, PaperspaceReply
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import ONCE, AmbiguousAnswer, Reply, RestClient
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.api import RunpodClient, RunpodReply
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient, VastReply

# How each says no.
NO: dict[type[Reply], object] = {
    Reply: {"message": "no"},
    VastReply: {"success": False, "error": "no_such_ask", "msg": "no"},
    RunpodReply: [{"error": "no"}],
    LambdaReply: {"error": {"code": "global/invalid-parameters", "message": "no"}},
    PaperspaceReply: {"code": "BAD_REQUEST", "message": "no"},
    KubernetesReply: {"kind": "Status", "reason": "Invalid", "message": "no"},
}
REPLIES = pytest.mark.parametrize("reply", NO, ids=lambda reply: reply.__name__)
# What a proxy, a balancer or a firewall on the way may answer.
STRANGERS = [b"", b" \n", b"null", b"0", b'"no"', b"true", b"<html>no</html>", b"{"]


def said(reply: type[Reply], status: int, body: bytes) -> Reply:
    return reply(status, Message(), body)


@REPLIES
@pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
def test_its_own_words_are_certain(reply: type[Reply], status: int) -> None:
    assert said(reply, status, json.dumps(NO[reply]).encode()).is_certain_refusal


@REPLIES
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 410, 422, 499])
@pytest.mark.parametrize("body", STRANGERS)
def test_without_an_object_or_a_list_nothing_is_certain(reply: type[Reply], status: int, body: bytes) -> None:
    assert not said(reply, status, body).is_certain_refusal


@REPLIES
@pytest.mark.parametrize("status", [408, 499])
def test_who_gave_up_waiting_does_not_know(reply: type[Reply], status: int) -> None:
    assert not said(reply, status, json.dumps(NO[reply]).encode()).is_certain_refusal


@REPLIES
@pytest.mark.parametrize("body", [b"", b"too many requests"])
def test_the_rate_limiter_needs_no_words(reply: type[Reply], body: bytes) -> None:
    assert said(reply, 429, body).is_certain_refusal


@pytest.mark.parametrize("client", [VastClient, RunpodClient, LambdaClient, PaperspaceClient])
@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 499])
def test_a_create_that_nobody_refused_for_certain_is_ambiguous(client: type[RestClient[Reply]], status: int) -> None:
    asked = client("a-key")
    assert isinstance(asked.error_of("POST", "/x", ONCE, said(client.REPLY, status, b"")), AmbiguousAnswer)
