"""Tars that come from strangers (bundles, OCI layouts, OVAs), altered in every way: taken, or refused in words.

What reads them is the service itself, without a child's bounds; so whatever comes, it takes no more room, memory or
time than the file itself is worth. `pytest --hypothesis-profile=search` looks for longer.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import tarfile
import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.test_image_check import FILES, bundle
from vws.core.errors import InvalidRequest
from vws.core.frames import FrameReader, header
from vws.core.manifest import manifest
from vws.core.site import Image, ImageFile
from vws.service import oci_layout, tar_stream
from vws.service.image_check import examine

ANY = settings(deadline=None)
SAID = ("sbom.cdx.json", b'{"bomFormat": "CycloneDX"}')


def member(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar_of(*members):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def the_bundle(folder) -> bytes:
    return bundle(folder / "whole", FILES, documents=[SAID]).read_bytes()


def described(role: str, data: bytes) -> ImageFile:
    return ImageFile(role, hashlib.sha256(data).hexdigest(), len(data), role)


IMAGE = Image("img-1", "demo", "ann", "d" * 64, 24, "direct", tuple(described(*each) for each in FILES.items()))


def blob_name(data: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def layout(config=None, layers=None, index=None, extra=()) -> bytes:
    """Of IMAGE, as we write it but for what is given."""
    config = config if config is not None else manifest(IMAGE)
    entry = oci_layout._descriptor("x", hashlib.sha256(config).hexdigest(), len(config))
    body = {"artifactType": oci_layout.ARTIFACT_TYPE, "config": entry, "layers": layers or []}
    written = json.dumps(body).encode()
    described = [oci_layout._descriptor("x", hashlib.sha256(written).hexdigest(), len(written))]
    members = [member("oci-layout", oci_layout.VERSION)]
    members += [member("index.json", json.dumps(index or {"manifests": described}).encode())]
    contents = {blob_name(data): data for data in (config, written, *FILES.values(), *extra)}
    return tar_of(*members, *(member(name, data) for name, data in contents.items()))


def an_ova(folder) -> bytes:
    return tar_of(member("demo.ovf", b"<x/>"), member("demo.mf", b"x"), member("demo.vmdk", b"KDMV" + b"\0" * 600))


WHOLE = {"bundle": the_bundle, "oci": lambda _: layout(), "ova": an_ova}


def looked_at(folder, content: bytes):
    """What is found, or the refusal; and never more on the disk than came."""
    path, parts = folder / "file", folder / "file.parts"
    path.write_bytes(content)
    refused = None
    try:
        return examine(path, parts)
    except InvalidRequest as error:
        refused = error
    finally:
        kept = list(parts.iterdir()) if parts.exists() else []
        assert sum(each.stat().st_size for each in kept) <= len(content)
        shutil.rmtree(parts, ignore_errors=True)
    assert refused.field == "file"
    assert refused.problem.encode(), "it can be told"
    return refused


def refusal(folder, content: bytes) -> str:
    found = looked_at(folder, content)
    assert isinstance(found, InvalidRequest), found
    assert found.possible
    return found.problem


def test_the_whole_ones_are_taken(tmp_path):
    for kind in ("bundle", "oci"):
        found = looked_at(tmp_path, WHOLE[kind](tmp_path))
        assert sorted(file.role for file, _ in found.files) == ["initrd", "kernel"]
    assert "vmdk" in refusal(tmp_path, an_ova(tmp_path))


@pytest.mark.parametrize("kind", WHOLE)
def test_no_alteration_does_more_than_be_refused(tmp_path, kind):
    whole = WHOLE[kind](tmp_path)

    @ANY
    @given(st.data())
    def alter(data):
        changed = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            # In the headers, which are every few blocks, most alterations mean something.
            block = data.draw(st.integers(0, len(changed) // 512 - 1)) * 512
            at = block + data.draw(st.sampled_from([0, 100, 124, 136, 148, 156, 157, 257, 345]) | st.integers(0, 511))
            new = data.draw(st.binary(max_size=12) | st.sampled_from([b"\xff" * 12, b"\x80" + b"\0" * 11]))
            changed[at : at + len(new)] = new
            if data.draw(st.booleans()):
                mend(changed, block)
        if data.draw(st.booleans()):
            del changed[data.draw(st.integers(0, len(changed))) :]
        looked_at(tmp_path, bytes(changed))

    alter()


def mend(tar: bytearray, block: int) -> None:
    """Let a header's checksum be right again, so that what was altered in it is believed."""
    tar[block + 148 : block + 156] = b" " * 8
    tar[block + 148 : block + 156] = b"%06o\0 " % sum(tar[block : block + 512])


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_cut_short_anywhere_is_refused(tmp_path, kind):
    whole = WHOLE[kind](tmp_path)
    end = whole.rstrip(b"\0")  # what follows is the end's own blocks
    for length in {*range(0, len(end), 97), 511, 512, 513}:
        refusal(tmp_path, whole[:length])


# ---------------------------------------------------------------- any value in any place

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value, way=()):
    yield way
    each = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in each:
        yield from places(inner, (*way, key))


def put(value, way, new):
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = put(copy[way[0]], way[1:], new)
    return copy


def anywhere(data, value):
    return put(value, data.draw(st.sampled_from(list(places(value)))), data.draw(JSON))


def test_any_value_in_any_place_of_a_bundles_words_is_taken_or_refused(tmp_path):
    with tarfile.open(fileobj=io.BytesIO(the_bundle(tmp_path))) as tar:
        said = json.load(tar.extractfile("appliance.json"))
    said |= {"memory_mib_min": 5, "user": "ann", "ready": "ssh"}

    @ANY
    @given(st.data())
    def alter(data):
        content = json.dumps(anywhere(data, said)).encode()
        files = [member(name, content) for name, content in FILES.items()]
        looked_at(tmp_path, tar_of(member("appliance.json", content), *files))

    alter()


