"""GET /v1/usage: at once and as a stream, for a user and for an administrator."""

from __future__ import annotations

import json
import time

import pytest

from vws.client import ApiError, Client
from vws.frontends.rest.usage_models import UsageReport


@pytest.fixture
def used(running):
    (node,) = running.enroll("one")
    running.lease(2, name="pair")
    node.obey()
    time.sleep(0.05)
    return running


def rows(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    UsageReport.model_validate(answer.json())
    return answer.json()["rows"]


def test_a_user_sees_his_own_and_an_administrator_all(used):
    (mine,) = rows(used.ann.get("/v1/usage"))
    assert mine["user"] == "ann"
    assert mine["reserved"]["node_hours"] >= mine["used"]["node_hours"] > 0
    assert rows(used.bob.get("/v1/usage")) == []
    assert [row["user"] for row in rows(used.root.get("/v1/usage"))] == ["ann"]
    assert rows(used.root.get("/v1/usage", params={"user": "bob"})) == []
    assert used.bob.get("/v1/usage", params={"user": "ann"}).status_code == 403
    assert used.nobody.get("/v1/usage").status_code == 401


def test_rows_are_what_is_asked_for(used):
    (row,) = rows(used.root.get("/v1/usage", params={"by": "lease", "lease": "pair"}))
    assert (row["name"], row["user"]) == ("pair", "ann")
    (day,) = rows(used.root.get("/v1/usage", params={"by": "day", "from": str(int(time.time()) - 60)}))
    assert day["day"] == time.strftime("%Y-%m-%d", time.gmtime())
    (own,) = rows(used.ann.get("/v1/usage", params={"lease": "pair"}))
    assert own["user"] == "ann"
    assert used.bob.get("/v1/usage", params={"lease": "pair"}).status_code == 403


@pytest.mark.parametrize(
    ("params", "status", "field"),
    [
        ({"by": "node"}, 422, "by"),
        ({"from": "soon"}, 422, "from"),
        ({"to": "2026-99"}, 422, "to"),
        ({"from": "2100-01"}, 422, "from"),
        ({"vo": "atlas"}, 422, "vo"),
        ({"lease": "none"}, 404, "id"),
        ({"since": "2026-10"}, 422, "since"),
    ],
)
def test_what_cannot_be_answered(here, params, status, field):
    answer = here.root.get("/v1/usage", params=params)
    assert answer.status_code == status
    assert answer.json()["field"] == field


def test_a_stream_ends_with_the_report(used):
    with used.root.stream("GET", "/v1/usage", headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = [frame.split("\n") for frame in "".join(answer.iter_text()).strip().split("\n\n")]
    names = [frame[0] for frame in frames]
    assert names[-1] == "event: usage"
    assert set(names[:-1]) == {"event: progress"}
    far = json.loads(frames[0][1].removeprefix("data: "))
    assert 0 < far["read"] <= far["of"]
    UsageReport.model_validate(json.loads(frames[-1][1].removeprefix("data: ")))


def test_the_client_reads_it(used):
    said: list[tuple[int, int]] = []
    with Client(used.url, used.root_token) as client:
        report = client.usage(by="lease", progress=lambda *far: said.append(far))
        assert [row["name"] for row in report["rows"]] == ["pair"]
        assert said
        with pytest.raises(ApiError, match="'soon' is no time") as error:
            client.usage(since="soon")
        assert (error.value.status, error.value.field) == (422, "from")
        with pytest.raises(ApiError) as error:
            client.usage(by="node")
        assert error.value.status == 422
