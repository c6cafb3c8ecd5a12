"""A site with its files in a bucket of S3 (moto, on loopback): damage is found, mended, and nothing half kept."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.contract.test_blobs import bucket_server, s3  # noqa: F401 - a fixture
from tests.service.conftest import ADMIN, ANN, TurnedClock
from tests.service.test_images import disk, upload
from vws.ambient import TimeIds
from vws.core.errors import Conflict
from vws.core.terms import GroupRequest, LeaseRequest
from vws.service import build
from vws.service.site import Settings
from vws.store.sql import SqlStore

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
LARGE = disk() + os.urandom(20 << 20)  # of several parts


class BucketSite:
    def __init__(self, blobs, url, directory):
        self.blobs, self.store = blobs, SqlStore.open(url)
        self.services = build(self.store, blobs, TurnedClock(), TimeIds(), Settings(), directory)

    def object(self, image):
        return {"Bucket": "images", "Key": self.blobs._key(image.files[0].sha256)}

    def content(self, image) -> bytes:
        return self.blobs._client.get_object(**self.object(image))["Body"].read()

    def put(self, image, content: bytes) -> None:
        self.blobs._client.put_object(**self.object(image), Body=content)


@pytest.fixture
def site(bucket_server, sqlite_url, tmp_path, monkeypatch):  # noqa: F811
    made = BucketSite(s3(bucket_server, tmp_path.name, monkeypatch), sqlite_url, tmp_path)
    yield made
    made.store.close()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [(flipped, "was altered where it is kept"), (lambda content: content[:-5], "is missing"), (None, "is missing")],
    ids=["a flipped bit", "cut short", "gone"],
)
@pytest.mark.parametrize("content", [disk(), LARGE], ids=len)
def test_damage_is_found_and_mended_by_the_same_file(site, content, damage, said):
    images = site.services.images
    image = upload(site, content, "site")
    assert images.verify(ANN, "site").damaged == ""
    if damage is None:
        site.blobs._client.delete_object(**site.object(image))
    else:
        site.put(image, damage(site.content(image)))
    assert said in images.verify(ANN, "site").damaged
    with pytest.raises(Conflict, match="damaged: its disk"):
        site.services.leases.request(ANN, LeaseRequest((GroupRequest(image.id, 1, memory_mib=64, disk_mib=100),), 600))
    assert upload(site, content, "site").id == image.id
    assert images.image(ANN, "site").damaged == ""
    assert images.verify(ANN, "site").damaged == ""


def test_a_start_lets_go_of_parts_that_a_killed_process_left_and_a_look_does_not(site):
    key = site.blobs._key("a" * 64)
    site.blobs._client.create_multipart_upload(Bucket="images", Key=key)

    def left():
        return site.blobs._client.list_multipart_uploads(Bucket="images", Prefix=site.blobs._prefix).get("Uploads", ())

    site.blobs.check()
    assert len(left()) == 1, "vws doctor looks while a service brings a large file"
    site.services.images.sweep()
    assert len(left()) == 0
    assert site.services.images.collect(ADMIN) == ([], [])
