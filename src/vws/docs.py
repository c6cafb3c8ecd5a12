"""The documents that are made from the code: docs/openapi.json, docs/states.md, vws/*.schema.json.

python -m vws.docs            writes them
python -m vws.docs --check    says which are stale, and fails if any is
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import vws
from vws.core import cluster_keys, recipe_keys
from vws.core.lifecycle import COMMANDS, FINAL, GOALS, OBSERVATIONS, SETTLED, Command, Observation, State

DIRECTORY = Path(vws.__file__).parents[2] / "docs"

_STATES_PAGE = """\
# The life of a workspace

Drawn by `make docs` from the tables in `src/vws/core/lifecycle.py`; edit those, not this page.

A **command** comes from a user or from the end of a lease, and may be refused. An **observation** is a fact that a node
reports, and is never refused. States ending in *-ing* wait for their goal.

- Final: {final}.
- The lease's promise counts as kept in: {settled}.

## Commands

```mermaid
{command_diagram}
```

{command_table}

An empty field is a refusal. What a command makes the node's goal: {goals}.

## Observations

```mermaid
{observation_diagram}
```

Not drawn: what leaves the state as it is, and what is the same from nearly every state (the table has it all):
{common}.

{observation_table}
"""


def openapi() -> str:
    from vws.frontends.rest.app import bare_app

    return json.dumps(bare_app().openapi(), indent=2, ensure_ascii=False) + "\n"


def cluster_schema() -> str:
    return json.dumps(cluster_keys.schema(), indent=1, ensure_ascii=False) + "\n"


def recipe_schema() -> str:
    return json.dumps(recipe_keys.schema(), indent=1, ensure_ascii=False) + "\n"


# ---------------------------------------------------------------- states


def states() -> str:
    common = _common(OBSERVATIONS)
    drawn = {
        state: {fact: after for fact, after in row.items() if after is not common[fact]}
        for state, row in OBSERVATIONS.items()
        if state not in FINAL
    }
    return _STATES_PAGE.format(
        final=_listed(FINAL),
        settled=_listed(SETTLED),
        goals=", ".join(f"{command} → {goal}" for command, goal in GOALS.items()),
        command_diagram=_diagram(COMMANDS),
        command_table=_table("state", Command, COMMANDS),
        observation_diagram=_diagram(drawn),
        observation_table=_table("state", Observation, OBSERVATIONS),
        common=", ".join(f"*{fact}* leads to {after}" for fact, after in common.items() if after is not None),
    )


def _common(rows: Mapping[State, Mapping[Observation, State]]) -> dict[Observation, State | None]:
    """Where an observation that ends or interrupts a life leads from most states; None for the others."""
    targets = {fact: Counter(row[fact] for state, row in rows.items() if state not in FINAL) for fact in Observation}
    most = {fact: count.most_common(1)[0] for fact, count in targets.items()}
    return {
        fact: after if times > len(rows) // 2 and after not in SETTLED else None
        for fact, (after, times) in most.items()
    }


def _diagram(rows: Mapping[State, Mapping[Command, State]] | Mapping[State, Mapping[Observation, State]]) -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {State.PLANNED}"]
    for state, row in rows.items():
        labels: dict[State, list[str]] = {}
        for name, after in row.items():
            if after is not state:
                labels.setdefault(after, []).append(str(name))
        lines += [f"    {state} --> {after}: {', '.join(names)}" for after, names in labels.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)


def _table(
    corner: str,
    columns: Iterable[StrEnum],
    rows: Mapping[State, Mapping[Command, State]] | Mapping[State, Mapping[Observation, State]],
) -> str:
    columns = list(columns)
    lines = [_row([corner, *columns]), _row(["---"] * (1 + len(columns)))]
    for state, row in rows.items():
        after: Mapping[str, State] = {str(name): target for name, target in row.items()}
        lines.append(_row([f"**{state}**", *("=" if after.get(c) is state else after.get(c, "") for c in columns)]))
    return "\n".join([*lines, "", "`=`: the state stays."])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _listed(chosen: Iterable[State]) -> str:
    *most, last = [str(state) for state in State if state in set(chosen)]
    return f"{', '.join(most)} and {last}"


# ---------------------------------------------------------------- files

DOCUMENTS = {
    "openapi.json": openapi,
    "states.md": states,
    "cluster.schema.json": cluster_schema,
    "recipe.schema.json": recipe_schema,
}
# What is installed with the package, for editors to find.
INSTALLED = {name: Path(vws.__file__).with_name(name) for name in DOCUMENTS if name.endswith(".schema.json")}


def target(directory: Path, name: str) -> Path:
    return INSTALLED.get(name, DIRECTORY / name) if directory == DIRECTORY else directory / name


def stale(directory: Path = DIRECTORY) -> list[str]:
    """The names of the documents that are not what the code says now."""
    targets = {name: target(directory, name) for name in DOCUMENTS}
    return [
        name for name, make in DOCUMENTS.items() if not targets[name].exists() or targets[name].read_text() != make()
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="vws.docs", description="Write the documents that are made from the code.")
    parser.add_argument("--check", action="store_true", help="only say which are stale")
    parser.add_argument("--dir", type=Path, default=DIRECTORY)
    options = parser.parse_args(arguments)
    old = stale(options.dir)
    if options.check:
        for name in old:
            print(f"{target(options.dir, name)} is stale: make docs", file=sys.stderr)
        return 1 if old else 0
    for name in old:
        target(options.dir, name).write_text(DOCUMENTS[name]())
        print(f"wrote {target(options.dir, name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
