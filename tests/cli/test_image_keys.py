"""Encrypted images on the command line: passphrases come and go in files, and are shown nowhere."""

from __future__ import annotations

import pytest

from tests.cli.conftest import FakeClient, Refused, image
from tests.cli.test_image_export import exporting  # noqa: F401 - a fixture


def test_an_image_is_encrypted_under_another_name(vws, client: FakeClient):
    done = vws("image", "encrypt", "demo", "--as", "demo:sealed", "--share", "cms")
    assert done.exit_code == 0, done.output
    assert client.asked[-1][0] == "encrypt_image"
    assert client.asked[-1][2:] == ("demo:sealed", ("cms",))
    assert "is encrypted" in done.output
    assert "still there in the clear. Next: vws image remove demo" in done.output
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "encrypt_image", lambda *_, **__: image(owner="ada", encrypted=True))
        assert "image remove" not in vws("image", "encrypt", "demo", "--as", "mine").output, "it is another's"
    assert vws("image", "encrypt", "demo").exit_code == 2, "it needs a name"
    assert vws("image", "encrypt", "demo", "--as", "a", "--private", "--share", "cms").exit_code == 2


def test_a_file_is_encrypted_on_its_way_in_or_opened_with_its_passphrase(vws, client: FakeClient, home):
    (home / "x.qcow2").write_bytes(b"x")
    (home / "x.key").write_text("the passphrase\n")
    file, key = str(home / "x.qcow2"), str(home / "x.key")
    done = vws("image", "import", file, "--name", "mine", "--encrypt")
    assert client.asked == [("upload_image", "x.qcow2", "mine", "encrypt")]
    assert "encrypted" in done.output
    vws("image", "import", file, "--name", "mine", "--private")
    assert client.asked[-1] == ("upload_image", "x.qcow2", "mine", ())
    assert vws("image", "import", file, "--name", "mine", "--private", "--share", "cms").exit_code == 2
    done = vws("image", "import", file, "--name", "mine", "--key-file", key)
    assert client.asked[-1] == ("upload_image", "x.qcow2", "mine", "the passphrase")
    assert "the passphrase" not in done.output
    assert vws("image", "import", file, "--name", "mine", "--key-file", key, "--encrypt").exit_code == 2


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\0b", b"x" * 600])
def test_what_is_no_passphrase_is_refused_before_anything_is_sent(vws, client: FakeClient, home, content):
    (home / "x.qcow2").write_bytes(b"x")
    (home / "x.key").write_bytes(content)
    done = vws("image", "import", str(home / "x.qcow2"), "--name", "mine", "--key-file", str(home / "x.key"))
    assert done.exit_code == 1
    assert "holds no passphrase" in done.output
    assert client.asked == []


def test_a_key_goes_out_only_when_asked_for_and_to_its_owner_alone(vws, exporting, home):  # noqa: F811
    out, key = home / "out.qcow2", home / "out.key"
    vws("image", "export", "demo", "--to", str(out))
    assert not any(call[0] == "image_passphrase" for call in exporting.asked)
    out.unlink(missing_ok=True)
    done = vws("image", "export", "demo", "--to", str(out), "--with-key", str(key))
    assert done.exit_code == 0, done.output
    assert key.read_text() == "the image's passphrase"
    assert key.stat().st_mode & 0o777 == 0o600
    assert "the image's passphrase" not in done.output
    out.unlink(missing_ok=True)
    again = vws("image", "export", "demo", "--to", str(out), "--with-key", str(key))
    assert again.exit_code == 1
    assert "is there already" in again.output
    exporting.refusal = Refused("the key is for its owner", code="forbidden")
    assert vws("image", "export", "demo", "--to", str(out), "--with-key", str(home / "new.key")).exit_code == 1
    assert not out.exists(), "asked for before anything is received"
