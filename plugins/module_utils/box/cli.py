# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The command line of the supervisor: ``python supervisor.pyz --root ROOT VERB``. JSON on stdout, whatever happens."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from typing import Any, NoReturn

from . import control, detach, diary, drill, drill_verdict, manifest, process, records, seal, shim, status, supervise
from .layout import Layout
from .names import UnsafeName
from .refusal import SYSTEM, USAGE, Refused

VERBS_THAT_CHANGE = ("register", "start", "resume-all", "stop", "hold", "seal", "unseal")


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
    start = _add(verbs, "start", "lift holds and start the supervisor unless one lives")
    start.add_argument("--run", help="only lift what stops this run")
    start.add_argument("--detach", choices=detach.METHODS, default="setsid")
    start.add_argument("--retry-failed", action="store_true", help="try failed cells again")
    _add(verbs, "resume-all", "what the box runs at each start: obeys seal, hold and stops")
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
    test = _add(verbs, "drill", "kill the run's command after its first checkpoint and see it go on", run="run id")
    test.add_argument("--cell", help="default: the first")
    test.add_argument("--deadline-s", type=_seconds, default=drill.DEFAULT_DEADLINE_S)
    test.add_argument("--tolerance", type=_share, default=drill_verdict.DEFAULT_TOLERANCE, help="of a loss, 0 to 1")
    test.add_argument("--again", action="store_true", help="although it has passed here")
    log = _add(verbs, "log", "the end of a cell's log", run="run id", cell="cell id")
    log.add_argument("--tail", type=_count, default=50, metavar="LINES")
    _add(verbs, "version", "what this program is")
    _add(verbs, "daemon", "(internal) the supervisor itself").add_argument("--ready-fd", type=int)
    shim_verb = _add(verbs, "shim", "(internal) parent of one trainer", run="run id", cell="cell id")
    shim_verb.add_argument("--attempt", type=_count, required=True)
    shim_verb.add_argument("--ready-fd", type=int)
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


def main(argv: list[str], program: list[str]) -> int:
    """Run one verb. ``program`` is the argv that starts this program again."""
    try:
        options = parser().parse_args(argv)
        if not os.path.isabs(options.root):
            raise Refused(USAGE, f"--root must be an absolute path, not {options.root!r}")
        layout = Layout(options.root)
        if options.verb == "daemon":
            return supervise.main(layout, program, options.ready_fd)
        if options.verb == "shim":
            return shim.main(layout, options.run, options.cell, options.attempt, options.ready_fd)
        answer = _answer(layout, options, program)
    except Refused as refused:
        if argv and {"daemon", "shim"} & set(argv):
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


def _answer(layout: Layout, options: argparse.Namespace, program: list[str]) -> dict[str, Any]:
    caller = control.Caller(tuple(program), options.epoch, options.check)
    if options.verb == "register":
        return control.register(layout, caller, _read_json(options.run_file))
    if options.verb == "start":
        wanted = control.StartOptions(options.run, options.detach, options.retry_failed)
        return control.start(layout, caller, wanted)
    if options.verb == "resume-all":
        return control.resume_all(layout, caller)
    if options.verb == "stop":
        return control.stop(layout, caller, options.run, options.grace_s)
    if options.verb == "hold":
        return control.hold(layout, caller, options.stop, options.grace_s)
    if options.verb == "seal":
        return seal.seal(layout, caller, options.stop, options.grace_s)
    if options.verb == "unseal":
        return seal.unseal(layout, caller)
    if options.verb == "manifest":
        return manifest.current(layout, options.run, options.snapshot, keep=not options.check)
    if options.verb == "drill":
        wanted_drill = drill.Options(options.run, options.cell, options.deadline_s, options.tolerance, options.again)
        return drill.drill(layout, caller, wanted_drill)
    if options.verb == "log":
        return status.log_tail(layout, options.run, options.cell, options.tail)
    if options.verb == "status":
        return status.status(layout, options.run)
    return version(program)


def version(program: list[str]) -> dict[str, Any]:
    """Hash of the program file, the Python it runs on, and the schema major it speaks."""
    path = program[-1]
    return {
        "program": path,
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
        raise Refused(USAGE, f"cannot read the run record {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Refused(USAGE, f"the run record {path} is not JSON ({error})") from error


def _print(answer: dict[str, Any], code: int) -> int:
    try:
        sys.stdout.write(json.dumps(answer, ensure_ascii=True, allow_nan=False, sort_keys=True) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (an SSH drop); what was asked for has been done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
