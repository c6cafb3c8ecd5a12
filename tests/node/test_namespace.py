"""Where a node's network lives: entering it, and taking its name away."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vws.node.namespace import Machine

COVERED = """
import subprocess
from vws.node.namespace import Namespace

place = Namespace("vws-covered")
place.make()
for arguments in (["--rbind", "/run/netns", "/run/netns"], ["--make-shared", "/run/netns"]):
    subprocess.run(["mount", *arguments], check=True)
for _ in range(2):
    place.destroy()
assert not place.exists and place.inode() is None
place.make()
assert place.exists
place.destroy()
assert not place.exists
"""


class Shut(Machine):
    tries = 0

    def _enter(self) -> None:
        self.tries += 1
        if self.tries < 3:
            raise OSError("shut")


def test_a_network_that_could_not_be_entered_is_tried_again():
    place = Shut()
    for _ in range(2):
        with pytest.raises(OSError, match="shut"):
            place.inside(lambda: "here").result(5)
    assert [place.inside(lambda: "here").result(5) for _ in range(2)] == ["here", "here"]
    assert place.tries == 3
    place.let_go()


@pytest.mark.live
def test_one_whose_name_was_mounted_over_can_be_taken_away():
    """As the first use of `ip netns` does it; here where nobody else sees it."""
    own = ["unshare", "--mount", "--propagation", "private"]
    hidden = 'mount -t tmpfs tmpfs /run && exec "$@"'
    done = subprocess.run(
        [*own, "sh", "-c", hidden, "sh", sys.executable, "-c", COVERED], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
