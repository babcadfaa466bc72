# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a box answers is a stranger's word, and a task's result is not only read: Ansible acts on some of its keys.

``ansible_facts`` become what the next tasks believe, ``add_host`` adds a machine with its connection and its variables:
a box that could answer them would choose what runs on the controller. So no answer becomes a result whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.readable import readable_parts

# Keys of a result that Ansible acts on. It removes others itself from what a module answers.
ACTED_ON = frozenset(("ansible_facts", "ansible_stats", "add_host", "add_group"))
# Those that it shows by themselves, beside what the task says; ``msg`` says what went wrong.
SHOWN = frozenset(("warnings", "deprecations", "exception"))
_LONGEST = 300


class OddAnswer(TenantFailure):
    """The answer has not the form that ours have."""

    def __init__(self, box: str, what: str) -> None:
        super().__init__(
            "unreachable",
            f"the box answered in a form that our programs do not answer in: {printable(what)[:_LONGEST]}",
            box,
            safe="nothing was done with the answer",
            fix="run the same command again; if it goes on, do not trust this machine and rent another one",
        )


def fields(
    answer: Mapping[str, Any], box: str, needed: Mapping[str, type], maybe: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """These fields of an answer, and no others.

    :param needed: name to type of what has to be there.
    :param maybe: of what may be missing or null, and then is left out.
    :raises OddAnswer: one is missing, or of another type.
    """
    found: dict[str, Any] = {}
    for name, kind in {**needed, **(maybe or {})}.items():
        value = answer.get(name)
        if value is None and name not in needed:
            continue
        # For Python true is a number.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise OddAnswer(box, f"{name} is no {kind.__name__}")
        found[name] = value
    return found


def believed(result: Mapping[str, Any], facts: tuple[str, ...] = ()) -> dict[str, Any]:
    """The result of a module that ran on a box, without what Ansible would act on or show, and readable.

    :param facts: names of the facts that the module is there to tell.
    :raises OddAnswer: it is deeper than any of ours.
    """
    found = {key: value for key, value in result.items() if key not in ACTED_ON | SHOWN}
    told = result.get("ansible_facts")
    kept = {name: told[name] for name in facts if name in told} if isinstance(told, Mapping) else {}
    return told_readably({**found, "ansible_facts": kept} if kept else found)


def told_readably(result: Mapping[str, Any], box: str = "") -> dict[str, Any]:
    """A result in which a box speaks, for the terminals that it is shown on.

    :raises OddAnswer: it is deeper than any of ours.
    """
    with form_is_checked(box):
        return {str(key): value for key, value in readable_parts(dict(result)).items()}


@contextlib.contextmanager
def form_is_checked(box: str) -> Iterator[None]:
    """What reads deep into an answer may stumble anywhere: that is the box's failure then, and no traceback.

    :raises OddAnswer: for whatever a value of the wrong form makes Python raise.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise OddAnswer(box, f"{type(error).__name__}: {error}") from error