def test_any_value_in_any_place_of_a_layouts_words_is_taken_or_refused(tmp_path):
    config = json.loads(manifest(IMAGE))
    note = {"annotations": {oci_layout.DOCUMENT: "sbom"}, "mediaType": "application/json"}
    layers = [note | oci_layout._descriptor("application/json", hashlib.sha256(b"{}").hexdigest(), 2)]

    @ANY
    @given(st.data())
    def alter(data):
        changed = [anywhere(data, each) if data.draw(st.booleans()) else each for each in (config, layers)]
        index = data.draw(st.none() | JSON)
        looked_at(tmp_path, layout(json.dumps(changed[0]).encode(), changed[1], index, extra=[b"{}"]))

    alter()


# ---------------------------------------------------------------- found, and named


def test_what_is_no_text_where_a_word_should_be_is_refused_in_words(tmp_path):
    for boot in ([], {}, None, 5):
        assert "of another kind" in refusal(tmp_path, bundle(tmp_path / "b", FILES, {"boot": boot}).read_bytes())
    config = json.loads(manifest(IMAGE))
    for role in ([], {}):
        config["files"][0]["role"] = role
        assert "unknown kind" in refusal(tmp_path, layout(json.dumps(config).encode()))


def negative(name: str, *, size: int = -512) -> bytes:
    """A header that says that its member has less than nothing, whose end is its own beginning."""
    info = tarfile.TarInfo(name)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"\xff" * 4 + struct.pack(">q", size)
    mend(block, 0)
    return bytes(block)


@pytest.mark.parametrize("name", ["appliance.json", "blobs/", "demo.mf"])
def test_a_member_of_less_than_nothing_is_refused_at_once(tmp_path, name):
    """Whoever goes on where it ends reads it for ever."""
    first = {"blobs/": "oci-layout", "demo.mf": "demo.ovf"}.get(name)
    head = tar_of(member(first, b"{}"))[:1024] if first else b""
    began = time.monotonic()
    assert "says it has -512 bytes" in refusal(tmp_path, head + negative(name) + bytes(1024))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("first", [("oci-layout", "blobs/"), ("demo.ovf", "x.mf")])
def test_a_tar_of_nothing_but_names_takes_no_memory_to_speak_of(tmp_path, first):
    names = [member(first[0], b"{}"), *[member(first[1])] * (tar_stream.MEMBERS_MAX + 5)]
    content = tar_of(*names)
    tracemalloc.start()
    try:
        assert "holds more than 10000 members" in refusal(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < len(content) + (40 << 20)
    finally:
        tracemalloc.stop()


def test_one_blob_named_many_times_is_not_read_many_times(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(oci_layout, "digest", lambda path: read.append(path) or path.name)
    config = json.loads(manifest(IMAGE))
    config["files"] = config["files"] * 1000
    assert "has other files than" in refusal(tmp_path, layout(json.dumps(config).encode()))
    note = {"annotations": {oci_layout.DOCUMENT: "sbom"}} | oci_layout._descriptor("text/x", "0" * 64, 2)
    assert "holds 1000 documents" in refusal(tmp_path, layout(layers=[note] * 1000))
    large = bytes(oci_layout.DOCUMENT_BYTES_MAX)
    note["digest"] = "sha256:" + hashlib.sha256(large).hexdigest()
    assert "too long" in refusal(tmp_path, layout(layers=[note] * 9, extra=[large]))
    assert len(read) < 20


def test_a_name_that_is_no_text_can_be_told(tmp_path):
    """It would otherwise be the answer that fails."""
    odd = member("\udc80.vmdk", b"KDMV")
    said = refusal(tmp_path, tar_of(member("demo.ovf", b"<x/>"), odd, odd))
    assert "twice" in said


@pytest.mark.parametrize("kind", ["text/x\r\nSet-Cookie: a=b", "", "x" * 201, "\ud800", None])
def test_what_is_no_media_type_never_becomes_a_header(tmp_path, kind):
    note = {"annotations": {oci_layout.DOCUMENT: "sbom"}} | oci_layout._descriptor(kind, blob_name(b"{}")[13:], 2)
    assert "has no media type" in refusal(tmp_path, layout(layers=[note], extra=[b"{}"]))


def test_a_disk_in_a_bundle_is_held_to_the_sites_bound_too(tmp_path, monkeypatch):
    from vws.service import bundles

    bounds = []
    monkeypatch.setattr(
        bundles,
        "examine_disk",
        lambda path, role, kind, bytes_max, **_: bounds.append(bytes_max) or described(role, b""),
    )
    path = bundle(tmp_path / "b", FILES | {"disk.qcow2": b"QFI\xfb"})
    examine(path, tmp_path / "parts", None, 12345)
    assert bounds == [12345]


# ---------------------------------------------------------------- frames


@ANY
@given(st.lists(st.binary(max_size=60) | st.builds(header, *[st.integers(0, 2**64 - 1) | st.integers(0, 300)] * 2)))
def test_any_bytes_are_frames_of_this_file_or_refused(pieces):
    size, reader, at = 300, FrameReader(10, 300), 10
    with suppress(InvalidRequest):
        for piece in pieces:
            for offset, data in reader.feed(piece):
                assert at <= offset <= offset + len(data) <= size
                at = offset + len(data)
    assert reader.position <= size
