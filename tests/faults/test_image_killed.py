"""The service killed at each step of an import, whose sender does not give up: one whole image, and never half of one.

Twice: with files in the site's directory, and in a bucket of S3 (moto's server, on loopback).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import pytest

from tests.faults.site import SiteUnderFire
from tests.soaking import one_in
from vws.client import transfers
from vws.faultpoints import POINTS

MIB = 1 << 20
STEPS = sorted(point for point in POINTS if point.startswith(("service.upload.", "service.image.")))
OWN = ("service.image.unpacked", "service.image.encrypted")  # of what is unpacked and encrypted; below
STEPS = [step for step in STEPS if step not in OWN]
ENCRYPTING = ["service.image.encrypted", "service.image.adopted", "service.image.entered", "service.image.committed"]
# What has nothing to do with where files are kept is tried out for buckets in the soak.
BUCKET_STEPS = [
    "service.bucket.part:2",
    *(pytest.param(step, marks=pytest.mark.soak) for step in [*STEPS, "service.bucket.map", "service.bucket.part"]),
]

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Of which 34 MiB are data, in two places: three parts of an object."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(48 * MIB)
        for at in (0, 30):
            file.seek(at * MIB)
            file.write(os.urandom(17 * MIB))
        file.seek(510)
        file.write(b"\x55\xaa")
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = SiteUnderFire(tmp_path_factory.mktemp("images") / "site", nodes=1)
    yield site
    site.stop()


@pytest.fixture(scope="module")
def bucket_site(tmp_path_factory):
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    said = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret-told-nobody"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in said.items():
            environment.setenv(name, value)
        import boto3

        boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(
            Bucket="killed"
        )  # one mock has all of a process
        config = f'[images]\nbucket = "killed"\nendpoint = "{url}"\nregion = "us-east-1"\n'
        site = SiteUnderFire(tmp_path_factory.mktemp("bucket") / "site", nodes=1, config=config)
        yield site
        site.stop()
    server.stop()


def lead_an_import(site: SiteUnderFire, disk, point: str, monkeypatch) -> None:
    monkeypatch.setattr(transfers, "GIVE_UP_S", 0)  # who insists starts the site again, and then asks again
    site.kill("service")
    site.arm(point)
    name = point.replace("service.", "").replace(".", "-").replace(":", "-")
    sha256 = hashlib.sha256(disk.read_bytes()).hexdigest()

    def upload(client):
        for image in client.images(name=name):
            assert client.verify_image(image["id"])["damaged"] == "", "listed, but not whole"
        return client.upload_image(disk, name)

    image = site.insist(upload)
    assert site.once.exists(), f"{point} was never reached"
    site.disarm()
    with site.client() as client:
        assert [i["id"] for i in client.images(name=name)] == [image["id"]]
        assert client.verify_image(image["id"])["damaged"] == ""
        assert image["sha256"] == sha256
        client.remove_image(image["id"], now=True)
        assert client.collect_images() == {"images": [], "files": []}, "what was begun before is gone"
    assert list((site.directory.service / "uploads").glob("*")) == [], "no upload is left"


@pytest.mark.parametrize("point", one_in(4, STEPS))
def test_an_import_that_was_killed_is_made_once(site, disk, point, monkeypatch):
    lead_an_import(site, disk, point, monkeypatch)


@pytest.fixture(scope="module")
def foreign(disk):
    """The same disk as others write it: unpacked by the service."""
    path = disk.with_suffix(".vmdk")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", disk, path], check=True)
    return path


def test_what_was_killed_while_it_was_unpacked_is_unpacked_again(site, foreign, monkeypatch):
    lead_an_import(site, foreign, "service.image.unpacked", monkeypatch)
    assert list((site.directory.service / "image-lists").glob("*")) == []


@pytest.mark.parametrize("point", one_in(len(ENCRYPTING), ENCRYPTING))
def test_an_encryption_that_was_killed_is_made_once_and_leaves_nothing_in_between(site, disk, point, monkeypatch):
    monkeypatch.setattr(transfers, "GIVE_UP_S", -1)
    name = f"sealed-{point.rpartition('.')[2]}"
    site.kill("service")
    source = site.insist(lambda client: client.upload_image(disk, f"plain-{name}"))
    site.kill("service")
    site.arm(point)
    listed = []

    def encrypt(client):
        if site.once.exists():  # it was killed, and is asked again
            listed.extend(client.images(name=name))
            left = list((site.directory.service / "uploads").iterdir())
            assert left == [], "what was being written is gone with the start"
        return client.encrypt_image(source["id"], name)

    image = site.insist(encrypt)
    assert site.once.exists(), f"{point} was never reached"
    site.disarm()
    assert {each["id"] for each in listed} == ({image["id"]} if point.endswith("committed") else set())
    with site.client() as client:
        assert [each["id"] for each in client.images(name=name)] == [image["id"]]
        assert image["encrypted"]
        assert client.verify_image(image["id"])["damaged"] == ""
        assert len(client.image_passphrase(image["id"])) > 20, "its key is the one that it was made with"
        for made in (image, source):
            client.remove_image(made["id"], now=True)
        assert client.collect_images() == {"images": [], "files": []}, "what was begun before is gone"
    assert list((site.directory.service / "uploads").iterdir()) == []


@pytest.mark.parametrize("point", one_in(2, ["service.export.begun", "service.export.converted"]))
def test_an_export_that_was_killed_is_whole_or_none(site, disk, tmp_path, point, monkeypatch):
    monkeypatch.setattr(transfers, "GIVE_UP_S", -1)
    name = f"out-{point[-3:]}"
    site.kill("service")
    image = site.insist(lambda client: client.upload_image(disk, name))
    site.kill("service")
    site.arm(point)
    site.insist(lambda client: client.export_image(image["id"], "vdi", tmp_path / "out"))
    assert site.once.exists(), f"{point} was never reached"
    site.disarm()
    compared = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "vdi", disk, tmp_path / "out"], check=False)
    assert compared.returncode == 0
    (kept,) = (site.directory.service / "exports").iterdir()
    assert kept.stat().st_size == (tmp_path / "out").stat().st_size, "one conversion is kept, and no half of one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    kept.unlink()
    with site.client() as client:
        client.remove_image(image["id"], now=True)


@pytest.mark.parametrize("point", BUCKET_STEPS)
def test_the_same_into_a_bucket(bucket_site, disk, point, monkeypatch):
    lead_an_import(bucket_site, disk, point, monkeypatch)


def test_no_credential_is_in_a_log_or_an_answer(bucket_site):
    bucket_site.keep_up()
    logs = "".join(path.read_text() for path in bucket_site.directory.logs.iterdir())
    assert "secret-told-nobody" not in logs
    assert "secret-told-nobody" not in bucket_site.directory.config.read_text()
