#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: checked_sync
short_description: Bring files home from a box, send them there or to an object store, proven by hash
version_added: 0.1.0
description:
  - Pulls the files of a manifest from a box, or pushes a folder to it, over the play's own ssh connection settings.
  - Bytes arrive in a staging folder at the destination. Each file is hashed there and moved to its place only when
    its SHA-256 is the promised one. Nothing is called verified before that.
  - A cut transfer is continued where it was cut, by this task while its patience lasts, and by the next run of it.
  - Only paths of a validated roster are asked for. Symlinks, devices, owners and permissions are never taken from the
    other side, and no path leads out of the destination.
  - Hashes are computed while bytes arrive, on every core, and a file is in its place as soon as it is proven.
  - Where the transfer has a connection of its own, which it has from 32 MiB on, checkpoints and archives cross it
    uncompressed, and text (logs, metrics, and files with a text ending) compressed if there are 4 MiB of it or more.
  - Uses rsync 3 where both sides have it, else a stream over ssh that needs nothing but Python on the box.
  - The host key is always checked, whatever the connection variables say.
  - With O(direction=store) the box sends the files of a manifest to an object store, one that speaks S3 or a repository
    of the Hugging Face Hub, over many connections at once, and continues after a cut. The keys of S3 and the token of
    the Hub stay on the controller; the box gets presigned URLs. Each of them admits one request for one object until it
    expires, names at most the id of the key that signed it, never its secret, and lets whoever reads it send that
    request, so it is kept out of arguments and logs.
  - In a bucket the files lie under their paths below the prefix, C(.tenant-objects.json) pins their versions and
    checksums, and C(manifest.json) is written last. Where it is, every file came.
  - In a repository of the Hub likewise, each file a git-LFS object named by its SHA-256, whatever its size (one line of
    C(.gitattributes) sees to that). What the Hub holds already is not sent again. One commit brings all files and
    C(manifest.json), and the copy names that commit. A branch that others commit to meanwhile is committed to anew,
    O(retries) times. More than 20,000 files take several commits, of which the last brings C(manifest.json).
  - With O(direction=fetch) the files of such a copy come to the controller, hashed as any pull is. No box is needed.
