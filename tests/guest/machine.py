"""A virtual machine of a test's own: QEMU in a network namespace that ends with it, reached through forwarded ports.

No libvirt, no bridge, no DHCP server: QEMU's user network brings all that. So these tests tell whether the appliance
works, whatever the node agent does.
"""

from __future__ import annotations

import io
import json
import shlex
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pycdlib

from vws.core.recipe import CMDLINE_DEFAULT

SSH_PORT = 2222
QEMU = (
    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
    *("-accel", "tcg,tb-size=64", "-cpu", "Nehalem,+rdrand", "-smp", "1"),
    *("-device", "virtio-balloon-pci", "-device", "virtio-rng-pci", "-device", "pvpanic"),
)


def unpack(bundle: Path, folder: Path) -> dict[str, object]:
    """The bundle's files into `folder`; its manifest."""
    with tarfile.open(bundle) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            assert stream is not None
            (folder / member.name).write_bytes(stream.read())
    manifest: dict[str, object] = json.loads((folder / "appliance.json").read_text())
    return manifest


def make_key(path: Path) -> str:
    """An ssh key pair at `path`; the public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


def make_seed(path: Path, files: Mapping[str, str], *, rock_ridge: bool = True) -> None:
    """A NoCloud disk: `files` by path, some in vws or vws/context. Without Rock Ridge the names are Joliet's only."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09" if rock_ridge else None)

    def named(name: str) -> dict[str, str]:
        return {"rr_name": name} if rock_ridge else {}

    iso.add_directory("/VWS", joliet_path="/vws", **named("vws"))
    iso.add_directory("/VWS/CONTEXT", joliet_path="/vws/context", **named("context"))
    for number, (name, text) in enumerate(files.items()):
        folder, _, base = name.rpartition("/")
        plain = f"{'/' + folder.upper() if folder else ''}/F{number}.;1"
        iso.add_fp(io.BytesIO(text.encode()), len(text.encode()), plain, joliet_path=f"/{name}", **named(base))
    iso.write(str(path))
    iso.close()


class Machine:
    """One running virtual machine in `folder`, which holds its disks, keys, console and monitor."""

    def __init__(
        self,
        folder: Path,
        *,
        seed_as: str = "virtio",
        machine: str = "q35",
        memory_mib: int = 128,
        disk_mib: int = 256,
        resume_from: Path | None = None,
        door: str = "",
        more: Sequence[str] = (),
    ) -> None:
        """door: a program, and its arguments, that each connection to 10.0.2.100:443 is joined to. more: for QEMU."""
        self.folder, self.console, self.monitor = folder, folder / "console.log", folder / "monitor"
        overlay = folder / "overlay.qcow2"
        if not overlay.exists():
            backing = ["-b", str(folder / "disk.qcow2"), "-F", "qcow2"]
            make = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(overlay), f"{disk_mib}M"]
            subprocess.run(make, check=True)
        seed = f"file={folder / 'seed.iso'},format=raw,readonly=on"
        drives = ["-drive", f"file={overlay},format=qcow2,if=virtio"]
        drives += ["-cdrom", str(folder / "seed.iso")] if seed_as == "cdrom" else ["-drive", f"{seed},if=virtio"]
        guestfwd = f",guestfwd=tcp:10.0.2.100:443-cmd:{door}" if door else ""
        network = ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22{guestfwd}"]
        network += ["-device", "virtio-net-pci,netdev=net,romfile="]
        direct = ["-kernel", str(folder / "kernel"), "-initrd", str(folder / "initrd"), "-append", CMDLINE_DEFAULT]
        boot = direct if (folder / "kernel").exists() else []  # else firmware boots the disk
        outside = ["-serial", f"file:{self.console}", "-qmp", f"unix:{self.monitor},server=on,wait=off"]
        size = ["-machine", f"{machine},usb=off,vmport=off", "-m", str(memory_mib)]
        past = ["-incoming", f"exec:cat {shlex.quote(str(resume_from))}"] if resume_from else []
        # The namespace has no name and lives as long as QEMU does; its loopback must be up for the forwarded port.
        apart = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        self.started = time.monotonic()
        self.process = subprocess.Popen([*apart, *QEMU, *size, *boot, *drives, *network, *outside, *past, *more])

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(f"the machine's console:\n{self.said()[-8000:]}")
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def wait_for(self, words: str, limit_s: float = 60) -> float:
        """Until the console says `words`; seconds since the start."""
        while words not in self.said():
            assert self.process.poll() is None, f"the machine stopped; its console: {self.said()[-2000:]}"
            assert time.monotonic() - self.started < limit_s, f"no {words!r} on the console: {self.said()[-2000:]}"
            time.sleep(0.02)
        return time.monotonic() - self.started

    def ssh(
        self, command: str, *, key: str = "user", known_hosts: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as root in the guest, trusting only the host key that was injected."""
        hosts = self.folder / "known_hosts"
        hosts.write_text(known_hosts or f"[127.0.0.1]:{SSH_PORT} {(self.folder / 'host.pub').read_text()}")
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
        }
        arguments = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        inside = ["nsenter", f"--target={self.process.pid}", "--net", "--"]
        ssh = ["ssh", "-F", "/dev/null", "-i", str(self.folder / key), "-p", str(SSH_PORT), *arguments]
        return subprocess.run(
            [*inside, *ssh, "root@127.0.0.1", command], capture_output=True, text=True, timeout=60, check=False
        )

    def output(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for_ssh(self, limit_s: float = 20) -> None:
        """Until the guest lets us in, for a machine that says nothing as it goes on."""
        deadline = time.monotonic() + limit_s
        while (tried := self.ssh("true")).returncode:
            assert time.monotonic() < deadline, tried.stderr
            time.sleep(0.1)

    def tell(self, command: str, **arguments: object) -> dict[str, Any]:
        """QEMU's answer to one command of its monitor."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.monitor))
            stream = connection.makefile("rwb")
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            answers = (json.loads(line) for line in stream)
            _, answer = islice(_only_answers(answers), 2)
            assert "return" in answer, answer
            return dict(answer["return"])

    def suspend_to(self, path: Path) -> None:
        """Memory and devices into a file, then the end of the process."""
        self.tell("migrate", uri=f"exec:cat >{shlex.quote(str(path))}")
        while (status := self.tell("query-migrate")["status"]) != "completed":
            assert status in ("setup", "active", "device"), status
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()

    def events_until_end(self, *commands: str, limit_s: float = 20) -> list[str]:
        """Tell the monitor `commands`, then the names of all events until QEMU ends."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(limit_s)
            connection.connect(str(self.monitor))
            stream = connection.makefile("rwb")
            for command in ("qmp_capabilities", *commands):
                stream.write(json.dumps({"execute": command}).encode() + b"\n")
            stream.flush()
            return [event["event"] for line in stream if "event" in (event := json.loads(line))]


def _only_answers(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (line for line in lines if {"return", "error"} & line.keys())


def copy_parts(parts: Path, folder: Path) -> None:
    for name in ("kernel", "initrd", "disk.qcow2"):
        shutil.copy(parts / name, folder / name)
