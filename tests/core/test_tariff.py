"""Prices by kind of lease and time of day, on clocks that change for the summer."""

import datetime as dt
import math
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vws.core.errors import InvalidRequest
from vws.core.tariff import DAYS, PRICES, Band, Clock, Metered, Tariff, check_tariff

NIGHT = Band(0.5, begin="22:00", end="06:00")
WEEKEND = Band(0.25, days=("sat", "sun"))
ZURICH = ZoneInfo("Europe/Zurich")
ZONES = ["UTC", "Europe/Zurich", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut"]
HOUR_S = 3600.0


def offset_at(zone: ZoneInfo):
    def offset(at: float) -> int:
        found = dt.datetime.fromtimestamp(at, zone).utcoffset()
        assert found is not None
        return int(found.total_seconds())

    return offset


def at(text: str, zone: ZoneInfo = ZURICH) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def hours(begin: str, end: str, *bands: Band, zone: ZoneInfo = ZURICH) -> float:
    start, stop = at(begin, zone), at(end, zone)
    return Clock.over(start, stop, offset_at(zone), bands).hours(start, stop)


def test_a_band_is_a_time_of_the_sites_clock():
    assert hours("2026-06-03T00:00", "2026-06-04T00:00") == 24
    assert hours("2026-06-03T00:00", "2026-06-04T00:00", NIGHT) == 16 + 8 * 0.5
    assert hours("2026-06-03T21:00", "2026-06-03T23:00", NIGHT) == 1.5
    assert hours("2026-06-03T21:00", "2026-06-03T23:00", NIGHT, zone=ZoneInfo("UTC")) == 1.5


def test_a_band_past_midnight_belongs_to_the_day_it_begins_on():
    friday_night = Band(0.0, days=("fri",), begin="22:00", end="06:00")
    assert hours("2026-06-05T20:00", "2026-06-06T08:00", friday_night) == 4
    assert hours("2026-06-06T20:00", "2026-06-07T08:00", friday_night) == 12


def test_the_first_band_that_covers_an_instant_counts():
    assert hours("2026-06-06T00:00", "2026-06-07T00:00", WEEKEND, NIGHT) == 6
    assert hours("2026-06-06T00:00", "2026-06-07T00:00", NIGHT, WEEKEND) == 16 * 0.25 + 8 * 0.5
    assert hours("2026-06-01T00:00", "2026-06-08T00:00", WEEKEND) == 5 * 24 + 2 * 6


def test_a_spring_night_is_an_hour_short_and_an_autumn_night_an_hour_long():
    assert hours("2026-03-28T22:00", "2026-03-29T06:00", NIGHT) == 7 * 0.5
    assert hours("2026-10-24T22:00", "2026-10-25T06:00", NIGHT) == 9 * 0.5
    assert hours("2026-03-29T00:00", "2026-03-30T00:00", NIGHT) == 16 + 7 * 0.5
    assert hours("2026-10-25T00:00", "2026-10-26T00:00", NIGHT) == 16 + 9 * 0.5


def test_an_hour_that_the_clock_leaves_out_is_not_paid_and_one_it_repeats_is_paid_twice():
    small_hours = Band(10.0, begin="02:00", end="03:00")
    assert hours("2026-03-29T00:00", "2026-03-30T00:00", small_hours) == 23
    assert hours("2026-10-25T00:00", "2026-10-26T00:00", small_hours) == 23 + 20


def test_days_begin_where_the_sites_clock_says():
    start, end = at("2026-03-28T12:00"), at("2026-03-31T00:00")
    clock = Clock.over(start, end, offset_at(ZURICH))
    assert clock.midnights == (at("2026-03-29T00:00"), at("2026-03-30T00:00"))
    lengths = [(day, (stop - begin) / HOUR_S) for day, begin, stop in clock.days(start, end)]
    assert lengths == [(0, 12), (1, 23), (2, 24)]


@pytest.mark.parametrize(
    ("zone", "change", "length"),
    [
        ("America/Sao_Paulo", "2018-11-04", 23),  # midnight was left out
        ("Asia/Beirut", "2024-03-31", 23),  # and here
        ("America/Havana", "2024-11-03", 25),  # 01:00 became 00:00: one day, two midnights
    ],
)
def test_a_day_begins_once_where_the_clock_changes_at_midnight(zone, change, length):
    place, day = ZoneInfo(zone), dt.date.fromisoformat(change)
    noon = [at(f"{day + dt.timedelta(days=n)}T12:00", place) for n in (-1, 2)]
    clock = Clock.over(*noon, offset_at(place))
    assert len(clock.midnights) == 3
    begun, ended = clock.midnights[:2]
    assert (ended - begun) / HOUR_S == length
    assert dt.datetime.fromtimestamp(begun, place).date() == day
    assert dt.datetime.fromtimestamp(begun - 1, place).date() < day


instants = st.integers(1_700_000_000, 1_800_000_000)
bands = st.lists(
    st.builds(
        Band,
        st.sampled_from([0.0, 0.5, 3.0]),
        st.lists(st.sampled_from(DAYS), min_size=1, max_size=3).map(tuple),
        st.sampled_from(["00:00", "01:30", "22:00"]),
        st.sampled_from(["02:30", "06:00", "24:00", "22:00"]),
    ),
    max_size=3,
)


def by_minutes(start: int, end: int, zone: ZoneInfo, used: list[Band]) -> float:
    """Asked of the zone's own clock at every quarter of an hour, which is as fine as these clocks and bands are."""
    total = 0.0
    for begin in range(start, end, 900):
        local = dt.datetime.fromtimestamp(begin, zone)
        total += factor(local, used) / 4
    return total


def factor(local: dt.datetime, used: list[Band]) -> float:
    for band in used:
        now, begin, end = f"{local:%H:%M}", band.begin, band.end
        today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
        if end > begin:
            covered = begin <= now < end and today in band.days
        else:
            covered = (now >= begin and today in band.days) or (now < end and yesterday in band.days)
        if covered:
            return band.factor
    return 1.0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), instants, st.integers(1, 300), bands)
