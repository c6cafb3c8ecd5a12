"""Cluster files: what they become, and what is refused with its line."""

from __future__ import annotations

import base64
import re
import string
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.cluster_files import FOLDER, FULL, SMALL, read
from vws.core.cluster import NetworkRequest
from vws.core.cluster_spec import ClusterFile, cluster_request, lease_request, renamed
from vws.core.clusterfile import files_wanted, read_cluster_file
from vws.core.context import Hook, Introduce, Ssh, ValueSpec
from vws.core.disks import Disk
from vws.core.errors import InvalidRequest
from vws.core.site import GroupRoles, OnFailure
from vws.core.terms import GroupRequest, When, check_request
from vws.core.waits import CONTENT_BYTES_MAX
from vws.core.wire import from_json, to_json
from vws.core.yaml_tree import BYTES_MAX, parse, path_of, place_of, show_path


def content(spec: Any) -> bytes:
    return base64.b64decode(spec.content_base64)


def refused(text: str, folder: dict[str, bytes] = FOLDER, **given: str) -> InvalidRequest:
    """The refusal of `text`, which says where."""
    with pytest.raises(InvalidRequest) as caught:
        read(text, folder, **given)
    error = caught.value
    line, column = error.details["line"], error.details["column"]
    assert error.problem.startswith(f"line {line}, column {column}: ")
    assert 1 <= line <= text.count("\n") + 1
    return error


def changed(before: str, after: str, text: str = FULL) -> str:
    assert text.count(before) == 1, f"{before!r} is there {text.count(before)} times"
    return text.replace(before, after)


def line_of(part: str) -> int:
    return FULL[: FULL.index(part)].count("\n") + 1


# ---------------------------------------------------------------- what a file becomes


def test_groups_become_requests_of_the_planner():
    head, worker = read().groups
    assert head.request == GroupRequest(
        "debian-bookworm", 1, 1, 512, 4096, "head", together=True, bandwidth_mbit=100, networks=("private", "site")
    )
    disks = (Disk("scratch", 1024, "ext4", "scratch", "/scratch"), Disk("raw", 100))
    assert worker.request == GroupRequest(
        "debian", 2, 1, 512, 4096 + 1024 + 100, "worker", "cpus >= 2", networks=("private",), disks=disks
    )
    assert head.roles == GroupRoles("head", ("head",), ("worker", "site:dns"), OnFailure.FAIL)
    assert worker.roles == GroupRoles("worker", ("worker",), ("head",), OnFailure.REPLACE)


def test_roles_become_the_specification_of_a_context():
    spec = read().context
    assert (spec.name, spec.introduce, spec.ssh, spec.within_s) == ("slurm", Introduce.REQUIRED, Ssh.NONE, 300)
    head, worker = spec.roles
    assert [(file.path, file.mode, content(file)) for file in head.provider.files] == [
        ("/etc/slurm/slurm.conf.in", "0600", b"ClusterName=c\n"),
        ("/etc/motd", "0644", b"bookworm: ${HOME} is yours"),
    ]
    assert [(hook.hook, content(hook)) for hook in head.provider.hooks] == [
        (Hook.ON_JOINED, b"#!/bin/sh\nhead\n"),
        (Hook.ON_CHANGED, b"#!/bin/sh\nchanged\n"),
    ]
    assert [hook.hook for hook in head.client.hooks] == [Hook.ON_LEFT]
    assert head.publishes == (ValueSpec("munge-key", secret=True),)
    assert (worker.provider.after, worker.provider.uses) == (("head",), ("munge-key",))
    assert {item.name: content(item) for item in spec.data} == {"motd": b"hello", "key": FOLDER["files/key"]}


