# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Argument vectors and the meaning of failures, without moving a byte."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import carrier, roster, transfer
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from evidence_world import entry

PLAY = transfer.Link(
    host="203.0.113.7",
    options=transfer.play_options(
        40022,
        "root",
        "/keys/id",
        10,
        [
            "-C -o ControlMaster=auto -o ControlPersist=10m",
            "-o UserKnownHostsFile=/s/known_hosts/b -o HostKeyAlias=b.g1 -o StrictHostKeyChecking=no",
            None,
        ],
    ),
    control_path="/tmp/cp/abc",
)


def options(argv: list[str]) -> list[str]:
    return [argv[position + 1] for position, word in enumerate(argv) if word == "-o"]


@pytest.mark.parametrize("own", [True, False])
def test_law_8_the_host_key_is_checked_whatever_the_play_says(own: bool) -> None:
    found = options(transfer.ssh_argv(PLAY, own))
    checking = [value for value in found if value.startswith("StrictHostKeyChecking")]
    assert checking[0] == "StrictHostKeyChecking=yes", "the first value wins in ssh"
    assert "UserKnownHostsFile=/s/known_hosts/b" in found
    assert "HostKeyAlias=b.g1" in found
    assert "BatchMode=yes" in found


def test_small_transfers_ride_on_the_open_connection_and_large_ones_do_not() -> None:
    riding = transfer.ssh_argv(PLAY, own_connection=False)
    assert 'ControlPath="/tmp/cp/abc"' in options(riding)
    assert "ControlMaster=auto" not in options(riding)
    own = transfer.ssh_argv(PLAY, own_connection=True)
    assert [value for value in options(own) if value.startswith("Control")] == ["ControlMaster=no", "ControlPath=none"]
    assert "-C" not in own
    assert "Compression=no" in options(own)


@pytest.mark.parametrize(
    "words", ["-oControlPersist=9 -4", "-o controlmaster=auto -4", "-o 'ControlPath /x' -4", "-C -4"]
)
def test_connection_sharing_is_dropped_in_every_spelling(words: str) -> None:
    link = transfer.Link(host="h", options=transfer.play_options(None, None, None, 5, [words]))
    argv = transfer.ssh_argv(link, own_connection=True)
    assert argv[-3:] == ["-o", "ConnectTimeout=5", "-4"]


def test_rsync_takes_nothing_but_bytes_from_the_far_side() -> None:
    argv = transfer.rsync_argv(PLAY, True, "/box/runs/r 1", "/home/in coming", transfer.RsyncWishes(60), True)
    flags = [word for word in argv if word.startswith("-")]
    assert "--secluded-args" in flags
    assert "--files-from=-" in flags
    assert "--partial-dir=.tenant-partial" in flags
    assert "--no-dirs" in flags
    assert "--timeout=60" in flags
    for taken in ("-a", "-z", "--links", "-l", "--devices", "-D", "-r", "--owner", "--perms", "--delete", "--compress"):
        assert taken not in flags
    assert argv[-3:] == ["--", "203.0.113.7:/box/runs/r 1/", "/home/in coming/"]


def test_law_1_rsync_never_writes_a_file_under_its_own_name() -> None:
    """What is hashed while others arrive must have no writer any more."""
    for followed in (True, False):
        argv = transfer.rsync_argv(PLAY, True, "/box", "/here", transfer.RsyncWishes(60), True, followed)
        assert "--inplace" not in argv
        assert ("--temp-dir=.tenant-temporary" in argv) is followed


@pytest.mark.parametrize(
    ("count", "size", "many"), [(1000, 10, True), (999, 10, False), (1000, 1 << 20, False), (0, 0, False)]
)
def test_a_stream_carries_many_small_files(count: int, size: int, many: bool) -> None:
    files = [roster.RosterFile(f"f{number}", size, "a" * 64) for number in range(count)]
    assert transfer.many_small(files) is many


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("path", "role", "size", "is_text"),
    [
        ("run.LOG", "other", 5 * MIB, True),
        ("metrics", "metrics", 5 * MIB, True),
        ("out", "log", 5 * MIB, True),
        ("run.log", "other", MIB, False),
        ("model.pt", "other", 5 * MIB, False),
        ("model.pt", "checkpoint", 5 * MIB, False),
        ("model.json", "checkpoint", 5 * MIB, False),
        ("json", "other", 5 * MIB, False),
    ],
)
def test_text_that_is_worth_it_is_compressed_and_checkpoints_are_not(
    path: str, role: str, size: int, is_text: bool
) -> None:
    file = roster.RosterFile(path, size, "a" * 64, role)
    rest = roster.RosterFile("weights.bin", 99 * MIB, "b" * 64)
    assert transfer.split_text([file, rest]) == (([file], [rest]) if is_text else ([], [file, rest]))


def test_a_checkpoint_does_not_make_little_text_worth_compressing() -> None:
    files = [
        roster.RosterFile("model.json", 5 * MIB, "a" * 64, "checkpoint"),
        roster.RosterFile("log.txt", 9, "b" * 64),
    ]
    assert transfer.split_text(files) == ([], files)


