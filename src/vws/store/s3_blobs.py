"""Image files in an S3 bucket, each under the sha256 of its bytes.

An object appears when its upload is complete and not before; a broken one leaves nothing that is listed. What is zero
is not kept: an object holds the file's data run together, and a map beside it says where each part belongs. The map
comes before the object and goes after it, so that an object that is there can be read.

Credentials are boto3's to find (its environment, a file, a role). They are in no message of this module.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vws.core.errors import Unavailable
from vws.faultpoints import reach
from vws.ports import Extent
from vws.store.blobs import PIECE_BYTES, absent, check_sha256, copy_bytes, data_extents

PART_BYTES = 16 << 20
MAP = ".map"


class S3Blobs:
    """`vws.ports.Blobs` in a bucket, keys `PREFIX/<first two digits>/<sha256>`. Thread-safe."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        """client: boto3's for S3."""
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._maps: dict[str, tuple[int, tuple[Extent, ...]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def connect(
        cls, bucket: str, prefix: str = "", endpoint: str = "", region: str = "", credentials: str = ""
    ) -> S3Blobs:
        """Raises Unavailable if boto3 is missing, or the credentials are open to others or cannot be read."""
        boto3 = _boto3()
        from botocore.config import Config

        session = boto3.session.Session(region_name=region or None)
        if credentials:
            _must_be_private(Path(credentials))
            session._session.set_config_variable("credentials_file", credentials)
        retries = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=5, read_timeout=60)
        try:
            client = session.client("s3", endpoint_url=endpoint or None, config=retries)
        except Exception as error:
            raise Unavailable(
                f"S3 cannot be used: {type(error).__name__}", possible="mend [images] in site.toml"
            ) from None
        return cls(client, bucket, prefix)

    def size(self, sha256: str) -> int | None:
        found = self._map(sha256)
        return None if found is None else found[0]

    def path(self, sha256: str) -> None:
        """There is none on this host."""

    def open(self, sha256: str, offset: int = 0) -> BinaryIO:
        if offset == 0:  # who reads from the beginning is not told what was here once
            self._forget(sha256)
        size, extents = self._found(sha256)
        return io.BufferedReader(_Sparse(self, sha256, size, extents, offset), PIECE_BYTES)

    def extents(self, sha256: str) -> Sequence[Extent]:
        return self._found(sha256)[1]

    def place(self, sha256: str, target: Path) -> None:
        size, extents = self._found(sha256)
        with target.open("xb") as copy:
            copy.truncate(size)
            for extent in extents:
                with self.open(sha256, extent.offset) as stream:
                    copy.seek(extent.offset)
                    copy_bytes(stream, copy, extent.length)

    def adopt(self, temporary: Path, sha256: str) -> None:
        check_sha256(sha256)
        self._forget(sha256)
        if not temporary.exists() or self._map(sha256) is not None:
            temporary.unlink(missing_ok=True)
            return
        with temporary.open("rb") as file, self.telling("kept"):
            extents = tuple(data_extents(file.fileno()))
            said = {"size": temporary.stat().st_size, "extents": [[e.offset, e.length] for e in extents]}
            self._client.put_object(Bucket=self._bucket, Key=self._key(sha256) + MAP, Body=json.dumps(said).encode())
            reach("service.bucket.map")
            self._send(file, extents, self._key(sha256))
        temporary.unlink()

    def _send(self, file: BinaryIO, extents: Sequence[Extent], key: str) -> None:
        """The data in parts; it is an object when all are there, and nothing of it stays if one fails."""
        to = {"Bucket": self._bucket, "Key": key}
        if sum(extent.length for extent in extents) <= PART_BYTES:
            self._client.put_object(**to, Body=b"".join(_parts(file, extents)))
            return
        upload = self._client.create_multipart_upload(**to)["UploadId"]
        try:
            parts = []
            for number, part in enumerate(_parts(file, extents), 1):
                sent = self._client.upload_part(**to, UploadId=upload, PartNumber=number, Body=part)
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
                reach("service.bucket.part")
            self._client.complete_multipart_upload(**to, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            self._client.abort_multipart_upload(**to, UploadId=upload)
            raise

    def remove(self, sha256: str) -> None:
        self._forget(sha256)
        with self.telling("removed"):
            for key in (self._key(sha256), self._key(sha256) + MAP):
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def all(self) -> Sequence[str]:
        with self.telling("listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            names = [item["Key"].rsplit("/", 1)[-1] for page in pages for item in page.get("Contents", ())]
        return sorted(name for name in names if len(name) == 64 and not set(name) - set("0123456789abcdef"))

    def check(self) -> None:
        with self.telling("reached"):
            self._client.head_bucket(Bucket=self._bucket)

    def sweep(self) -> None:
        """Uploads that a killed process left: their parts cost room and are in no list."""
        with self.telling("swept"):
            left = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix).get("Uploads", ())
            for upload in left:
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    # ------------------------------------------------------------ objects

    def body(self, sha256: str, start: int, length: int) -> Any:
        """A stream of bytes of the object, which are the file's data without its holes."""
        asked = f"bytes={start}-{start + length - 1}"
        with self.telling("read"):
            return self._client.get_object(Bucket=self._bucket, Key=self._key(sha256), Range=asked)["Body"]

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}{sha256[:2]}/{sha256}"

    def _found(self, sha256: str) -> tuple[int, tuple[Extent, ...]]:
        found = self._map(sha256)
        if found is None:
            raise absent(sha256)
        return found

    def _forget(self, sha256: str) -> None:
        with self._lock:
            self._maps.pop(sha256, None)

    def _map(self, sha256: str) -> tuple[int, tuple[Extent, ...]] | None:
        with self._lock:
            if sha256 in self._maps:
                return self._maps[sha256]
        found = self._read_map(sha256)
        if found is not None:
            with self._lock:
                self._maps[sha256] = found
        return found

    def _read_map(self, sha256: str) -> tuple[int, tuple[Extent, ...]] | None:
        with self.telling("read"):
            try:
                length = self._client.head_object(Bucket=self._bucket, Key=self._key(sha256))["ContentLength"]
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(sha256) + MAP)
            except Exception as error:
                if _code(error) in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise
            said = json.loads(answer["Body"].read())
        extents = tuple(Extent(*extent) for extent in said["extents"])
        # What was cut short is not there: it is reported so, and replaced by whoever brings it again.
        return (said["size"], extents) if length == sum(extent.length for extent in extents) else None

    @contextmanager
    def telling(self, what: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            # The message of an error may repeat what was sent; its code does not.
            raise Unavailable(
                f"the bucket {self._bucket} could not be {what}: {_code(error) or type(error).__name__}",
                possible="the same again in a moment; the administrator finds its settings under [images] in site.toml",
            ) from error


class _Sparse(io.RawIOBase):
    """A file read out of an object and its map."""

    def __init__(self, blobs: S3Blobs, sha256: str, size: int, extents: Sequence[Extent], offset: int) -> None:
        self._blobs, self._sha256, self._size, self._at = blobs, sha256, size, offset
        self._extents = extents
        self._number, self._start = 0, 0  # of the extent at or after `_at`, and where its data begins in the object
        self._body: Any = None  # of the rest of that extent

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        while self._number < len(self._extents) and self._end(self._number) <= self._at:
            self._start += self._extents[self._number].length
            self._number += 1
            self._close_body()
        most = min(most, self._size - self._at)
        if most <= 0:
            return b""
        extent = self._extents[self._number] if self._number < len(self._extents) else Extent(self._size, 0)
        if self._at < extent.offset:
            data = bytes(min(most, extent.offset - self._at))
        else:
            data = self._read(extent, min(most, self._end(self._number) - self._at))
        self._at += len(data)
        return data

    def _read(self, extent: Extent, most: int) -> bytes:
        if self._body is None:
            done = self._at - extent.offset
            self._body = self._blobs.body(self._sha256, self._start + done, extent.length - done)
        with self._blobs.telling("read"):
            data: bytes = self._body.read(most)
            if not data:
                raise OSError("the bucket's answer was cut short")
        return data

    def _close_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        self._close_body()
        super().close()

    def _end(self, number: int) -> int:
        return self._extents[number].offset + self._extents[number].length


def _parts(file: BinaryIO, extents: Sequence[Extent]) -> Iterator[bytes]:
    """The data, run together, in parts of the size that S3 wants (all but the last)."""
    held = bytearray()
    for extent in extents:
        file.seek(extent.offset)
        left = extent.length
        while left:
            piece = file.read(min(left, PART_BYTES - len(held)))
            if not piece:
                raise OSError("the file became shorter")
            held += piece
            left -= len(piece)
            if len(held) == PART_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _boto3() -> Any:
    try:
        import boto3
    except ImportError:
        raise Unavailable("images are kept in S3, but boto3 is missing", possible="pip install 'vws[s3]'") from None
    return boto3


def _must_be_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", possible="mend images.credentials") from None
    if mode & 0o077:
        raise Unavailable(f"{path} is open to other users", possible=f"chmod 600 {path}")


def _code(error: Exception) -> str:
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
