"""The node's records and consoles on disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vws.node.records import CONSOLES_KEPT_S, Record, Records
from vws.ports import HypervisorError


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(tmp_path)
    records.make_folders()
    return records


def test_a_record_is_read_as_it_was_written(records: Records) -> None:
    record = Record("wsp-1", end=7, boots=2, created=True, host_key="ssh-ed25519 A", asked="stop", images=("a", "b"))
    records.write(record)
    assert records.read("wsp-1") == record
    assert (records.folder("wsp-1") / "record.json").stat().st_mode & 0o077 == 0
    assert records.ids() == {"wsp-1"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"id": "wsp-2"}', '{"id": "wsp-1", "end": "x"}', '{"id": "wsp-1", "images": 3}']
)
def test_what_makes_no_sense_counts_as_absent_but_is_listed(records: Records, text: str) -> None:
    records.write(Record("wsp-1"))
    (records.folder("wsp-1") / "record.json").write_text(text)
    assert records.read("wsp-1") is None
    assert records.ids() == {"wsp-1"}
    with pytest.raises(HypervisorError, match="vanished"):
        records.need("wsp-1")


def test_an_unknown_field_of_a_newer_version_is_ignored(records: Records) -> None:
    records.write(Record("wsp-1", end=7))
    path = records.folder("wsp-1") / "record.json"
    path.write_text(path.read_text().replace("{", '{"new": 1, ', 1))
    assert records.read("wsp-1") == Record("wsp-1", end=7)


def test_no_id_leads_out_of_the_folder(records: Records) -> None:
    for id in ("..", "../wsp-1", "wsp-1/x", ""):
        with pytest.raises(HypervisorError):
            records.read(id)


def test_removal_takes_all_but_the_console(records: Records) -> None:
    records.write(Record("wsp-1"))
    (records.folder("wsp-1") / "disk.qcow2").touch()
    (records.folder("wsp-1") / "folder").mkdir()
    records.console("wsp-1").write_bytes(b"said")
    records.remove("wsp-1")
    records.remove("wsp-1")
    assert records.ids() == set()
    assert records.console_tail("wsp-1", 100) == b"said"


def test_a_tail_reaches_into_the_older_half(records: Records) -> None:
    log = records.console("wsp-1")
    log.with_name(log.name + ".0").write_bytes(b"0123456789")
    log.write_bytes(b"abc")
    assert records.console_tail("wsp-1", 2) == b"bc"
    assert records.console_tail("wsp-1", 5) == b"89abc"
    assert records.console_tail("wsp-1", 100) == b"0123456789abc"
    assert records.console_tail("wsp-1", 0) == b""
    assert records.console_tail("wsp-2", 10) == b""


def test_consoles_of_the_long_gone_are_forgotten(records: Records) -> None:
    records.write(Record("wsp-1"))
    old = time.time() - CONSOLES_KEPT_S - 60
    for name in ("wsp-1.log", "wsp-2.log", "wsp-2.log.0", "wsp-3.log"):
        path = records.consoles / name
        path.touch()
        if name != "wsp-3.log":
            os.utime(path, (old, old))
    records.forget_old_consoles()
    assert sorted(path.name for path in records.consoles.iterdir()) == ["wsp-1.log", "wsp-3.log"]
