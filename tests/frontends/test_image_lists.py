"""Image lists from one site to another, as their administrators type it: published, followed, fetched, renewed."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from click.testing import CliRunner

from tests.frontends.conftest import Running
from tests.service.disk_images import disk
from tests.service.test_image_lists import DN, Publisher, ca, endorser  # noqa: F401 - fixtures
from tests.service.test_smime import issue
from vws.cli.main import cli
from vws.cli.session import Session
from vws.client import Client
from vws.core.image_lists import read, same_name

pytestmark = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("qemu-img")), reason="openssl or qemu-img is not installed"
)


@pytest.fixture
def web(tmp_path, endorser):  # noqa: F811
    made = Publisher(tmp_path / "www", endorser)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def vws(here: Running):
    def run(*words: object):
        session = Session(lambda _: Client(here.url, here.root_token))
        return CliRunner().invoke(cli, ["image", *map(str, words)], obj=session)

    return run


@pytest.fixture
def keys(tmp_path):
    """An endorser whose certificate is good now, and the authority."""
    authority = issue("Example CA", now=time.time())
    mine = issue("Ann Endorser", authority, now=time.time())
    (tmp_path / "ca.pem").write_text(authority.pem)
    (tmp_path / "me.pem").write_text(mine.pem)
    (tmp_path / "me.key").write_bytes(mine.key_pem)
    return tmp_path


def said(result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def publish(vws, web, keys, *more):
    mine = ("--certificate", keys / "me.pem", "--key", keys / "me.key")
    return said(vws("list-publish", "debian", "--to", web.folder, "--url", web.url, *mine, *more))


@pytest.fixture
def debian(here: Running, tmp_path):
    content = disk(tmp_path / "debian", "qcow2").read_bytes()
    assert here.client(here.root_token).post("/v1/images?name=debian", content=content).status_code == 201


def subscribe(vws, web, keys):
    return vws(
        "list-subscribe", f"{web.url}/image.list", "--endorser", DN, "--ca", keys / "ca.pem", "--share", "public"
    )


def test_a_list_goes_from_site_to_site(vws, web, keys, debian):
    assert DN in publish(vws, web, keys, "--format", "vmdk", "--title", "Mine")
    assert "is followed" in said(subscribe(vws, web, keys))
    (listed,) = json.loads(said(vws("lists", "--json")))
    assert listed["endorser"] == DN
    assert "ca_pem" not in listed
    (image,) = listed["images"]
    assert (image["title"], image["format"], image["image"]) == ("debian", "vmdk", "")
    assert "is the image debian (img-" in said(vws("list-fetch", listed["name"]))
    card = said(vws("list-show", listed["name"]))
    assert "img-" in card
    assert DN in card
    assert "all images of the list are here" in said(vws("list-fetch", listed["name"]))
    assert "Mine" in said(vws("lists"))
    assert "is followed no more" in said(vws("list-unsubscribe", listed["name"]))
    assert "follows no image lists" in said(vws("lists"))


def test_a_list_is_renewed_by_publishing_again(vws, web, keys, debian):
    publish(vws, web, keys)
    said(subscribe(vws, web, keys))
    first = json.loads(said(vws("lists", "--json")))[0]
    time.sleep(1.1)  # versions are of a second
    publish(vws, web, keys, "--for", "60d")
    assert "is of version" in said(vws("list-refresh"))
    second = json.loads(said(vws("lists", "--json")))[0]
    assert second["expires_at"] > first["expires_at"]
    assert second["images"] == first["images"]


def test_what_goes_wrong_is_said_and_kept(vws, web, keys, debian):
    publish(vws, web, keys)
    said(subscribe(vws, web, keys))
    path = web.folder / "image.list"
    path.write_bytes(path.read_bytes().replace(b"debian", b"debiam"))
    result = vws("list-refresh")
    assert result.exit_code == 1
    assert "altered after it was signed" in result.output
    assert "altered" in said(vws("lists"))
    assert vws("list-subscribe", web.folder / "none", "--endorser", DN, "--ca", keys / "ca.pem").exit_code == 2
    assert vws("list-refresh", "--from", path).exit_code == 2
    assert vws("list-fetch", "x", "--name", "y").exit_code == 2


def test_a_file_is_subscribed_to_and_renewed_with_files(vws, web, keys, debian):
    publish(vws, web, keys)
    path = web.folder / "image.list"
    said(vws("list-subscribe", path, "--endorser", DN, "--ca", keys / "ca.pem"))
    name = json.loads(said(vws("lists", "--json")))[0]["name"]
    assert "is of version" in said(vws("list-refresh", name, "--from", path))
    assert "handed in as a file" in said(vws("list-show", name))


def test_a_published_list_is_what_others_read(vws, web, keys, debian):
    publish(vws, web, keys, "--format", "vpc", "--email", "ann@example.org")
    message = (web.folder / "image.list").read_bytes()
    found = read(b"{" + message.partition(b"\n{")[2].partition(b"\n}")[0] + b"\n}")
    assert same_name(found.endorser.dn, DN)
    assert (found.endorser.email, found.images[0].declared, found.uri) == (
        "ann@example.org",
        "vpc",
        f"{web.url}/image.list",
    )
    assert (web.folder / found.images[0].uri.rpartition("/")[2]).stat().st_size == found.images[0].size_bytes


def test_only_administrators_see_lists(here: Running):
    assert here.ann.get("/v1/image-lists").status_code == 403
    answer = here.ann.post("/v1/image-lists", json={"endorser": DN, "ca_pem": "x", "url": "http://127.0.0.1:9/"})
    assert answer.status_code == 403
    wrong = {"endorser": DN, "ca_pem": "x", "message": "no base64!"}
    assert here.client(here.root_token).post("/v1/image-lists", json=wrong).json()["field"] == "message"
