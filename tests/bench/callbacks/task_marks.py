# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Keeps beside each host the name of the task that it is at, where the box's door reads whom a session serves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_marks
type: notification
short_description: Keep the name of the task that each host is at in a file
description: Writes to the folder that the environment variable C(TASK_MARKS) names.
requirements: [enabling in configuration]
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "task_marks"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        path = Path(os.environ["TASK_MARKS"]) / host.get_name()
        whole = path.with_suffix(".new")
        whole.write_text(task.get_name().strip() + "\n", encoding="utf-8")
        whole.replace(path)
