"""The project's numbers: what it promises about speed and size, measured.

    python -m bench                    all of them, then bench/RESULTS.md is written
    python -m bench scale planner      some of them; the others' sections stay as they were
    python -m bench --quick            tiny sizes, to see that the benches work; writes nothing

A bench is a module with `run(quick) -> Section`. Three rules make its numbers worth keeping:

- Whatever is compared is measured side by side in the same run, turn and turn about, and told as a ratio too: the
  machine's mood then touches both alike.
- A number is a median (or the percentile that its target names) of several, with the spread beside it.
- The parts are the ones that ship: real processes, TLS, a disk that is waited for. Everything a bench starts lives in
  a temporary folder and is gone when it ends, however it ends.
"""

from __future__ import annotations
