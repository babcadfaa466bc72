# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The public keys of the account, which new instances let in, and those of each instance."""

from __future__ import annotations

from dataclasses import replace

from .books import Books
from .boxes import Boxes
from .instances import Key
from .refusals import MarketError


class SshKeys:
    def __init__(self, books: Books, boxes: Boxes) -> None:
        self._books = books
        self._boxes = boxes

    def of_account(self) -> tuple[Key, ...]:
        with self._books.lock:
            return self._books.state.keys

    def add(self, public_key: str, name: str = "") -> Key:
        with self._books.changing() as (state, now):
            key = Key(state.take_key_id(), public_key, now, name)
            state.keys = (*state.keys, key)
            return key

    def change(self, key_id: int, public_key: str) -> Key:
        with self._books.changing() as (state, _now):
            old = self._find(key_id)
            changed = replace(old, public_key=public_key)
            state.keys = tuple(changed if key is old else key for key in state.keys)
            return changed

    def delete(self, key_id: int) -> None:
        with self._books.changing() as (state, _now):
            old = self._find(key_id)
            state.keys = tuple(key for key in state.keys if key is not old)

    def attach(self, instance_id: int, public_key: str) -> Key:
        with self._books.changing() as (state, now):
            instance = self._books.instance(instance_id)
            key = Key(state.take_key_id(), public_key, now)
            changed = replace(instance, keys=(*instance.keys, key))
            self._books.put(changed)
        self._boxes.let_in(changed)
        return key

    def detach(self, instance_id: int, key_id: int) -> None:
        with self._books.changing():
            instance = self._books.instance(instance_id)
            kept = tuple(key for key in instance.keys if key.id != key_id)
            if len(kept) == len(instance.keys):
                raise MarketError(404, "no_such_ssh_key", f"Instance {instance_id} has no SSH key {key_id}.")
            changed = replace(instance, keys=kept)
            self._books.put(changed)
        self._boxes.let_in(changed)

    def _find(self, key_id: int) -> Key:
        for key in self._books.state.keys:
            if key.id == key_id:
                return key
        raise MarketError(400, "no_ssh_key", f"SSH key {key_id} not found.")
