# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box_files import packed, shown
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import fields, form_is_checked

FAR_END = "box_files.answer"


class ActionModule(BoxCall):
    """Two questions at most: what differs, and then the contents of what does."""

    WORKS = (FAR_END,)

    ARGUMENT_SPEC = {
        "folders": {"type": "list", "elements": "path", "default": []},
        "folder_mode": {"type": "str", "default": "0700"},
        "files": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "path": {"type": "path", "required": True},
                "mode": {"type": "str", "default": "0644"},
                "src": {"type": "path"},
                "content": {"type": "str"},
            },
            "mutually_exclusive": [("src", "content")],
            "required_one_of": [("src", "content")],
        },
        "send": {"type": "str", "choices": ["differing", "all"], "default": "differing"},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._box = str(task_vars.get("inventory_hostname", ""))
        contents = {file["path"]: _content(file) for file in params["files"]}
        order = {
            "folders": [{"path": path, "mode": _mode(params["folder_mode"])} for path in params["folders"]],
            "files": [
                {"path": file["path"], "mode": _mode(file["mode"]), "sha256": _sha256(contents[file["path"]])}
                for file in params["files"]
            ],
        }
        at_once = contents if params["send"] == "all" and not self.check_mode else {}
        answer = self._ask(order, at_once, task_vars)
        differing = {found["path"]: found for found in answer["differing"]}
        wanting = [path for path in contents if path in answer["wanting"]]
        if wanting and not self.check_mode:
            answer = self._ask(order, {path: contents[path] for path in wanting}, task_vars)
            if answer["wanting"]:
                raise _changed_meanwhile([path for path in contents if path in answer["wanting"]], self._box)
            differing = {**{found["path"]: found for found in answer["differing"]}, **differing}
        modes = {entry["path"]: entry["mode"] for entry in [*order["folders"], *order["files"]]}
        with form_is_checked(self._box):
            diff = [_diff(found, modes[path], contents.get(path)) for path, found in differing.items() if path in modes]
        return {"changed": bool(differing), "paths": [path for path in modes if path in differing], "diff": diff}

    def _ask(self, order: dict[str, Any], contents: dict[str, bytes], task_vars: dict[str, Any]) -> dict[str, Any]:
        answer = self.call_on_box(FAR_END, dict(order, contents=_packed(contents)), task_vars)
        found = fields(answer, self._box, {"differing": list, "wanting": list})
        for each in found["differing"]:
            fields(each if isinstance(each, dict) else {}, self._box, {"path": str, "before": dict}, {"text": str})
        return found


def _packed(contents: dict[str, bytes]) -> dict[str, str]:
    return {path: packed(content) for path, content in contents.items()}


def _content(file: dict[str, Any]) -> bytes:
    if file["content"] is not None:
        return str(file["content"]).encode()
    try:
        with open(file["src"], "rb") as stream:
            return stream.read()
    except OSError as error:
        raise TenantFailure(
            "config",
            f"cannot read {file['src']}: {error.strerror}",
            safe="nothing was sent",
            fix="give the path of a file on the machine where this command runs",
        ) from error


def _mode(text: str) -> str:
    """Four digits, as the box tells them."""
    try:
        return f"{int(text, 8):04o}"
    except ValueError as error:
        fix = 'write octal digits in quotes, as "0755"'
        raise TenantFailure("config", f"{text!r} is no mode of a file", safe="nothing was sent", fix=fix) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _changed_meanwhile(paths: list[str], box: str) -> TenantFailure:
    return TenantFailure(
        "evidence_missing",
        f"{', '.join(paths)} became another file while it was compared",
        box,
        safe="nothing was started",
        fix="see whether somebody else deploys to this box, then run the same command again",
    )


def _diff(found: dict[str, Any], mode: str, content: bytes | None) -> dict[str, Any]:
    """The texts where both are short ones, otherwise what is known of the files."""
    path, after = found["path"], None if content is None else shown(content)
    named = {"before_header": path, "after_header": path}
    before_is_known = found["text"] is not None or found["before"].get("state") == "absent"
    if after is not None and before_is_known and found["text"] != after:
        return {**named, "before": found["text"] or "", "after": after}
    digest = {} if content is None else {"sha256": _sha256(content)}
    wanted = {"state": "directory" if content is None else "file", "mode": mode, **digest}
    return {**named, "before": found["before"], "after": wanted}