def test_networks_and_members():
    file = read(workers="3")
    assert file.networks == (NetworkRequest("private", "10.20.0.0/24"), NetworkRequest("site", public=True))
    assert [member.name for member in file.expected()] == ["head-1", "worker-1", "worker-2", "worker-3"]
    assert file.expected()[3].provides == ("worker",)
    assert file.expected()[0].networks == ("private", "site")
    assert [member.name for member in file.groups[1].expected(first=4, count=2)] == ["worker-4", "worker-5"]


def test_a_lease_is_asked_for_by_the_file_unless_the_launch_says_otherwise():
    asked = lease_request(read())
    assert (asked.name, asked.duration_s, asked.when, asked.preemptible) == ("slurm", 4 * 3600, When.IMMEDIATE, True)
    assert lease_request(read(patient="true")).when is When.BEST_EFFORT
    other = lease_request(read(patient="true"), name="mine", duration_s=60, when=When.RESERVATION, start=2_000_000_000)
    assert (other.name, other.duration_s, other.when) == ("mine", 60, When.RESERVATION)
    assert check_request(other, now=1_999_999_000).groups == asked.groups
    with pytest.raises(InvalidRequest, match="for how long"):
        lease_request(read(SMALL))
    mine = renamed(read(), "mine")
    assert (mine.name, mine.context.name) == ("mine", "mine")


def test_a_cluster_is_asked_for_with_its_networks_and_roles():
    file = read()
    asked = cluster_request(file, lease_request(file), context="ctx-1", text=FULL)
    assert (asked.name, asked.networks, asked.context, asked.file) == ("slurm", file.networks, "ctx-1", FULL)
    assert [roles.group for roles in asked.roles] == [group.name for group in asked.lease.groups] == ["head", "worker"]


def test_a_file_is_plain_json_in_the_record():
    file = read(workers="5")
    assert from_json(ClusterFile, to_json(file)) == file


def test_what_is_left_out_has_a_default():
    file = read(SMALL)
    (group,) = file.groups
    assert group.request == GroupRequest("demo", name="one")
    assert group.roles == GroupRoles("one", ("a",), (), OnFailure.FAIL)
    assert (file.context.introduce, file.context.ssh, file.context.within_s) == (Introduce.ALL, Ssh.MUTUAL, 600)
    assert file.notes == ()


def test_a_single_network_is_everybodys():
    file = read(SMALL + "networks: {lan: {range: 192.168.5.0/28, outgoing: true}}\n")
    assert file.groups[0].request.networks == ("lan",)
    assert file.networks == (NetworkRequest("lan", "192.168.5.0/28", outgoing=True),)


@pytest.mark.parametrize(("said", "filesystem"), [(", mount: /data", ""), (", mount: /data, filesystem: xfs", "xfs")])
def test_an_images_disk_is_shared_and_takes_no_room(said, filesystem):
    text = SMALL.replace("provides: [a]", f"disks: [{{name: d, image: reference, read-only: true{said}}}]")
    (group,) = read(text).groups
    assert group.request.disks == (Disk("d", 0, filesystem, "", "/data", "reference"),)
    assert group.request.disk_mib == read(SMALL).groups[0].request.disk_mib


@pytest.mark.parametrize(("said", "size_mib"), [("", 0), (", size: 2GiB", 2048)])
def test_a_private_copy_of_an_images_disk_may_be_larger_than_that(said, size_mib):
    text = SMALL.replace("provides: [a]", f"disks: [{{name: d, image: reference, read-only: false{said}}}]")
    (group,) = read(text).groups
    assert group.request.disks == (Disk("d", size_mib, image="reference", private=True),)
    assert group.request.root_mib == read(SMALL).groups[0].request.root_mib
    assert group.request.disk_mib == group.request.root_mib + size_mib


@pytest.mark.parametrize(
    ("said", "filesystem"),
    [("", ""), (", mount: /x", "ext4"), (", label: x", "ext4"), (", filesystem: xfs, mount: /x", "xfs")],
)
def test_a_disk_that_is_mounted_has_a_filesystem(said, filesystem):
    text = SMALL.replace("provides: [a]", f"disks: [{{name: d, size: 1GiB{said}}}]")
    assert read(text).groups[0].request.disks[0].filesystem == filesystem


