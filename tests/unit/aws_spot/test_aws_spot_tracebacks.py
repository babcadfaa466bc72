# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What EC2 refused, as it comes through Ansible from a module that says it nowhere but in its traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import aws_spot_instance
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.api import refusal_in

SAID = "An error occurred ({code}) when calling the RequestSpotInstances operation: There is no Spot capacity"


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "AuthFailure"])
def test_the_code_of_a_refusal_outlives_the_way_through_ansible(code: str) -> None:
    """Without it the order counts as one of which nobody knows what came, and the next type is never asked."""
    traceback = f'Traceback (most recent call last):\n  File "x"\nbotocore.exceptions.ClientError: {SAID}\n'
    answer = {"failed": True, "msg": "Failed to request spot instances", "exception": traceback.format(code=code)}
    done = _parsed({"stdout": json.dumps(answer), "stderr": "", "rc": 1})
    told = {**done, "traceback": aws_spot_instance._traceback_of(done)}
    assert refusal_in(told) == (code, "There is no Spot capacity")


def _parsed(heard: dict[str, Any]) -> dict[str, Any]:
    """``ansible-core`` 2.19 answers with the result itself, 2.21 with an object that holds it."""
    made = aws_spot_instance.ActionModule.__new__(aws_spot_instance.ActionModule)
    made._used_interpreter = None
    found = made._parse_returned_data(heard, "legacy")
    return dict(found if isinstance(found, dict) else found.as_result_dict())