@pytest.mark.parametrize("compress", [True, False])
def test_rsync_compresses_when_it_is_told_to(compress: bool) -> None:
    wishes = transfer.RsyncWishes(60, compress=compress)
    assert ("--compress" in transfer.rsync_argv(PLAY, True, "/box", "/here", wishes, True)) is compress


def test_rsync_pushes_to_an_ipv6_box() -> None:
    link = transfer.Link(host="2001:db8::1", become=("sudo", "-n", "-u", "root"))
    argv = transfer.rsync_argv(link, False, "/here", "/there", transfer.RsyncWishes(9, 100), False)
    assert argv[-2:] == ["/here/", "[2001:db8::1]:/there/"]
    assert "--bwlimit=100" in argv
    assert argv[argv.index("--rsync-path") + 1] == "sudo -n -u root rsync"


def test_far_words_are_quoted_for_the_far_shell() -> None:
    argv = transfer.far_argv(transfer.Link(host="h"), ["python3", "-c", "print('a b'); $(x)"])
    assert argv[-3:] == ["--", "h", "python3 -c 'print('\"'\"'a b'\"'\"'); $(x)'"]
    assert transfer.far_argv(transfer.Link(), ["a", "b c"]) == ["a", "b c"]


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "", "a b", "a;b", "h$(x)", "`x`", None, "a\n", "a/b", "@h"])
def test_law_8_a_hostile_host_is_refused(host: Any) -> None:
    with pytest.raises(TenantFailure):
        transfer.check_host(host)


@pytest.mark.parametrize("host", ["203.0.113.7", "ssh4.vast.ai", "my_box-1", "2001:db8::1", "[::1]"])
def test_a_plain_host_passes(host: str) -> None:
    assert transfer.check_host(host) == host


@pytest.mark.parametrize(
    ("status", "stderr", "again", "word"),
    [
        (0, b"", False, ""),
        (12, b"rsync: connection unexpectedly closed", True, "broke"),
        (13, b"xxxx", True, "could not print"),
        (20, b"", True, "interrupted"),
        (23, b"", True, "could not be sent"),
        (30, b"", True, "no data"),
        (255, b"ssh: connect to host x: Connection refused", True, "Connection refused"),
        (255, b"Host key verification failed.", True, "the ssh connection failed"),
        (255, b"@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", True, "the ssh connection failed"),
        (11, b"rsync: write failed: No space left on device (28)", False, "could not be read or written"),
        (12, b"No space left on device", True, "broke"),
        (1, b"", False, "options"),
        (-9, b"", True, "signal 9"),
        (137, b"", True, "the box's rsync was killed by signal 9"),
        (99, b"", False, "99"),
    ],
)
def test_an_exit_status_says_whether_to_try_again(status: int, stderr: bytes, again: bool, word: str) -> None:
    attempt = transfer.judge_rsync(status, b"", stderr)
    assert attempt.again == again
    assert word in attempt.reason


UNKNOWN = b"No ED25519 host key is known for box1 and you have requested strict checking.\r\n"
REFUSED = b"Host key verification failed.\r\n"
QUOTED = b"Received disconnect from 203.0.113.7 port 22:2: no\nHost key verification failed.\n\r\n"


@pytest.mark.parametrize(
    ("status", "log", "final"),
    [
        (255, UNKNOWN + REFUSED, True),
        (12, REFUSED, True),
        (255, QUOTED, False),
        (255, b"channel 0: open failed: connect failed: x\n" + REFUSED, False),
        (255, b"Connection to 203.0.113.7 closed by remote host.\r\n", False),
        (255, b"it said: Host key verification failed.\r\n", False),
        (255, b"", False),
    ],
)
def test_law_8_only_sshs_own_word_on_the_host_key_is_final(status: int, log: bytes, final: bool) -> None:
    """Whatever a box prints, and however it ends."""
    of_rsync = transfer.judge_rsync(status, b"", REFUSED, log=log)
    of_stream = transfer.judge_ssh(status, REFUSED, "it ended", log=log)
    for attempt in (of_rsync, of_stream):
        assert attempt.again is not final
        assert ("host key is not the pinned one" in attempt.reason) is final


def test_who_is_not_let_in_is_said_by_ssh_alone() -> None:
    denied = b"kim@203.0.113.7: Permission denied (publickey).\r\n"
    assert transfer.judge_ssh(255, b"", "it ended", log=denied).denied
    assert not transfer.judge_ssh(255, denied, "it ended").denied
    assert transfer.judge_rsync(255, b"", b"", log=denied).denied


def test_ssh_keeps_what_it_says_apart_from_what_the_box_says() -> None:
    link = transfer.Link(host="h", options=("-E", "of-the-play"), log="/tmp/a b")
    for own in (True, False):
        assert transfer.ssh_argv(link, own)[-2:] == ["-E", "/tmp/a b"]
    assert "-E" not in transfer.ssh_argv(transfer.Link(host="h"), True)