# ---------------------------------------------------------------- parameters


def test_parameters_are_chosen_at_the_launch():
    file = read(workers="64", memory="2GiB", release="trixie")
    assert file.groups[1].request.count == 64
    assert file.groups[1].request.memory_mib == 2048
    assert file.groups[0].request.image == "debian-trixie"
    assert [(each.name, each.value, each.given) for each in file.parameters][:2] == [
        ("workers", "64", True),
        ("memory", "2GiB", True),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"workers": "65"}, "line 4, column 3: parameters.workers cannot be '65': its max is 64"),
        ({"workers": "0"}, "its min is 1"),
        ({"workers": "many"}, "'many': it is no whole number"),
        ({"workers": "²"}, "it is no whole number"),
        ({"workers": "1" * 30}, "it is no whole number"),
        ({"memory": "128MiB"}, "its min is 256MiB"),
        ({"memory": "1GB"}, "write 1GiB"),
        ({"release": "trixy"}, "did you mean trixie?"),
        ({"patient": "yes"}, "it is neither true nor false"),
        ({"release": "x" * 300}, "it has 300 characters"),
        ({"release": "a\nb"}, "a control character"),
        ({"wrokers": "3"}, "line 3, column 1: the file has no parameter 'wrokers'; did you mean workers?"),
    ],
)
def test_a_parameter_cannot_be_anything(given, says):
    assert says in refused(FULL, **given).problem


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("{}", "has no value and no default"),
        ("{default: 1.5}", "no whole number"),
        ("{default: 5, max: 4}", "cannot have '5' as its default: its max is 4"),
        ("{default: a, max: 4}", "has a max, which says nothing of a text"),
        ("{default: 4, max: b}", "cannot have 'b' as its max"),
        ("{default: 4, type: flag}", "neither true nor false"),
        ("{default: '${workers}'}", "names the parameter 'workers', where none is filled in"),
        ("{default: 4, mni: 3}", "has no key 'mni'; did you mean min?"),
    ],
)
def test_a_parameter_is_declared_sensibly(declared, says):
    error = refused(changed("{default: 2, min: 1, max: 64, help: how many compute nodes}", declared))
    assert says in error.problem
    assert error.details["line"] == 4


def test_a_parameter_without_a_default_has_to_be_given():
    text = changed("default: 2, min: 1", "min: 1")
    assert read(text, workers="3").groups[1].request.count == 3
    assert "--set workers=VALUE" in str(refused(text).possible)


def test_a_value_is_never_more_than_a_scalar():
    """What is put in is not read as YAML again."""
    text = SMALL.replace("image: demo", 'image: "${image}"') + "parameters: {image: {type: text}}\n"
    assert "is 'demo, count: 7'" in refused(text, image="demo, count: 7").problem
    file = read(SMALL + 'parameters: {x: {default: a}}\ndata: {d: {text: "<${x}>"}}\n', x="{b: *c}")
    assert content(file.context.data[0]) == b"<{b: *c}>"


@pytest.mark.parametrize(
    ("scalar", "says"),
    [
        ('"${wrkers}"', "names the parameter 'wrkers', which is not declared; did you mean workers?"),
        ('"${workers"', "has ${ without its }"),
        ('"${}"', "names the parameter ''"),
        ('"${release}"', "is 'bookworm'"),
        ('"1${workers}000000000000000000"', "is '1200"),
        ("${workers}", None),
    ],
)
def test_what_is_filled_in_is_known_and_fits(scalar, says):
    text = changed('"${workers}"', scalar)
    if says is None:
        assert read(text).groups[1].request.count == 2
    else:
        error = refused(text)
        assert says in error.problem
        assert (error.details["line"], error.field) == (line_of("${workers}"), "groups.worker.count")


# ---------------------------------------------------------------- refusals

