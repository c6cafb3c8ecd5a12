"""What the pictures show, as numbers; and that they are drawn."""

from __future__ import annotations

import pytest

from vws.core.calendar import Bar, Step
from vws.sim import plots
from vws.sim.report import Fate, Run
from vws.sim.workload import Job, SimulatedSite

SITE = SimulatedSite(nodes=2, cpus=2, memory_mib=2048)
PNG = b"\x89PNG\r\n\x1a\n"


def bar(node, start, end, step=Step.RUN, lease="1", kind="best-effort"):
    return Bar(f"node-{node:03d}", start, end, step, lease, f"lease {lease}", kind)


def fate(id, submit, nodes, start, end, at=None, cpus=1):
    job = Job(id, submit, nodes, 600, (end or 1) - (start or 0), at=at, cpus=cpus)
    return Fate(job, start is not None, start, end)


FATES = (
    fate(1, 0, 2, 0, 100), fate(2, 10, 1, 100, 400, cpus=2), fate(3, 20, 1, 100, 200, at=100, cpus=2),
    fate(4, 30, 9, None, None),
)  # fmt: skip
BARS = (
    bar(1, 0, 100), bar(2, 0, 100), bar(1, 100, 400, lease="2"), bar(2, 390, 400, Step.SUSPEND, "2"),
    bar(2, 100, 200, lease="3", kind="reservation"),
)  # fmt: skip
RUN = Run(FATES, BARS, 0.1)


def test_the_level_is_the_sum_of_what_holds():
    assert plots.level([(5, 20, 2), (10, 20, 3), (15, 15, 7)]) == ([0, 5, 10, 15, 20], [0, 2, 5, 5, 0])
    assert plots.level([]) == ([0], [0])


def test_the_share_is_a_mean_over_each_part():
    share = plots.busy_share([(0, 50, 2), (25, 100, 1)], 4, [0, 50, 100, 200])
    assert list(share) == pytest.approx([(50 * 2 + 25) / 50 / 4, 0.25, 0.0])


def test_nothing_takes_no_share():
    assert list(plots.busy_share([], 4, [0, 10])) == [0]


def test_the_queue_is_of_leases_that_wait_and_of_the_machines_they_want():
    leases, machines = plots.queue((*FATES, fate(5, 10, 3, 60, 70)), "title").axes
    for axes, most in ((leases, 2), (machines, 4)):
        (drawn,) = axes.collections
        assert drawn.get_datalim(axes.transData).y1 == most


def test_waits_are_told_for_all_and_by_size():
    (axes,) = plots.waits(FATES, "title").axes
    told = {line.get_label(): max(line.get_xdata()) for line in axes.lines}
    assert told == {"all (2)": 90, "one machine (1)": 90, "several (1)": 0}


def test_utilisation_is_told_by_kind():
    (axes,) = plots.utilization(RUN, SITE, "title").axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["best effort", "reservations", "saving, moving, restoring"]
    best, reserved, overhead = (layer.get_datalim(axes.transData).y1 for layer in axes.collections)
    assert best == pytest.approx(0.5)
    assert reserved == overhead == pytest.approx(1.0)


def test_all_pictures_are_written(tmp_path):
    written = plots.draw(RUN, SITE, tmp_path, title="a run")
    assert [path.name for path in written] == ["utilization.png", "queue.png", "waits.png", "calendar.html"]
    assert all(path.read_bytes().startswith(PNG) for path in written[:3])
    assert "node-002" in written[3].read_text()


@pytest.mark.parametrize("run", [Run((), (), 0.0), Run(FATES[3:], (), 0.0)])
def test_a_run_of_nothing_can_be_drawn(tmp_path, run):
    assert all(path.stat().st_size for path in plots.draw(run, SITE, tmp_path, title="nothing"))


def row(workload, policy, wait_mean_s):
    return {
        "workload": workload, "policy": policy, "wait_mean_s": wait_mean_s, "wait_max_s": 7200,
        "bounded_slowdown_mean": 2.0, "utilization": 0.5,
    }  # fmt: skip


def test_a_comparison_has_a_panel_a_number_and_a_bar_a_row(tmp_path):
    table = [row("a", "fifo", 3600), row("a", "easy", 1800), {"workload": "b", "policy": "fifo", "error": "lost"}]
    figure = plots.compared(table)
    assert len(figure.axes) == 4
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1.0, 0.5]
    assert plots.draw_compared(table, tmp_path).read_bytes().startswith(PNG)


def test_a_comparison_of_nothing_can_be_drawn(tmp_path):
    assert plots.draw_compared([{"workload": "a", "policy": "b", "error": "lost"}], tmp_path).exists()