def test_hours_are_those_that_the_zones_own_clock_counts(zone, start, quarters, used):
    place, start = ZoneInfo(zone), start - start % 900
    end = start + quarters * 900
    clock = Clock.over(start, end, offset_at(place), tuple(used))
    assert clock.hours(start, end) == pytest.approx(by_minutes(start, end, place, used))


@settings(deadline=None)
@given(st.sampled_from(ZONES), instants, st.lists(st.floats(0, 90 * 86400.0), min_size=3, max_size=3), bands)
def test_hours_add_up_over_adjacent_spans(zone, start, lengths, used):
    first, middle, last = (start + length for length in sorted(lengths))
    clock = Clock.over(start, start + 90 * 86400.0, offset_at(ZoneInfo(zone)), tuple(used))
    whole, parts = clock.hours(first, last), clock.hours(first, middle) + clock.hours(middle, last)
    assert math.isclose(whole, parts, rel_tol=1e-9, abs_tol=1e-6)
    assert whole >= 0
    days = list(clock.days(first, last))
    assert sum(stop - begin for _, begin, stop in days) == pytest.approx(last - first)
    assert [day for day, _, _ in days] == sorted({day for day, _, _ in days})


def test_outside_the_interval_nothing_is_counted():
    clock = Clock.over(1000.0, 4600.0, lambda at: 0)
    assert clock.hours(0, 1e6) == 1
    assert clock.hours(0, 1000) == clock.hours(4600, 9000) == 0


# ---------------------------------------------------------------- prices

TARIFF = Tariff("credit", base=2.0, kinds={"reservation": 1.5}, preemptible=0.5, urgent=3.0)


def metered(**fields) -> Metered:
    given_ = {"kind": "immediate", "preemptible": False, "urgent": False, "owner": "ann", "vo": ""}
    return Metered(**{**given_, "node_hours": 10.0, "cpu_hours": 40.0, **fields})


@pytest.mark.parametrize(
    ("fields", "charge"),
    [
        ({}, 20),
        ({"kind": "reservation"}, 30),
        ({"kind": "best-effort", "preemptible": True}, 10),
        ({"kind": "reservation", "preemptible": True, "urgent": True}, 45),
        ({"node_hours": 0.0}, 0),
    ],
)
def test_a_price_goes_by_what_a_lease_is(fields, charge):
    assert PRICES["per-node-hour"](TARIFF, metered(**fields)) == charge


def test_cpus_may_be_priced_instead():
    assert PRICES["per-cpu-hour"](TARIFF, metered()) == 80


@pytest.mark.parametrize(
    ("tariff", "field"),
    [
        (Tariff(base=-1), "tariff.base"),
        (Tariff(kinds={"bulk": 1}), "tariff.kinds.bulk"),
        (Tariff(kinds={"immediate": -1}), "tariff.kinds.immediate"),
        (Tariff(bands=(Band(1), Band(-1))), "tariff.bands[1].factor"),
        (Tariff(bands=(Band(1, ("monday",)),)), "tariff.bands[0].days"),
        (Tariff(bands=(Band(1, begin="24:00"),)), "tariff.bands[0].begin"),
        (Tariff(bands=(Band(1, end="6:00"),)), "tariff.bands[0].end"),
    ],
)
def test_a_wrong_tariff_is_named(tariff, field):
    with pytest.raises(InvalidRequest) as error:
        check_tariff(tariff, ("immediate", "reservation"))
    assert error.value.field == field


def test_a_right_tariff_is_taken():
    tariff = Tariff(bands=(NIGHT, WEEKEND))
    assert check_tariff(tariff, ()) is tariff
