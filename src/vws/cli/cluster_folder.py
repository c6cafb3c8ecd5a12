"""What a launch sends of a cluster file's folder: the text, and the files that it names.

The service reads the cluster file again, so it is read here only to refuse what is wrong before anything is sent, and
to know which files are wanted. A cluster file may have come from a stranger, by git or in an archive: what it names
must lie in its folder, and symbolic links that lead out of it are refused like paths that do.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vws.core.cluster_spec import ClusterFile
from vws.core.clusterfile import Reader, read_cluster_file
from vws.core.errors import InvalidRequest
from vws.core.shapes import PARAMETER_PATTERN
from vws.core.waits import CONTENT_BYTES_MAX
from vws.core.yaml_tree import BYTES_MAX, parse, scalar_at

PARAMETER = re.compile(rf"\$\{{({PARAMETER_PATTERN})\}}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A cluster file as read here, and what is sent of it: plain JSON."""

    cluster: ClusterFile
    text: str
    parameters: dict[str, str]
    files: dict[str, bytes]

    def body(self) -> dict[str, Any]:
        files = {path: base64.b64encode(content).decode() for path, content in self.files.items()}
        return {"file": self.text, "parameters": self.parameters, "files": files}

    def counting(self, group: str, count: int) -> str:
        """What has it launch `count` members of a group ("": the only one) and all others as they are: an option, else
        what to write in the file; "" if the file does not allow that."""
        groups = [each.name for each in self.cluster.groups]
        if not group and len(groups) > 1:
            return ""
        name = group or groups[0]
        said = scalar_at(parse(self.text), ("groups", name, "count"))
        if said is None or not (parameter := PARAMETER.fullmatch(said.text)):
            return f"count: {count} of groups.{name} in the file"
        try:
            other = read_cluster_file(self.text, self.files.__getitem__, self.parameters | {parameter[1]: str(count)})
        except InvalidRequest:
            return ""
        wanted = {each.name: each.request.count for each in self.cluster.groups} | {name: count}
        same = {each.name: each.request.count for each in other.groups} == wanted
        return f"--set {parameter[1]}={count}" if same else ""


def bundle(path: Path, given: Mapping[str, str]) -> Bundle:
    """The cluster file at `path` with all that it names. given: values of its parameters.

    Raises InvalidRequest for what is wrong in it, OSError if it cannot be read itself.
    """
    files: dict[str, bytes] = {}
    read = reader_of(path.parent)

    def keep(name: str) -> bytes:
        files[name] = read(name)
        return files[name]

    text = _text(path)
    cluster = read_cluster_file(text, keep, given)
    return Bundle(cluster, text, dict(given), files)


def _text(path: Path) -> str:
    # One byte more than is allowed tells that there is more.
    content = _bytes(path, BYTES_MAX + 1)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidRequest(f"line {line}: this is no text in UTF-8", possible="a cluster file in UTF-8") from None


def reader_of(folder: Path) -> Reader:
    """Reads files in `folder` and below. Raises OSError for what is none, or leads out of it."""
    top = folder.resolve()

    def read(name: str) -> bytes:
        path = (top / name).resolve()
        if not path.is_relative_to(top):
            raise OSError(errno.EACCES, "it leads out of the cluster file's folder", name)
        return _bytes(path, CONTENT_BYTES_MAX + 1)

    return read


def _bytes(path: Path, most: int) -> bytes:
    """The first bytes of a regular file: reading a pipe or a device might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
        return file.read(most)
