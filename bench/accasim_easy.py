"""Run by AccaSim's own Python: EASY backfilling on a trace, its CPU time and mean wait as one line of JSON.

    python accasim_easy.py TRACE.swf NODES

AccaSim 1.1.3 was written for Python before 3.10, where `collections` still had `Mapping`.
"""

import collections
import collections.abc
import contextlib
import json
import re
import sys
import tempfile
import time
from pathlib import Path

collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]

from accasim.base.allocator_class import FirstFit  # noqa: E402
from accasim.base.scheduler_class import EASYBackfilling  # noqa: E402
from accasim.base.simulator_class import Simulator  # noqa: E402


def main(trace, nodes):
    system = {
        "system_name": "equal nodes",
        "start_time": 0,
        "equivalence": {"processor": {"core": 1}},
        "groups": {"node": {"core": 1}},
        "resources": {"node": nodes},
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        described = Path(folder, "system.json")
        described.write_text(json.dumps(system))
        dispatcher = EASYBackfilling(FirstFit())
        simulator = Simulator(trace, str(described), dispatcher, show_statistics=False, RESULTS_FOLDER_PATH=folder)
        began = time.process_time()
        simulator.start_simulation()
        cpu_s = time.process_time() - began
        (statistics,) = Path(folder).glob("stats-*")
        wait_mean_s = float(re.search(r"Avg. waiting times: ([\d.]+)", statistics.read_text())[1])
    print(json.dumps({"cpu_s": cpu_s, "wait_mean_s": wait_mean_s}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
