# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import node_group, node_proof, profile_rules, rendezvous
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import OddAnswer, fields, form_is_checked

Result = dict[str, Any]
TEXTS = ("spec_sha256", "state", "code_problem", "environment_problem", "interface", "network_problem", "address")
NODE = {**dict.fromkeys(TEXTS, str), "live": bool, "refusals": list, "environment": dict}
CLOCK = {"clock_skew_s": float, "clock_uncertainty_s": float}
ENVIRONMENT = {**dict.fromkeys(("python", "torch", "cuda", "nccl"), str), "packages": dict}


class ActionModule(ControllerAction):
    """Reads what every box of the run has shown in this play, and says the same on each of them."""

    ARGUMENT_SPEC = {
        "stage": {"type": "str", "required": True, "choices": ["config", "compare", "proof", "started"]},
        "run_spec": {"type": "dict", "required": True},
        "project": {"type": "str"},
        "results": {"type": "str"},
        "clock_skew_s": {"type": "float", "default": node_group.CLOCK_SKEW_S},
        "within_s": {"type": "float", "default": 60.0},
    }
    VALIDATION = {"required_if": [("stage", stage, ["results"]) for stage in ("compare", "proof", "started")]}

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        self._vars = task_vars
        self._box = str(task_vars["inventory_hostname"])
        spec = params["run_spec"]
        if spec["nodes"] and not spec["parts"]:
            return {"changed": False, **self._job(params, spec)}
        self._refuse_group(spec)
        if self._box not in spec["parts"]:
            raise _config(
                self._box,
                f"run {spec['id']} is for {', '.join(spec['parts'])} together, and not for this box",
                f"limit the playbook to the boxes of the run: -l {','.join(spec['parts'])}",
            )
        stages: dict[str, Callable[[dict[str, Any], Mapping[str, Any]], Result]] = {
            "config": self._config,
            "compare": self._compare,
            "proof": self._proof,
            "started": self._started,
        }
        return {"changed": False, **stages[params["stage"]](params, spec)}

    def _refuse_group(self, spec: Mapping[str, Any]) -> None:
        """A group is not its boxes: with one that joins or leaves it, other parts would make the same run whole."""
        for part in spec["parts"]:
            if part in self._vars["groups"] and part not in self._vars["hostvars"]:
                boxes = ", ".join(self._vars["groups"][part])
                what = f"run {spec['id']} names {part} among its parts, which is a group of the inventory and no box"
                raise _config(self._box, what, f"write its boxes into the run spec: parts: [{boxes}]")

    def _job(self, params: dict[str, Any], spec: Mapping[str, Any]) -> Result:
        """The nodes of one job: Slurm starts them together or not at all, so there is nothing to compare or prove."""
        problem = node_group.job_problem(spec, self._box, self._profile(self._vars))
        if problem is not None:
            raise problem
        return {"launch": rendezvous.launch_in_job(spec, params["project"] or "")}

    # --- the four stages ----------------------------------------------------------------------------------------

    def _config(self, params: dict[str, Any], spec: Mapping[str, Any]) -> Result:
        every = self._vars["hostvars"]
        known = {box: self._profile(every[box]) for box in spec["parts"] if box in every}
        problems = node_group.config_problems(spec, known)
        self._refuse(spec, problems, "nothing was rented and no box was touched")
        return {}

    def _compare(self, params: dict[str, Any], spec: Mapping[str, Any]) -> Result:
        nodes = self._read(spec, self._seen(params, spec), _node)
        addresses = {box: str(nodes[box]["address"]) for box in spec["parts"]}
        self._refuse(spec, _address_problems(spec["parts"], addresses))
        members = node_group.members(spec, addresses, nodes)
        launches = rendezvous.launches(spec, params["project"] or "", members)
        plan, problems = node_group.START, []
        # What a check run did not deploy cannot be compared.
        if not (self.check_mode and any(node["spec_sha256"] != spec["spec_sha256"] for node in nodes.values())):
            plan, problems = node_group.decide(spec, nodes, launches, params["clock_skew_s"])
        self._refuse(spec, problems, self._safe(spec["parts"], nodes))
        nonce = records.digest({"launches": launches, "nodes": nodes})[:16]
        request = node_proof.request_of(spec, launches[self._box], self._box, nonce, params["within_s"])
        return {"plan": plan, "launch": launches[self._box], "request": request, "live": nodes[self._box]["live"]}

    def _proof(self, params: dict[str, Any], spec: Mapping[str, Any]) -> Result:
        proofs = self._read(spec, self._seen(params, spec), _proof)
        self._refuse(spec, node_group.proof_problems(spec["parts"], proofs))
        return {"reduce_ms": {box: records.finite(proof.get("reduce_ms")) for box, proof in proofs.items()}}

    def _started(self, params: dict[str, Any], spec: Mapping[str, Any]) -> Result:
        self._seen(params, spec)
        return {}

    # --- what is common to them ---------------------------------------------------------------------------------

    def _seen(self, params: dict[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        """The result of one task on every box; a box without a good one is the reason to stop."""
        every, name = self._vars["hostvars"], params["results"]
        looks = {box: dict(every[box][name]) for box in spec["parts"] if box in every and name in every[box]}
        play, active = self._vars["ansible_play_hosts_all"], self._vars["ansible_play_hosts"]
        self._refuse(spec, node_group.missing(spec["parts"], play, active, looks))
        return looks

    def _read(
        self, spec: Mapping[str, Any], looks: Mapping[str, Any], read: Callable[[str, Mapping[str, Any]], Result]
    ) -> dict[str, Result]:
        """What ``read`` finds in each box's result: an odd answer is a problem of the box that gave it."""
        found, problems = {}, []
        for box, look in looks.items():
            try:
                with form_is_checked(box):
                    found[box] = read(box, look)
            except OddAnswer as odd:
                problems.append(node_group.Problem(box, odd.what, odd.fix, odd.kind))
        self._refuse(spec, problems)
        return found

    def _refuse(self, spec: Mapping[str, Any], problems: Sequence[node_group.Problem], safe: str = "") -> None:
        if problems:
            raise node_group.refusal(spec["id"], problems, self._box, safe)

    @staticmethod
    def _safe(parts: Sequence[str], nodes: Mapping[str, Mapping[str, Any]]) -> str:
        live = [box for box in parts if nodes[box]["live"]]
        if not live:
            return ""
        return f"no box started a cell; {', '.join(live)} goes on waiting for the others, as an earlier launch said"

    def _profile(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Only what is judged: other values of another box may hold templates of facts that it does not have yet."""
        names = ("platform_name", "platform_private_network", "platform_detach")
        values = profile_rules.platform_values(dict(variables))
        return {name: self._templar.template(values[name]) for name in names if name in values}


def _node(box: str, look: Mapping[str, Any]) -> Result:
    """What a box shows of itself, in the form in which it is compared. :raises OddAnswer: it is not in that form."""
    node = fields(fields(look, box, {"node": dict})["node"], box, NODE, {"launch": dict, **CLOCK})
    if any(not isinstance(reason, str) for reason in node["refusals"]):
        raise OddAnswer(box, "refusals are no texts")
    if node["environment"] or (node["spec_sha256"] and not node["environment_problem"]):
        node["environment"] = fields(node["environment"], box, ENVIRONMENT)
    # A digest of all nodes comes to be, and must not fail for what one of them holds.
    records.digest(node)
    return {**dict.fromkeys(("launch", *CLOCK)), **node}


def _proof(box: str, look: Mapping[str, Any]) -> Result:
    """What a proof came to. :raises OddAnswer: it is not in the form of one."""
    proof = fields(look, box, {"proof": dict})["proof"]
    return fields(proof, box, {"problem": str}, {"waited": bool, "reduce_ms": float})


def _address_problems(parts: Sequence[str], addresses: Mapping[str, str]) -> list[node_group.Problem]:
    """Two boxes with one address would be one rank to torch."""
    fix = "set train_node_address of each box to its own address in the network that they share"
    found = []
    for number, box in enumerate(parts):
        twin = next((other for other in parts[:number] if addresses[other] == addresses[box]), "")
        if twin:
            found.append(node_group.Problem(box, f"it has the address of {twin}, {addresses[box]}", fix, "config"))
        elif ":" in addresses[box] or not addresses[box].isascii() or not addresses[box].strip("."):
            found.append(node_group.Problem(box, f"{addresses[box]!r} is no IPv4 address and no name", fix, "config"))
    return found


def _config(box: str, what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, box=box, safe="nothing was rented and nothing was started", fix=fix)