@pytest.mark.parametrize("judge", [transfer.judge_rsync, transfer.judge_ssh])
def test_law_8_what_ssh_says_is_shown_in_plain_characters(judge: Any) -> None:
    said = "ssh: \x1b]0;mine\x07\u202e\x9b2J gone".encode()
    reason = judge(255, said, said).reason if judge is transfer.judge_rsync else judge(255, said, "it ended").reason
    assert reason.isprintable()
    assert reason.isascii()
    assert "ssh: \\x1b]0;mine\\x07" in reason


def test_a_full_destination_is_final_and_no_fault_of_the_connection() -> None:
    for attempt in (transfer.judge_rsync(12, b"", b"", full=True), transfer.judge_ssh(1, b"", "it ended", full=True)):
        assert (attempt.again, attempt.kind, attempt.reason) == (False, "config", "the destination is full")


def test_statistics_are_read_with_and_without_separators() -> None:
    assert transfer.literal_bytes(b"x\nLiteral data: 1,234,567 bytes\n") == 1234567
    assert transfer.literal_bytes(b"Literal data: 7 bytes\n") == 7
    assert transfer.literal_bytes(b"") is None


@pytest.mark.parametrize(
    ("text", "modern"),
    [
        ("rsync  version 3.2.7  protocol version 31", True),
        ("rsync  version v3.4.1  protocol version 32", True),
        ("rsync  version 2.6.9  protocol version 29", False),
        ("openrsync: protocol version 29", False),
        ("", False),
    ],
)
def test_old_rsyncs_are_recognised(text: str, modern: bool) -> None:
    assert transfer.modern_rsync(text) == modern


def test_waits_double_up_to_a_cap() -> None:
    waits = transfer.back_off(2)
    assert [next(waits) for _unused in range(7)] == [2, 4, 8, 16, 32, 60, 60]


# --- the loop of attempts, in a world where moving is a list of results ---


class Fake:
    def __init__(self, attempts: list[tuple[transfer.Attempt, list[str]]]) -> None:
        self.attempts, self.waits, self.asked = attempts, [], []

    def move(self, wanted: Any) -> transfer.Attempt:
        self.asked.append([file.path for file in wanted])
        self.arrived = self.attempts[0][1]
        return self.attempts.pop(0)[0]

    def settle(self, wanted: Any) -> tuple[list[str], list[roster.Mismatch]]:
        wrong = [roster.Mismatch(file.path, "is wrong") for file in wanted if file.path not in self.arrived]
        return [file.path for file in wanted if file.path in self.arrived], wrong

    def deliver(self, wanted: Any, progress: Any = lambda: 0, **patience: Any) -> carrier.Delivery:
        return carrier.deliver(
            wanted,
            self.move,
            self.settle,
            progress,
            carrier.Patience(**{"retries": 2, "resends": 1, "first_wait_s": 1, **patience}),
            carrier.Deadline(3600),
            sleep=self.waits.append,
        )


GOOD = transfer.Attempt("rsync", 0, wire_bytes=5)
CUT = transfer.Attempt("rsync", 30, "no data for too long", again=True)
FULL = transfer.Attempt("rsync", 11, "the destination is full")
TWO = roster.parse_files([entry("a", b"1"), entry("b", b"2")])


def test_only_what_is_missing_is_asked_for_again() -> None:
    fake = Fake([(CUT, ["a"]), (GOOD, ["b"])])
    found = fake.deliver(TWO)
    assert fake.asked == [["a", "b"], ["b"]]
    assert (found.settled, found.missing, found.attempts) == (("a", "b"), (), 2)
    assert found.wire_bytes == 5


def test_law_6_patience_ends() -> None:
    fake = Fake([(CUT, [])] * 9)
    found = fake.deliver(TWO)
    assert found.attempts == 3
    assert fake.waits == [1, 2]
    assert found.reason == "no data for too long"
    assert [mismatch.path for mismatch in found.missing] == ["a", "b"]


def test_progress_renews_patience() -> None:
    grown = iter(range(100))
    fake = Fake([(CUT, [])] * 6 + [(GOOD, ["a", "b"])])
    assert fake.deliver(TWO, progress=lambda: next(grown)).missing == ()
    assert fake.waits == [1] * 6


def test_law_1_wrong_bytes_are_asked_for_again_a_bounded_number_of_times() -> None:
    fake = Fake([(GOOD, ["a"])] + [(GOOD, [])] * 9)
    found = fake.deliver(TWO)
    assert found.attempts == 2
    assert found.missing == (roster.Mismatch("b", "is wrong"),)
    assert found.reason == ""


def test_a_hopeless_attempt_is_not_repeated() -> None:
    found = Fake([(FULL, [])] * 2).deliver(TWO)
    assert found.attempts == 1
    assert "full" in found.reason


def test_law_6_the_deadline_ends_it_too() -> None:
    fake = Fake([(CUT, [])] * 9)
    found = carrier.deliver(
        TWO, fake.move, fake.settle, lambda: 0, carrier.Patience(9, 9, 1), carrier.Deadline(0), fake.waits.append
    )
    assert found.attempts == 1
