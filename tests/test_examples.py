"""The examples of clusters: they are read, the planner considers them, and their scripts do what they can here.

A script runs as in a guest, but that the other machines are stand-ins: `vws-members` tells of members that are not
there, and `ssh` runs what it is told here.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from tests.core.builders import NOW, World, image, node
from vws.cli.cluster_text import dry_run_text, steps_of
from vws.core.broker import Context
from vws.core.cluster_keys import schema
from vws.core.cluster_spec import ClusterFile, lease_request
from vws.core.clusterfile import files_wanted, read_cluster_file
from vws.core.context import ContextRecord, ContextState, Identity, Member, Nic, Ran, Side
from vws.core.context_document import Documents
from vws.core.draft import Draft
from vws.core.dry_run import consider

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("hello", "mapreduce", "nfs", "slurm")
SHELLS = [shell for shell in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0])]
# Busybox may run its own mount or sleep whatever is in the PATH.
DEBIANS = [shell for shell in SHELLS if shell[0] != "busybox"]


def text_of(name: str) -> str:
    return (EXAMPLES / name / "cluster.yaml").read_text()


def read(name: str, **given: str) -> ClusterFile:
    return read_cluster_file(text_of(name), lambda path: (EXAMPLES / name / path).read_bytes(), given)


def test_every_example_is_in_the_list():
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()) == sorted(NAMES)
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"({name}/README.md)" in readme for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_read_as_it_is(name):
    file = read(name)
    assert file.name == name
    assert file.notes == ()
    assert file.lease.duration_s


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_right_to_an_editor(name):
    assert jsonschema_rs.Draft202012Validator(schema()).is_valid(yaml.safe_load(text_of(name)))
    said = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text_of(name))
    assert said
    assert (EXAMPLES / name / said[1]).resolve().exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_an_example_is_used_and_can_run(name):
    folder = EXAMPLES / name
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {*files_wanted(text_of(name)), "cluster.yaml", "README.md"}
    for script in folder.glob("scripts/*"):
        assert script.stat().st_mode & stat.S_IXUSR
        for shell in SHELLS:
            subprocess.run([*shell, "-n", str(script)], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_planner_would_grant_an_example(name):
    """On one node of four CPUs, as a laptop has them."""
    file = read(name)
    world = World(node(1, cpus=8), images=(image("demo"), image("debian")))
    draft = Draft(world.present, actor="ann", now=NOW)
    answer = consider(draft, lease_request(file), owner="ann", ids=world.ids)
    assert answer["fits"], answer["reason"]
    text = dry_run_text(file, answer)
    assert f"cluster {name}: " in text
    assert "It fits: all of it would start now." in text


def test_the_guide_explains_the_example_as_it_is():
    guide = (EXAMPLES.parent / "docs/clusters.md").read_text()
    _, _, file = text_of("slurm").partition("\n")
    assert f"```yaml\n{file}```" in guide


def test_who_waits_for_whom_in_slurm():
    assert [[role.name for role in step] for step in steps_of(read("slurm"))] == [["head"], ["worker"]]
    assert len(read("slurm", workers="16").expected()) == 17


# ---------------------------------------------------------------- scripts

MEMBERS = """\
#!/bin/sh
cat "$VWS_CONTEXT/lists/$1"
"""
SSH = """\
#!/bin/sh
[ "$1" = -T ] && host=${2#root@} && mkdir -p "$HOSTS/$host" && cd "$HOSTS/$host" && shift 2
echo "$host" >>"$HOSTS/asked"
[ "$host" != "${BROKEN:-}" ] || exit 255
exec sh -c "$*"
"""


class Guest:
    """A folder as a context, programs that stand for those of a guest, and hosts that are folders."""

    def __init__(self, folder: Path, members: Mapping[str, list[str]], programs: Mapping[str, str]) -> None:
        self.folder = folder
        for name in ("bin", "hosts", "lists", "data"):
            (folder / name).mkdir()
        for role, lines in members.items():
            (folder / "lists" / role).write_text("".join(f"{line}\n" for line in lines))
        for name, program in {"vws-members": MEMBERS, "ssh": SSH, **programs}.items():
            (folder / "bin" / name).write_text(program)
            (folder / "bin" / name).chmod(0o755)

    def run(self, script: Path, shell: list[str], **env: str) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "VWS_CONTEXT": str(self.folder),
            "VWS_NAME": "a-1",
            "HOSTS": str(self.folder / "hosts"),
        }
        return subprocess.run(
            [*shell, str(script)], env=given | env, capture_output=True, text=True, timeout=60, check=False
        )


def members(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{i} 10.20.0.{i + 1} {prefix}-{i}.hello.vws.internal" for i in range(1, count + 1)]


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def shell(request):
    return request.param


@pytest.fixture(params=DEBIANS, ids=lambda shell: shell[0])
def debian(request):
    """A shell that runs the stand-ins of all programs."""
    return request.param


def test_hello_greets_everybody_else_once(tmp_path, shell):
    guest = Guest(tmp_path, {"greeter": members("a", 3)}, {})
    script = EXAMPLES / "hello/scripts/greet.sh"
    for _ in range(2):  # and again when others come
        ran = guest.run(script, shell)
        assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "greeted a-2 (a-2.hello.vws.internal) at 10.20.0.3",
        "greeted a-3 (a-3.hello.vws.internal) at 10.20.0.4",
    ]
    assert sorted(path.name for path in (tmp_path / "hosts").iterdir()) == ["a-2", "a-3", "asked"]
    assert (tmp_path / "hosts/a-2/greetings").read_text() == "hello from a-1\n"


def test_hello_fails_if_one_does_not_answer(tmp_path, debian):
    guest = Guest(tmp_path, {"greeter": members("a", 2)}, {"sleep": "#!/bin/sh\n"})
    ran = guest.run(EXAMPLES / "hello/scripts/greet.sh", debian, BROKEN="a-2")
    assert ran.returncode == 1
    assert "a-2 does not answer" in ran.stdout
    assert len((tmp_path / "hosts/asked").read_text().splitlines()) == 60


def mapreduce(tmp_path: Path, shell: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """The mappers' program is where the cluster file puts it; here it stays where it is."""
    counter = EXAMPLES / "mapreduce/files/count-words"
    ssh = SSH.replace('exec sh -c "$*"', f'[ "$*" = /usr/local/bin/count-words ] && exec sh {counter}')
    guest = Guest(tmp_path, {"mapper": members("mapper", 3)}, {"ssh": ssh})
    shutil.copy(EXAMPLES / "mapreduce/files/text", tmp_path / "data/text")
    return guest.run(EXAMPLES / "mapreduce/scripts/reduce.sh", shell, RESULT=str(tmp_path / "words"), **env)


def test_mapreduce_counts_every_word(tmp_path, shell):
    ran = mapreduce(tmp_path, shell)
    assert ran.returncode == 0, ran.stderr
    words = Counter(re.findall(r"[a-z]+", (EXAMPLES / "mapreduce/files/text").read_text().lower()))
    found = dict(reversed(line.split()) for line in (tmp_path / "words").read_text().splitlines())
    assert {word: int(count) for word, count in found.items()} == words
    assert f"{len(words)} words, by 3 mappers" in ran.stdout
    assert sorted((tmp_path / "hosts/asked").read_text().split()) == ["mapper-1", "mapper-2", "mapper-3"]


def test_mapreduce_says_who_did_not_answer(tmp_path, shell):
    ran = mapreduce(tmp_path, shell, BROKEN="mapper-2")
    assert ran.returncode == 1
    assert "no answer from: mapper-2" in ran.stdout
    assert not (tmp_path / "words").exists()


def test_nfs_mounts_what_the_head_exports(tmp_path, debian):
    guest = Guest(
        tmp_path,
        {"nfs-server": members("head", 1)},
        {name: f'#!/bin/sh\necho "{name} $*" >>"$VWS_CONTEXT/called"\n' for name in ("mount.nfs4", "mount")},
    )
    shared = str(tmp_path / "shared")
    fstab = tmp_path / "fstab"
    fstab.write_text(f"/dev/vda1 / ext4 rw 0 1\nold:/srv/shared {shared} nfs4 rw 0 0\n")
    ran = guest.run(EXAMPLES / "nfs/scripts/mount.sh", debian, FSTAB=str(fstab), SHARED=shared)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "called").read_text() == f"mount {shared}\n"
    assert (tmp_path / "shared/a-1").read_text() == "a-1\n"
    assert fstab.read_text().splitlines() == [
        "/dev/vda1 / ext4 rw 0 1",
        f"head-1:/srv/shared {shared} nfs4 rw,vers=4.2,_netdev,nofail 0 0",
    ]


