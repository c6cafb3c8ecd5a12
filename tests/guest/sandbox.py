"""The guest agent in a folder that it takes for a whole machine, under a shell and tools of one's choice."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.guest.broker import NAME, SECRET, Broker, line

AGENT = Path(__file__).parents[2] / "src" / "vws" / "guest" / "agent"
MAC = "52:54:00:00:00:01"
# What a guest has beside busybox; everything else is busybox's own.
FOREIGN = ("curl", "ssh-keygen", "openssl", "mkfs.ext4", "debugfs")

# As functions, because busybox's shell prefers its own applets to what is in PATH.
PRETEND = """
uname() { echo worker-1; }
ip() {
    while read -r nic address; do
        case "$*" in
        *"addr show dev $nic "*) echo "2: $nic    inet $address/24 brd 10.0.0.255 scope global $nic" ;;
        *"route show default"*) echo "default via 10.0.0.1 dev $nic" && return ;;
        esac
    done <"$VWS_ROOT/addresses"
}
"""


def hook(script: str) -> str:
    return encoded(f"#!/bin/sh\n{script}\n".encode())


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Sandbox:
    """One machine: its root folder, the agent's processes. `shell` is dash or busybox."""

    def __init__(self, folder: Path, shell: str, broker: Broker | None) -> None:
        self.root, self.shell, self.broker = folder / "root", shell, broker
        self.state, self.seed = self.root / "etc/vws/context", folder / "seed"
        self.bin = folder / "bin"
        self.said = folder / "said"
        self.process: subprocess.Popen[bytes] | None = None
        self._tools()
        self._machine()
        if broker is not None:
            self.tell(broker)

    def _tools(self) -> None:
        self.bin.mkdir()
        if self.shell == "busybox":
            busybox = shutil.which("busybox")
            assert busybox is not None
            listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
            for name in {*listed, "sh"} - {"dropbearkey"}:
                (self.bin / name).symlink_to(busybox)
            for name in FOREIGN:
                if found := shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
                    (self.bin / name).unlink(missing_ok=True)
                    (self.bin / name).symlink_to(found)
        else:
            dash = shutil.which("dash")
            assert dash is not None
            (self.bin / "sh").symlink_to(dash)
        self.pretend(PRETEND)

    def pretend(self, functions: str) -> None:
        """Shell functions that stand in for programs of the machine."""
        with (self.bin / "pretend").open("a") as file:
            file.write(functions)

    def _machine(self) -> None:
        for path in ("etc/ssh", "root/.ssh", "run", "sys/class/net/eth0", "sys/class/net/lo", "sys/block", "dev"):
            (self.root / path).mkdir(parents=True)
        (self.root / "sys/class/net/eth0/address").write_text(f"{MAC}\n")
        (self.root / "sys/class/net/lo/address").write_text("00:00:00:00:00:00\n")
        self.addresses(eth0="10.0.0.2")
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (self.root / "etc/ssh/ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAhost root@image\n")

    def addresses(self, **by_nic: str) -> None:
        (self.root / "addresses").write_text("".join(f"{nic} {address}\n" for nic, address in by_nic.items()))

    def tell(self, broker: Broker) -> None:
        """What a NoCloud disk would say."""
        files = {
            "url": f"https://{NAME}:8443\n",
            "secret": f"{SECRET}\n",
            "ca.pem": (broker.certificate / "cert.pem").read_text(),
            "connect-to": f"::127.0.0.1:{broker.port}\n",
            "networks": line(MAC, "private") + "\n",
        }
        self.give(files)

    def give(self, files: Mapping[str, str]) -> None:
        self.seed.mkdir()
        for name, text in files.items():
            (self.seed / name).write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.bin}" if self.shell == "busybox" else f"{self.bin}:{os.environ['PATH']}"
        return {"PATH": path, "VWS_ROOT": str(self.root), "HOME": str(self.root / "root")}

    def command(self, *arguments: str) -> list[str]:
        script = f'. {self.bin}/pretend && . "$0"'
        return [str(self.bin / "sh"), "-c", script, str(AGENT), *arguments]

    def start(self) -> subprocess.Popen[bytes]:
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                self.command("run", str(self.seed)),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        return self.process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def power_off(self) -> None:
        """As pulling the plug: no process has a chance to do anything more."""
        if self.process is not None:
            _end(self.process.pid)
            self.process.wait()
        running = self.root / "run/vws-context/hook"
        for group in running.read_text().split() if running.exists() else []:
            _end(int(group))
        self.process = None

    def reboot(self) -> None:
        self.power_off()
        shutil.rmtree(self.root / "run")
        (self.root / "run").mkdir()
        self.start()

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def wait_until(self, path: str, text: str, limit_s: float = 20) -> str:
        """Until the file has `text` in it; what it has then."""
        deadline = time.monotonic() + limit_s
        while text not in (has := self.read(path) if (self.root / path).exists() else ""):
            assert time.monotonic() < deadline, f"no {text!r} in {path}: {has!r}; {self.said.read_text()}"
            time.sleep(0.02)
        return has


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