REFUSALS = [
    # keys and their kinds
    ("count: 1,", "cuont: 1,", "groups.head has no key 'cuont'; did you mean count?"),
    ("memory: 512MiB, disk", "memory: 512MB, disk", "write 512MiB"),
    ("memory: 512MiB, disk", "memory: 1MiB, disk", "is 1MiB"),
    ("cpus: 1,", "cpus: two,", "groups.head.cpus is the text 'two'"),
    ("cpus: 1,", 'cpus: "1",', "groups.head.cpus is the text '1'"),
    ("cpus: 1,", "cpus: 1.5,", "is the number 1.5"),
    ("cpus: 1,", "cpus: true,", "is true, a truth value"),
    ("cpus: 1,", "cpus: ,", "is empty"),
    ("cpus: 1,", "cpus: [1],", "is a list"),
    ("outgoing: false", "outgoing: no", "is 'no'; write false"),
    ('mode: "0600"', "mode: 0600", 'is the number 0600; write it in quotes: "0600"'),
    ('mode: "0600"', 'mode: "0888"', "is '0888'"),
    ("on-failure: replace", "on-failure: replcae", "did you mean replace?"),
    ("    image: debian\n", "", "groups.worker says no image"),
    ("[private]", "private", "in a list it is written [private]"),
    ("name: slurm\n", "name: Slurm\n", "name is 'Slurm'"),
    ("name: slurm\n", "", "says no name"),
    ("for: 4h", "for: 90", "90s, 90m or 90h?"),
    ("for: 4h", "for: 2000d", "is 2000d"),
    ("within: 5m", "within: 1s", "is 1s"),
    ("on-changed:", "on-change:", "has no key 'on-change'; did you mean on-changed?"),
    ("  head:\n    provider", "  ../head:\n    provider", "roles cannot have a '../head'"),
    ("require: cpus >= 2", "require: cpus => 2", "at character"),
    ("require: cpus >= 2", 'require: cpus == "2"', "cannot be used"),
    ("bandwidth: 100Mbit", "bandwidth: 100", "is no speed of a network"),
    # names that lead nowhere, or twice
    ("[private, site]", "[private, sit]", "there is no network 'sit'; did you mean site?"),
    ("[private, site]", "[private, private]", "which the list has already"),
    ("after: [head]", "after: [haed]", "waits for the role haed, which no group provides; did you mean head?"),
    ("uses: [munge-key]", "uses: [munge-kye]", "which nobody publishes; did you mean munge-key?"),
    ("requires: [head]", "requires: [hed]", "worker requires the role hed, which no group provides"),
    ("requires: [head]", 'requires: ["site:moon"]', "is 'site:moon'"),
    ("provides: [worker]", "provides: [worker, member]", "every member provides member already"),
    ("name: raw,", "name: scratch,", "two disks of worker have the name scratch"),
    ("size: 100MiB", "size: 100MiB, mount: /scratch", "two disks of worker have the mount /scratch"),
    ("size: 100MiB", "size: 100MiB, filesystem: vfat, label: twelveletters", "too long for vfat"),
    ("size: 100MiB", "size: 100MiB, filesystem: swap, mount: /x", "swap is not mounted"),
    ("size: 100MiB", "size: 100MiB, image: reference", "as large as that"),
    ("size: 100MiB", "mount: /x", "groups.worker.disks[1] says neither size nor image"),
    ("size: 100MiB", "image: reference, read-only: false, filesystem: swap", "nobody swaps on the disk of an image"),
    ("size: 100MiB", "size: 100MiB, mount: /a@b", "'/a@b' is no place to mount a disk"),
    ("size: 100MiB", "size: 100MiB, read-only: true", "the disk raw is blank"),
    ("size: 100MiB", "image: reference, label: x", "has the label that it has"),
    ("public: true", "pool: campus, range: 10.21.0.0/24", "networks.site has pool and range too"),
    ("public: true", "pool: campus, public: true", "networks.site has public and pool too"),
    ("path: /etc/motd", "path: /etc/slurm/slurm.conf.in", "/etc/slurm/slurm.conf.in is written twice"),
    (
        "      uses: [munge-key]\n",
        "      uses: [munge-key]\n      publishes: {munge-key: {}}\n",
        "is published by head",
    ),
    ("    networks: [private]\n", "", "worker says no networks"),
    ("apart: false", "apart: true", "its network is on one node"),
    ("apart: false", "apart: true\n    together: true", "both apart and together"),
    # networks
    ("10.20.0.0/24", "10.20.0.1/24", "has host bits set"),
    ("10.20.0.0/24", "8.8.8.0/24", "not within 10.0.0.0/8"),
    ("10.20.0.0/24", "10.0.0.0/8", "/16 to /30"),
    ("10.20.0.0/24", "10.20.0.0/300", "cannot be used"),
    ("range: 10.20.0.0/24, outgoing: false", "outgoing: true", "networks.private says no range"),
    ("public: true", "public: true, outgoing: true", "networks.site has public and outgoing too"),
    ("public: true", "range: 10.20.0.128/25", "the ranges of private and site overlap"),
    # contents
    ("from: files/key", "from: files/kez", "files/kez cannot be read: there is no such file"),
    ("from: files/key", "from: /etc/shadow", "is '/etc/shadow'"),
    ("from: files/key", "from: files/../../key", "is 'files/../../key'"),
    ("from: files/key", "from: files/key, text: x", "data.key says from and text"),
    ("{from: files/key}", "{}", "data.key says nothing"),
    ("path: /etc/motd", "path: /etc/../motd", "is '/etc/../motd'"),
    ("path: /etc/motd", "path: etc/motd", "is 'etc/motd'"),
    ("on-joined: scripts/worker.sh", "on-joined: files/key", "does not begin with #!"),
    ("  motd: {text: hello}", "  site-dns: {text: hello}", "a name of what the site provides"),
    # what YAML has and is not read
    ("name: slurm\n", "name: &anchor slurm\n", "&anchor is an anchor"),
    ("name: slurm\n", "name: *anchor\n", "*anchor is an alias"),
    ("name: slurm\n", "name: !!str slurm\n", "is a tag"),
    ("name: slurm\n", "name: slurm\n<<: {}\n", "<< merges tables"),
    ("name: slurm\n", "name: slurm\nname: other\n", "name is said twice, first on line 2"),
    ("name: slurm\n", "\tname: slurm\n", "indent with spaces"),
    ("name: slurm\n", "? [a, b]\n: slurm\n", "a key is a word"),
    ("name: slurm\n", "name: slurm\n  x: y\n", "this is not YAML"),
    ('count: "${workers}"', "sizes: {count: ${workers}}", "a parameter stands in quotes"),
    ("vws: cluster/1\n", "", "does not say what it is"),
    ("vws: cluster/1\n", "vws: cluster/2\n", "this form of cluster files is not known"),
]


