"""Sizes and durations: what is read, what is refused and why."""

from __future__ import annotations

import pytest

from vws.cli.sizes import parse_bandwidth, parse_duration, parse_size, show_bytes, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("160MiB", 160),
        ("1GiB", 1024),
        ("1.5GiB", 1536),
        ("2TiB", 2 * 1024**2),
        ("512", 512),
        ("64m", 64),
        ("2 G", 2048),
    ],
)
def test_sizes_are_read_in_mib(text: str, mib: int) -> None:
    assert parse_size(text) == mib


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1GB", "write 1GiB"),
        ("1.5mb", "write 1.5MiB"),
        ("lots", "write 160MiB"),
        ("-1GiB", "is not a size"),
        ("", "is not a size"),
        ("3KiB", "unknown unit"),
        ("0.3MiB", "no whole number"),
        ("9" * 400, "is not a size"),
        ("1e9", "is not a size"),
    ],
)
def test_what_is_no_size_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("10d", 864000), ("1h30m", 5400), ("1.5h", 5400), ("1w", 604800),
     ("1h 5min", 3900), ("0s", 0)],
)  # fmt: skip
def test_durations_are_read_in_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("90", "which unit: 90s, 90m or 90h"),
        ("soon", "write 90s, 30m"),
        ("-1h", "is not a duration"),
        ("1h-30m", "is not a duration"),
        ("0.0001s", "no whole number"),
        ("1y", "is not a duration"),
        ("", "is not a duration"),
        ("9" * 400 + "d", "is not a duration"),
    ],
)
def test_what_is_no_duration_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_duration(text)


def test_shown_in_the_two_largest_units() -> None:
    assert [show_duration(s) for s in (0, 42, 600, 7199, 7200, 2 * 86400 + 3 * 3600 + 59, -5)] == [
        "0s", "42s", "10m", "1h59m", "2h", "2d3h", "0s",
    ]  # fmt: skip


def test_sizes_are_shown_in_the_largest_unit_that_fits() -> None:
    assert [show_size(s) for s in (160, 1024, 1536, 3 * 1024**2, None)] == ["160 MiB", "1 GiB", "1.5 GiB", "3 TiB", "-"]
    assert show_bytes(2048) == "2 KiB"
    assert show_bytes(14 * 1024**2) == "14 MiB"


@pytest.mark.parametrize(("text", "mbit"), [("100Mbit", 100), ("1.5 gbit/s", 1500), ("10Gbit", 10_000)])
def test_speeds_of_networks(text, mbit):
    assert parse_bandwidth(text) == mbit


@pytest.mark.parametrize("text", ["100", "1MB", "0.5Mbit", "fast", "-1Mbit", "9" * 16 + "Mbit"])
def test_what_is_no_speed_is_refused(text):
    with pytest.raises(ValueError, match="Mbit"):
        parse_bandwidth(text)
