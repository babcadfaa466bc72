# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest that lies beside what was pulled, so that the results can be proven again without the box."""

from __future__ import annotations

import functools
import os

from ansible_collections.tenant.gpu.plugins.module_utils import roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records


class SavedManifest:
    """``manifest`` as it is, or will be, in the folder ``dest``."""

    def __init__(self, dest: str, manifest: roster.Manifest) -> None:
        self._dest, self._manifest = dest, manifest

    @functools.cached_property
    def content(self) -> bytes:
        """One line: json indents in Python, which takes longer for thousands of files than to move them."""
        return records.canonical_json(dict(self._manifest.record)) + b"\n"

    @property
    def digest_there(self) -> str:
        """The digest of the manifest beside the results; empty where there is none, other text for other bytes."""
        try:
            with open(self._path, "rb") as stream:
                # Of thousands of files these very bytes are soon seen; parsed they take a while.
                there = stream.read(len(self.content) + 1)
        except OSError:
            return ""
        return self._manifest.digest if there == self.content else "another manifest"

    def save(self) -> None:
        records.write_bytes(self._path, self.content)

    @property
    def _path(self) -> str:
        return os.path.join(self._dest, roster.MANIFEST_NAME)
