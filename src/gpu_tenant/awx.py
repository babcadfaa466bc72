# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Consent given in AWX: a workflow approval node, read from the API and never from a variable of the job.

The node of a workflow that was launched for one box (its ``limit``) is consent for that box, and to what its name, or a
line of its description, begins with: ``approve teardown``; ``approve standing teardown`` where it may be used for
results that nobody has seen yet; and somewhere in it ``loss 0123456789ab`` where it is consent to a loss. AWX shows
both to whoever answers, and keeps them with the answer. The approver is whom AWX names. A node counts once.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import NoRedirect

TIMEOUT_S = 30.0
_NODE = re.compile(r"/workflow_approvals/([0-9]{1,18})/*\Z")
_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Question:
    """What a node must have asked: one of ``verbs``, which are names of one verb, for ``box``; ``loss_id`` if any."""

    box: str
    verbs: Sequence[str]
    loss_id: str = ""
    standing: bool = False

    @property
    def words(self) -> list[str]:
        """How a node may put it, the first as it would be written today."""
        return [f"approve {'standing ' if self.standing else ''}{verb}" for verb in self.verbs]


@dataclass(frozen=True)
class Approved:
    """An approved node: who approved it, when the question was asked and answered, and where it can be looked up."""

    approver: str
    asked_at: str
    answered_at: str
    ref: str

    @property
    def source(self) -> dict[str, str]:
        """What the approval remembers of it."""
        return {"kind": "awx", "ref": self.ref, "asked_at": self.asked_at}

    def is_node_of(self, source: Mapping[str, Any]) -> bool:
        """Whether an approval was made of this very node, however its AWX was spelled then."""
        known, ours = _node_of(str(source.get("ref"))), _node_of(self.ref)
        if known is None or ours is None or known[1] != ours[1]:
            return False
        return known[0] == ours[0] or (bool(self.asked_at) and source.get("asked_at") == self.asked_at)


def _node_of(ref: str) -> tuple[str, int] | None:
    """(AWX, number) of the node that an address names; None for another address."""
    try:
        parts = urlsplit(ref)
        port = parts.port
    except ValueError:
        return None
    found = _NODE.search(parts.path)
    if found is None or not parts.hostname:
        return None
    # By whatever scheme: http leads to https, and two AWX on the usual ports of one host are hardly ever two.
    where = parts.hostname.rstrip(".") + (f":{port}" if port not in (None, 80, 443) else "")
    return where, int(found.group(1))


