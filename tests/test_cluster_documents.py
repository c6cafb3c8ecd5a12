"""The chapter on cluster files names every key with its default, and its example is the one that is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_documents import anchors, blocks, without_blocks
from vws.core.cluster_keys import CONTEXT, DISK, FILE, GROUP, LEASE, NETWORK, ROLE, schema
from vws.core.cluster_parameters import PARAMETERS
from vws.core.clusterfile import read_cluster_file
from vws.core.context import INFORMATION, Hook
from vws.core.waits import CONTENT_BYTES_MAX, CONTENTS_BYTES_MAX

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "docs" / "clusters.md"
SLURM = ROOT / "examples" / "slurm"


def rows(part: str) -> dict[str, str]:
    """Key to default, of the tables in a part of the chapter."""
    found: dict[str, str] = {}
    for keys, *cells in re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \| (.*?) \|(?: (.*) \|)?$", part, flags=re.M):
        found |= dict.fromkeys(re.findall(r"`([\w-]+)`", keys), cells[-1])
    return found


def section(heading: str) -> str:
    part = re.search(rf"^### {re.escape(heading)}$.*?(?=^##|\Z)", CHAPTER.read_text(), flags=re.M | re.S)
    assert part, heading
    return part[0]


def keys_of(shape: Any) -> Iterator[str]:
    """All keys of a record and of those within it."""
    for key, said in shape.get("properties", {}).items():
        yield key
        yield from keys_of(said)
    for inner in ("items", "additionalProperties"):
        if isinstance(shape.get(inner), dict):
            yield from keys_of(shape[inner])


@pytest.mark.parametrize(
    ("heading", "shape"),
    [
        ("The file", {"properties": {key: {} for key in schema()["properties"]}}),
        ("`parameters`", PARAMETERS.schema()),
        ("`networks`", NETWORK.schema()),
        ("`roles`", {"properties": {key: {} for key in keys_of(ROLE.schema()) if key != "secret"}}),
        ("`groups`", GROUP.schema()),
        ("`context`", CONTEXT.schema()),
        ("`lease`", LEASE.schema()),
    ],
)
def test_every_key_is_in_the_chapter_and_no_other(heading, shape):
    environment = {"VWS_NAME", "VWS_ROLE", "VWS_SIDE", "VWS_HOOK", "VWS_CONTEXT", "VWS_GONE"}
    assert set(rows(section(heading))) - environment == set(keys_of(shape))


def test_what_must_be_said_is_said_to_be():
    said = rows(section("`groups`"))
    for key, shape in (GROUP.keys | DISK.keys).items():
        assert (said[key] == "must be said") == shape.required, key


def test_defaults_are_those_of_the_code():
    file = read_cluster_file("vws: cluster/1\nname: x\ngroups: {g: {image: i}}\n", {}.__getitem__)
    said = rows(section("`groups`"))
    request = file.groups[0].request
    assert said["count"] == f"`{request.count}`"
    assert said["cpus"] == f"`{request.cpus}`"
    assert said["memory"] == f"`{request.memory_mib}MiB`"
    assert said["disk"] == f"`{request.disk_mib // 1024}GiB`"
    assert said["on-failure"] == f"`{file.groups[0].roles.on_failure}`"
    told = rows(section("`context`"))
    assert told["introduce"] == f"`{file.context.introduce}`"
    assert told["ssh"] == f"`{file.context.ssh}`"
    assert told["within"] == f"`{file.context.within_s // 60}m`"
    assert FILE.keys["mode"].help.endswith(f"{rows(section('`roles`'))['mode'].strip('`')}.")


def test_what_may_be_required_and_run_is_named():
    text = CHAPTER.read_text()
    assert all(f"`{name}`" in text for name in (*INFORMATION, *Hook))
    limits = f"{CONTENT_BYTES_MAX >> 20} MiB, and all files, scripts and data together {CONTENTS_BYTES_MAX >> 20} MiB"
    assert limits in " ".join(text.split())


def test_the_example_is_that_which_is_run():
    """But for the disk, and the parameter of CPUs, which are there to be explained, or not."""
    shown = next(block.text for block in blocks(CHAPTER) if block.text.startswith("vws: cluster/1"))
    file = read_cluster_file(shown, lambda path: (SLURM / path).read_bytes())
    there = read_cluster_file((SLURM / "cluster.yaml").read_text(), lambda path: (SLURM / path).read_bytes())
    assert (file.context, file.networks, file.lease) == (there.context, there.networks, there.lease)
    assert [group.roles for group in file.groups] == [group.roles for group in there.groups]


def test_the_refusal_that_is_shown_is_the_one_that_is_given():
    example, *_ = (block for block in blocks(CHAPTER) if block.text.startswith("vws: cluster/1"))
    console = next(block.text for block in blocks(CHAPTER) if block.language == "console" and "haed" in block.text)
    text = example.text.replace("after: [head]", "after: [haed]")
    with pytest.raises(Exception, match="haed") as caught:
        read_cluster_file(text, lambda path: (SLURM / path).read_bytes())
    assert f"Error: {caught.value.problem}\n" in console
    assert f"  field: {caught.value.field}\n  possible: {caught.value.possible}\n" in console


def test_links_of_the_chapter_and_the_examples_lead_somewhere():
    for document in (CHAPTER, *(ROOT / "examples").rglob("README.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(document)):
            name, _, anchor = target.partition("#")
            path = (document.parent / name).resolve()
            assert path.exists(), f"{document}: {target} leads nowhere"
            assert not anchor or anchor in anchors(path)
