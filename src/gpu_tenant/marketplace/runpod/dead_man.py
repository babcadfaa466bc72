# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The moments at which RunPod stops or terminates a pod by itself, as its tenant asked when he rented it."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..books import Books
from ..contracts import Contracts
from ..engines.control import delete_tree
from ..instances import Phase
from .pods import own_volume

log = logging.getLogger(__name__)


class DeadMan:
    def __init__(self, books: Books, contracts: Contracts) -> None:
        self._books = books
        self._contracts = contracts

    def look(self) -> None:
        """Do what is due. A pod that is started again after its stop is not stopped a second time."""
        ends, stops = [], []
        with self._books.reading() as (state, now):
            for one in state.instances.values():
                if one.pod is None or not one.live:
                    continue
                if one.pod.terminate_after is not None and one.pod.terminate_after <= now:
                    ends.append(one.id)
                elif one.pod.stop_after is not None and one.pod.stop_after <= now:
                    stops.append(one)
            for one in stops:
                if one.pod is not None:
                    self._books.put(replace(one, pod=replace(one.pod, stop_after=None)))
        for one in stops:
            if one.phase not in (Phase.STOPPED, Phase.OUTBID, Phase.SCHEDULING):
                log.info("pod %d is stopped: its stopAfter is reached", one.id)
                self._contracts.stop(one.id)
        for number in ends:
            log.info("pod %d is terminated: its terminateAfter is reached", number)
            self._contracts.destroy(number)
            folder = own_volume(self._books.directory.volumes, number)
            if folder.exists():
                delete_tree(folder)