@pytest.mark.parametrize(("before", "after", "says"), REFUSALS, ids=[f"{a!r}" for _, a, _ in REFUSALS])
def test_what_is_wrong_is_told_with_its_line(before, after, says):
    error = refused(changed(before, after))
    assert says in error.problem
    # The line of the change, or for what is missing that of the thing that misses it.
    assert -5 <= error.details["line"] - line_of(before) <= after.count("\n") + 1


def test_a_range_has_room_for_all_its_members():
    text = changed("10.20.0.0/24", "10.20.0.0/29")
    assert len(read(text, workers="4").expected()) == 5
    error = refused(text, workers="5")
    assert "10.20.0.0/29 has addresses for 5 members, 6 are on it" in error.problem
    assert error.details["line"] == 9


def test_a_second_document_is_refused():
    assert "a second document begins here" in refused(SMALL + "---\nname: b\n").problem


def test_roles_that_wait_for_each_other_are_refused_with_the_chain():
    text = changed("      publishes:", "      after: [worker]\n      publishes:")
    error = refused(text)
    assert "head is after worker, worker is after head" in error.problem
    assert (error.field, error.details["line"]) == ("roles.head", 12)


def test_members_may_require_each_other():
    text = SMALL + "  two: {image: demo, provides: [b], requires: [a]}\n"
    assert read(text.replace("provides: [a]}", "provides: [a], requires: [b]}")).groups[0].roles.requires == ("b",)


