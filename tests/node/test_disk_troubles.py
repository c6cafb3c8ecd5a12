"""What is heard of disks on the consoles of guests, which may print what they please."""

from vws.core.deployment import DiskTrouble
from vws.node.disk_troubles import Heard, disk_troubles

SAID = b"""vws-context: preparing disks\r
vws-context: the disk data could not be prepared: of the boot before\r
vws-context: preparing disks\r
VWS: up in 3 s\r
vws-context: the disk scratch could not be prepared: this machine has no mkfs.xfs\r
"""


def test_what_a_guest_said_of_its_disks_is_read_of_its_last_boot() -> None:
    assert disk_troubles(SAID) == (DiskTrouble("scratch", "this machine has no mkfs.xfs"),)
    assert disk_troubles(b"vws-context: preparing disks\nall is well") == ()
    assert disk_troubles(b"the disk a could not be prepared: x") is None
    (long,) = disk_troubles(
        b"vws-context: preparing disks\nvws-context: the disk a could not be prepared: " + b"x" * 999
    )
    assert len(long.reason) == 200


class Guest:
    """One that prints, and what its node has heard of it."""

    def __init__(self) -> None:
        self.console = b""
        self.heard = Heard(1, ("data", "page"))
        self.read = 0

    def prints(self, *lines: str) -> list[str]:
        self.console += b"".join(f"vws-context: {line}\r\n".encode() for line in lines)
        self.heard.listen(len(self.console), self.tail)
        return [f"{each.disk}: {each.reason}" for each in self.heard.standing]

    def tail(self) -> bytes:
        self.read += 1
        return self.console


def test_a_guest_invents_no_troubles() -> None:
    guest, first = Guest(), "the disk data could not be prepared: no mkfs.xfs"
    assert guest.prints("preparing disks", *(f"the disk d{n} could not be prepared: me" for n in range(9))) == []
    assert guest.prints(first) == ["data: no mkfs.xfs"], "one that was ordered, whatever was printed before it"
    for n in range(3):
        assert guest.prints(f"the disk data could not be prepared: {n}", "the disk x could not be prepared: y") == [
            "data: no mkfs.xfs"
        ], "once in a boot"
    assert guest.prints("preparing disks") == [], "it is mended"
    assert guest.prints(first, "the disk page could not be prepared: z") == ["page: z"], "heard before in this boot"


def test_a_console_is_read_only_when_something_was_printed() -> None:
    guest = Guest()
    guest.prints("preparing disks")
    guest.prints()
    assert guest.read == 1
