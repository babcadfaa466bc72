# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command line of the supervisor: ``python supervisor.pyz --root ROOT VERB``. JSON on stdout, whatever happens.

Each verb loads only what it needs: what a shim loads stays in memory as long as its trainer lives, and a program that
could not be unpacked compiles what it loads at every start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, NoReturn

from . import detach, diary, process, records
from .layout import Layout
from .names import UnsafeName
from .refusal import SYSTEM, USAGE, Refused


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(USAGE, message, f"usage: {self.format_usage().strip()[7:]}")


def parser() -> argparse.ArgumentParser:
    """Options and verbs."""
    top = _Parser(prog="supervisor.pyz", description="Run training cells on a rented box, and survive it.")
    top.add_argument("--root", required=True, help="the tenant root of this box, an absolute path")
    top.add_argument("--epoch", type=_count, help="the caller's lease epoch; a lower one than known is refused")
    top.add_argument("--check", action="store_true", help="predict what a verb would change; write nothing")
    verbs = top.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    _add(verbs, "register", "put a run into the index", run_file="path of the run record, - for stdin")
    _add(verbs, "fetch", "have inputs on the box", order_file="path of the order, - for stdin")
    _add(verbs, "fetch-status", "how far that is", order_file="path of the order, - for stdin")
    _add(verbs, "secrets", "write and prove the secrets of a run", order_file="path of the order, - for stdin")
    _add(verbs, "check-tracker", "have what a tracker needs", order_file="path of the order, - for stdin")
    _add(verbs, "recover-tracker", "send what it kept here only", order_file="path of the order, - for stdin")
    start = _add(verbs, "start", "lift holds and start the supervisor unless one lives")
    start.add_argument("--run", help="only lift what stops this run")
    start.add_argument("--detach", choices=detach.METHODS, default="setsid")
    start.add_argument(
        "--detach-option", action="append", default=[], metavar="WORD", help="for tmux, systemd-run or sbatch"
    )
    start.add_argument("--array-tasks", type=_count, default=0, metavar="N", help="with sbatch: N tasks at most")
    start.add_argument("--array-limit", type=_count, default=0, metavar="N", help="so many of them at a time")
    start.add_argument("--retry-failed", action="store_true", help="try failed cells again")
    start.add_argument("--launch-file", help="the launch of a run of several boxes, - for stdin")
    _add(verbs, "resume-all", "what the box runs at each start: obeys seal, hold and stops")
    _add(verbs, "leave", "for start scripts whose container ends: save, leave, go on at the next start")
    _add(verbs, "status", "everything, computed now").add_argument("--run")
    stop = _add(verbs, "stop", "stop a run, or all, until a start or a reboot")
    stop.add_argument("--run")
    stop.add_argument("--grace-s", type=_seconds)
    for name, text in (
        ("hold", "start no new cell, reboots included"),
        ("seal", "promise that nothing writes any more"),
    ):
        verb = _add(verbs, name, text)
        verb.add_argument("--stop", action="store_true", help="stop live cells first")
        verb.add_argument("--grace-s", type=_seconds)
    _add(verbs, "unseal", "take the promise back; the old seal is kept aside")
    take = _add(verbs, "manifest", "the roster of a run", run="run id")
    take.add_argument("--snapshot", action="store_true", help="of a run whose cells live")
    _add(verbs, "promise", "what the sealed box promises of a run, in digests", run="run id")
    test = _add(verbs, "drill", "kill the run's command after its first checkpoint and see it go on", run="run id")
    test.add_argument("--cell", help="default: the first")
    test.add_argument("--deadline-s", type=_seconds, metavar="SECONDS")
    test.add_argument("--tolerance", type=_share, help="of a loss, 0 to 1")
    test.add_argument("--again", action="store_true", help="although it has passed here")
    log = _add(verbs, "log", "what a cell wrote", run="run id", cell="cell id")
    log.add_argument("--tail", type=_count, default=50, metavar="LINES")
    log.add_argument("--after", type=_place, metavar="ATTEMPT:BYTES", help="what was written after this place")
    _add(verbs, "version", "what this program is")
    daemon = _add(verbs, "daemon", "(internal) the supervisor itself")
    daemon.add_argument("--ready-fd", type=int)
    daemon.add_argument("--share", default="", help="of a task of a job array")
    fetch_verb = _add(verbs, "fetcher", "(internal) fetches the inputs of one order", set="which inputs")
    fetch_verb.add_argument("--ready-fd", type=int)
    shim_verb = _add(verbs, "shim", "(internal) parent of one trainer", run="run id", cell="cell id")
    shim_verb.add_argument("--attempt", type=_count, required=True)
    shim_verb.add_argument("--ready-fd", type=int)
    shim_verb.add_argument("--card", action="append", default=[])
    return top


def _add(verbs: Any, name: str, text: str, **required: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text)
    for option, explanation in required.items():
        verb.add_argument("--" + option.replace("_", "-"), required=True, help=explanation)
    return verb


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**53:
        raise argparse.ArgumentTypeError(f"{text} is not a count")
    return value


def _place(text: str) -> tuple[int, int]:
    attempt, _colon, offset = text.partition(":")
    return _count(attempt), _count(offset)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