def test_a_role_that_nobody_provides_is_not_refused_but_told():
    file = read(SMALL + "roles: {b: {provider: {after: [zzz]}}}\n")
    assert file.notes == ("no group provides the role b: nothing that is said of it is done",)


# ---------------------------------------------------------------- files beside it


def test_the_wanted_files_are_told_without_reading_them():
    assert files_wanted(FULL) == (
        "files/slurm.conf.in",
        "scripts/head.sh",
        "scripts/changed.sh",
        "scripts/worker.sh",
        "files/key",
    )


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_scripts_from_windows_are_made_to_run_and_the_user_is_told(begin):
    folder = FOLDER | {"scripts/head.sh": begin + b"#!/bin/sh\r\nexit 0\r\n"}
    file = read(folder=folder)
    assert content(file.context.roles[0].provider.hooks[0]) == b"#!/bin/sh\nexit 0\n"
    assert file.notes == (
        "scripts/head.sh has Windows line ends (CR LF), which no guest runs; they were changed to LF",
    )


def test_other_files_from_windows_are_left_as_they_are_and_the_user_is_told():
    folder = FOLDER | {"files/slurm.conf.in": b"A=1\r\n"}
    file = read(folder=folder)
    assert content(file.context.roles[0].provider.files[0]) == b"A=1\r\n"
    assert file.notes == ("files/slurm.conf.in has Windows line ends (CR LF); it is handed on as it is",)


def test_a_program_need_not_be_a_script():
    elf = b"\x7fELF\r\n\0"
    assert content(read(folder=FOLDER | {"scripts/head.sh": elf}).context.roles[0].provider.hooks[0]) == elf


def test_files_are_not_too_large():
    error = refused(FULL, FOLDER | {"files/key": bytes(10 * 1024 * 1024)})
    assert f"files/key has more than {CONTENT_BYTES_MAX} bytes" in error.problem
    assert error.details["line"] == line_of("from: files/key")
    names = [f"f{i}" for i in range(6)]
    text = SMALL + "data:\n" + "".join(f"  {name}: {{from: {name}}}\n" for name in names)
    error = refused(text, dict.fromkeys(names, bytes(CONTENT_BYTES_MAX)))
    assert error.details["line"] == 10
    assert "in all" in str(error.possible)