options:
  direction:
    description:
      - V(pull) brings files from the box, V(push) sends them to it, V(store) sends them from the box to an object
        store, V(fetch) brings them from there to the controller.
    type: str
    required: true
    choices: [pull, push, store, fetch]
  src:
    description:
      - Folder that the files are in, on the box with O(direction=pull) and O(direction=store), here with
        O(direction=push).
      - With O(direction=fetch), C(s3://bucket/prefix) or C(hf://datasets/owner/repository/prefix).
    type: str
    required: true
  dest:
    description:
      - Folder that the files go to. Made when absent.
      - With O(direction=store), C(s3://bucket/prefix), or on the Hugging Face Hub
        C(hf://datasets/owner/repository/prefix) or, for a model repository, C(hf://owner/repository/prefix), with
        C(@branch) after the repository for another branch than C(main). The bucket or repository must be there; the
        prefix is for this run alone.
    type: str
    required: true
  dest_root:
    description: Folder that O(dest) must lie in, symlinks followed. Empty confines nothing.
    type: str
    default: ""
  beside:
    description:
      - With O(direction=pull), the folder for a snapshot that must not take the place of what lies in O(dest). It is
        one that leaves out roles or files which an earlier one of the same run spec brought there, or one of a run that
        is finished and home there, with other files. Nothing in O(dest) changes then. What an earlier one brought there
        moves to quarantine, and C(-beside) is appended to O(via), so that nothing there is replaced either.
      - If not set, every snapshot goes to O(dest).
    type: str
    default: ""
  manifest:
    description:
      - The manifest that says what to pull, as P(tenant.gpu.manifest#module) returns it.
      - It is saved as C(manifest.json) in O(dest) once every file is there.
      - Required with O(direction=pull) and O(direction=store). With O(direction=push) the roster is made from O(src).
      - With O(direction=fetch) the manifest in the store is taken, and must be this one where it is given.
    type: dict
  exclude:
    description: Shell patterns of names and relative paths that O(direction=push) leaves out.
    type: list
    elements: str
    default: [.git, __pycache__, "*.pyc", ".venv*", .tenant, .ansible]
  paths:
    description: With O(direction=push), only these relative paths of O(src). Empty sends all of it.
    type: list
    elements: str
    default: []
  send:
    description:
      - With O(direction=push), V(differing) asks which files the box lacks and then carries them.
      - V(all) takes a small tree (100 files, 256 KiB) with the question, for a box that will have none of it. It is one
        visit instead of three.
    type: str
    choices: [differing, all]
    default: differing
  extra:
    description:
      - What to do with files at O(dest) that are not in the roster. V(quarantine) moves them into
        C(.tenant-quarantine) there, V(refuse) fails before anything moves, V(report) lists them.
      - V(quarantine) leaves the checkpoints of a run that goes on where they are, as long as O(manifest) has none of
        that cell at the same or a later step. C(.tenant-kept.json) names them.
      - If not set, V(quarantine) with O(direction=pull) and O(direction=fetch), V(report) with O(direction=push) and
        O(direction=store). Nothing is moved aside in an object store.
    type: str
    choices: [report, quarantine, refuse]
  transport:
    description:
      - How to move bytes. V(auto) takes rsync where both sides have it, and the stream where they do not, where there
        are a thousand files or more that are small on average, or where the connection goes through a proxy.
    type: str
    choices: [auto, rsync, stream]
    default: auto
  endpoint:
    description:
      - Whether the connection goes through the platform's proxy, which carries small files only. What is larger than
        O(proxy_limit_bytes) goes through O(via), or the task stops before the first byte and says how the box is
        reached directly.
      - V(auto) believes the fact C(box_endpoint), and the profile (C(platform_ssh_proxies)), which knows the names of
        such hosts (V(ssh5.vast.ai), V(ssh.runpod.io)).
    type: str
    choices: [auto, direct, proxy]
    default: auto
  via:
    description:
      - C(s3://bucket/prefix) or C(hf://datasets/owner/repository/prefix) that O(direction=pull) goes through when the
        connection is proxied and what is missing here is larger than O(proxy_limit_bytes). The box sends there, and the
        controller brings it from there.
      - The objects stay there. Use O(direction=store) to have them proven as a copy of their own.
    type: str
    default: ""
  object_store:
    description:
      - How the store of an C(s3://) address is reached, with the credentials that boto3 finds here, or the Hub of an
        C(hf://) address, with the token that C(hf auth login) or E(HF_TOKEN) left here. O(direction=store) wants a
        token that may write to the repository.
    type: dict
    suboptions:
      endpoint_url:
        description:
          - Address of a store other than Amazon S3. The controller and the box must both reach it.
          - For an C(hf://) address the Hub itself or a mirror of it, only by https; E(HF_ENDPOINT) if not set. The
            box must reach the storage that the Hub names.
        type: str
        default: ""
      region:
        description: Region of the bucket. Found out where it can be. Of S3 only.
        type: str
        default: ""
      profile:
        description: Profile of the AWS configuration of the controller, or one of the tokens in C(hf auth list).
        type: str
        default: ""
      addressing:
        description:
          - Whether the bucket stands in the path or in the host name. V(auto) takes the path where
            O(object_store.endpoint_url) is set. Of S3 only.
        type: str
        choices: [auto, path, virtual]
        default: auto
      verify:
        description:
          - What proves the objects with O(direction=store). V(reread) streams every one through SHA-256 here.
          - V(provider_checksum) compares the SHA-256 that the store computed when it took the object. Of a file that
            went in one request that is the hash of the manifest. Of a larger one it is a hash over the hashes of its
            parts, so the store vouches for what the box sent, and only the box says that this is what the manifest
            means.
          - On the Hub V(provider_checksum) takes the SHA-256 by which the commit names each object, and asks whether
            the Hub holds that object. Whether its bytes have that hash is the Hub's word alone.
        type: str
        choices: [reread, provider_checksum]
        default: reread
      connections:
        description: Requests at the same time. Thousands of small files want many.
        type: int
        default: 32
  proxy_limit_bytes:
    description: The most bytes to send through a proxied connection.
    type: int
    default: 67108864
  inode_cap:
    description:
      - The most files and folders that the mount of O(dest) may hold, where it does not say so itself, such as
        C(platform_inode_cap) on a durable mount. What is there is counted before anything moves. V(0) knows no cap.
    type: int
    default: 0
  reserve_bytes:
    description: Bytes that must stay free at the destination.
    type: int
    default: 67108864
  bandwidth_limit_kib:
    description: The most KiB per second. V(0) sets no limit.
    type: int
    default: 0
  stall_timeout_s:
    description: Seconds without data after which an attempt is ended.
    type: int
    default: 60
  deadline_s:
    description:
      - Seconds that the whole may take, which is all attempts together and what the box is asked about its files. A box
        that does not answer by then is unreachable, and what arrived is kept.
      - To settle what arrived, and to say how far it got, a box has 60 seconds more.
    type: int
    default: 21600
  retries:
    description: Failed attempts in a row, without any progress, before giving up.
    type: int
    default: 5
  resends:
    description: How often a file that arrived with other bytes is asked for again.
    type: int
    default: 2
  first_wait_s:
    description: Seconds before the second attempt. Doubles with every further one, up to 60.
    type: float
    default: 2.0
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Lists what would move, after the same preflight.
  diff_mode:
    support: full
    description: Shows each file that is absent or has other bytes at the destination.
  idempotent:
    support: full
    description: When every hash at the destination is right, nothing is transferred.
seealso:
  - module: tenant.gpu.manifest
  - module: tenant.gpu.verify_load
  - module: tenant.gpu.receipt
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Keep the results of a run in a bucket
  tenant.gpu.checked_sync:
    direction: store
    src: "{{ platform_data_dir }}/gpu-tenant/runs/{{ harvest_run_id }}"
    dest: "s3://results/{{ tenant_project }}/{{ harvest_run_id }}/{{ inventory_hostname }}/g1"
    manifest: "{{ __harvest_manifest.manifest }}"
    object_store:
      endpoint_url: https://account.r2.cloudflarestorage.com
      profile: results

- name: Keep the results of a run in a private repository of the Hugging Face Hub
  tenant.gpu.checked_sync:
    direction: store
    src: "{{ platform_data_dir }}/gpu-tenant/runs/{{ harvest_run_id }}"
    dest: "hf://datasets/our-team/results/{{ tenant_project }}/{{ harvest_run_id }}/{{ inventory_hostname }}/g1"
    manifest: "{{ __harvest_manifest.manifest }}"

- name: Bring the results of a run home
  tenant.gpu.checked_sync:
    direction: pull
    src: "{{ platform_data_dir }}/gpu-tenant/runs/{{ harvest_run_id }}"
    dest: "{{ tenant_results_dir }}/{{ tenant_project }}/{{ harvest_run_id }}/{{ inventory_hostname }}/g1"
    dest_root: "{{ tenant_results_dir }}"
    manifest: "{{ __harvest_manifest.manifest }}"

- name: Send the code tree
  tenant.gpu.checked_sync:
    direction: push
    src: examples/digits
    dest: "{{ platform_data_dir }}/gpu-tenant/code/{{ deploy_code_sha256 }}"
    dest_root: "{{ platform_data_dir }}/gpu-tenant"
"""

RETURN = r"""
files:
  description: Number of files in the roster.
  returned: always
  type: int
bytes:
  description: Bytes of all files in the roster.
  returned: always
  type: int
transferred_files:
  description: Number of files that moved, or in check mode would move.
  returned: always
  type: int
transferred_bytes:
  description: Bytes of the files that moved.
  returned: always
  type: int
transferred:
  description: Their paths, the first thousand.
  returned: always
  type: list
  elements: str
transport:
  description: V(rsync), V(stream), V(object_store), V(enclosed) with O(send=all), or V(none) when nothing had to move.
  returned: always
  type: str
attempts:
  description: Number of attempts.
  returned: always
  type: int
wire_bytes:
  description: Bytes of file data that crossed the wire in attempts that ended well.
  returned: always
  type: int
seconds:
  description: Duration of the whole task.
  returned: always
  type: float
verified:
  description: Whether every file of the roster was hashed at the destination and is right.
  returned: always
  type: bool
mismatches:
  description: Files that are not what was promised, each with C(path) and C(what).
  returned: always
  type: list
  elements: dict
extra:
  description: Files at the destination that are not in the roster.
  returned: always
  type: list
  elements: str
quarantine:
  description: Folder that extra files were moved to, empty when none were.
  returned: always
  type: str
dest:
  description: Where the files are now.
  returned: always
  type: str
beside_because:
  description: Why a snapshot went to O(beside). Empty when it went to O(dest).
  returned: with O(direction=pull) and O(direction=push)
  type: str
manifest_digest:
  description: Digest of the manifest, empty with O(direction=push).
  returned: always
  type: str
roster_sha256:
  description: Hash of the roster's paths, sizes, hashes and executable bits.
  returned: always
  type: str
copies:
  description:
    - The copy that was proven, as a receipt records it, with what is needed to look at these very objects again.
      On the Hub C(version_id) is the commit.
    - Empty when the task failed, or in check mode.
  returned: with O(direction=store) and O(direction=fetch)
  type: list
  elements: dict
unfinished_uploads:
  description:
    - Paths below the prefix where somebody began a multipart upload, which is billed, and never ended it. Those that
      this module began are continued or aborted; these are not its own. A lifecycle rule of the bucket can end them.
    - Always empty on the Hub, which tells nobody.
  returned: with O(direction=store)
  type: list
  elements: str
via:
  description: The address in an object store that the files came through.
  returned: when they did
  type: str
"""
