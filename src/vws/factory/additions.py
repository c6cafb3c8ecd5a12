"""What a recipe adds to a system: files, users, services, commands, in this order, each done inside the appliance.

Nothing is written into its tree from outside: a link in it, of a package or of a stranger's image, would lead the
builder's hand to a file of this machine. So files go in as a tar archive, which the appliance's own tar unpacks.
"""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vws.core.errors import InvalidRequest
from vws.core.recipe import CommandEntry, FileEntry, Init, Recipe, Services, UserEntry
from vws.factory.recipes import walk
from vws.factory.sandbox import Sandbox, SandboxError
from vws.guest.cpio import Entry, file, folder, link
from vws.guest.debs import BuildError

UNTAR = ("tar", "--extract", "--file=-", "--preserve-permissions", "--same-owner", "--keep-directory-symlink")
SHOWN_LINES = 3
TIDY = Path(__file__).with_name("tidy")

_UNIT = """\
[Unit]
Description={name}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=/bin/sh -c {command}
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Added:
    """One thing that is added; path: without a leading slash."""

    path: str
    entry: Entry
    owner: str = "root:root"


def added_by(entries: Iterable[FileEntry]) -> Iterator[Added]:
    """What the entries of a recipe put where; their sources are absolute paths."""
    for entry in entries:
        path = entry.path.lstrip("/")
        if entry.link:
            yield Added(path, link(entry.link), entry.owner)
        elif entry.text is not None:
            mode = 0o755 if entry.text.startswith("#!") else 0o644
            yield Added(path, file(entry.text, _mode(entry, mode)), entry.owner)
        else:
            yield from _from_source(entry, path, Path(entry.source))


def _from_source(entry: FileEntry, path: str, source: Path) -> Iterator[Added]:
    for each in walk(source):
        name = path if each == source else f"{path}/{each.relative_to(source)}"
        if each.is_symlink():
            yield Added(name, link(str(each.readlink())), entry.owner)
        elif each.is_dir():
            yield Added(name, folder(), entry.owner)
        elif each.is_file():
            content = each.read_bytes()
            runs = content.startswith(b"#!") or bool(each.stat().st_mode & stat.S_IXUSR)
            yield Added(name, file(content, _mode(entry, 0o755 if runs else 0o644)), entry.owner)
        else:
            raise InvalidRequest(f"files: {each} is no ordinary file", field="files", possible="files and folders")


def _mode(entry: FileEntry, default: int) -> int:
    return int(entry.mode, 8) if entry.mode else default


def archive(added: Iterable[Added], date_s: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for each in added:
            tar.addfile(_member(each, date_s), io.BytesIO(b"" if each.entry.is_link else each.entry.data))
    return stream.getvalue()


def _member(each: Added, date_s: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(each.path)
    member.mode, member.mtime = each.entry.mode & 0o7777, date_s
    member.uname, _, group = each.owner.partition(":")
    member.gname = group or member.uname
    if each.entry.is_link:
        member.type, member.linkname = tarfile.SYMTYPE, each.entry.data.decode()
    elif each.entry.is_folder:
        member.type = tarfile.DIRTYPE
    else:
        member.size = len(each.entry.data)
    return member


def add_all(recipe: Recipe, own: Iterable[Added], box: Sandbox) -> None:
    """Do all that the recipe says. own: what VWS adds, before the recipe's files, which may replace it.

    Raises BuildError naming what failed, with its last words.
    """
    box.log.step(f"adding {len(recipe.files)} files, {len(recipe.users)} users")
    _put(box, own, "VWS's own files")
    for name, user in recipe.users.items():
        _add_user(box, name, user)
    _put(box, added_by(recipe.files), "files")
    _put(box, (each for name, user in recipe.users.items() for each in _keys(name, user)), "users")
    _add_services(box, recipe.services, recipe.init)
    for number, command in enumerate(recipe.commands):
        _run_command(box, number, command)
    box.log.step("tidying up")
    _do(box, ["sh", "-s"], "tidying up", given=TIDY.read_bytes())


def _put(box: Sandbox, added: Iterable[Added], what: str) -> None:
    everything = list(added)
    # tar takes root for who is not known.
    for owner in sorted({each.owner for each in everything} - {"root:root"}):
        user, _, group = owner.partition(":")
        _do(box, ["getent", "passwd", user], f"{what}: the appliance has no user {user}")
        _do(box, ["getent", "group", group or user], f"{what}: the appliance has no group {group or user}")
    if everything:
        _do(box, UNTAR, what, given=archive(everything, box.date_s))


def _add_user(box: Sandbox, name: str, user: UserEntry) -> None:
    for group in user.groups:
        _do(box, ["groupadd", "--force", group], f"users.{name}")
    command = ["useradd", "--shell", user.shell, "--home-dir", user.home or f"/home/{name}", "--user-group"]
    command += ["--system", "--no-create-home"] if user.system else ["--create-home"]
    command += ["--uid", str(user.uid)] if user.uid is not None else []
    command += ["--groups", ",".join(user.groups)] if user.groups else []
    _do(box, [*command, name], f"users.{name}")


def _keys(name: str, user: UserEntry) -> Iterator[Added]:
    if user.keys:
        home = (user.home or f"/home/{name}").lstrip("/")
        yield Added(f"{home}/.ssh", replace(folder(), mode=stat.S_IFDIR | 0o700), f"{name}:{name}")
        text = "".join(f"{key}\n" for key in user.keys)
        yield Added(f"{home}/.ssh/authorized_keys", file(text, 0o600), f"{name}:{name}")


def _add_services(box: Sandbox, services: Services, init: Init) -> None:
    if init is Init.VWS:
        _put(box, _kept_running(services.run), "services.run")
        return
    units = {f"vws-{name}.service": _unit(name, command) for name, command in services.run.items()}
    _put(box, (Added(f"etc/systemd/system/{name}", file(text)) for name, text in units.items()), "services.run")
    for verb, names in (("enable", (*services.enable, *units)), ("disable", services.disable)):
        for name in names:
            _do(box, ["systemctl", "--root=/", verb, name], f"services.{verb}: {name}")


def _kept_running(commands: Mapping[str, str]) -> Iterator[Added]:
    """Scripts that VWS's init runs, as its table says (etc/inittab)."""
    for name, command in commands.items():
        yield Added(f"etc/vws/services/{name}", file(f"#!/bin/sh\nexec {command}\n", 0o755))


def _unit(name: str, command: str) -> str:
    quoted = command.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return _UNIT.format(name=name, command=f'"exec {quoted}"')


def _run_command(box: Sandbox, number: int, command: CommandEntry) -> None:
    lines = command.run.strip().splitlines() or [""]
    shown = lines[0] + (" ..." if len(lines) > 1 else "")
    box.log.step(f"command {number + 1}: {shown[:80]}")
    _do(box, ["sh", "-e", "-c", command.run], f"commands[{number}] ({shown[:80]})", limit_s=command.within_s)


def _do(box: Sandbox, arguments: Iterable[str], what: str, *, given: bytes = b"", limit_s: float = 600) -> None:
    before = box.log.path.stat().st_size
    try:
        box.run(list(arguments), given=given, limit_s=limit_s)
    except SandboxError as error:
        with box.log.path.open("rb") as stream:
            stream.seek(before)
            words = stream.read().decode(errors="replace").strip().splitlines()[-SHOWN_LINES:]
        why = f"it took longer than {limit_s:g} s" if error.status is None else str(error)
        raise BuildError(f"{what}: {why}" + (f": {' / '.join(words)}" if words else "")) from None
