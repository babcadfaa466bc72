# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The run spec of a run that ``watch`` looks after: read again when somebody has edited it, and followed as long as its
results are not home."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec

from gpu_tenant import home_before
from gpu_tenant.observe import as_failure


class FollowedSpec:
    """:param path: of the run; empty for a box that is only looked at.

    :param is_home: whether the results of ``now`` are.
    """

    def __init__(self, path: str, is_home: Callable[[], bool]) -> None:
        self._path = os.path.expanduser(path)
        self._is_home = is_home
        self.now: Mapping[str, Any] = {}
        self._edition: tuple[int, ...] = ()
        # Why it cannot be read since it was edited.
        self._unread: TenantFailure | None = None
        # Why what was read last is not followed.
        self.left_aside: TenantFailure | None = None

    @property
    def trouble(self) -> TenantFailure | None:
        return self._unread or self.left_aside

    def read(self) -> None:
        """What is acted on is what the playbook will read. One that makes another work of a run that is home is left
        aside (:mod:`home_before` says why)."""
        if not self._path:
            return
        # Before it is read: an edit meanwhile is read the next time.
        edition = self._edition_now()
        found = load_run_spec(self._path)
        is_another = bool(self.now) and found["spec_sha256"] != self.now["spec_sha256"] and self._is_home()
        self.left_aside = home_before.failure_of(str(self.now["id"])) if is_another else None
        self.now = self.now if is_another else found
        self._edition, self._unread = edition, None

    def read_if_edited(self, box: str) -> None:
        """Who waits for more money, or for nothing at all, hears of an edit. While it cannot be read nothing is done
        with the box.

        :raises TenantFailure: each time, while what is there is left aside.
        """
        if not self._path:
            return
        try:
            if self._unread is not None or self._edition_now() != self._edition:
                self.read()
        except Exception as error:
            self._unread = as_failure(error, box)
        if self.left_aside is not None:
            raise self.left_aside

    def _edition_now(self) -> tuple[int, ...]:
        """What changes whenever the file does, without reading it."""
        told = os.stat(self._path)
        return told.st_ino, told.st_size, told.st_mtime_ns
