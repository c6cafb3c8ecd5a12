from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.broker import Broker, make_certificate
from tests.guest.machine import unpack
from tests.guest.sandbox import Sandbox
from vws.factory.apart import build_apart

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "cache"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """The demo appliance that these sources make: the one in build/appliance, unless something is newer than that."""
    built = ROOT / "build/appliance/demo.vws"
    sources = [
        ROOT / "appliances/demo.yaml",
        *(ROOT / "src/vws/guest").rglob("*"),
        *(ROOT / "src/vws/factory").rglob("*"),
    ]
    made_by = [path for path in sources if path.is_file() and path.suffix != ".pyc"]
    if built.exists() and all(path.stat().st_mtime <= built.stat().st_mtime for path in made_by):
        return built
    out = tmp_path_factory.mktemp("bundle") / "demo.vws"
    build_apart(ROOT / "appliances/demo.yaml", out, CACHE, lambda at_s, step: None)
    return out


@pytest.fixture(scope="session")
def parts(bundle, tmp_path_factory) -> Path:
    """A folder of the bundle's files."""
    folder = tmp_path_factory.mktemp("parts")
    unpack(bundle, folder)
    return folder


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    make_certificate(folder)
    return folder


@pytest.fixture
def broker(certificate) -> Iterator[Broker]:
    broker = Broker(certificate)
    yield broker
    broker.close()


@pytest.fixture(params=["dash", "busybox"])
def sandbox(request, tmp_path, broker) -> Iterator[Sandbox]:
    """A machine that was told of `broker`, whose agent does not run yet."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param}: make setup")
    sandbox = Sandbox(tmp_path, request.param, broker)
    yield sandbox
    sandbox.power_off()