class Controller:
    """One AWX, by its URL and a token that may read workflow approvals."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._opener = urllib.request.build_opener(NoRedirect)

    @classmethod
    def of_environment(cls) -> Controller:
        """From CONTROLLER_HOST and CONTROLLER_OAUTH_TOKEN, as AWX's own client reads them."""
        url, token = os.environ.get("CONTROLLER_HOST", ""), os.environ.get("CONTROLLER_OAUTH_TOKEN", "")
        if not url.startswith(("https://", "http://")) or not token:
            raise _refused("AWX cannot be asked", "set CONTROLLER_HOST to its URL and CONTROLLER_OAUTH_TOKEN", "config")
        return cls(url, token)

    def approved(self, node_id: int, question: Question) -> Approved:
        """The approved node ``node_id``, of a workflow that was launched for the box of the question, which it asked.

        :raises TenantFailure: kind ``gate_refused`` when it is pending, denied, timed out, for another box, or asked
            something else.
        """
        box = question.box
        path = f"/api/v2/workflow_approvals/{node_id}/"
        node = self._get(path)
        if node.get("status") != "successful" or node.get("timed_out"):
            state = "timed out" if node.get("timed_out") else node.get("status")
            raise _refused(f"workflow approval {node_id} is {state}, not approved", "approve it in AWX, then repeat")
        person = (node.get("summary_fields") or {}).get("approved_or_denied_by") or {}
        if not person.get("username"):
            raise _refused(f"AWX does not say who approved workflow approval {node_id}", "approve it as a named user")
        limit = self._limit_of(node, node_id)
        if limit != box:
            what = f"workflow approval {node_id} is of a workflow limited to {limit!r}, not to {box}"
            raise _refused(what, f"launch the workflow with limit {box}")
        _refuse_other_question(node, node_id, question)
        asked, answered = str(node.get("created") or ""), str(node.get("finished") or "")
        return Approved(str(person["username"]), asked, answered, self._url + path)

    def answered_in(self, workflow_id: int) -> int:
        """The number of the one approval that was given in a workflow.

        :raises TenantFailure: kind ``gate_refused`` when there is none, or more than one.
        """
        listed = self._get(f"/api/v2/workflow_jobs/{workflow_id}/workflow_nodes/?page_size=200")
        if not isinstance(listed.get("results"), list) or listed.get("next"):
            raise _refused(f"AWX does not list the nodes of workflow {workflow_id}", "name it with --awx-approval")
        jobs = [((node or {}).get("summary_fields") or {}).get("job") or {} for node in listed["results"]]
        answers = [job for job in jobs if job.get("type") == "workflow_approval"]
        given = [job.get("id") for job in answers if job.get("status") == "successful"]
        if len(given) != 1 or not records.is_count(given[0]):
            what = f"workflow {workflow_id} has {len(given)} approvals that were given, of {len(answers)} asked for"
            raise _refused(what, "approve it in AWX; where it asks for several, name one with --awx-approval")
        return given[0]

    def _limit_of(self, node: Mapping[str, Any], node_id: int) -> str:
        workflow = (node.get("related") or {}).get("source_workflow_job")
        if not isinstance(workflow, str) or not workflow.startswith("/api/"):
            raise _refused(f"workflow approval {node_id} names no workflow", "use a node of a workflow for one box")
        return str(self._get(workflow).get("limit") or "").strip()

    def _get(self, path: str) -> Mapping[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            request = urllib.request.Request(self._url + path, headers=headers)  # noqa: S310 - http(s) only, checked above
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                found = json.loads(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            error.close()
            what = f"AWX answered {error.code} for {path}"
            fix = "check the token and the number"
            if 300 <= error.code < 400:
                fix = "give CONTROLLER_HOST as the address that AWX itself answers at: no token is sent elsewhere"
            raise _refused(what, fix, "config") from error
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            # Other errors quote what they stumbled over, which may be the token.
            why = error if isinstance(error, OSError) else type(error).__name__
            what = f"AWX gave no usable answer for {path}: {why}"
            raise _refused(what, "check CONTROLLER_HOST", "config") from error
        if not isinstance(found, dict):
            raise _refused(f"AWX gave no usable answer for {path}", "check CONTROLLER_HOST", "config")
        return found


def _refuse_other_question(node: Mapping[str, Any], node_id: int, question: Question) -> None:
    """An answer is to what was asked: "ready to harvest?" consents to no teardown, and to no loss."""
    asked = "\n".join(str(node.get(part) or "") for part in ("name", "description"))
    named = f"workflow approval {node_id} ({str(node.get('name') or '')!r})"
    if not any(_begins(line, words) for line in asked.splitlines() for words in question.words):
        what = f"{named} does not ask for {question.words[0][len('approve ') :]} of {question.box}"
        fix = f"let the name of the approval node, or a line of its description, begin with {question.words[0]!r}"
        raise _refused(what, f"{fix}, and ask again")
    if question.loss_id and not _says(asked, f"loss {question.loss_id}"):
        what = f"{named} does not name the loss that {question.verbs[0]} of {question.box} would be now"
        fix = f"write 'loss {question.loss_id}' into the node's description and ask again, or consent with --approver"
        raise _refused(what, fix)


def _begins(line: str, words: str) -> bool:
    """Not somewhere in it: "do not approve destroy yet" says the words too."""
    return re.match(rf"{re.escape(words)}(?![\w.-]*\w)", " ".join(line.split()), re.IGNORECASE) is not None


def _says(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?![\w.-]*\w)", text, re.IGNORECASE) is not None


def _refused(what: str, fix: str, kind: str = "gate_refused") -> TenantFailure:
    return TenantFailure(kind, what, safe="no approval was written", fix=fix)
