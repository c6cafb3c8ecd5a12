"""How images are called."""

from __future__ import annotations

import pytest

from vws.core.errors import InvalidRequest
from vws.core.image_names import ImageReference, check_new_name, read_reference, show_tag


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("debian", ImageReference(name="debian", tag="latest")),
        ("debian:12.4_a-b", ImageReference(name="debian", tag="12.4_a-b")),
        ("img-01jd3k9q4t7c2vz", ImageReference(id="img-01jd3k9q4t7c2vz")),
        ("sha256:" + "a" * 12, ImageReference(digest="a" * 12)),
        ("sha256:" + "0f" * 32, ImageReference(digest="0f" * 32)),
    ],
)
def test_each_form_is_read(text, reference):
    assert read_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    ["", ":", "debian:", "Debian:12", "debian:-x", "debian:a:b", "debian:" + "x" * 65, "sha256:" + "a" * 11,
     "sha256:" + "a" * 65, "sha256:" + "A" * 64, "sha256:zz", "../etc", "debian:../x", "debian:a\n"],
)  # fmt: skip
def test_what_is_none_is_refused_with_the_field(text):
    with pytest.raises(InvalidRequest) as refused:
        read_reference(text, "groups[0].image")
    assert refused.value.field == "groups[0].image"


def test_a_name_that_reads_as_an_id_cannot_be_pushed():
    assert check_new_name("demo:1") == ("demo", "1")
    with pytest.raises(InvalidRequest, match="id"):
        check_new_name("img-demo")


def test_latest_goes_without_saying():
    assert show_tag("demo", "latest") == "demo"
    assert show_tag("demo", "1") == str(read_reference("demo:1")) == "demo:1"
