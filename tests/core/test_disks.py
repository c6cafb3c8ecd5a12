"""What may be said of a workspace's disks, what they are granted, and what a node is told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.builders import World, file, image, node
from vws.core.deployment import orders_for
from vws.core.disks import Disk, checked_disks, completed, declared_disks, described, granted_mib
from vws.core.errors import CannotFit, InvalidRequest
from vws.core.site import ImageFile
from vws.core.terms import DISK_MIB_MAX, GroupRequest

DATA = Disk("genomes", 0, image="genomes")
OWN = replace(DATA, private=True)


def test_only_what_is_written_to_takes_room() -> None:
    assert granted_mib((Disk("a", 10), Disk("page", 20, "swap"), DATA, replace(OWN, size_mib=30))) == 60
    assert (DATA.shared, OWN.shared, Disk("a", 1).shared) == (True, False, False)


def test_what_is_mounted_or_labelled_has_a_file_system() -> None:
    assert completed(Disk("a", 1, mount="/a")).filesystem == "ext4"
    assert completed(Disk("a", 1, label="a")).filesystem == "ext4"
    assert completed(Disk("a", 1)).filesystem == ""
    assert completed(replace(DATA, mount="/a")).filesystem == "", "it has what it has"


@pytest.mark.parametrize(
    ("disk", "field", "problem"),
    [
        (Disk("A", 1), "name", "'A' cannot be the name of a disk"),
        (Disk("a" * 17, 1), "name", "cannot be the name"),
        (Disk("a", 0), "size_mib", "the disk a has 0 MiB"),
        (Disk("a", DISK_MIB_MAX + 1), "size_mib", "MiB"),
        (Disk("a", 1, "zfs"), "filesystem", "'zfs' is no file system"),
        (Disk("a", 1, mount="/a/../etc"), "mount", "no place to mount"),
        (Disk("a", 1, mount="data"), "mount", "no place to mount"),
        (Disk("a", 1, label="a b"), "label", "cannot be a label"),
        (Disk("a", 1, "vfat", label="twelve-chars"), "label", "too long for vfat"),
        (Disk("a", 1, "swap", mount="/a"), "mount", "swap is not mounted"),
        (Disk("a", 1, private=True), "private", "nothing to copy"),
        (replace(DATA, size_mib=1), "size_mib", "as large as that"),
        (replace(OWN, size_mib=-1), "size_mib", "-1 MiB"),
        (replace(OWN, label="x"), "label", "has the label that it has"),
        (replace(OWN, filesystem="swap"), "filesystem", "nobody swaps"),
    ],
)
def test_a_disk_that_cannot_be_is_refused_with_its_field(disk, field, problem) -> None:
    with pytest.raises(InvalidRequest, match=problem) as refused:
        checked_disks((Disk("first", 1), disk), "groups[0].disks")
    assert refused.value.field == f"groups[0].disks[1].{field}"
    assert refused.value.possible


@pytest.mark.parametrize("said", [{"name": "a"}, {"mount": "/a"}, {"label": "a"}])
def test_two_disks_have_nothing_in_common(said) -> None:
    one, other = (replace(Disk(name, 1), **said) for name in ("a", "b"))
    with pytest.raises(InvalidRequest, match="two disks have"):
        checked_disks((one, other), "disks")


def test_there_are_so_many_disks_and_no_more() -> None:
    with pytest.raises(InvalidRequest, match="too many disks"):
        checked_disks(tuple(Disk(f"d{n}", 1) for n in range(9)), "disks")


# ---------------------------------------------------------------- granted


@pytest.fixture
def world() -> World:
    file = ImageFile("disk", "d" * 64, 100 << 20, "raw", 100)
    return World(node(1, disk_mib=1000), images=(image(), image("genomes", files=(file,), disk_mib_min=100)))


def group(*disks: Disk, root_mib: int = 64) -> GroupRequest:
    return GroupRequest("demo", disk_mib=root_mib + granted_mib(disks), disks=disks)


def test_a_copy_is_as_large_as_its_image_unless_more_is_asked_for(world) -> None:
    disks = (OWN, replace(OWN, name="larger", size_mib=150), replace(DATA, name="shared"))
    (granted,) = world.grant(group(*disks)).groups
    assert [disk.size_mib for disk in granted.disks] == [100, 150, 0]
    assert (granted.root_mib, granted.disk_mib) == (64, 314)


def test_what_is_smaller_than_its_image_is_refused_with_what_would_do(world) -> None:
    with pytest.raises(InvalidRequest, match="has 100 MiB, more than the 99 MiB of the copy genomes") as refused:
        world.grant(group(replace(OWN, size_mib=99)))
    assert refused.value.field == "groups[0].disks[0].size_mib"
    assert refused.value.possible == "100 MiB or more, or no size: then as large as its image"


def test_the_root_disk_alone_has_to_hold_the_image(world) -> None:
    """What other disks take is no room for it."""
    asked = replace(group(Disk("scratch", 500), root_mib=99), image="genomes")
    with pytest.raises(InvalidRequest, match="needs at least 100 MiB of disk, 99 MiB were asked for") as refused:
        world.grant(asked)
    assert (refused.value.field, refused.value.possible) == ("groups[0].disk_mib", "100 MiB or more")


def test_a_node_has_room_for_what_could_be_written_and_no_more(world) -> None:
    """All that is granted is set aside: 64 + 400 + 100 of 1000 MiB; a shared disk costs nothing."""
    disks = (Disk("scratch", 300), Disk("page", 100, "swap"), OWN, replace(DATA, name="shared"))
    world.grant(group(*disks), name="first")
    with pytest.raises(CannotFit) as refused:
        world.grant(group(*disks), name="second")
    assert "436 MiB of disk free, 564 needed" in refused.value.details["nodes"][0]["reason"]
    world.grant(group(replace(DATA, name="shared"), root_mib=436), name="third")


def test_an_offer_leaves_room_for_the_disks_beside(world) -> None:
    with pytest.raises(CannotFit) as refused:
        world.grant(group(Disk("scratch", 300), root_mib=800))
    (smaller,) = (offer for offer in refused.value.details["offers"] if offer["kind"] == "smaller")
    assert smaller["disk_mib"] == 700, "of the root disk, as it is asked for"
    world.grant(group(Disk("scratch", 300), root_mib=700))


def test_a_node_is_told_of_every_disk(world) -> None:
    disks = (Disk("scratch", 300, mount="/scratch"), OWN, replace(DATA, name="shared"))
    world.grant(group(*disks))
    present = world.present
    (host,) = present.nodes.values()
    orders = orders_for(host, present.workspaces.values(), present.leases, present.images, now=0)
    (order,) = orders.workspaces
    assert order.disk_mib == 64
    assert [(d.name, d.size_mib, d.shared, bool(d.file)) for d in order.disks] == [
        ("scratch", 300, False, False),
        ("genomes", 100, False, True),
        ("shared", 0, True, True),
    ]


# ---------------------------------------------------------------- declared by an image

WORDS = Disk("words", 16, "ext4", "words", "/srv/words", brought=True)
SCRATCH = Disk("scratch", 200, "ext4", mount="/scratch")


@pytest.fixture
def declaring() -> World:
    files = (file("root", 64), file("words", 16, role="data-words"))
    return World(node(1, disk_mib=1000), images=(image("demo", files=files, beside=(SCRATCH, WORDS)),))


def test_a_workspace_has_the_disks_that_its_image_declares(declaring) -> None:
    lease = declaring.grant(group(Disk("mine", 10)))
    (granted,) = lease.groups
    words = Disk("words", 16, mount="/srv/words", image="img-demo", private=True, brought=True)
    assert granted.disks == (Disk("mine", 10), SCRATCH, words)
    assert (granted.root_mib, granted.disk_mib) == (64, 64 + 10 + 200 + 16), "all of it is set aside"
    present = declaring.present
    orders = orders_for(present.nodes["nod-001"], present.on_node("nod-001"), present.leases, present.images, now=0)
    (order,) = orders.workspaces
    assert {disk.name: disk.file and disk.file.role for disk in order.disks} == {
        "mine": None, "scratch": None, "words": "data-words",
    }  # fmt: skip
    assert order.beside == (SCRATCH, WORDS), "by which the node comes to the digest that was signed"


@pytest.mark.parametrize(
    "asked",
    [Disk("scratch", 50), Disk("other", 50, mount="/scratch"), Disk("scratch", 50, "swap")],
)
def test_what_a_lease_asks_for_stands_in_the_place_of_what_is_declared(declaring, asked) -> None:
    (granted,) = declaring.grant(group(asked)).groups
    assert [(disk.name, disk.size_mib) for disk in granted.disks] == [(asked.name, 50), ("words", 16)]


def test_declared_disks_count_among_those_that_a_workspace_may_have(declaring) -> None:
    with pytest.raises(InvalidRequest, match="too many disks"):
        declaring.grant(group(*(Disk(f"d{n}", 1) for n in range(7))))


def test_what_is_described_is_read_again_and_nothing_of_other_images() -> None:
    assert declared_disks(described((WORDS, SCRATCH)), "disks") == (SCRATCH, WORDS)
    assert declared_disks([{"name": "a", "size_mib": 1, "mount": "/var/lib/postgresql"}], "disks")
    for said, problem in (
        ([{"name": "a", "size_mib": 1, "image": "genomes"}], "larger|another image|shared"),
        ([{"name": "a", "size_mib": 1, "private": True}], "nothing to copy"),
        ([{"name": "a", "size_mib": "1"}], "whole number"),
        ([{"name": "a", "size_mib": 1, "filesystem": "swap", "brought": True}], "nobody swaps"),
        ([{"name": "a", "size_mib": 1, "mount": "/x/../etc"}], "no place to mount"),
        *(
            ([{"name": "a", "size_mib": 1, "mount": mount}], f"{mount} is needed before")
            for mount in ("/etc", "/usr/lib", "/usr/bin/x", "/root/.ssh", "/var", "/var/lib", "/var/lib/dpkg/info")
        ),
        ({"a": 1}, "an array"),
        ([{"name": "a", "size_mib": 0, "image": "genomes"}], "another image"),
    ):
        with pytest.raises(InvalidRequest, match=problem):
            declared_disks(said, "disks")
