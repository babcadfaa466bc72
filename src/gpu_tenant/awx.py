# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Consent given in AWX: a workflow approval node, read from the API and never from a variable of the job.

The node of a workflow that was launched for one box (its ``limit``) is consent for that box; the approver is whom AWX
names. A node counts once.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

TIMEOUT_S = 30.0
_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Approved:
    """An approved node: who approved it, when the question was asked, and where it can be looked up."""

    approver: str
    asked_at: str
    ref: str


class Controller:
    """One AWX, by its URL and a token that may read workflow approvals."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    @classmethod
    def of_environment(cls) -> Controller:
        """From CONTROLLER_HOST and CONTROLLER_OAUTH_TOKEN, as AWX's own client reads them."""
        url, token = os.environ.get("CONTROLLER_HOST", ""), os.environ.get("CONTROLLER_OAUTH_TOKEN", "")
        if not url.startswith(("https://", "http://")) or not token:
            raise _refused("AWX cannot be asked", "set CONTROLLER_HOST to its URL and CONTROLLER_OAUTH_TOKEN", "config")
        return cls(url, token)

    def approved(self, node_id: int, box: str) -> Approved:
        """The approved node ``node_id`` of a workflow that was launched for ``box``.

        :raises TenantFailure: kind ``gate_refused`` when it is pending, denied, timed out, or for another box.
        """
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
        return Approved(str(person["username"]), str(node.get("created") or ""), self._url + path)

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
        request = urllib.request.Request(self._url + path, headers=headers)  # noqa: S310 - http(s) only, checked above
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http(s) only
                found = json.loads(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            what = f"AWX answered {error.code} for {path}"
            raise _refused(what, "check the token and the number", "config") from error
        except (OSError, ValueError) as error:
            what = f"AWX gave no usable answer for {path}: {error}"
            raise _refused(what, "check CONTROLLER_HOST", "config") from error
        if not isinstance(found, dict):
            raise _refused(f"AWX gave no usable answer for {path}", "check CONTROLLER_HOST", "config")
        return found


def _refused(what: str, fix: str, kind: str = "gate_refused") -> TenantFailure:
    return TenantFailure(kind, what, safe="no approval was written", fix=fix)
