"""Domains: what libvirt does for a workspace, step by step. All of it blocks.

A domain is known as this node's by its UUID, which is made from the node's mark
and the workspace's id; the mark is also in its metadata, for people. It stays
defined from its first start to its removal, so that libvirt can say how it ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import libvirt

from vws.core.deployment import DiskOrder, DiskTrouble, WorkspaceKeys, WorkspaceOrder
from vws.core.lifecycle import Observation
from vws.core.site import ImageFile, chain_of
from vws.faultpoints import reach
from vws.node import memory_pipes, outcome
from vws.node.connection import no_domain
from vws.node.cpushare import CpuGroups
from vws.node.disk_keys import own_passphrase
from vws.node.disk_secrets import DiskSecrets, strike_out
from vws.node.disk_troubles import Heard
from vws.node.disks import check_disk, serial
from vws.node.domain_xml import Beside, Files, Host, domain_uuid, domain_xml
from vws.node.mirror import end_mirror
from vws.node.naming import domain_name, id_of
from vws.node.outcome import Seen
from vws.node.records import Record, Records
from vws.node.sealed_memory import is_whole
from vws.node.seed import exit_status
from vws.ports import HypervisorError, Instance

_LOG_TAIL_BYTES = 64 << 10
_CONSOLE_TAIL_BYTES = 64 << 10
_SAVED_COMPLETE = b"LibvirtQemudSave"
_SAVED_MARGIN_MIB = 64
_GONE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """run, log: libvirt's folders of its QEMUs' pid files and logs. shown: a path of ours as QEMU sees it.
    libvirt_shares: libvirtd manages cgroups here."""

    run: Path
    log: Path
    shown: Callable[[Path], str]
    libvirt_shares: bool


class Domains:
    """The domains of the node `host.tag`. `api` gives the open connection, or raises HypervisorError."""

    def __init__(
        self,
        api: Callable[[], libvirt.virConnect],
        host: Host,
        records: Records,
        images: Path,
        around: Surroundings,
        groups: CpuGroups,
    ) -> None:
        self._api = api
        self.host = host
        self._records = records
        self._images = images
        self._around = around
        self._groups = groups
        self._exit_statuses: dict[str, int] = {}
        # By workspace: what its guest said of its disks in its present boot.
        self._heard: dict[str, Heard] = {}
        self._secrets = DiskSecrets(api, host.tag)

    # -------------------------------------------------------- looking

    def all(self) -> dict[str, libvirt.virDomain]:
        """The node's domains by workspace id."""
        found = {}
        for domain in self._api().listAllDomains():
            id = id_of(domain.name())
            if id and domain.UUIDString() == domain_uuid(self.host.tag, id):
                found[id] = domain
        return found

    def find(self, id: str) -> libvirt.virDomain | None:
        domain_name(id)
        try:
            return self._api().lookupByUUIDString(domain_uuid(self.host.tag, id))
        except libvirt.libvirtError as error:
            if no_domain(error):
                return None
            raise

    def taps(self) -> dict[str, list[str]]:
        """The interfaces on this machine of the domains that run, by the bridge where they belong."""
        found: dict[str, list[str]] = {}
        for domain in self.all().values():
            with contextlib.suppress(libvirt.libvirtError):  # it ended just now
                if domain.isActive():
                    for interface in ET.fromstring(domain.XMLDesc()).iterfind("devices/interface"):
                        source, target = interface.find("source"), interface.find("target")
                        if source is not None and target is not None:
                            found.setdefault(source.get("bridge", ""), []).append(target.get("dev", ""))
        return found

    def is_active(self, id: str) -> bool:
        domain = self.find(id)
        return domain is not None and bool(domain.isActive())

    def instance(self, id: str, domain: libvirt.virDomain | None) -> Instance:
        """What is there of the workspace, of whose domain the caller knows (None: there is none)."""
        record = self._records.read(id) or Record(id)
        state, reason, memory_mib, defined_mib = Observation.STOPPED, "", 0, 0
        try:
            seen = Seen(*domain.state()) if domain else None
            if domain and seen and seen.active:
                _, defined_kib, memory_kib, *_ = domain.info()
                memory_mib, defined_mib = memory_kib >> 10, defined_kib >> 10
        except libvirt.libvirtError as error:
            if not no_domain(error):  # it was removed just now
                raise
            seen = None
        state, reason = self._state(record, seen)
        return Instance(
            id=id,
            state=state,
            boots=record.boots,
            created=record.created and self._records.disk(id).exists(),
            end=record.end,
            reason=reason,
            host_key=record.host_key,
            memory_mib=memory_mib,
            memory_defined_mib=defined_mib,
            exit_status=self._exit_status(record, state),
            disks=self._disk_troubles(record, state),
        )

    def _exit_status(self, record: Record, state: Observation) -> int | None:
        """Looked for when the guest is off: it powers itself off after the word of it. Remembered, as the console's log
        is cut in time."""
        known = self._exit_statuses.get(record.id)
        if known is not None or not record.command or not record.boots or state is not Observation.STOPPED:
            return known
        found = exit_status(self._records.console_tail(record.id, _CONSOLE_TAIL_BYTES), record.id)
        if found is not None:
            self._exit_statuses[record.id] = found
        return found

    def _disk_troubles(self, record: Record, state: Observation) -> tuple[DiskTrouble, ...]:
        """Looked for while the guest runs and whenever it has printed something; remembered for this boot."""
        heard = self._heard.get(record.id)
        if heard is None or heard.boots != record.boots:
            heard = self._heard[record.id] = Heard(record.boots, record.disks)
        console = self._records.console(record.id)
        if state is Observation.RUNNING and console.exists():
            tail = partial(self._records.console_tail, record.id, _CONSOLE_TAIL_BYTES)
            heard.listen(console.stat().st_size, tail)
        return heard.standing

    def _state(self, record: Record, seen: Seen | None) -> tuple[Observation, str]:
        """(state, reason if it is BROKEN)"""
        if seen and seen.active:
            state, verdict = outcome.live_state(seen)
            return state, self._why(record.id, verdict)
        verdict = outcome.end_of_run(seen, self._log(record.id)) if seen else ""
        if verdict == outcome.SAVED and record.encrypted:
            memory_pipes.adopt(self._records.memory(record.id))
        if verdict in (outcome.SAVED, outcome.NOT_STARTED, "") and self.is_saved(record.id):
            return Observation.SUSPENDED, ""
        if verdict in outcome.REASONS and record.asked != "stop":
            return Observation.BROKEN, self._why(record.id, verdict)
        return Observation.STOPPED, ""

    def _why(self, id: str, verdict: str) -> str:
        reason = outcome.REASONS.get(verdict, "")
        if verdict != outcome.PANICKED:
            return reason
        last = outcome.panic_line(self._records.console_tail(id, 8192))
        return f"{reason}: {last}" if last else reason

    def _log_path(self, id: str) -> Path:
        return self._around.log / f"{domain_name(id)}.log"

    def _log(self, id: str) -> str:
        """The end of libvirt's log of the domain, the older half too if the newer is short."""
        with contextlib.suppress(OSError), self._log_path(id).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
        return ""

    def is_saved(self, id: str) -> bool:
        """Is there a whole saved state? libvirt writes the mark of a whole one last; an encrypted one is in place only
        when it is whole."""
        memory = self._records.memory(id)
        with contextlib.suppress(OSError), memory.open("rb") as file:
            return file.read(len(_SAVED_COMPLETE)) == _SAVED_COMPLETE or is_whole(memory)
        return False

    def recover(self) -> None:
        """What an agent that was killed left of encrypted workspaces in libvirt's way. Before libvirt is asked anything
        of domains."""
        for record in filter(None, map(self._records.read, self._records.ids())):
            if record.encrypted:
                memory_pipes.release(self._records.memory(record.id))
                strike_out(self._log_path(record.id))
        self._secrets.forget()

    # -------------------------------------------------------- starting

    def start(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        record = self._records.need(order.id)
        check_disk(self._records.disk(order.id), "", order.disk_mib)
        domain = self.find(order.id)
        if domain and domain.isActive():
            if record.boots >= order.boots and outcome.live_state(Seen(*domain.state()))[0] is not Observation.BROKEN:
                return
            self._destroy(domain)
        memory_pipes.forget(self._records.memory(order.id))
        self._records.write(replace(record, boots=order.boots, asked=""))
        reach("agent.boot.noted")
        domain = self._api().defineXML(domain_xml(order, self.host, self._files(order)))
        with self._secrets.lent(order, keys, self._log_path(order.id)):
            domain.create()
        reach("agent.domain.started")
        with contextlib.suppress(HypervisorError):  # a node without shares runs guests all the same; `resize` says so
            self._give_share(domain, order)

    def _files(self, order: WorkspaceOrder) -> Files:
        files = {file.role: file for file in order.files}
        shown = self._around.shown

        def image(role: str) -> str:
            file: ImageFile | None = files.get(role)
            return shown(self._images / file.sha256) if file else ""

        root = shown(self._records.disk(order.id))
        beside = tuple(self._beside(order.id, disk) for disk in order.disks)
        return Files(
            disk=root,
            seed=shown(self._records.seed(order.id)),
            console=shown(self._records.console(order.id)),
            chain=self.chain(chain_of(order.files)),
            kernel=image("kernel"),
            initrd=image("initrd"),
            beside=beside,
            secrets=self._secrets_of(order, [root, *(each.path for each in beside if not each.shared)]),
        )

    def _secrets_of(self, order: WorkspaceOrder, written: Iterable[str]) -> dict[str, str]:
        """The names of the secrets of its encrypted files, by path; written: what the guest writes to."""
        if not order.encrypted:
            return {}
        images = [file for file in order.all_files if file.encryption]
        of_images = {
            self._around.shown(self._images / file.sha256): self._secrets.name(order.id, file.sha256) for file in images
        }
        return of_images | dict.fromkeys(written, self._secrets.name(order.id))

    def chain(self, files: Sequence[ImageFile]) -> tuple[tuple[str, str], ...]:
        """Disks of images, the nearest first, as QEMU sees them, each with its format."""
        return tuple((self._around.shown(self._images / file.sha256), file.format) for file in files)

    def _beside(self, id: str, disk: DiskOrder) -> Beside:
        shown = self._around.shown
        image = (shown(self._images / disk.file.sha256), disk.file.format) if disk.file is not None else None
        if disk.shared and image is not None:
            return Beside(serial(disk), *image, shared=True)
        path = self._records.beside(id, disk.name, private=disk.private)
        check_disk(path, disk.name, disk.size_mib)
        return Beside(serial(disk), shown(path), chain=(image,) if image else ())

    def _pid(self, id: str) -> int:
        return int((self._around.run / f"{domain_name(id)}.pid").read_text())

    # -------------------------------------------------------- changing

    def _live(self, id: str, to: str) -> libvirt.virDomain:
        domain = self.find(id)
        if domain is None or not domain.isActive():
            raise HypervisorError(f"cannot {to} it: its virtual machine does not run")
        return domain

    def pause(self, id: str) -> None:
        domain = self._live(id, "pause")
        if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
            domain.suspend()

    def resume(self, id: str) -> None:
        domain = self._live(id, "resume")
        if Seen(*domain.state()) == Seen(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER):
            domain.resume()

    def end_mirrors(self) -> None:
        """Those of an earlier agent, whose copies are worth nothing."""
        for id, domain in self.all().items():
            end_mirror(domain)
            self._records.twin(id).unlink(missing_ok=True)

    def resize(self, order: WorkspaceOrder) -> None:
        domain = self._live(order.id, "resize")
        target_kib = min(order.memory_mib << 10, domain.maxMemory())
        if domain.info()[2] != target_kib:
            domain.setMemoryFlags(target_kib, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self._give_share(domain, order)

    def _give_share(self, domain: libvirt.virDomain, order: WorkspaceOrder) -> None:
        if self._around.libvirt_shares:
            with contextlib.suppress(libvirt.libvirtError):
                shares = {"cpu_shares": 1024 * order.cpus}
                domain.setSchedulerParametersFlags(shares, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                return
        try:
            self._groups.give(order.id, self._pid(order.id), order.cpus)
        except (OSError, ValueError):
            raise HypervisorError("its CPU share was not set: its process is not known") from None

    # -------------------------------------------------------- suspending

    def suspend(self, id: str, keys: WorkspaceKeys | None = None) -> None:
        """Save to disk. A failure leaves it as it was, and no file."""
        record = self._records.need(id)
        domain = self.find(id)
        if domain and self._is_suspended(record, domain):
            return
        domain = self._live(id, "suspend")
        end_mirror(domain)
        reach("agent.suspend.begun")
        self._check_room(domain)
        self._records.write(replace(record, asked="suspend"))
        was = Seen(*domain.state())
        memory = self._records.memory(id)
        passphrase = own_passphrase(record.encrypted, keys)
        try:
            with memory_pipes.saving(memory, passphrase) if passphrase else nullcontext(memory) as place:
                domain.saveFlags(self._around.shown(place), None, 0)
        except (libvirt.libvirtError, HypervisorError):
            self._go_on(domain, was, memory)
            if not self._is_suspended(record, domain):
                raise
        reach("agent.suspended")

    def _is_suspended(self, record: Record, domain: libvirt.virDomain) -> bool:
        return self._state(record, Seen(*domain.state()))[0] is Observation.SUSPENDED

    def _go_on(self, domain: libvirt.virDomain, was: Seen, memory: Path) -> None:
        """After a save that failed. Only beside a domain that lives and is being saved by nobody is the file worth
        nothing: when libvirtd was lost, or has just ended the save that another agent began, it may be all there is."""
        with contextlib.suppress(libvirt.libvirtError):
            if domain.isActive() and domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE:
                memory_pipes.forget(memory)
                if was.state == libvirt.VIR_DOMAIN_RUNNING and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                    domain.resume()

    def _check_room(self, domain: libvirt.virDomain) -> None:
        needed_mib = (domain.maxMemory() >> 10) + _SAVED_MARGIN_MIB
        free_mib = shutil.disk_usage(self._records.directory).free >> 20
        if free_mib < needed_mib:
            raise HypervisorError(
                f"the node's disk is too full to save its memory: {needed_mib} MiB needed, {free_mib} MiB free; "
                "it goes on as it was"
            )

    def restore(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        record = self._records.need(order.id)
        memory = self._records.memory(order.id)
        if not self.is_active(order.id):
            if not self.is_saved(order.id):
                raise HypervisorError("there is no saved memory to restore it from", final=True)
            self._load(order, memory, keys)
        reach("agent.restored")
        memory_pipes.forget(memory)
        self._records.write(replace(record, asked=""))
        with contextlib.suppress(HypervisorError):
            self._give_share(self._live(order.id, "restore"), order)

    def _load(self, order: WorkspaceOrder, memory: Path, keys: WorkspaceKeys | None) -> None:
        passphrase = own_passphrase(order.encrypted, keys)
        with (
            self._secrets.lent(order, keys, self._log_path(order.id)),
            memory_pipes.restoring(memory, passphrase) if passphrase else nullcontext(memory) as place,
        ):
            self._api().restoreFlags(self._around.shown(place), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)

    # -------------------------------------------------------- ending

    def ask_off(self, id: str) -> bool:
        """Note that its end is wanted and press its power button; False if it is off."""
        self._note_stop(id)
        domain = self.find(id)
        if domain is None or not domain.isActive():
            return False
        seen = Seen(*domain.state())
        with contextlib.suppress(libvirt.libvirtError):  # then it is forced
            if seen.state == libvirt.VIR_DOMAIN_PAUSED and outcome.live_state(seen)[0] is Observation.PAUSED:
                domain.resume()
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        return True

    def _note_stop(self, id: str) -> None:
        """Without the note the end would look like a death; but a full disk, too, must be possible to leave."""
        record = self._records.read(id)
        if record and record.asked != "stop":
            with contextlib.suppress(OSError):
                self._records.write(replace(record, asked="stop"))

    def force_off(self, id: str) -> None:
        """Returns when its process is gone."""
        domain = self.find(id)
        if domain:
            self._destroy(domain)

    def _destroy(self, domain: libvirt.virDomain) -> None:
        try:
            if domain.isActive():
                domain.destroy()
        except libvirt.libvirtError as error:
            if not no_domain(error) and error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                raise

    def forget_saved(self, id: str) -> None:
        memory_pipes.forget(self._records.memory(id))

    def remove(self, id: str) -> None:
        """Off, undefined, its log and CPU group gone."""
        self._note_stop(id)
        self._exit_statuses.pop(id, None)
        self._heard.pop(id, None)
        domain = self.find(id)
        if domain:
            self._destroy(domain)
        reach("agent.domain.destroyed")
        if domain:
            try:
                domain.undefineFlags(_GONE)
            except libvirt.libvirtError as error:
                if not no_domain(error):
                    raise
        self._groups.remove(id)
        self._secrets.forget(id)
        for path in self._around.log.glob(f"{domain_name(id)}.log*"):
            path.unlink(missing_ok=True)