def test_nfs_is_exported_to_the_members_that_mount_it(tmp_path, debian):
    called = '#!/bin/sh\necho "{0} $*" >>"$VWS_CONTEXT/called"\n'
    names = ("exportfs", "systemctl", "mount", "rpc.mountd", "rpc.nfsd", "pidof")
    shared = str(tmp_path / "shared")
    guest = Guest(tmp_path, {"nfs-client": members("worker", 2)}, {name: called.format(name) for name in names})
    ran = guest.run(EXAMPLES / "nfs/scripts/export.sh", debian, EXPORTS=str(tmp_path / "exports"), SHARED=shared)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "exports").read_text().splitlines() == [
        f"{shared} 10.20.0.2(rw,sync,no_subtree_check,no_root_squash)",
        f"{shared} 10.20.0.3(rw,sync,no_subtree_check,no_root_squash)",
    ]
    assert (tmp_path / "called").read_text().splitlines()[-1] == "exportfs -ra"
    assert ran.stdout == "exported to 2 members\n"


def test_all_members_of_slurm_write_one_configuration(tmp_path, shell):
    guest = Guest(tmp_path, {"head": members("head", 1), "worker": members("worker", 2)[::-1]}, {})
    (tmp_path / "data/cpus").write_text("2")
    script = tmp_path / "configure"
    twice = "configure\necho $changed\n" * 2
    script.write_text(f"set -eu\n. {EXAMPLES / 'slurm/files/vws-slurm.sh'}\n{twice}")
    conf, template = tmp_path / "etc/slurm.conf", EXAMPLES / "slurm/files/slurm.conf.in"
    ran = guest.run(script, shell, SLURM_CONF=str(conf), SLURM_TEMPLATE=str(template))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "yes\nno\n"
    assert conf.read_text() == template.read_text() + (
        "SlurmctldHost=head-1(10.20.0.2)\n"
        "NodeName=head-1 NodeAddr=10.20.0.2 CPUs=2 State=UNKNOWN\n"
        "NodeName=worker-1 NodeAddr=10.20.0.2 CPUs=2 State=UNKNOWN\n"
        "NodeName=worker-2 NodeAddr=10.20.0.3 CPUs=2 State=UNKNOWN\n"
        "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
    )


