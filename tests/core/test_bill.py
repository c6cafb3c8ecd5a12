"""Versions are ordered as dpkg orders them."""

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from vws.core.bill import read_forbidden, version

PARTS = st.text("0123456789.+~ab", min_size=0, max_size=5)
VERSIONS = st.builds("{}{}{}{}".format, st.sampled_from(["", "0:", "1:"]), st.sampled_from("0123"), PARTS,
                     st.sampled_from(["", "-1", "-1~deb12u2", "-1+b1", "-0"]))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(VERSIONS, VERSIONS)
def test_versions_are_ordered_as_dpkg_orders_them(one, other):
    for operator, ours in (("lt", version(one) < version(other)), ("eq", version(one) == version(other))):
        theirs = subprocess.run(["dpkg", "--compare-versions", one, operator, other], check=False).returncode == 0
        assert ours == theirs, (one, operator, other)


def test_what_is_forbidden_reads_as_it_is_written():
    for text in ("telnetd", "openssl < 3.0.11-1~deb12u2", "g++ >= 4:12"):
        assert str(read_forbidden(text)) == text
    assert str(read_forbidden("bash<=5")) == "bash <= 5"
