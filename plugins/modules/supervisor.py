#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor
short_description: Start, watch, stop or seal the training runs of a rented box
version_added: 0.1.0
description:
  - Speaks to the supervisor on the box, a program without dependencies that runs the cells of every registered run
    one after the other, survives the SSH session, retries what died by a signal, and continues after a reboot.
  - A supervisor that lives already is adopted; a cell that finished is never run again.
  - Speaks over the connection of the play and starts the supervisor with the box's C(ansible_python_interpreter). No
    module is carried to the box.
options:
  tenant_root:
    description: The supervisor's folder on the box, usually C({{ platform_data_dir }}/gpu-tenant).
    type: path
    required: true
  pyz:
    description:
      - The supervisor program on the box.
      - By default the one that the box itself uses at its start, else the newest in C(bin/) of O(tenant_root).
    type: path
  state:
    description:
      - V(status) only reads.
      - V(registered) puts O(run) into the index of the box.
      - V(started) registers O(run) if it is given, lifts a hold and earlier stops, starts the supervisor unless it
        lives, and proves within O(live_within_s) that the run lives.
      - V(stopped) asks the live cells of O(run_id), or of all runs, to save and leave. A start or a reboot continues.
      - V(held) lets no new cell start, reboots included, until V(started). Live cells go on unless O(stop_live=true).
      - V(sealed) holds the box and promises that nothing writes any more. The seal carries the manifest digest of every
        run. After it, registering and starting are refused.
      - V(unsealed) takes that promise back; the old seal is kept aside and the box stays on hold.
      - V(reconciled) does what the box does at its start. It continues what may go on, and obeys seal, hold and stops.
    type: str
    choices: [status, registered, started, stopped, held, sealed, unsealed, reconciled]
    default: status
  run:
    description: The run record, as the filter P(tenant.gpu.run_record#filter) makes it.
    type: dict
  run_id:
    description: The run that is meant, by default the one in O(run), else all runs.
    type: str
  launch:
    description:
      - With O(state=started), the word that a run of several boxes may start, as M(tenant.gpu.node_group) renders it.
      - Without one such a run is not started, also not by a reboot. O(state=stopped) takes it back.
    type: dict
  epoch:
    description: Epoch of the lease that is held. The box refuses an epoch lower than the highest one it has seen.
    type: int
  grace_s:
    description: Seconds a trainer has to save before it is killed, by default as the run says.
    type: float
  stop_live:
    description: With O(state=held) and O(state=sealed), stop live cells first. Otherwise a live cell prevents the seal.
    type: bool
    default: false
  retry_failed:
    description:
      - With O(state=started), try again the cells whose training failed.
      - Cells that failed because of the box (a missing file, a failed copy) are tried again in any case.
    type: bool
    default: false
  live_within_s:
    description: With O(state=started), seconds within which the run must live. V(0) returns without waiting.
    type: float
    default: 60
  detach:
    description:
      - How the supervisor outlives the SSH session.
      - V(onstart) is V(setsid) on a platform whose start script calls C(bin/resume-all).
      - V(none) starts nothing, for platforms whose own job runs C(bin/resume-all).
      - V(systemd) is refused for users whose processes end with the last login; C(loginctl enable-linger) changes that.
      - V(setsid), V(onstart) and V(tmux) are refused in a login that logind ends with all that it left behind
        (C(KillUserProcesses=yes)).
      - V(sbatch) makes the supervisor a Slurm job. One that waits for its turn is C(pending), which is no failure, and
        a second start submits no second one. It is queued again when Slurm ends it with work left.
    type: str
    choices: [setsid, tmux, onstart, systemd, sbatch, none]
    default: setsid
  detach_options:
    description:
      - Words for the tool that detaches, for instance C(--partition=gpu) for V(sbatch) or C(-p MemoryMax=16G) for
        V(systemd).
    type: list
    elements: str
    default: []
  batch:
    description:
      - With O(detach=sbatch), what the job asks of Slurm. Any of C(partition), C(account), C(qos), C(reservation),
        C(constraint), C(nodelist), C(exclude), C(dependency), C(time), C(gres), C(mem), C(cpus_per_task) and
        C(notice_s), the seconds of notice before the time limit.
      - C(array_tasks) hands the cells out as a job array of so many tasks at most, each with a share of the cells that
        wait; C(array_limit) is how many of them work at a time. A second start hands in an array only for cells that
        nobody works at or waits to. An array larger than C(MaxArraySize) is refused.
      - An empty value asks for nothing. Without C(gres) the job asks for O(gpus) GPUs.
    type: dict
    default: {}
  gpus:
    description: GPUs that the run needs on each node, for a batch job.
    type: int
    default: 0
  nodes:
    description:
      - Nodes of a batch job, for a run over several of them (C(nodes) of the run spec without C(parts)). One launcher
        is started on each. V(0) says nothing to Slurm, which then gives one.
    type: int
    default: 0
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: The supervisor itself predicts what would change.
  diff_mode:
    support: full
    description: Shows hold, seal, stops, supervisor, live cells and registered runs before and after.
  idempotent:
    support: full
    description: A live supervisor is adopted, a registered run is left alone, a sealed box stays sealed.
seealso:
  - module: tenant.gpu.manifest
  - module: tenant.gpu.teardown_gate
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Register the run
  tenant.gpu.supervisor:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    state: registered
    run: "{{ deploy_run }}"

- name: Start it and prove that it lives
  tenant.gpu.supervisor:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    state: started
    run_id: digits
    detach: "{{ platform_detach }}"

- name: Read how far it is
  tenant.gpu.supervisor:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
  register: supervisor_status

- name: Stop what runs and seal the box
  tenant.gpu.supervisor:
    tenant_root: "{{ platform_data_dir }}/gpu-tenant"
    state: sealed
    stop_live: true
    grace_s: 120
"""

RETURN = r"""
supervisor:
  description: The status of the box after the task, computed at that moment.
  returned: success, and on failure where the supervisor still answers
  type: dict
  contains:
    project:
      description: Project of the box, as of box, generation and provider_id; null before the first run is registered.
      type: str
    daemon:
      description: Whether the supervisor lives, and its process id.
      type: dict
    sealed:
      description: Whether the box is sealed.
      type: bool
    desired:
      description: V(run) or V(hold).
      type: str
    epoch:
      description: The highest lease epoch seen.
      type: int
    runs:
      description:
        - Every run, or O(run_id) alone, with its C(state) (V(queued), V(running), V(verifying), V(copying), V(done),
          V(failed), V(preempted) or V(blocked)) and its cells.
        - A run of several boxes that may not start before M(tenant.gpu.node_group) has judged all of them has
          C(awaits_launch).
        - One that begins no cell any more as one has failed (C(on_fail=stop) of its spec) says so with C(halted).
        - Each cell has C(attempt), C(state), C(liveness) (V(alive), V(stalled), V(finished), V(dead), V(rebooted) of
          the machine, V(restarted) of its container, or V(none)), C(step), C(steps), C(epoch), C(loss), C(rate) (steps
          per second), C(eta_s), C(progress_source), C(progress_problem), C(resumed_from_step), C(last_checkpoint),
          C(exit). Null means unknown.
        - Its C(queue) names every cell once under C(done), C(failed) or C(waiting). C(end) is C(QUEUE_OK),
          C(QUEUE_FAILED), C(QUEUE_ABORTED) when cells wait and nobody works on them, or empty while it goes on.
      type: list
      elements: dict
    disk:
      description: Free bytes and inodes of the disk that holds O(tenant_root).
      type: dict
    health:
      description:
        - The newest sample of the box (C(at), C(memory), C(pressure), C(disk) with its forecast, C(gpu)) and
          C(warnings), sentences for people. Null before the first sample. No warnings once the supervisor has ended.
      type: dict
    batch:
      description:
        - Where the supervisor is a Slurm job, that job. C(job), C(state) and C(reason) as Slurm says them, C(restarts),
          C(node), C(start), C(end), C(left_s) until its time limit, C(exit_code), C(why) in a sentence.
        - C(meaning) is V(waits), V(lives), V(goes_on) (cut short, the next start continues it), V(refused) (a person
          must do something first), V(ended) or V(unknown). A run that waits for its turn has C(waits_for).
        - Of a job array this is one answer for all, with the C(meaning) of the liveliest. C(tasks) has each of those
          that have work left, with C(share) (turn and number) and its C(cells).
      type: dict
    problems:
      description: Records on the box that cannot be trusted, one sentence each.
      type: list
      elements: str
    box_now:
      description: The clock of the box.
      type: str
seal:
  description: The seal, null in check mode.
  returned: with O(state=sealed)
  type: dict
reason:
  description: Why nothing was done.
  returned: with O(state=reconciled), when nothing was done
  type: str
log_tail:
  description: The last lines of the log of the cell that failed.
  returned: on failure
  type: list
  elements: str
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
