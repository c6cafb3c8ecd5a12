"""A cluster file that uses every key, and a folder of files for it."""

from __future__ import annotations

from collections.abc import Mapping

from vws.core.cluster_spec import ClusterFile
from vws.core.clusterfile import read_cluster_file

FULL = """\
vws: cluster/1
name: slurm
parameters:
  workers: {default: 2, min: 1, max: 64, help: how many compute nodes}
  memory: {type: size, default: 512MiB, min: 256MiB}
  release: {default: bookworm, choices: [bookworm, trixie]}
  patient: {default: false}
networks:
  private: {range: 10.20.0.0/24, outgoing: false}
  site: {public: true}
roles:
  head:
    provider:
      files:
        - {path: /etc/slurm/slurm.conf.in, from: files/slurm.conf.in, mode: "0600"}
        - {path: /etc/motd, text: "${release}: $${HOME} is yours"}
      hooks: {on-joined: scripts/head.sh, on-changed: scripts/changed.sh}
      publishes: {munge-key: {secret: true}}
    client:
      hooks: {on-left: scripts/changed.sh}
  worker:
    provider:
      after: [head]
      uses: [munge-key]
      hooks: {on-joined: scripts/worker.sh}
groups:
  head:
    {image: "debian-${release}", count: 1, cpus: 1, memory: 512MiB, disk: 4GiB, bandwidth: 100Mbit,
     networks: [private, site], provides: [head], requires: [worker, "site:dns"], together: true}
  worker:
    image: debian
    count: "${workers}"
    memory: "${memory}"
    disk: 4096
    networks: [private]
    provides: [worker]
    requires: [head]
    on-failure: replace
    apart: false
    require: cpus >= 2
    disks:
      - {name: scratch, size: 1GiB, filesystem: ext4, label: scratch, mount: /scratch}
      - {name: raw, size: 100MiB}
data:
  motd: {text: hello}
  key: {from: files/key}
context: {introduce: required, ssh: none, within: 5m}
lease: {for: 4h, best-effort: "${patient}", preemptible: true, urgent: false}
"""

FOLDER = {
    "files/slurm.conf.in": b"ClusterName=c\n",
    "files/key": bytes(range(256)),
    "scripts/head.sh": b"#!/bin/sh\nhead\n",
    "scripts/changed.sh": b"#!/bin/sh\nchanged\n",
    "scripts/worker.sh": b"#!/bin/sh\nworker\n",
}

SMALL = """\
vws: cluster/1
name: small
groups:
  one: {image: demo, provides: [a]}
"""


def read(text: str = FULL, folder: Mapping[str, bytes] = FOLDER, **given: str) -> ClusterFile:
    return read_cluster_file(text, folder.__getitem__, given)