def test_slurm_waits_no_longer_than_it_says(tmp_path, debian):
    guest = Guest(tmp_path, {}, {"sleep": "#!/bin/sh\n", "no": '#!/bin/sh\necho >>"$VWS_CONTEXT/asked"\nexit 1\n'})
    script = tmp_path / "wait"
    script.write_text(f"set -eu\n. {EXAMPLES / 'slurm/files/vws-slurm.sh'}\nuntil_true 5 no\necho reached\n")
    ran = guest.run(script, debian)
    assert (ran.returncode, ran.stdout) == (1, "no did not succeed\n")
    assert (tmp_path / "asked").read_text() == "\n" * 5


# ---------------------------------------------------------------- their contexts


def obedient(file: ClusterFile) -> tuple[Context, list[str]]:
    """The context once members have done all that it lets them do, and what they did: who, which side, which role."""
    record = ContextRecord(id="ctx-1", name=file.name, owner="ann", spec=file.context, information=(), created_at=NOW)
    context = Context(record)
    done: list[str] = []
    for number, expected in enumerate(file.expected(), start=2):
        context.expect(expected, NOW)
        context.join(expected.name, f"{number:064x}", NOW)
        nics = tuple(Nic(network, f"10.20.0.{number}") for network in expected.networks)
        context.report(expected.name, Identity(nics), NOW)
    context.check()
    while moved := [member.name for member in list(context.present()) if act(context, member, done)]:
        assert len(done) < 1000, moved
    context.take(NOW)
    return context, done


def act(context: Context, member: Member, done: list[str]) -> bool:
    """The first hook that is due, if any; what its role publishes is published before it ends."""
    context.heard(member.name, context.version, NOW)
    for role, side, spec in context.sides(member):
        said = f"{member.name} {side} {role.name}"
        if said in done or not spec.hooks or context.awaited(role, side, spec):
            continue
        for value in role.publishes if side is Side.PROVIDER else ():
            context.publish(member.name, value.name, "a2V5", NOW)
        for hook in (hook.hook for hook in spec.hooks):
            context.ended(member.name, Ran(role.name, side, hook, context.version, 0), NOW)
        done.append(said)
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_the_context_of_an_example_becomes_ready(name):
    context, done = obedient(read(name))
    assert context.record.state is ContextState.READY
    assert done


def test_what_runs_after_what():
    assert obedient(read("slurm"))[1] == [
        "head-1 provider head",
        "worker-1 provider worker",
        "worker-2 provider worker",
    ]
    assert obedient(read("nfs", workers="1"))[1] == ["head-1 provider nfs-server", "worker-1 client nfs-server"]
    assert obedient(read("mapreduce"))[1] == ["reducer-1 provider reducer"]


def test_a_worker_is_sent_what_it_needs_and_the_key_of_munge_only_to_workers():
    context, _ = obedient(read("slurm"))
    documents = Documents(context)
    worker = documents.document("worker-1", 0).text.decode()
    lines = [line.split("\t") for line in worker.splitlines()]
    assert ["value", "munge-key", "a2V5"] in lines
    assert ["wait", "provider", "worker", "barrier", "head"] in lines
    assert [line[3] for line in lines if line[0] == "hook"] == ["on-joined", "on-changed"]
    assert {line[2] for line in lines if line[:2] == ["member", "worker"]} == {"worker-1", "worker-2"}
    assert "munge-key" not in documents.document("head-1", 0).text.decode()
