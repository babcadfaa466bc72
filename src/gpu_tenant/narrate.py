# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From Ansible's task results to sentences for people, and to the facts that the account keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import size
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import RESTING

from gpu_tenant.one_line import one_line
from gpu_tenant.playbooks import COLLECTION, TaskResult, TaskStart
from gpu_tenant.progress import Progress
from gpu_tenant.transfers import Transfer
from gpu_tenant.workspace import History


class Narrator:
    """Watches a playbook: tells the progress view, and notes in the history what the account will want to know."""

    def __init__(self, progress: Progress, history: History | None = None) -> None:
        self._progress = progress
        self._history = history
        self._roles: dict[str, str] = {}

    def __call__(self, event: TaskStart | TaskResult | Transfer) -> None:
        if isinstance(event, Transfer):
            self._progress.emit("transfer", event.text, event.box, **event.as_data())
            return
        if event.role and event.role != "box" and self._roles.get(event.box) != event.role:
            self._roles[event.box] = event.role
            self._progress.emit("phase", event.role, event.box)
        if isinstance(event, TaskStart):
            self._progress.emit("task", event.task.rpartition(" | ")[2], event.box)
            return
        self._tell(event)

    def begin(self) -> None:
        """A new playbook starts: its phases are told again."""
        self._roles.clear()

    def _tell(self, result: TaskResult) -> None:
        kind = "warning" if result.status in ("failed", "unreachable") else "note"
        for text in sentences(result):
            self._progress.emit(kind, text, result.box, action=_module(result), changed=result.changed)
        facts = notable(result)
        if facts and self._history is not None:
            self._history.append(_module(result), box=result.box, **facts)


def _module(result: TaskResult) -> str:
    return result.action.removeprefix(f"{COLLECTION}.")


def sentences(result: TaskResult) -> list[str]:
    """What a finished task has to say, a line each; none of those that say nothing of interest."""
    if result.status == "skipped":
        return []
    if result.status in ("failed", "unreachable"):
        failure = result.result.get("failure")
        return [_said(failure if isinstance(failure, Mapping) else {}, result.result.get("msg"))]
    if _module(result) == "ansible.builtin.debug":
        # Each line is shortened for itself, so that a long list loses none.
        return [line for line in map(one_line, _messages(result.result.get("msg"))) if line]
    teller = _SENTENCES.get(_module(result))
    told = one_line(teller(result.result, result.changed)) if teller else ""
    return [told] if told else []


def _said(failure: Mapping[str, Any], message: object) -> str:
    said = one_line(str(failure.get("what") or message or "it failed without a message"))
    # Whoever waits for somebody else must hear now how that wait is ended.
    how = one_line(str(failure.get("fix") or "")) if failure.get("kind") == "lease_held" else ""
    return f"{said}; {how}" if how else said


def notable(result: TaskResult) -> dict[str, Any]:
    """The few facts of a result that the account tells from; empty when there are none."""
    if result.status != "ok":
        return {}
    teller = _NOTABLE.get(_module(result))
    return {key: value for key, value in teller(result.result).items() if value is not None} if teller else {}


def _offers(res: Mapping[str, Any], changed: bool) -> str:
    offers = res.get("offers") or []
    best = res.get("best")
    if not isinstance(best, Mapping):
        return f"{len(offers)} offers fit"
    return f"{len(offers)} offers fit; the best is {offer_text(best)}: {best.get('why', '')}"


def offer_text(offer: Mapping[str, Any]) -> str:
    """``offer 123 (machine 7): 1 x RTX 4090, $0.2100 an hour``."""
    price = offer.get("price_per_hour")
    money = f"${price:.4f} an hour" if isinstance(price, (int, float)) else "price unknown"
    gpu = f"{offer.get('num_gpus') or '?'} x {offer.get('gpu_name') or 'unknown GPU'}"
    return f"offer {offer.get('id')} (machine {offer.get('machine_id')}): {gpu}, {money}"


def _instance(res: Mapping[str, Any], changed: bool) -> str:
    if isinstance(res.get("would"), Mapping) and res["would"]:
        return "would do: " + ", ".join(f"{key} {value}" for key, value in res["would"].items() if value)
    instance = res.get("instance") or res.get("pod") or res.get("machine")
    if not isinstance(instance, Mapping) or not instance:
        return "it is gone" if changed else ""
    resting = instance.get("state") in RESTING
    clocks = instance.get("clocks")
    stopped_price = clocks.get("stopped_per_hour") if isinstance(clocks, Mapping) else None
    price = stopped_price if resting else instance.get("price_per_hour")
    money = f" at ${price:.4f} an hour" if isinstance(price, (int, float)) else ""
    did = "now" if changed else "already"
    which = f"instance {instance.get('provider_id')} (g{instance.get('generation')})"
    return f"{which} is {did} {instance.get('state')}{money}"


