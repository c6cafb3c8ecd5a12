"""A site that follows a list: the endorser named beforehand, each renewal verified, images held to what the list says.

Lists and images are published by a web server of the test's own, on loopback.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.core.test_image_lists import LIST
from tests.service.conftest import ADMIN, ANN
from tests.service.disk_images import disk
from tests.service.test_smime import issue, named
from vws.core.errors import Conflict, Forbidden, InvalidRequest, NameTaken, NotFound, Unavailable
from vws.core.image_lists import ListedImage
from vws.core.image_policy import ImageRefused
from vws.core.terms import GroupRequest, LeaseRequest
from vws.endorsing import endorser_of, sign
from vws.ports import Filter
from vws.service.smime import slashed

pytestmark = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("qemu-img")), reason="openssl or qemu-img is not installed"
)
DN = "/DC=org/O=Example/CN=Ann Endorser"
DAY_S = 86400


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def ca():
    return issue("Example CA")


@pytest.fixture(scope="module")
def endorser(ca):
    return issue("Ann Endorser", ca)


class Publisher:
    """A folder on the web, and the list of what is in it, signed."""

    def __init__(self, folder, endorser):
        self.folder, self.endorser = folder, endorser
        folder.mkdir()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def image(self, name, version="1", **changes):
        path = self.folder / name
        if not path.exists():
            disk(path, "vmdk")
        content = path.read_bytes()
        sha512 = hashlib.sha512(content).hexdigest()
        listed = ListedImage(name, version, f"{self.url}/{name}", len(content), sha512, title=name, format="VMDK")
        return replace(listed, **changes)

    def list_of(self, *images, signer=None, **changes):
        signer = signer or self.endorser
        made = replace(LIST, images=images, endorser=endorser_of(signer.certificate), **changes)
        return sign(made, signer.certificate, signer.key_pem)

    def publish(self, *images, **changes):
        (self.folder / "list").write_bytes(self.list_of(*images, **changes))
        return f"{self.url}/list"


@pytest.fixture
def publisher(tmp_path, endorser):
    made = Publisher(tmp_path / "www", endorser)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def lists(rig):
    return rig.services.image_lists


def subscribe(rig, ca, url="", message=None, dn=DN, **more):
    return rig.services.image_lists.subscribe(ADMIN, url=url, message=message, dn=dn, ca_pem=ca.pem, **more)


def image_of(rig, subscription):
    (listed,) = [each for each in subscription.images if each.image]
    return rig.services.images.image(ADMIN, listed.image)


def lease(rig, image, caller=ADMIN):
    return rig.leases.request(
        caller, LeaseRequest((GroupRequest(image.id, 1, memory_mib=128, disk_mib=100),), 600), None
    )


def leftovers(rig):
    folders = (rig.directory / "image-lists", rig.directory / "uploads")
    return [path for folder in folders if folder.exists() for path in folder.iterdir()]


def test_a_list_is_followed_and_its_image_fetched_verified_and_leased(rig, ca, publisher, lists):
    made = subscribe(rig, ca, publisher.publish(publisher.image("sl6")), shared=("public",))
    assert (made.name, made.title, made.version, made.problem) == (LIST.identifier, LIST.title, LIST.version, "")
    assert made.ca == slashed(named("Example CA"))
    assert lists.subscriptions(ADMIN) == [made]
    after = lists.fetch(ADMIN, made.name, "sl6")
    image = image_of(rig, after)
    assert (image.files[0].format, image.shared, image.name) == ("qcow2", ("public",), "sl6")
    assert rig.services.images.image(ADMIN, "sl6") == rig.services.images.image(ADMIN, "sl6:v1") == image
    rig.enroll("n1")
    assert lease(rig, image, ANN).groups[0].image == image.id
    (said,) = [e for e in rig.site.store.events(Filter(), after=0, limit=100) if e.kind == "list.fetched"]
    assert said.data["endorser"] == DN
    assert not leftovers(rig)


def test_a_list_that_is_handed_in_needs_no_address(rig, ca, publisher, lists):
    made = subscribe(rig, ca, message=publisher.list_of(publisher.image("sl6")))
    with pytest.raises(InvalidRequest, match="no address"):
        lists.refresh(ADMIN, made.id)
    newer = publisher.list_of(publisher.image("sl6"), version="8", created_at=LIST.created_at + 1)
    assert lists.refresh(ADMIN, made.id, newer).version == "8"


def test_it_is_of_the_endorser_named_beforehand_or_refused(rig, ca, publisher):
    bob = issue("Bob", ca)
    message = publisher.list_of(publisher.image("sl6"), signer=bob)
    with pytest.raises(InvalidRequest) as error:
        subscribe(rig, ca, message=message)
    assert error.value.field == "endorser"
    assert "CN=Bob" in error.value.problem
    with pytest.raises(InvalidRequest, match="another authority"):
        subscribe(rig, issue("Example CA"), message=publisher.list_of())
    with pytest.raises(InvalidRequest, match="there is no VO 'nobody'"):
        subscribe(rig, ca, message=publisher.list_of(), shared=("nobody",))
    with pytest.raises(InvalidRequest, match="no certificate"):
        rig.services.image_lists.subscribe(ADMIN, url="", message=message, dn=DN, ca_pem="none")
    assert rig.services.image_lists.subscriptions(ADMIN) == []


def test_a_list_is_followed_once_and_only_by_administrators(rig, ca, publisher, lists):
    message = publisher.list_of(publisher.image("sl6"))
    subscribe(rig, ca, message=message)
    with pytest.raises(NameTaken):
        subscribe(rig, ca, message=message)
    for ask in (lists.subscriptions, lambda caller: lists.subscription(caller, LIST.identifier)):
        with pytest.raises(Forbidden):
            ask(ANN)
    with pytest.raises(Forbidden):
        lists.subscribe(ANN, url="", message=message, dn=DN, ca_pem=ca.pem)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha512": "00" * 64}, "its sha512 is another"),
        ({"size_bytes": 5}, "more than 5 bytes"),
        ({"size_bytes": 1 << 30}, "bytes, not 1073741824"),
        ({"format": "qcow2"}, "said to be a qcow2 image"),
        ({"uri": "file:///etc/shadow"}, "no address to fetch from"),
    ],
)
def test_an_image_that_is_not_what_the_list_says_is_refused(rig, ca, publisher, lists, changes, said):
    made = subscribe(rig, ca, message=publisher.list_of(publisher.image("sl6", **changes)))
    with pytest.raises(InvalidRequest) as error:
        lists.fetch(ADMIN, made.id, "sl6")
    assert said in error.value.problem
    assert not leftovers(rig)
    assert lists.subscription(ADMIN, made.id).images[0].image == ""


def test_what_is_not_there_is_told_so(rig, ca, publisher, lists):
    made = subscribe(rig, ca, message=publisher.list_of(publisher.image("sl6", uri=f"{publisher.url}/none")))
    with pytest.raises(Unavailable, match="404"):
        lists.fetch(ADMIN, made.id, "sl6")
    with pytest.raises(NotFound, match="has no image"):
        lists.fetch(ADMIN, made.id, "sl7")
    with pytest.raises(NotFound, match="is followed"):
        lists.subscription(ADMIN, "none")
    with pytest.raises(Unavailable):
        subscribe(rig, ca, "http://127.0.0.1:9/list")
    assert not leftovers(rig)


def test_an_expired_list_stops_new_leases_and_a_newer_one_starts_them_again(rig, ca, publisher, lists):
    listed = publisher.image("sl6")
    made = subscribe(rig, ca, publisher.publish(listed, expires_at=LIST.created_at + DAY_S))
    image = image_of(rig, lists.fetch(ADMIN, made.id, "sl6"))
    rig.enroll("n1")
    running = lease(rig, image)
    rig.clock.time += 2 * DAY_S
    with pytest.raises(ImageRefused) as refused:
        lease(rig, image)
    assert "expired on" in refused.value.problem
    assert rig.leases.lease(ADMIN, running.id).id == running.id
    with pytest.raises(Conflict, match="expired"):
        lists.fetch(ADMIN, made.id, "sl6")
    with pytest.raises(InvalidRequest, match="expired on"):
        lists.refresh(ADMIN, made.id)
    assert "expired" in lists.subscription(ADMIN, made.id).problem
    now = int(rig.clock.time)
    publisher.publish(listed, version="8", created_at=now, expires_at=now + DAY_S)
    assert lists.refresh(ADMIN, made.id).problem == ""
    assert lease(rig, image)


def test_an_image_that_its_endorser_took_off_the_list_is_leased_no_more(rig, ca, publisher, lists):
    listed = publisher.image("sl6")
    made = subscribe(rig, ca, publisher.publish(listed))
    image = image_of(rig, lists.fetch(ADMIN, made.id, "sl6"))
    rig.enroll("n1")
    assert lease(rig, image)
    publisher.publish(publisher.image("sl7"), version="8", created_at=LIST.created_at + 60)
    lists.refresh(ADMIN, made.id)
    with pytest.raises(ImageRefused, match="took it off"):
        lease(rig, image)
    # nor does whoever replays the list as it was bring the image back
    publisher.publish(listed)
    with pytest.raises(InvalidRequest, match="older than the one on record"):
        lists.refresh(ADMIN, made.id)
    rig.restart()
    with pytest.raises(ImageRefused, match="took it off"):
        lease(rig, image)
    rig.services.image_lists.unsubscribe(ADMIN, made.id)
    assert lease(rig, image)


def test_a_list_may_carry_a_header_as_some_signers_write_it(rig, ca, publisher, endorser, tmp_path):
    import subprocess

    from vws.core.image_lists import written

    made = replace(LIST, images=(publisher.image("sl6"),), endorser=endorser_of(endorser.certificate))
    (tmp_path / "list").write_bytes(written(made))
    (tmp_path / "key").write_bytes(endorser.key_pem)
    (tmp_path / "cert").write_text(endorser.pem)
    signing = ["openssl", "smime", "-sign", "-text", "-in", "list", "-signer", "cert", "-inkey", "key"]
    message = subprocess.run(signing, check=True, capture_output=True, cwd=tmp_path).stdout
    assert subscribe(rig, ca, message=message).version == LIST.version