def main(argv: list[str], program: list[str], unpacked: str = "") -> int:
    """Run one verb. ``program`` is the argv that starts this program again, ``unpacked`` where its sources may lie."""
    try:
        options = parser().parse_args(argv)
        if not os.path.isabs(options.root):
            raise Refused(USAGE, f"--root must be an absolute path, not {options.root!r}")
        layout = Layout(options.root)
        if options.verb == "daemon":
            from . import supervise

            return supervise.main(layout.of_share(options.share), program, options.ready_fd)
        if options.verb == "fetcher":
            from . import fetcher

            return fetcher.main(layout, options.set, options.ready_fd)
        if options.verb == "shim":
            from . import shim

            return shim.main(layout, options.run, options.cell, options.attempt, options.ready_fd, options.card)
        answer = _answer(layout, options, program, unpacked)
        if options.verb == "register" and not options.check and unpacked:
            from . import unpack

            unpack.unpack(program[-1], unpacked)
    except Refused as refused:
        if argv and {"daemon", "shim", "fetcher"} & set(argv):
            diary.say("refused", refused.what)
        return _print(refused.as_dict(), refused.code)
    except (records.RecordError, UnsafeName, KeyError, TypeError, ValueError) as error:
        # Every argument is checked by now, so what has the wrong shape is a record on the disk.
        fix = "nothing was changed; look at the file on the box"
        return _print({"error": f"a record is damaged: {error}", "kind": "damaged", "fix": fix, "exit": USAGE}, USAGE)
    except OSError as error:
        text = f"the operating system refused: {error}"
        return _print({"error": text, "kind": "system", "fix": "look at disk and permissions", "exit": SYSTEM}, SYSTEM)
    return _print(answer, 0)


def _answer(layout: Layout, options: argparse.Namespace, program: list[str], unpacked: str) -> dict[str, Any]:
    if options.verb == "version":
        return version(program, unpacked)
    if options.verb in ("status", "log", "promise"):
        return _look(layout, options)
    try:
        if options.verb in ("fetch", "fetch-status", "secrets", "check-tracker", "recover-tracker"):
            return _supply(layout, options, program)
        return _act(layout, options, program)
    finally:
        if not options.check and options.verb != "fetch-status":
            from . import ready_answer

            ready_answer.withdraw(layout)


def _look(layout: Layout, options: argparse.Namespace) -> dict[str, Any]:
    if options.verb == "promise":
        from . import promise

        return promise.of_run(layout, options.run)
    from . import run_log, status

    if options.verb == "log" and options.after:
        return run_log.after(layout, options.run, options.cell, *options.after)
    if options.verb == "log":
        return run_log.tail(layout, options.run, options.cell, options.tail)
    return status.status(layout, options.run)


def _supply(layout: Layout, options: argparse.Namespace, program: list[str]) -> dict[str, Any]:
    """What a run is given before it starts, and what its tracker left behind."""
    from . import control

    caller = control.Caller(tuple(program), options.epoch, options.check)
    order = _read_json(options.order_file)
    if options.verb == "secrets":
        from . import secret_file

        return secret_file.deliver(layout, caller, order)
    if options.verb in ("fetch", "fetch-status"):
        from . import fetch_verbs

        return (
            fetch_verbs.fetch(layout, caller, order) if options.verb == "fetch" else fetch_verbs.status(layout, order)
        )
    from . import tracker, tracker_recovery

    if options.verb == "check-tracker":
        return tracker.check(layout, caller, order)
    return tracker_recovery.recover(layout, order, caller.check)


def _act(layout: Layout, options: argparse.Namespace, program: list[str]) -> dict[str, Any]:
    from . import control, run_manifest, seal, supervision

    caller = control.Caller(tuple(program), options.epoch, options.check)
    if options.verb == "register":
        return control.register(layout, caller, _read_json(options.run_file))
    if options.verb == "start":
        brought = _read_json(options.launch_file) if options.launch_file else None
        words = tuple(options.detach_option)
        means = supervision.Means(options.detach, words, options.array_tasks, options.array_limit)
        return control.start(layout, caller, control.StartOptions(options.run, means, options.retry_failed, brought))
    if options.verb == "resume-all":
        return control.resume_all(layout, caller)
    if options.verb == "leave":
        return control.leave(layout)
    if options.verb == "stop":
        return control.stop(layout, caller, options.run, options.grace_s)
    if options.verb == "hold":
        return control.hold(layout, caller, options.stop, options.grace_s)
    if options.verb == "seal":
        return seal.seal(layout, caller, options.stop, options.grace_s)
    if options.verb == "unseal":
        return seal.unseal(layout, caller)
    if options.verb == "drill":
        from . import drill

        given = {"deadline_s": options.deadline_s, "tolerance": options.tolerance}
        limits = {name: value for name, value in given.items() if value is not None}
        return drill.drill(layout, caller, drill.Options(options.run, options.cell, again=options.again, **limits))
    return run_manifest.current(layout, options.run, options.snapshot, keep=not options.check)


def version(program: list[str], unpacked: str = "") -> dict[str, Any]:
    """Hash of the program file, where its sources may lie beside it, its Python, and the schema major it speaks."""
    import platform

    path = program[-1]
    return {
        "program": path,
        "unpacked": unpacked,
        "sha256": records.sha256_file(path) if os.path.isfile(path) else None,
        "schema_major": records.SCHEMA_MAJOR,
        "python": platform.python_version(),
        "boot": process.current_boot().as_dict(),
    }


def _read_json(path: str) -> object:
    try:
        if path == "-":
            return json.loads(sys.stdin.buffer.read().decode("utf-8"))
        with open(path, "rb") as stream:
            return json.loads(stream.read().decode("utf-8"))
    except OSError as error:
        raise Refused(USAGE, f"cannot read the record {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Refused(USAGE, f"the record {path} is not JSON ({error})") from error


def _print(answer: dict[str, Any], code: int) -> int:
    try:
        sys.stdout.write(json.dumps(answer, ensure_ascii=True, allow_nan=False, sort_keys=True) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (an SSH drop); what was asked for has been done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
