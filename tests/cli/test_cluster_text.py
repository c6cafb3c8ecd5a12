"""The dry run of a cluster in words."""

from __future__ import annotations

import time

import pytest

from tests.core.cluster_files import FOLDER, SMALL, read
from vws.cli.cluster_text import dry_run_text, members_of, steps_of

FITS = {
    "fits": True,
    "reason": "all of it would start now",
    "start": 1_800_000_000,
    "nodes": [{"node": "nod-1", "name": "n1", "reason": "it would take 3"}],
    "offers": [],
    "price": {"amount": 12.0, "unit": "node-hour"},
}
REFUSED = {
    "fits": False,
    "reason": "no node has room for all of it",
    "start": None,
    "nodes": [{"node": "nod-1", "name": "n1", "reason": "2 CPUs are free"}],
    "offers": [{"kind": "shorter", "duration_s": 3600, "text": "for 1h"}],
}

SHOWN = """\
cluster slurm: 3 members for 4h, may be suspended for others
  workers = 2 (default)  # how many compute nodes
  memory = 512MiB (default)
  release = trixie
  patient = false (default)

MEMBERS             IMAGE          EACH                                                           NETWORKS       \
PROVIDES  REQUIRES          IF ONE FAILS
head-1              debian-trixie  1 CPU, 512 MiB, disk 4 GiB                                     private, site  \
head      worker, site:dns  the cluster has failed
worker-1, worker-2  debian         1 CPU, 512 MiB, disk 4 GiB, scratch 1 GiB at /scratch, raw 100 MiB  private  \
worker    head              another is made in its place

Networks:
  private: 10.20.0.0/24, no way out, 3 members
  site: public addresses of the site, 1 member

All members report within 5m, then hear of those whose roles they require.
  1. head: head-1; 2 files, on-joined, on-changed, publishes munge-key (secret)
     then as its clients: worker-1, worker-2; on-left
  2. worker: worker-1, worker-2; after head, with munge-key of head; on-joined
The cluster is ready when every hook of every member has ended well.

It fits: all of it would start now.
  start: 2027-01-15 08:00:00 UTC
  node n1: it would take 3
Price: 12.00 node-hours"""


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def squeezed(text: str) -> list[list[str]]:
    """Its words, however wide the columns are."""
    return [line.split() for line in text.splitlines()]


def test_everything_is_shown():
    assert squeezed(dry_run_text(read(release="trixie"), FITS)) == squeezed(SHOWN)


def test_a_refusal_has_its_reasons_and_offers():
    text = dry_run_text(read(), REFUSED)
    assert "It does not fit: no node has room for all of it.\n  node n1: 2 CPUs are free" in text
    assert "would fit: for 1h (--for 1h)" in text
    assert "Price" not in text


def test_the_launch_may_say_another_time():
    assert "3 members for 30m" in dry_run_text(read(), FITS, duration_s=1800)
    assert dry_run_text(read(SMALL), FITS).startswith("cluster small: 1 member\n")


def test_a_small_cluster_has_nothing_that_is_not_there():
    text = dry_run_text(read(SMALL), REFUSED)
    assert "Networks" not in text
    assert "the node's" in text
    assert "ready when" not in text
    assert "hear of everybody, and may log in to them" in text


def test_what_a_file_or_a_site_says_stays_on_its_line():
    answer = REFUSED | {"reason": "a\x1b[2J\nb"}
    assert "a\\x1b[2J\\nb" in dry_run_text(read(), answer)
    notes = read(folder=FOLDER | {"scripts/head.sh": b"#!/bin/sh\r\n"})
    assert dry_run_text(notes, FITS).splitlines()[-1].startswith("Note: scripts/head.sh has Windows line ends")


CHAIN = """\
vws: cluster/1
name: chain
roles:
  d: {provider: {after: [c, a]}, client: {uses: [v]}}
  c: {provider: {uses: [v]}}
  a: {provider: {publishes: {v: {}}}}
  b: {provider: {}}
  nobody: {provider: {after: [d]}}
groups:
  one: {image: demo, count: 7, provides: [a, b, c, d], requires: [d]}
"""


def test_roles_are_in_the_order_of_their_barriers():
    file = read(CHAIN)
    assert [[role.name for role in step] for step in steps_of(file)] == [["a", "b"], ["c"], ["d"]]
    text = dry_run_text(file, FITS)
    assert "  3. d: one-1 to one-7; after c, after a; nothing to do\n" in text
    assert "then as its clients: one-1 to one-7; with v of a; nothing to do" in text
    assert members_of(file.groups[0]) == "one-1 to one-7"
