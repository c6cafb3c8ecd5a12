"""`vws image export`: the format comes from --format or the file's name, and no file is replaced by accident."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import FakeClient


@pytest.fixture
def exporting(client: FakeClient, monkeypatch):
    def export_image(name, kind, target, progress):
        client.asked.append(("export_image", name, kind, target.name))
        target.write_bytes(b"x" * 2048)
        progress(1024, 2048)
        progress(2048, 2048)
        return "the kernel" if kind == "vdi" else ""

    monkeypatch.setattr(client, "export_image", export_image, raising=False)
    return client


@pytest.mark.parametrize(
    ("file", "options", "kind"),
    [
        ("d.vmdk", (), "vmdk"),
        ("d.VHD", (), "vpc"),
        ("d.img", (), "raw"),
        ("d.vws", (), "bundle"),
        ("d.tar", ("--format", "oci"), "oci"),
        ("d.qcow2", ("--format", "vhd"), "vhd"),
    ],
)
def test_the_format_is_said_or_in_the_files_name(vws, exporting, home, file, options, kind):
    result = vws("image", "export", "demo", "--to", str(home / file), *options)
    assert result.exit_code == 0, result.output
    assert exporting.asked == [("export_image", "img-1", kind, file)]
    assert f"{file} is written: 2 KiB" in result.stdout


def test_what_is_left_out_is_said(vws, exporting, home):
    assert "Not in it: the kernel." in vws("image", "export", "demo", "--to", str(home / "d.vdi")).stdout
    result = vws("image", "export", "demo", "--to", str(home / "e.vdi"), "--json")
    assert json.loads(result.stdout)["left_out"] == "the kernel"


def test_a_name_that_says_no_format_and_one_that_is_there_are_refused(vws, exporting, home):
    result = vws("image", "export", "demo", "--to", str(home / "d.tar"))
    assert result.exit_code == 2
    assert "--format" in result.stderr
    (home / "d.raw").write_text("mine")
    result = vws("image", "export", "demo", "--to", str(home / "d.raw"))
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert (home / "d.raw").read_text() == "mine"
    assert exporting.asked == []
    assert vws("image", "export", "demo", "--to", str(home / "d.raw"), "--force").exit_code == 0


def test_the_format_of_a_file_may_be_said(vws, client: FakeClient, home):
    (home / "x").write_bytes(b"x")
    assert vws("image", "import", str(home / "x"), "--name", "mine", "--format", "vhd").exit_code == 0
    assert client.asked == [("upload_image", "x", "mine", "vhd")]
    assert vws("image", "import", str(home / "x"), "--name", "mine", "--format", "qcow3").exit_code == 2
