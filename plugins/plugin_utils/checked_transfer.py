# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One checked transfer from beginning to end: survey, preflight, move, settle, and only then a good word."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import replace
from typing import Any, TypeVar

from ansible_collections.tenant.gpu.plugins.module_utils import (
    carrier,
    delivery,
    destination,
    enclosed,
    landing,
    progress,
    roster,
    rsync_carrier,
    shared_connection,
    snapshots,
    stores,
    stream_carrier,
    transfer,
    whole_folders,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.difference import DifferenceTracker
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import peer_answers, saved_manifest, transfer_verdict
from ansible_collections.tenant.gpu.plugins.plugin_utils.transfer_order import Far, Order

# What a box is given to settle what arrived, and to say how far it got, when the time for all of it is over.
LAST_WORD_S = 60.0
_SHOWN = 10
_LISTED = 1000
_DIFFED = 200
_LONGEST = 1000
_LOOK_S = 600.0
_LEAST_S = 1.0
_Move = Callable[[Sequence[roster.RosterFile]], transfer.Attempt]
_Read = TypeVar("_Read")


def run(order: Order, far: Far, report: progress.Report | None = None) -> dict[str, Any]:
    """Carry out ``order``; returns the task's result. TenantFailure when the preflight refuses.

    :param report: is told how far the transfer is, at most once a second and at its end: ``files_done``, ``files``,
        ``bytes_done``, ``bytes``, ``rate_bps`` and ``eta_s``, the last two None while unknown.
    """
    begun = time.monotonic()
    carried = _Transfer(order, far, report)
    result = carried.run()
    result["roster_sha256"] = carried.roster_sha256
    result["seconds"] = round(time.monotonic() - begun, 3)
    return result


class _Transfer:
    def __init__(self, order: Order, far: Far, report: progress.Report | None) -> None:
        self.order, self.far, self.report = order, far, report
        self.deadline = carrier.Deadline(order.deadline_s)
        self.transport = order.transport
        self.own_connection = False
        self.enclosed = 0
        # Whether bytes may move before the box was asked, what is done while the first of them do, and the question.
        self.moves, self.beside, self.asks = False, carrier.Once(), carrier.Once()
        # Whether the box was there to the end of an attempt, so that it can say why something did not come.
        self.answers = False
        self.opened: shared_connection.SharedConnection | None = None
        self.saved = saved_manifest.SavedManifest(order.dest, order.manifest) if order.manifest is not None else None
        # Checkpoints at the destination that stay although this manifest does not list them.
        self.kept: tuple[roster.RosterFile, ...] = ()

    @functools.cached_property
    def roster_sha256(self) -> str:
        return roster.files_sha256(self.order.files)

    def run(self) -> dict[str, Any]:
        order = self.order
        try:
            if order.pull and not order.check_mode:
                # Before the destination is hashed, which takes its time.
                destination.refuse_if_held(order.dest)
                if not os.path.isdir(order.dest):
                    # All of it will be wanted.
                    self._open(order.files)
            return self._looked_at()
        finally:
            self._close_opened()

    def _looked_at(self) -> dict[str, Any]:
        order = self.order
        survey = self._survey()
        wanted = [file for file in order.files if file.path not in survey.good]
        left = [file for file in wanted if file.path not in survey.landed]
        extra = list(survey.extra)
        # Names that the box gave to files of its own.
        shown = [printable(path) for path in extra]
        self._refuse_extra(shown)
        aside = self._aside(extra)
        difference = self._difference(wanted, [printable(path) for path in aside])
        result = self._result(wanted, shown, difference)
        if not difference.changed:
            return self._arrived(result, "none")
        if survey.landed and not left:
            return self._arrived(result, "enclosed", attempts=1, wire_bytes=self.enclosed)
        wanted = left
        survey = self._with_room(survey, wanted)
        self._refuse_room(wanted, survey)
        self._refuse_proxy(wanted)
        self._refuse_missing_ssh()
        if order.check_mode:
            self._preflight(wanted, survey)
            return dict(result, transport=self.transport if wanted else "none", attempts=0, wire_bytes=0)
        with self._held():
            self._open(wanted)
            delivered, moved_to = self._ask_and_carry(wanted, survey, aside)
        if delivered.missing:
            verdict = transfer_verdict.failed(delivered, len(order.files), self.far.name, self.far.proxy)
            return dict(result, transport=self.transport, **verdict)
        if self.saved is not None:
            with snapshots.naming(order.dest, order.manifest, self.kept):
                self.saved.save()
        transport = self.transport if wanted else "none"
        result["quarantine"] = moved_to
        return self._arrived(result, transport, delivered.attempts, delivered.wire_bytes)

    def _arrived(
        self, result: dict[str, Any], transport: str, attempts: int = 0, wire_bytes: int = 0
    ) -> dict[str, Any]:
        """The good word, behind the check that earned it."""
        said = transfer_verdict.good_word(self.order.files, self.order.dest)
        told = {"transport": transport, "attempts": attempts, "wire_bytes": wire_bytes}
        return {**result, **told, "verified": True, "msg": said}

    # --- looking --------------------------------------------------------------------------------------------------

    def _survey(self) -> peer_answers.Survey:
        order = self.order
        if not order.pull:
            wishes = {"within": order.dest_root, "inode_cap": order.inode_cap, **self._enclosed()}
            return self._ask(peer_answers.survey, "survey", order.files, root=order.dest, **wishes)
        try:
            destination.confine(order.dest, order.dest_root)
            good, extra = delivery.survey(order.dest, order.files)
        except (destination.BadDestination, delivery.UnsafeTree, OSError) as error:
            raise self._refusal("config", str(error), "Choose a destination inside dest_root") from error
        return peer_answers.Survey(frozenset(good), frozenset(), tuple(extra), {}, "", "")

    def _enclosed(self) -> dict[str, Any]:
        """What goes with the question what is there; nothing where files of the box would have to move aside first."""
        order = self.order
        if not order.enclose or order.check_mode or order.extra != "report":
            return {}
        contents = enclosed.contents(order.src, order.files)
        self.enclosed = sum(len(content) for content in contents.values())
        return {"contents": contents, "reserve_bytes": order.reserve_bytes} if contents else {}

    def _with_room(self, survey: peer_answers.Survey, wanted: Sequence[roster.RosterFile]) -> peer_answers.Survey:
        """A box has told what room it has; here it is measured, once it is known that something is to come."""
        order = self.order
        if not order.pull:
            return survey
        return replace(survey, room=destination.room(order.dest, wanted, order.check_mode, order.inode_cap))

    def _ask(self, read: Callable[..., _Read], op: str, files: Sequence[roster.RosterFile], **options: Any) -> _Read:
        """What ``read`` makes of the box's answer about ``files``."""
        try:
            entries = delivery.by_name(files) if op == "offer" else _entries(files)
            return read(self.far.ask(op, entries, within_s=self._patience(op), **options), files)
        except peer_answers.Senseless as error:
            raise TenantFailure(
                "evidence_missing",
                f"the box's answer about its files makes no sense: {error}",
                box=self.far.name,
                safe="Nothing was removed at the source, and what arrived is kept",
                fix="Run the same task again; if it happens again, do not trust this box",
            ) from error

    def _patience(self, op: str) -> float:
        """Seconds: what the whole transfer has left, less for a mere look at names and sizes.

        What arrived is settled even where moving it took all of that.
        """
        if op == "offer":
            return max(min(self.deadline.left_s, _LOOK_S), _LEAST_S)
        return max(self.deadline.left_s, LAST_WORD_S if op == "settle" else _LEAST_S)

    def _aside(self, extra: Sequence[str]) -> list[str]:
        """What moves aside: all that nobody promised, less the checkpoints that nothing takes the place of."""
        order = self.order
        if order.extra != "quarantine":
            return []
        if order.manifest is not None and extra:
            self.kept = snapshots.kept(order.dest, order.manifest, frozenset(extra))
        stay = {file.path for file in self.kept}
        return [path for path in extra if path not in stay]

    def _difference(self, wanted: Sequence[roster.RosterFile], aside: Sequence[str]) -> DifferenceTracker:
        """What changes at the destination: the one source of ``changed`` and ``diff``."""
        difference, order = DifferenceTracker(), self.order
        for file in wanted[:_DIFFED]:
            difference.compare(file.path, "absent or other bytes", f"sha256:{file.sha256}")
        if len(wanted) > _DIFFED:
            difference.compare("and more", "", f"{len(wanted) - _DIFFED} files")
        for path in aside:
            difference.compare(path, "extra", "moved to quarantine")
        if order.manifest is not None and self.saved is not None:
            difference.compare(roster.MANIFEST_NAME, self.saved.digest_there, order.manifest.digest)
        return difference

    def _result(
        self, wanted: Sequence[roster.RosterFile], extra: Sequence[str], difference: DifferenceTracker
    ) -> dict[str, Any]:
        order = self.order
        return {
            **difference.as_result(),
            "src": order.src,
            "dest": order.dest,
            "direction": "pull" if order.pull else "push",
            "files": len(order.files),
            "bytes": sum(file.bytes for file in order.files),
            "transferred_files": len(wanted),
            "transferred_bytes": sum(file.bytes for file in wanted),
            "transferred": [file.path for file in wanted[:_LISTED]],
            "manifest_digest": order.manifest.digest if order.manifest else "",
            "extra": list(extra),
            "quarantine": "",
            "mismatches": [],
            "verified": False,
        }

    # --- refusing -------------------------------------------------------------------------------------------------

    def _refusal(self, kind: str, what: str, fix: str) -> TenantFailure:
        safe = "removed, and what arrived whole is kept" if self.moves else "transferred or removed"
        return TenantFailure(kind, what, box=self.far.name, safe=f"Nothing was {safe}", fix=fix)

    def _refuse_extra(self, extra: Sequence[str]) -> None:
        if extra and self.order.extra == "refuse":
            shown = ", ".join(extra[:_SHOWN])[:_LONGEST]
            what = f"{self.order.dest} holds {len(extra)} files that are not in the roster: {shown}"
            raise self._refusal("evidence_missing", what, "Move them away, or set extra to quarantine")

    def _refuse_room(self, wanted: Sequence[roster.RosterFile], survey: peer_answers.Survey) -> None:
        in_place = self.transport != "rsync"
        problem = destination.room_problem(wanted, survey.room, self.order.reserve_bytes, in_place)
        if problem:
            # What room a box has, and where, is said in its own words.
            shown = problem if self.order.pull else printable(problem)[:_LONGEST]
            raise self._refusal("config", shown, "Free space there, or choose another destination")

    def _refuse_proxy(self, wanted: Sequence[roster.RosterFile]) -> None:
        problem = destination.proxy_problem(wanted, self.order.proxy_limit_bytes) if self.far.proxy else ""
        if problem:
            store = f"Name an object store in via ({stores.FORMS}); or " if self.order.pull else ""
            fix = f"{store}{self.far.proxy}; or raise proxy_limit_bytes if the proxy can carry it"
            raise self._refusal("config", problem, fix)

    def _refuse_missing_ssh(self) -> None:
        ssh = self.far.link.ssh
        if not self.far.link.is_local and shutil.which(ssh) is None:
            raise self._refusal("config", f"{ssh} is not installed here", "Install the package openssh-client")

    def _preflight(self, wanted: Sequence[roster.RosterFile], survey: peer_answers.Survey) -> str:
        """Choose the transport; returns the box's Python. Asks the box what it offers before anything moves."""
        if not wanted:
            return ""
        far: peer_answers.Survey | peer_answers.Offer = survey
        if self.order.pull:
            far = offer = self._ask(peer_answers.offer, "offer", wanted, root=self.order.src)
            if offer.mismatches:
                raise self._not_offered(offer.mismatches)
        self._choose_transport(wanted, far.rsync_problem)
        # Once more, because rsync needs room for what arrived before a second time.
        self._refuse_room(wanted, survey)
        return far.python

    def _work_out(self) -> tuple[str, bytes]:
        """What will be told and written in the end, and needs nobody's answer."""
        return self.roster_sha256, self.saved.content if self.saved is not None else b""

    def _not_offered(self, mismatches: Sequence[roster.Mismatch]) -> TenantFailure:
        shown = "; ".join(str(mismatch) for mismatch in mismatches[:_SHOWN])
        what = f"the box does not have what its manifest says: {shown}"
        return self._refusal("evidence_missing", what, "Make the manifest again; symlinks and devices are never pulled")

    def _choose_transport(self, wanted: Sequence[roster.RosterFile], far_problem: str) -> None:
        if self.order.transport == "stream":
            return
        if self.order.transport == "auto" and (self.far.proxy or transfer.many_small(wanted)):
            # What a proxy lets through is a plain command, if anything.
            self.transport = "stream"
            return
        near_problem = delivery.rsync_problem()
        problem = f"on this controller {near_problem}" if near_problem else ""
        if not problem and far_problem:
            problem = f"on the box {far_problem}"
        if problem and self.order.transport == "rsync":
            raise self._refusal("config", problem, "Install it, or set transport to auto")
        self.transport = "stream" if problem else "rsync"

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Alone at a destination here; a folder that was made for it and stays empty goes again."""
        if not self.order.pull:
            yield
            return
        made, folder = [], self.order.dest
        while not os.path.isdir(folder):
            made.append(folder)
            folder = os.path.dirname(folder)
        try:
            with destination.held(self.order.dest):
                yield
        finally:
            with contextlib.suppress(OSError):
                for folder in made:
                    os.rmdir(folder)

    def _open(self, wanted: Sequence[roster.RosterFile]) -> None:
        """A large transfer has a connection of its own. For many small files it opens while others are looked at."""
        self.own_connection = carrier.wants_own_connection(wanted)
        is_worth_it = self.own_connection and self.order.pull and transfer.many_small(wanted)
        if is_worth_it and self.opened is None and not self.far.link.is_local and not self.far.proxy:
            self._refuse_missing_ssh()
            self.opened = shared_connection.SharedConnection(self.far.link)

    def _close_opened(self) -> None:
        opened, self.opened = self.opened, None
        if opened is not None:
            opened.end()

    # --- moving ---------------------------------------------------------------------------------------------------

    def _ask_and_carry(
        self, wanted: Sequence[roster.RosterFile], survey: peer_answers.Survey, aside: Sequence[str]
    ) -> tuple[carrier.Delivery, str]:
        """What :meth:`_carry` comes to, once the box was asked. Where its answer only tells sooner that something is
        missing, it is asked while the bytes move, if they take longer than that, and else when something is."""
        if not (self.order.pull and self.order.transport == "rsync" and not delivery.rsync_problem()):
            with futures.ThreadPoolExecutor(1) as beside:
                # The box takes its time to answer.
                beside.submit(self._work_out)
                python = self._preflight(wanted, survey)
            return self._carry(wanted, aside, python)
        self.moves, self.beside = True, carrier.Once(self._work_out)
        self.asks = carrier.Once(lambda: self._preflight(wanted, survey))
        goes_on = os.path.isdir(delivery.staging(self.order.dest))
        try:
            return self._carry(wanted, aside, "")
        except TenantFailure:
            if not goes_on:
                delivery.close_staging(self.order.dest)
            raise

    def _carry(
        self, wanted: Sequence[roster.RosterFile], aside: Sequence[str], python: str
    ) -> tuple[carrier.Delivery, str]:
        """Move and settle; (what came of it, where extra files were moved to)."""
        self.progress = progress.Progress(self.report, len(wanted), sum(file.bytes for file in wanted))
        delivered, moved_to = (self._pull if self.order.pull else self._push)(wanted, aside, python)
        # Where nothing had to move.
        self.beside()
        self.progress.end()
        return delivered, moved_to

    def _pull(
        self, wanted: Sequence[roster.RosterFile], aside: Sequence[str], python: str
    ) -> tuple[carrier.Delivery, str]:
        order = self.order
        staged = delivery.staging(order.dest)
        incoming = landing.Landing(order.dest, self.progress)
        whole = whole_folders.WholeFolders(order.files)
        route = self._route(far_root=order.src, near_root=staged, python=python, landing=incoming, whole=whole)

        def move(files: Sequence[roster.RosterFile]) -> transfer.Attempt:
            try:
                delivery.open_staging(order.dest, files)
            except OSError as error:
                return transfer.judge_error(self.transport, error)
            return self._move(route, files)

        def settle(files: Sequence[roster.RosterFile]) -> tuple[list[str], list[roster.Mismatch]]:
            arrived, mismatches = incoming.settle(files)
            if mismatches and self.answers:
                self.asks()
            return arrived, mismatches

        delivered = self._deliver(wanted, move, settle, lambda: carrier.bytes_under(staged))
        if delivered.missing:
            return delivered, ""
        delivery.close_staging(order.dest)
        return delivered, delivery.quarantine(order.dest, aside) if aside else ""

    def _push(
        self, wanted: Sequence[roster.RosterFile], aside: Sequence[str], python: str
    ) -> tuple[carrier.Delivery, str]:
        order = self.order
        moved_to = [""]

        def settle(files: Sequence[roster.RosterFile]) -> tuple[list[str], list[roster.Mismatch]]:
            options = {"root": order.dest, "within": order.dest_root, "aside": list(aside)}
            answer = self._ask(peer_answers.settled, "settle", files, **options)
            moved_to[0] = answer.quarantine or moved_to[0]
            self.progress.landed(len(answer.paths))
            return list(answer.paths), list(answer.mismatches)

        if not wanted:
            settle([])
        route = self._route(far_root=delivery.staging(order.dest), near_root=order.src, python=python)
        delivered = self._deliver(
            wanted, lambda files: self._move(route, files), settle, lambda: self.progress.beyond_buffers
        )
        return delivered, moved_to[0]

    def _route(self, **more: Any) -> carrier.Route:
        order = self.order
        return carrier.Route(
            self.far.link,
            order.pull,
            wishes=order.wishes,
            progress=self.progress,
            beside=self.beside,
            asks=self.asks,
            **more,
        )

    def _deliver(
        self, wanted: Sequence[roster.RosterFile], move: _Move, settle: Any, growing: Callable[[], int]
    ) -> carrier.Delivery:
        whole = sum(file.bytes for file in wanted)

        def begin_and_move(files: Sequence[roster.RosterFile]) -> transfer.Attempt:
            self.progress.begin(len(wanted) - len(files), whole - sum(file.bytes for file in files))
            return move(files)

        return carrier.deliver(wanted, begin_and_move, settle, growing, self.order.patience, self.deadline)

    def _move(self, route: carrier.Route, files: Sequence[roster.RosterFile]) -> transfer.Attempt:
        route = replace(route, opened=self.opened)
        attempt = self._attempt(route, files)
        if self.transport == "rsync" and self.order.transport == "auto" and transfer.lacks_far_rsync(attempt):
            self.transport = "stream"
            attempt = self._attempt(route, files)
        self.answers = transfer.ended_there(attempt)
        # It may be what broke.
        self._close_opened()
        if self.own_connection and attempt.denied:
            # The play got in by a way that only its open connection still knows, such as a password.
            self.own_connection = False
        return attempt

    def _attempt(self, route: carrier.Route, files: Sequence[roster.RosterFile]) -> transfer.Attempt:
        """Text that is worth it is compressed on its way, the rest is not; the play's own connection compresses all."""
        move = stream_carrier.move_by_stream if self.transport == "stream" else rsync_carrier.move_by_rsync
        text, rest = transfer.split_text(files) if self.own_connection and not route.link.is_local else ([], files)
        own, carried = self.own_connection, 0
        if text:
            compressed = replace(route, wishes=replace(route.wishes, compress=True))
            attempt = move(compressed, text, self.deadline, own)
            if attempt.status != 0 or not rest:
                return attempt
            carried = attempt.wire_bytes or 0
        attempt = move(route, rest, self.deadline, own)
        return attempt if attempt.wire_bytes is None else replace(attempt, wire_bytes=attempt.wire_bytes + carried)


def _entries(files: Sequence[roster.RosterFile]) -> list[dict[str, Any]]:
    return [file.as_dict() for file in files]
