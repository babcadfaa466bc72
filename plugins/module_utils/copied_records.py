# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The copied records of a box at rest, on the box that holds them: examined, sealed if the box was not, deleted.

Nothing from the copy is executed, and nothing in it may point out of it: its host is a stranger to the box that it
lies on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import Any, Iterator, Mapping

from . import seal_reading
from .box import fence, index, process, records, run_manifest, run_record, survey
from .box.layout import Layout
from .box.refusal import Refused
from .failures import TenantFailure

FOLDER = "gpu-tenant-harvest"
MADE_OF_COPY = "a copy of the box at rest"
SAFE = "the box at rest and everything on it are untouched"
COPY_AGAIN = (
    "run the harvest playbook again: the provider copies what is missing or of another size; a file that fails again "
    "must be removed from the copy first"
)
_CLOCK_SLACK_S = 5.0
_MOST_LISTED = 1000


def examine(tenant_root: str) -> dict[str, Any]:
    """What the copied records say, as :func:`seal_reading.read_box` does, the copy sealed where the box was not.

    :raises TenantFailure: ``evidence_missing``, naming what did not arrive whole.
    """
    layout = Layout(tenant_root)
    if os.path.islink(layout.root) or not os.path.isdir(layout.root):
        raise _damaged(f"{layout.root} is not there: nothing arrived")
    _drop_secrets(layout.root)
    refuse_ways_out(layout.root)
    try:
        late: list[str] = []
        seal = records.read_record_or_none(layout.seal, "seal")
        if seal is None or "made_of" in seal:
            # One that an earlier look made may be of less than has arrived by now.
            _seal_copy(layout)
        else:
            late = _written_after(layout)
            # Of a copied file the time of change is that of its arrival: after the seal's, nothing has changed here.
            os.chmod(layout.seal, 0o600)
    except (records.RecordError, Refused, OSError, KeyError, ValueError) as error:
        what = error.what if isinstance(error, Refused) else str(error)
        raise _damaged(what) from error
    answer = seal_reading.read_box(layout.root)
    return dict(answer, problems=[*answer["problems"], *late])


def _drop_secrets(root: str) -> None:
    """The provider copies whole folders, and a run's secrets were given to the host of its own box only."""
    for path in list(_entries(root)):
        if os.path.basename(path) == "secrets.env" and (os.path.islink(path) or os.path.isfile(path)):
            os.unlink(path)


def refuse_ways_out(root: str) -> None:
    """TenantFailure for anything in the folder that is no plain file or points out of it."""
    inside = os.path.realpath(root) + os.sep
    for path in _entries(root):
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode) and not os.path.realpath(path).startswith(inside):
            raise _damaged(f"{path} is a link that leads out of the copy")
        if not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _damaged(f"{path} is neither a file nor a folder")


def sizes(root: str) -> list[dict[str, Any]]:
    """Every file of the copy: ``{path, bytes}``, sorted."""
    found = [path for path in _entries(root) if not os.path.isdir(path) or os.path.islink(path)]
    return [{"path": os.path.relpath(path, root), "bytes": os.lstat(path).st_size} for path in sorted(found)]


def remove(tenant_root: str, identity: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Delete the copy of this very box, and say what went. TenantFailure for any other folder."""
    root = os.path.abspath(tenant_root)
    if not os.path.lexists(root):
        return {"changed": False, "files": 0, "bytes": 0, "listed": []}
    _refuse_other_folder(root, identity)
    gone = sizes(root)
    if not check:
        shutil.rmtree(root)
        # The supervisor that the controller brought for it, and the folder of all copies when this was the last.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(os.path.dirname(root), f".{os.path.basename(root)}.pyz"))
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(root))
    total = sum(line["bytes"] for line in gone)
    return {"changed": True, "files": len(gone), "bytes": total, "listed": gone[:_MOST_LISTED]}


def _refuse_other_folder(root: str, identity: Mapping[str, Any]) -> None:
    name = f"{identity['box']}.g{identity['generation']}"
    if (os.path.basename(root), os.path.basename(os.path.dirname(root))) != (name, FOLDER) or os.path.islink(root):
        raise TenantFailure("config", f"{root} is not {FOLDER}/{name}", safe="nothing was deleted")
    known = index.read(Layout(root))
    wrong = [key for key, value in identity.items() if known is not None and known.get(key) != value]
    if wrong:
        raise TenantFailure(
            "config", f"{root} holds another box: {', '.join(wrong)} differ", safe="nothing was deleted"
        )


def _entries(root: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise _damaged(f"{error.filename}: {error.strerror}")

    # Links to folders are listed and not followed.
    for folder, folders, files in os.walk(root, onerror=fail):
        for name in [*folders, *files]:
            yield os.path.join(folder, name)


def _seal_copy(layout: Layout) -> None:
    """Manifests of every run, then the seal, as the supervisor writes them. Nothing is judged or finished here:
    what had not ended on the box has not ended."""
    known = index.read(layout)
    if known is None:
        raise _damaged(f"{layout.index} did not arrive")
    found = survey.survey(layout)
    if found.problems:
        raise _damaged("; ".join(found.problems))
    runs = []
    for run_id in index.run_ids(known):
        built = run_manifest.of_run(layout, found, run_id)
        records.write_record(layout.run_manifest(run_id), "manifest", built)
        line = {key: built[key] for key in ("run_id", "spec_sha256", "state")}
        runs.append(dict(line, manifest_digest=built["digest"]))
    record = {
        **{key: known[key] for key in run_record.IDENTITY},
        "epoch": fence.known_epoch(layout),
        "sealed_at": records.utc_now(),
        "boot": process.current_boot().as_dict(),
        "made_of": MADE_OF_COPY,
        "runs": runs,
    }
    records.write_record(layout.seal, "seal", record)


def _written_after(layout: Layout) -> list[str]:
    """Artifacts that were written on the box after it was sealed, by the times that came along with the files."""
    seal = records.read_record(layout.seal, "seal")
    sealed = os.lstat(layout.seal).st_mtime
    promised = records.parse_utc(str(seal.get("sealed_at"))).timestamp()
    if abs(sealed - promised) > _CLOCK_SLACK_S:
        return []  # The provider gave the files new times, which say nothing.
    late = []
    for run_id in index.run_ids(index.read(layout)):
        for cell in layout.cells_on_disk(run_id):
            for number in layout.attempt_numbers(run_id, cell):
                output = layout.attempt(run_id, cell, number).output
                entries = _entries(output) if os.path.isdir(output) else ()
                late += [path for path in entries if _is_later(path, sealed)]
    return [f"{os.path.relpath(path, layout.root)} was written after the box was sealed" for path in late[:20]]


def _is_later(path: str, moment: float) -> bool:
    found = os.lstat(path)
    return stat.S_ISREG(found.st_mode) and found.st_mtime > moment


def _damaged(what: str) -> TenantFailure:
    return TenantFailure(
        "evidence_missing", f"the copy of the box at rest is not whole: {what}", safe=SAFE, fix=COPY_AGAIN
    )
