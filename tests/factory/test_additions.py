"""What a recipe adds, done inside a tree; what fails is named, with its last words."""

from __future__ import annotations

import os

import pytest

from tests.factory.conftest import needs_root
from vws.core.recipe import Boot, CommandEntry, FileEntry, Init, Recipe, Services, UserEntry
from vws.factory import additions
from vws.guest.debs import BuildError

pytestmark = needs_root


def add(box, **said) -> None:
    additions.add_all(Recipe(**said), (), box)


def test_files_folders_and_links_get_their_owners_and_modes(box, tmp_path):
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner/script").write_text("#!/bin/sh\n")
    (source / "plain").write_text("plain")
    (source / "plain").chmod(0o600)
    (source / "link").symlink_to("plain")
    files = (
        FileEntry("/opt/all", source=str(source)),
        FileEntry("/etc/motd", text="hello\n", mode="0640", owner="ann"),
        FileEntry("/etc/alias", link="motd"),
        FileEntry("/usr-local/run", text="#!/bin/sh\n"),
    )
    add(box, files=files, users={"ann": UserEntry(uid=4000, keys=("ssh-ed25519 AAAA ann",), shell="/bin/sh")})
    tree = box.tree
    motd = (tree / "etc/motd").stat()
    assert (motd.st_uid, motd.st_gid, motd.st_mode & 0o777) == (4000, 4000, 0o640)
    assert (tree / "opt/all/inner/script").stat().st_mode & 0o777 == 0o755
    assert (tree / "opt/all/plain").stat().st_mode & 0o777 == 0o644
    assert os.readlink(tree / "opt/all/link") == "plain"
    assert os.readlink(tree / "etc/alias") == "motd"
    assert (tree / "usr-local/run").stat().st_mode & 0o777 == 0o755
    keys = tree / "home/ann/.ssh/authorized_keys"
    assert keys.read_text() == "ssh-ed25519 AAAA ann\n"
    assert (keys.stat().st_uid, keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (4000, 0o600, 0o700)


def test_a_link_of_the_tree_does_not_lead_out_of_it(box, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (box.tree / "etc/mine").symlink_to(outside)
    (box.tree / "etc/conf").symlink_to(outside / "conf")
    add(box, files=(FileEntry("/etc/conf", text="x"),))
    assert (box.tree / "etc/conf").read_text() == "x"
    with pytest.raises(BuildError, match="files: it ended with status 2"):
        add(box, files=(FileEntry("/etc/mine/file", text="x"),))
    assert not list(outside.iterdir())


def test_users_get_groups_and_the_same_day_each_time(box):
    users = {"ann": UserEntry(groups=("wheel",), home="/srv/ann", shell="/bin/sh"), "daemon1": UserEntry(system=True)}
    add(box, users=users)
    passwd = (box.tree / "etc/passwd").read_text()
    assert ":/srv/ann:/bin/sh\n" in passwd
    assert "wheel:x:" in (box.tree / "etc/group").read_text()
    assert "ann:!:19675:" in (box.tree / "etc/shadow").read_text()  # the day of the build's date
    assert not (box.tree / "home/daemon1").exists()
    assert not (box.tree / "etc/passwd-").exists()


def test_services_of_both_kinds(box):
    services = Services(run={"hello": 'echo "$HOME" 100% \\ '})
    add(box, services=services)
    script = box.tree / "etc/vws/services/hello"
    assert script.read_text() == '#!/bin/sh\nexec echo "$HOME" 100% \\ \n'
    assert script.stat().st_mode & 0o111
    unit = additions._unit("hello", 'echo "$HOME" 100% \\x')
    assert 'ExecStart=/bin/sh -c "exec echo \\"$$HOME\\" 100%% \\\\x"' in unit


@pytest.mark.skipif(not os.path.exists("/usr/bin/systemctl"), reason="no systemctl on this machine")
def test_units_are_enabled(box):
    services = Services(run={"hello": "sleep 1"})
    additions.add_all(Recipe(services=services, boot=Boot(init=Init.SYSTEM)), (), box)
    wanted = box.tree / "etc/systemd/system/multi-user.target.wants/vws-hello.service"
    assert os.readlink(wanted) == "/etc/systemd/system/vws-hello.service"
    with pytest.raises(BuildError, match=r"services.enable: no-such: it ended with status 1: .*no-such"):
        additions.add_all(Recipe(services=Services(enable=("no-such",)), boot=Boot(init=Init.SYSTEM)), (), box)


def test_a_command_that_fails_is_named_with_its_last_words(box):
    commands = (CommandEntry("echo one >/etc/one"), CommandEntry("echo starting\nls /no/such/place\necho never"))
    with pytest.raises(BuildError) as error:
        add(box, commands=commands)
    said = str(error.value)
    assert said.startswith("commands[1] (echo starting ...): it ended with status 2: ")
    assert "/no/such/place" in said
    assert "never" not in said
    assert (box.tree / "etc/one").read_text() == "one\n"


def test_a_command_has_its_time(box):
    with pytest.raises(BuildError, match=r"commands\[0\] \(sleep 60\): it took longer than 1 s"):
        add(box, commands=(CommandEntry("sleep 60", within_s=1),))


def test_what_each_machine_has_for_itself_is_not_kept(box):
    for name in ("etc/ssh/ssh_host_rsa_key", "etc/machine-id", "etc/hostname", "var/log/apt/history.log",
                 "var/lib/systemd/random-seed", "etc/apt/sources.list.d/0000main.list", "root/.bash_history",
                 "etc/passwd-", "var/cache/ldconfig/aux-cache", "etc/munge/munge.key"):  # fmt: skip
        (box.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (box.tree / name).write_text("made up")
    add(box, commands=(CommandEntry("echo mine >/etc/apt/sources.list.d/mine.list"),))
    left = [path for path in box.tree.rglob("*") if path.is_file() and path.read_text() == "made up"]
    assert left == []
    assert (box.tree / "etc/machine-id").read_text() == ""
    assert (box.tree / "etc/apt/sources.list.d/mine.list").exists()


def test_an_unknown_owner_is_told(box):
    with pytest.raises(BuildError) as error:
        add(box, files=(FileEntry("/etc/x", text="x", owner="nobody-at-all"),))
    assert str(error.value).startswith("files: the appliance has no user nobody-at-all")