def _probe(res: Mapping[str, Any], changed: bool) -> str:
    refusals = res.get("refusals") or []
    if res.get("admitted") is False or refusals:
        return "the probe refuses it: " + "; ".join(map(str, refusals))
    probe = res.get("probe") if isinstance(res.get("probe"), Mapping) else {}
    return "the probe admits it" + (f"; {probe['statement']}" if probe and probe.get("statement") else "")


def _sync(res: Mapping[str, Any], changed: bool) -> str:
    if not changed or res.get("verified") is not True:
        return ""
    moved, seconds = res.get("transferred_bytes") or 0, res.get("seconds") or 0
    speed = f" at {size(moved / seconds)}/s" if seconds > 0 else ""
    how = f" by {res['transport']}" if res.get("transport") else ""
    whole = f"{res.get('files')} files, {size(res.get('bytes') or 0)}"
    return f"{res.get('transferred_files')} files moved{how} ({size(moved)}{speed}); {whole}, every hash compared"


def _receipt(res: Mapping[str, Any], changed: bool) -> str:
    receipt = res.get("receipt")
    if not isinstance(receipt, Mapping):
        return ""
    loaded = [check for check in receipt.get("checks") or [] if check.get("ok") is True]
    lacks = "; ".join(map(str, receipt.get("incomplete_because") or ["of a run that is not done"]))
    kind = "complete" if receipt.get("complete") else f"not complete: {lacks}"
    whole = receipt.get("whole")
    together = f"; {whole.get('files')} sharded files loaded as one" if isinstance(whole, Mapping) else ""
    return f"receipt ({kind}): {receipt.get('files')} files verified, {len(loaded)} of them loaded{together}"


def _gate(res: Mapping[str, Any], changed: bool) -> str:
    if res.get("allowed"):
        return f"the gate is open ({res.get('rule', 'evidence complete')})"
    return "the gate stays shut: " + "; ".join(map(str, res.get("missing") or ["evidence is missing"]))


def _smoke(res: Mapping[str, Any], changed: bool) -> str:
    return "the smoke command passed on this machine" if changed else ""


def _resume(res: Mapping[str, Any], changed: bool) -> str:
    newest = [entry for entry in res.get("checkpoints") or [] if not entry.get("best")]
    steps = [f"{entry.get('cell')} from step {entry.get('step')}" for entry in newest]
    return "checkpoints at home to go on from: " + ", ".join(steps) if steps else ""


def _drill(res: Mapping[str, Any], changed: bool) -> str:
    verdict = res.get("drill")
    if not isinstance(verdict, Mapping) or not changed:
        return ""
    return f"killed in mid-training and started again: {verdict.get('why')}"


def _messages(message: Any) -> list[str]:
    if isinstance(message, list):
        return [line for part in message for line in _messages(part)]
    return [message] if isinstance(message, str) else []


_SENTENCES: dict[str, Callable[[Mapping[str, Any], bool], str]] = {
    "box_probe": _probe,
    "checked_sync": _sync,
    "receipt": _receipt,
    "resume_checkpoint": _resume,
    "resume_drill": _drill,
    "smoke": _smoke,
    "teardown_gate": _gate,
    "vast_instance": _instance,
    "runpod_pod": _instance,
    "lambda_instance": _instance,
    "paperspace_machine": _instance,
    "aws_spot_instance": _instance,
    "vast_offer_info": _offers,
}


def _offer_facts(res: Mapping[str, Any]) -> dict[str, Any]:
    return {"best": res.get("best"), "offers": (res.get("offers") or [])[:5], "excluded": res.get("excluded")}


def _instance_facts(res: Mapping[str, Any]) -> dict[str, Any]:
    if not res.get("changed"):
        return {}
    return {name: res.get(name) for name in ("instance", "rejected", "gate")}


def _probe_facts(res: Mapping[str, Any]) -> dict[str, Any]:
    probe = res.get("probe") if isinstance(res.get("probe"), Mapping) else {}
    statement = probe.get("statement") if probe else None
    return {"admitted": res.get("admitted"), "refusals": res.get("refusals"), "statement": statement}


def _gate_facts(res: Mapping[str, Any]) -> dict[str, Any]:
    return {name: res.get(name) for name in ("allowed", "rule", "missing", "verb")}


_NOTABLE: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "box_probe": _probe_facts,
    "teardown_gate": _gate_facts,
    "vast_instance": _instance_facts,
    "vast_offer_info": _offer_facts,
}
