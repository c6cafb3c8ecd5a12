"""Does KVM run guest code at hardware speed? Measured, because nothing else tells.

There are machines (nested ones above all) on which /dev/kvm opens, creates virtual machines and reports the right API
version, while the guest's instructions are emulated one by one: a stock kernel then seems to hang for minutes, far
slower than under QEMU's own translator. That such a guest reaches its HLT quickly tells nothing either, as few
instructions were run. A timed loop does tell: 100,000 rounds take well under a millisecond on a CPU, and about 200 ms
where they are emulated.

The guest is the smallest there can be: 16-bit real mode, where a virtual CPU starts, so that no tables need be laid
out; a loop of two instructions; HLT. It runs in a process of its own, killed when the time is over, as nothing gentler
is sure to end a stuck KVM_RUN. This file is that process's program too (run as a script, alone), so that nothing of the
caller, its threads above all, is forked.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

DEVICE = "/dev/kvm"
ROUNDS = 100_000
LOOP_MS_MAX = 20.0

# linux/kvm.h, x86_64
KVM_API_VERSION = 12
KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_TSS_ADDR = 0xAE47
KVM_RUN = 0xAE80
KVM_SET_REGS = 0x4090AE82
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_EXIT_HLT = 5

REGS_BYTES, RIP_OFFSET, RFLAGS_OFFSET = 144, 128, 136
SREGS_BYTES, CS_BASE_OFFSET, CS_SELECTOR_OFFSET = 312, 0, 12
EXIT_REASON_OFFSET = 8

# Intel wants three unused pages for real mode's task state, below 4 GiB and outside the guest's memory.
TSS_ADDRESS = 0x1000_0000
MEMORY_BYTES = 0x10000
CODE_ADDRESS = 0x1000
#       mov ecx, ROUNDS      again: dec ecx    jnz again    hlt       (32-bit operands by the prefix 66)
CODE = b"\x66\xb9" + struct.pack("<I", ROUNDS) + b"\x66\x49" + b"\x75\xfc" + b"\xf4"


@dataclass(frozen=True, slots=True)
class KvmProbe:
    """What was found. loop_ms: milliseconds that the loop took, None when it did not finish. reason: in words."""

    works: bool
    reason: str
    loop_ms: float | None = None


def probe_kvm(limit_s: float = 2.0, device: str = DEVICE) -> KvmProbe:
    """Time a loop in a virtual machine, for at most `limit_s` seconds. Raises nothing and leaves no process.

    The answer holds for as long as the machine runs; callers keep it.
    """
    if platform.machine() != "x86_64":
        return KvmProbe(False, f"the probe for KVM knows x86_64 only, this is {platform.machine()}")
    obstacle = _obstacle(device)
    if obstacle:
        return KvmProbe(False, obstacle)
    command = [sys.executable, "-I", "-S", __file__, device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return KvmProbe(False, f"a loop of {ROUNDS:,} rounds did not end within {limit_s:g} s")
    except OSError as error:
        return KvmProbe(False, f"the probe could not be started: {error}")
    return _judged(done.stdout.strip(), done.stderr)


def _obstacle(device: str) -> str:
    if not os.path.exists(device):
        return f"there is no {device}: no virtualization in the CPU, or it is off in the firmware, or no kvm module"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"no permission to open {device}: be root or a member of its group"
    return ""


def _judged(answer: str, errors: str) -> KvmProbe:
    try:
        loop_ms = round(float(answer), 3)
    except ValueError:
        last_words = (errors.strip().splitlines() or ["it died without a word"])[-1]
        return KvmProbe(False, answer or f"the probe failed: {last_words}")
    if loop_ms > LOOP_MS_MAX:
        return KvmProbe(
            False, f"a loop of {ROUNDS:,} rounds took {loop_ms:.0f} ms: guest code is emulated, not run", loop_ms
        )
    return KvmProbe(True, f"a loop of {ROUNDS:,} rounds took {loop_ms:g} ms", loop_ms)


def _timed_loop(device: str) -> str:
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    version = fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
    if version != KVM_API_VERSION:
        return f"{device} speaks version {version} of the interface, not {KVM_API_VERSION}"
    machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    fcntl.ioctl(machine, KVM_SET_TSS_ADDR, TSS_ADDRESS)
    memory = _guest_memory(machine)
    cpu = fcntl.ioctl(machine, KVM_CREATE_VCPU, 0)
    shared = mmap.mmap(cpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
    _point_at_code(cpu)
    started = time.perf_counter()
    fcntl.ioctl(cpu, KVM_RUN, 0)
    loop_ms = (time.perf_counter() - started) * 1000
    (reason,) = struct.unpack_from("<I", shared, EXIT_REASON_OFFSET)
    del memory  # the guest's memory had to live until here
    return str(loop_ms) if reason == KVM_EXIT_HLT else f"the guest stopped for reason {reason} instead of halting"


def _guest_memory(machine: int) -> mmap.mmap:
    memory = mmap.mmap(-1, MEMORY_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[CODE_ADDRESS : CODE_ADDRESS + len(CODE)] = CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, MEMORY_BYTES, address))
    return memory


def _point_at_code(cpu: int) -> None:
    segments = bytearray(SREGS_BYTES)
    fcntl.ioctl(cpu, KVM_GET_SREGS, segments)
    struct.pack_into("<Q", segments, CS_BASE_OFFSET, 0)
    struct.pack_into("<H", segments, CS_SELECTOR_OFFSET, 0)
    fcntl.ioctl(cpu, KVM_SET_SREGS, segments)
    registers = bytearray(REGS_BYTES)
    struct.pack_into("<Q", registers, RIP_OFFSET, CODE_ADDRESS)
    struct.pack_into("<Q", registers, RFLAGS_OFFSET, 2)
    fcntl.ioctl(cpu, KVM_SET_REGS, registers)


if __name__ == "__main__":
    try:
        print(_timed_loop(sys.argv[1]))
    except OSError as refusal:
        print(f"KVM refused: {refusal}")
