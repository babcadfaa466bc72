# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A box that lets us in and then says nothing: how long its answer is waited for, and what is said when none comes.

ssh has a deadline for connecting, and notices a line that is cut; a command that never ends it waits for as long. In a
linear play all other boxes would wait with it, and each of them bills.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ansible.plugins.action import ActionBase
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.time_limit import OutOfTime, time_limit

# For what looks around, or writes a little: far longer than a busy box takes.
ANSWER_S = 600.0
# For what reads, hashes, loads, installs or deletes as much as there is: as long as that may take to come home.
WORK_S = 6 * 3600.0


class Silent(TenantFailure):
    """No answer within the time that the question has."""

    def __init__(self, box: str, within_s: float) -> None:
        super().__init__(
            "unreachable",
            f"the box did not answer within {within_s:g} s",
            box,
            safe="what it had begun, the same task goes on with",
            fix="run the same command again; if it stays silent, restart it by its provider, or rent another one",
        )


@contextlib.contextmanager
def answered_within(action: ActionBase, seconds: float, box: str) -> Iterator[None]:
    """:raises Silent: what the box is asked within it is not answered after ``seconds``."""
    try:
        with time_limit(seconds):
            yield
    except OutOfTime as error:
        # At its end the task would have the box remove its temporary folder, and wait for that.
        shell = getattr(getattr(action, "_connection", None), "_shell", None)
        if shell is not None:
            shell.tmpdir = None
        raise Silent(box, seconds) from error
