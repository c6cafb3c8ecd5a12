"""Image lists of HEPiX: what is written is read again, what is wrong is named by its key, any bytes are survived."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vws.core.errors import InvalidRequest
from vws.core.image_lists import AHEAD_S_MAX, Endorser, ImageList, ListedImage, check, read, same_name, written

NOW = 1_800_000_000
ANN = Endorser(
    "/DC=org/O=Example/CN=Ann Endorser", "/DC=org/O=Example/CN=Example CA", "ann@example.org", "Ann Endorser"
)
IMAGE = ListedImage(
    "7b1f6e9c-0001",
    "1.2",
    "https://images.example.org/sl6.qcow2",
    1234,
    "ab" * 64,
    title="Scientific Linux",
    format="qcow2",
)
LIST = ImageList(
    "c9a0f3d2-0001", "7", "Images of the example", NOW - 100, NOW + 86400, ANN, (IMAGE,), uri="https://l/x"
)

# As VMcaster published them, shortened: sizes as numbers, keys that we do not read.
PUBLISHED = """{"hv:imagelist": {"dc:date:created": "2014-09-16T09:29:17Z", "dc:date:expires": "2015-10-14T09:29:17Z",
 "dc:description": "x", "dc:identifier": "76fdee70-8119-5d33", "dc:source": "EGI", "dc:title": "fedcloud",
 "ad:mpuri": "https://appdb/1", "hv:endorser": {"hv:x509": {"dc:creator": "M", "hv:ca": "/C=GR/CN=HellasGrid CA",
 "hv:dn": "/C=GR/CN=M", "hv:email": "m@x"}}, "hv:images": [{"hv:image": {"ad:group": "G", "dc:description": "",
 "dc:identifier": "i1", "dc:title": "t", "hv:format": "OVA", "hv:hypervisor": "VirtualBox", "hv:ram_minimum": "512",
 "hv:size": 375574528, "hv:uri": "https://a/b.ova", "hv:version": "0.1", "sl:arch": "x86_64",
 "sl:checksum:sha512": "%s", "sl:comments": "", "sl:os": "Linux", "sl:osversion": "12.04"}}],
 "hv:uri": "https://v/image.list", "hv:version": "11"}}""" % ("0f" * 64)


def altered(*path: str | int, value=None):
    said = json.loads(written(LIST))
    place = said
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(said).encode()


def refused(payload: bytes) -> str:
    with pytest.raises(InvalidRequest) as error:
        read(payload)
    assert error.value.field == "list"
    assert error.value.possible
    return error.value.problem


def test_what_is_written_is_read_again():
    assert read(written(LIST)) == LIST


def test_a_list_as_others_publish_it_is_read():
    found = read(PUBLISHED.encode())
    assert (found.identifier, found.version, found.created_at) == ("76fdee70-8119-5d33", "11", 1410859757)
    assert found.images[0].declared == "ova"
    assert found.images[0].size_bytes == 375574528


LISTED = ("hv:imagelist", "hv:images", 0, "hv:image")


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "hv:imagelist is missing"),
        (altered("hv:imagelist", "dc:date:expires"), "dc:date:expires"),
        (altered("hv:imagelist", "dc:date:expires", value="tomorrow"), "'tomorrow'"),
        (altered("hv:imagelist", "dc:date:expires", value="2026-13-45T00:00:00Z"), "2026-13-45"),
        (altered("hv:imagelist", "dc:identifier", value=7), "dc:identifier is no text"),
        (altered("hv:imagelist", "hv:endorser"), "hv:endorser is missing"),
        (altered("hv:imagelist", "hv:endorser", "hv:x509", "hv:dn"), "hv:dn"),
        (altered("hv:imagelist", "hv:images", value={}), "hv:images"),
        (altered("hv:imagelist", "hv:images", 0, value=7), "hv:image is missing"),
        (altered(*LISTED, "sl:checksum:sha512", value="ab" * 63), "no sha512"),
        (altered(*LISTED, "hv:size", value=-1), "hv:size is -1"),
        (altered(*LISTED, "hv:size", value=True), "hv:size is True"),
        (altered(*LISTED, "hv:size", value="1e9"), "hv:size is '1e9'"),
        (altered(*LISTED, "hv:uri", value=""), "hv:uri"),
        (b" " * (5 << 20), "bytes"),
    ],
)
def test_what_is_wrong_is_named(payload, said):
    assert said in refused(payload)


def test_one_image_twice_is_refused():
    said = json.loads(written(LIST))
    said["hv:imagelist"]["hv:images"] *= 2
    assert "same dc:identifier" in refused(json.dumps(said).encode())


def test_a_list_is_taken_from_its_endorser_while_it_lasts():
    check(LIST, ANN, NOW)
    check(LIST, ANN, LIST.expires_at - 1)
    check(LIST, ANN, LIST.created_at - AHEAD_S_MAX)


@pytest.mark.parametrize(
    ("endorser", "now", "said"),
    [
        (Endorser("/CN=Eve", ANN.ca), NOW, "signed by '/CN=Eve'"),
        (Endorser(ANN.dn, "/CN=Other CA"), NOW, "hv:ca"),
        (ANN, LIST.expires_at, "expired on 2027-01-16T08:00:00Z"),
        (ANN, LIST.created_at - AHEAD_S_MAX - 1, "in the future"),
    ],
)
def test_a_list_of_another_or_of_another_time_is_refused(endorser, now, said):
    with pytest.raises(InvalidRequest, match="cannot be taken") as error:
        check(LIST, endorser, now)
    assert said in error.value.problem


def test_an_address_has_three_names():
    assert same_name("/C=DE/CN=A/Email=a@b", "/C=DE/CN=A/emailAddress=a@b")
    assert not same_name("/C=DE/CN=A", "/C=DE/CN=B")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_value_in_any_place_is_read_or_refused(data):
    said = json.loads(written(LIST))
    place = said["hv:imagelist"]
    if data.draw(st.booleans()):
        place = place["hv:images"][0]["hv:image"]
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(anything)
    try:
        assert isinstance(read(json.dumps(said).encode()), ImageList)
    except InvalidRequest:
        pass


@given(st.binary(max_size=500))
def test_any_bytes_are_refused(payload):
    with pytest.raises(InvalidRequest):
        read(payload)
