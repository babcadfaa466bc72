# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible itself tells of a box, it tells as it is: a login's banner, what stands around a module's answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.json_utils import _filter_non_json_lines
from ansible.plugins.action import ActionBase
from ansible_collections.tenant.gpu.plugins.module_utils.readable import readable, readable_parts
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import SHOWN


class ReadableAction(ActionBase):
    """An action that asks a box by Ansible's own way, and steers nobody's terminal with what it hears."""

    def _parse_returned_data(self, res: dict[str, Any], *more: Any) -> Any:
        # Before Ansible reads it: some versions show a module's warnings there and then, and all of them what is
        # printed beside the answer.
        heard = {key: readable(value) if isinstance(value, str) else value for key, value in res.items()}
        return super()._parse_returned_data({**heard, "stdout": _answer_alone(res.get("stdout", ""))}, *more)


def _answer_alone(stdout: str) -> str:
    """A module's answer, readable and without what Ansible shows by itself; ``stdout`` where there is none."""
    try:
        answer = json.loads(_filter_non_json_lines(stdout, objects_only=True)[0])
        return json.dumps(readable_parts({key: value for key, value in answer.items() if key not in SHOWN}))
    except (ValueError, RecursionError):
        return readable(stdout)


@contextlib.contextmanager
def errors_are_readable() -> Iterator[None]:
    """A box that cannot be reached is told by what its sshd, or whoever answers there, has to say."""
    try:
        yield
    except AnsibleError as error:
        text = readable(str(error))
        if text == str(error):
            raise
        kind = AnsibleConnectionFailure if isinstance(error, AnsibleConnectionFailure) else AnsibleError
        raise kind(text) from None
