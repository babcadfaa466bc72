# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our modules come with their bytecode, as those of Ansible itself do.

Ansible's loader of collections compiles each of them again in every ansible-playbook, and again in every worker that is
the first to need it: two hundred of them are half a second of a processor at each start. Whoever installs this first
has them found as Python finds any module, which keeps what it compiled beside the source.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

_OURS = __name__.rpartition(".plugin_utils.")[0]
_FOLDERS = (f"{_OURS}.module_utils.", f"{_OURS}.plugin_utils.")


class KeptBytecode:
    """Finds the modules of these folders; packages, and all else, are left to Ansible's own finder."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(_FOLDERS):
            return None
        # Python's own search of a folder would ask Ansible first, which has it search for it.
        found = (_search(folder).find_spec(name, target) for folder in path or ())
        return next((spec for spec in found if spec is not None and spec.submodule_search_locations is None), None)


@functools.cache
def _search(folder: str) -> FileFinder:
    return FileFinder(os.path.abspath(folder), (SourceFileLoader, SOURCE_SUFFIXES))


def install() -> None:
    if KeptBytecode not in sys.meta_path:
        sys.meta_path.insert(0, KeptBytecode)