def test_what_cannot_be_read_is_told_with_the_reason():
    def read_nothing(path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(InvalidRequest, match=r"line 15, .*files/slurm.conf.in cannot be read: Permission denied"):
        read_cluster_file(FULL, read_nothing)


# ---------------------------------------------------------------- places


def test_the_place_of_a_thing_is_its_keys():
    tree = parse(FULL)
    for shown in ("groups.worker.disks[1].size", "roles.head.provider.files[0].mode", "lease.for"):
        assert show_path(path_of(shown)) == shown
        place = place_of(tree, path_of(shown))
        assert FULL.splitlines()[place.line - 1][place.column - 1 :].startswith(shown.rpartition(".")[2])
    assert place_of(tree, path_of("groups.worker.nothing.at.all")) == place_of(tree, ("groups", "worker"))


# ---------------------------------------------------------------- attacks and noise

NOISE = [*"{}[]:,-&*!|>'\"%@`#?~ \n\t\r\0\ufeff\x85\u2028$<=.0", "${", "<<", "---", "...", "\ud800", "1e999", "0x"]


def outcome(text: str) -> ClusterFile | InvalidRequest:
    try:
        return read(text)
    except InvalidRequest as error:
        return error


def bounded(text: str) -> None:
    """A cluster or a refusal with its place, soon."""
    began = time.process_time()
    found = outcome(text)
    assert time.process_time() - began < 5
    if isinstance(found, InvalidRequest):
        assert found.details["line"] >= 1
        assert found.details["column"] >= 1
        assert len(found.problem) < 1000


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_file_with_noise_in_it_is_read_or_refused(data):
    text = FULL
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 12))
        noise = data.draw(st.sampled_from(NOISE) | st.text(string.printable, max_size=5))
        text = text[:at] + noise + text[at + gone :]
    bounded(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
@example("")
@example("\n")
@example("# nothing\n")
@example("vws: cluster/1")
@example("a: \ud800")
@example("[" * 30)
@example("%TAG ! tag:x,2000:\n--- {}")
@example("%YAML 9.9\n--- {}")
def test_any_text_is_refused_with_a_place(text):
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    assert caught.value.details["line"] >= 1


ATTACKS = {
    "anchors that expand": "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(50)),
    "depth": "a: " + "[" * 100_000,
    "depth of tables": "{a: " * 50_000,
    "depth of blocks": "".join(" " * i + f"a{i}:\n" for i in range(600)),
    "many entries": SMALL + "data:\n" + "".join(f"  d{i}: {{text: x}}\n" for i in range(10_000)),
    "many items": SMALL + "data: [" + "a," * 60_000 + "]",
    "a long scalar": SMALL + "data: {d: {text: '" + "x" * 250_000 + "'}}",
    "a long number": SMALL + "data: " + "9" * 200_000,
    "a long float": SMALL + "data: " + "9." * 100_000,
    "many parameters": SMALL
    + "parameters: {a: {default: "
    + "a" * 250
    + "}}\ndata: {d: {text: '"
    + "${a}" * 60_000
    + "'}}",
    "dollars": SMALL + "data: {d: {text: '" + "${" * 100_000 + "'}}",
    "comments": "#\n" * 120_000,
    "more than is read": "#" * (BYTES_MAX + 1),
    "spaces": " " * 200_000 + "a",
    "a role of many": SMALL.replace("[a]", "[" + ", ".join(f"r{i}" for i in range(10_000)) + "]"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_file_takes_long_to_refuse(attack):
    began = time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        read(ATTACKS[attack])
    assert caught.value.details["line"] >= 1
    assert time.process_time() - began < 5


def test_every_scalar_means_what_it_does_to_an_editor():
    """YAML 1.2: the words and bases of YAML 1.1 are texts."""
    text = "[yes, on, 010, 0x10, 0o10, 1_000, 1:30, 2026-11-21, 1e3, .5, .inf, ~, null, True, '1', \"x\", -7]"
    (node,) = parse(f"a: {text}").entries.values()
    assert [each.value for each in node.items] == [
        "yes", "on", 10, 16, 8, "1_000", "1:30", "2026-11-21", 1000.0, 0.5, ".inf", None, None, True, "1", "x", -7,
    ]  # fmt: skip


def test_both_readers_of_yaml_give_one_tree(monkeypatch):
    """PyYAML may have been built without libyaml."""
    tree = parse(FULL)
    monkeypatch.setattr("vws.core.yaml_tree._LOADER", yaml.SafeLoader)
    assert parse(FULL) == tree
    for text in ("a: &b c", "a: [", "\ta: b", "a: \0", "- a\n- b", "a: b\na: c"):
        assert refused(text).code == "invalid-request"


def test_the_example_of_all_keys_is_ordinary_yaml():
    assert set(yaml.safe_load(FULL)) == {
        "vws", "name", "parameters", "networks", "roles", "groups", "data", "context", "lease",
    }  # fmt: skip
    assert re.fullmatch(r"[ -~\n]*", FULL)
