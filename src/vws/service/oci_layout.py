"""An image as an OCI artifact: the tar of an image layout, as registries and their tools (skopeo, oras) read it.

Its one manifest has the image's own manifest (core/manifest.py) as configuration, so that the digest which is signed
travels with it, and each file of the image as a layer under a media type of our own: nothing mistakes them for a
container's. What is read back is held against these digests, file by file. Form: opencontainers/image-spec 1.1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from vws.core import manifest as manifests
from vws.core.disks import Disk, declared_disks
from vws.core.errors import InvalidRequest
from vws.core.image_formats import wrong
from vws.core.site import Document, DocumentKind, Image, ImageFile, data_role
from vws.service import tar_stream
from vws.service.bundles import CMDLINE_LENGTH_MAX, DOCUMENT_BYTES_MAX, check_sizes
from vws.service.disk_check import BYTES_MAX, Found, digest, examine_disk
from vws.service.tar_stream import Member, in_memory

ARTIFACT_TYPE = "application/vnd.vws.image.v1"
LAYER_TYPES = {
    ("disk", "qcow2"): "application/vnd.vws.disk.v1+qcow2",
    ("disk", "raw"): "application/vnd.vws.disk.v1+raw",
    ("kernel", "kernel"): "application/vnd.vws.kernel.v1",
    ("initrd", "initrd"): "application/vnd.vws.initrd.v1",
}
# Of a disk that it declares and brings; its role is data-NAME.
DATA_TYPE = "application/vnd.vws.data.v1+qcow2"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
VERSION = b'{"imageLayoutVersion": "1.0.0"}'
DOCUMENT = "vnd.vws.document"
MEMORY = "vnd.vws.memory-mib-min"
TITLE, CREATED, NAME = (f"org.opencontainers.image.{word}" for word in ("title", "created", "ref.name"))
JSON_BYTES_MAX = 1 << 20
DOCUMENTS_MAX, DOCUMENTS_BYTES_MAX = 200, 128 << 20

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")
_FOLDERS = {"blobs", "blobs/sha256"}
_MEDIA_TYPE = re.compile(r"[!-~][ -~]{0,199}\Z")
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})\Z")

# ---------------------------------------------------------------- out


def members(
    image: Image, content: Callable[[ImageFile], Iterable[bytes]], documents: Iterable[Document] = ()
) -> list[Member]:
    """The members of the layout of an image without deltas."""
    said = list(documents)
    config = manifests.manifest(image)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(manifests.MEDIA_TYPE, _sha256(config), len(config)),
            "layers": [*map(_layer, image.files), *map(_said, said)],
            "annotations": {
                TITLE: image.name,
                CREATED: datetime.fromtimestamp(int(image.created_at), UTC).isoformat().replace("+00:00", "Z"),
                MEMORY: str(image.memory_mib_min),
            },
        }
    )
    entry = _descriptor(MANIFEST_TYPE, _sha256(manifest), len(manifest))
    entry |= {"artifactType": ARTIFACT_TYPE, "annotations": {NAME: image.name}}
    index = _json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]})
    blobs = {_sha256(data): in_memory(_place_of(_sha256(data)), data) for data in (manifest, config)}
    blobs |= {_sha256(each.content): in_memory(_place_of(_sha256(each.content)), each.content) for each in said}
    for file in image.files:
        blobs[file.sha256] = Member(_place_of(file.sha256), file.size_bytes, partial(content, file))
    return [in_memory("oci-layout", VERSION), in_memory("index.json", index), *blobs.values()]


def _layer(file: ImageFile) -> dict[str, Any]:
    name = file.role if file.role in ("kernel", "initrd") else f"{file.role}.{file.format}"
    described = _descriptor(LAYER_TYPES.get((file.role, file.format), DATA_TYPE), file.sha256, file.size_bytes)
    return described | {"annotations": {TITLE: name}}


def _said(document: Document) -> dict[str, Any]:
    described = _descriptor(document.media_type, _sha256(document.content), len(document.content))
    return described | {"annotations": {DOCUMENT: str(document.kind)}}


def _descriptor(media_type: str, sha256: str, size_bytes: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size_bytes}


def _place_of(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- in


def unpack(path: Path, parts: Path, bytes_max: int = BYTES_MAX, passphrase: str | None = None) -> Found:
    """What is in the tar of a layout, its blobs in the folder `parts`. bytes_max: of what a disk comes to, unpacked;
    passphrase: of one that is encrypted. Raises InvalidRequest with field "file", or "passphrase"."""
    tar_stream.unpack(path, parts, _place, "the OCI layout")
    manifest = _blob(parts, _only_manifest(_read(parts, "index.json")))
    if manifest.get("artifactType") != ARTIFACT_TYPE:
        raise _odd("it holds no VWS image, but perhaps a container's", "one that `vws image export --format oci` wrote")
    config = _blob(parts, manifest.get("config"))
    if config.get("format") != manifests.FORMAT or config.get("boot") not in ("disk", "direct"):
        raise _odd("its configuration is not an image's manifest")
    entries = _list(config.get("files"), "files")
    beside = _disks(config.get("disks", []))
    _check_entries(config["boot"], entries, beside)  # before any is read: a layout may name one blob many times
    look = partial(examine_disk, bytes_max=bytes_max, passphrase=passphrase)
    files = tuple(_file(parts, entry, look) for entry in entries)
    check_sizes(beside, [file for file, _ in files])
    return Found(
        boot=config["boot"],
        files=files,
        cmdline=_text(config, "cmdline", CMDLINE_LENGTH_MAX),
        user=_text(config, "user", 32) or "root",
        ready=config["ready"] if config.get("ready") in ("ssh", "boot") else "ssh",
        memory_mib_min=_memory(manifest),
        documents=tuple(_documents(parts, _list(manifest.get("layers"), "layers"))),
        disk_mib_min=next((file.virtual_size_mib for file, _ in files if file.role == "disk"), 0),
        beside=beside,
    )


def _disks(said: Any) -> tuple[Disk, ...]:
    try:
        return declared_disks(said, "disks")
    except InvalidRequest as error:
        raise _odd(f"its disks cannot be had: {error.problem}", error.possible or "") from None


def _place(name: str) -> str | None:
    if name.rstrip("/") in _FOLDERS:
        return None
    blob = _BLOB.match(name)
    if blob is None and name not in ("oci-layout", "index.json"):
        raise _odd(f"it holds {name[:60]!r}", "a layout as the OCI's image-spec says: oci-layout, index.json, blobs/")
    return blob[1] if blob else name


def _only_manifest(index: dict[str, Any]) -> Any:
    described = _list(index.get("manifests"), "manifests")
    if len(described) != 1:
        raise _odd(f"it holds {len(described)} manifests", "a layout of one image")
    return described[0]


def _file(parts: Path, entry: dict[str, Any], look: Callable[..., ImageFile]) -> tuple[ImageFile, Path]:
    if entry.get("base"):
        raise _odd("its disk is a delta of another one", "an image that stands alone")
    path = _checked(parts, f"sha256:{entry.get('sha256')}")
    if entry["role"] not in ("kernel", "initrd"):
        return look(path, entry["role"], entry["format"]), path
    return ImageFile(entry["role"], path.name, path.stat().st_size, entry["format"]), path


def _documents(parts: Path, layers: list[Any]) -> Iterator[tuple[DocumentKind, str, bytes]]:
    notes = [layer.get("annotations") if isinstance(layer, dict) else None for layer in layers]
    kinds = [each.get(DOCUMENT) if isinstance(each, dict) else None for each in notes]
    said = [(kind, layer) for kind, layer in zip(kinds, layers, strict=True) if kind in list(DocumentKind)]
    if len(said) > DOCUMENTS_MAX:
        raise _odd(f"it holds {len(said)} documents", f"at most {DOCUMENTS_MAX}")
    if sum(_named(parts, layer.get("digest")).stat().st_size for _, layer in said) > DOCUMENTS_BYTES_MAX:
        raise _odd("its documents are too long", f"at most {DOCUMENTS_BYTES_MAX >> 20} MiB in all")
    for kind, layer in said:
        media_type, path = layer.get("mediaType"), _named(parts, layer.get("digest"))
        if path.stat().st_size > DOCUMENT_BYTES_MAX:
            raise _odd(f"its {kind} is too long", f"at most {DOCUMENT_BYTES_MAX >> 20} MiB")
        if not isinstance(media_type, str) or not _MEDIA_TYPE.match(media_type):
            raise _odd(f"its {kind} has no media type", "such as application/json")
        yield DocumentKind(kind), media_type, _checked(parts, layer.get("digest")).read_bytes()


def _check_entries(boot: str, entries: list[Any], beside: Iterable[Disk]) -> None:
    kinds = [(each.get("role"), each.get("format")) if isinstance(each, dict) else None for each in entries]
    data = [data_role(disk.name) for disk in beside if disk.brought]
    if any(kind not in [*LAYER_TYPES, *((role, "qcow2") for role in data)] for kind in kinds):
        raise _odd("its manifest names a file of an unknown kind")
    roles = sorted(str(kind[0]) for kind in kinds if kind)
    allowed = (["disk"],) if boot == "disk" else (["initrd", "kernel"], ["disk", "initrd", "kernel"])
    if roles not in [sorted([*each, *data]) for each in allowed]:
        raise _odd(f"an image that boots by {boot} has other files than {', '.join(roles[:5]) or 'none'}")


def _blob(parts: Path, described: Any) -> dict[str, Any]:
    path = _checked(parts, described.get("digest") if isinstance(described, dict) else None)
    return _read(parts, path.name)


def _named(parts: Path, named: Any) -> Path:
    found = _SHA256.match(named) if isinstance(named, str) else None
    if found is None or not (parts / found[1]).is_file():
        raise _odd(f"the blob {named!r:.80} is missing", "the whole layout")
    return parts / found[1]


def _checked(parts: Path, named: Any) -> Path:
    path = _named(parts, named)
    if digest(path) != path.name:
        raise _odd(f"the blob {path.name[:12]}… is not what its name says", "an undamaged copy of it")
    return path


def _read(parts: Path, name: str) -> dict[str, Any]:
    path = parts / name
    try:
        value = json.loads(path.read_bytes()) if path.stat().st_size <= JSON_BYTES_MAX else None
    except FileNotFoundError:
        raise _odd(f"{name} is missing", "the whole layout") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _odd(f"{name[:12]} is no JSON object, or a very long one", "an undamaged copy of it")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise _odd(f"{key} is no list")
    return value


def _text(config: dict[str, Any], key: str, length_max: int) -> str:
    value = config.get(key, "")
    if not isinstance(value, str) or len(value) > length_max or not value.isprintable():
        raise _odd(f"{key} is no plain text", f"at most {length_max} printable characters")
    return value


def _memory(manifest: dict[str, Any]) -> int:
    notes = manifest.get("annotations")
    said = notes.get(MEMORY, "0") if isinstance(notes, dict) else "0"
    if not isinstance(said, str) or not re.fullmatch(r"[0-9]{1,12}", said):
        raise _odd(f"{MEMORY} is no whole number of MiB")
    return int(said)


def _odd(problem: str, possible: str = "an undamaged copy of it") -> Exception:
    return wrong(f"this OCI layout cannot be taken: {problem}", possible)
