"""The hypervisor contract's nodes: one simulated, one real (marker `live`), each for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hypervisors import FakeSite, LibvirtSite, Site, demo_bundle, machine_network


@pytest.fixture(scope="session")
def fake_site(tmp_path_factory) -> FakeSite:
    return FakeSite(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="session")
def libvirt_site(tmp_path_factory) -> Iterator[LibvirtSite]:
    before = machine_network()
    site = LibvirtSite(tmp_path_factory.mktemp("real"), demo_bundle(tmp_path_factory.mktemp("bundle")))
    yield site
    site.tear_down()
    assert machine_network() == before


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.live)])
def site(request) -> Iterator[Site]:
    """A node with nothing on it; each test must leave it so."""
    site: Site = request.getfixturevalue(f"{request.param}_site")
    site.appliance.fetched.clear()
    yield site
    assert site.remains() == set()
