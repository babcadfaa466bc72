# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whom a box lets in: root, as containers do, or a user of its own without its rights, as virtual machines do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# The number of a machine's first user.
FIRST_USER = 1000


@dataclass(frozen=True)
class Account:
    """:param number: of the user and of its group."""

    name: str
    number: int
    home: str

    @property
    def is_root(self) -> bool:
        return self.number == 0

    def passwd_line(self) -> str:
        """Without a password, and not locked."""
        return f"{self.name}:*:{self.number}:{self.number}::{self.home}:/bin/bash"


ROOT = Account("root", 0, "/root")


def account_of(login: str) -> Account:
    """The account behind a login name; root's for an empty one."""
    return ROOT if login in ("", ROOT.name) else Account(login, FIRST_USER, f"/home/{login}")


def with_account(passwd: str, account: Account) -> str:
    """A passwd file in which the name stands for root, for an sshd that stands outside of the box."""
    others = [line for line in passwd.splitlines() if line.partition(":")[0] != account.name]
    return "".join(f"{line}\n" for line in [*others, f"{account.name}:*:0:0::/:/bin/sh"])
