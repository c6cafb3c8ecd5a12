"""A grid of workloads and policies, as an administrator writes it.

The file is TOML:

    [site]                          # what all workloads run on, if they do not say otherwise
    nodes = 144
    cpus = 1
    memory = "1024MiB"
    suspend_rate = 50               # MiB/s; also: resume_rate, transfer_rate, vm_memory

    [workloads.january]
    swf = "january.swf"             # beside the grid's own file, or an absolute path
    lwf = "reservations.lwf"
    nodes = 72                      # any key of [site]

    [policies.fifo]
    backfill = "off"

    [policies.suspending]
    backfill = ["easy", "conservative", 4]      # a list makes a policy of each
    suspend = "all"
    migrate = true
    patience_h = [24, 48]           # any key of a site's [planning]; order and preemption, of its [policy]

    [policies.ours]
    config = "site.toml"            # the keys that are not here, as this site has them

The keys are the options of `vws simulate`, with the same defaults. What is not
known is an error, for a policy whose name was mistyped would be compared as if
it had been the default.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from vws.cli.sizes import parse_size
from vws.core.errors import InvalidRequest
from vws.planning import BOOKINGS_MAX
from vws.sim.configured import configured
from vws.sim.workload import SimulatedPolicy, SimulatedSite, Workload, check_simulated, read_workload

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

Size = Annotated[int, BeforeValidator(lambda text: parse_size(text) if isinstance(text, str) else text), Field(gt=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


Bookings = Annotated[int, Field(ge=0, le=BOOKINGS_MAX)]
OneOrMore = Annotated[list[T], BeforeValidator(_listed), Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _WorkloadTable(_Table):
    nodes: PositiveInt
    cpus: PositiveInt = 1
    memory: Size = 1024
    vm_memory: Size | None = None
    suspend_rate: Rate = 50
    resume_rate: Rate | None = None
    transfer_rate: Rate = 12.5
    swf: str | None = None
    lwf: str | None = None

    def site(self) -> SimulatedSite:
        rates = (self.suspend_rate, self.resume_rate or self.suspend_rate, self.transfer_rate)
        return SimulatedSite(self.nodes, self.cpus, self.memory, *rates)


class _PolicyTable(_Table):
    """What is not given is left to `config`, or to SimulatedPolicy."""

    config: OneOrMore[str] = []
    backfill: OneOrMore[Literal["off", "easy", "conservative"] | Bookings] = []
    suspend: OneOrMore[Literal["none", "serial", "all"]] = []
    migrate: OneOrMore[bool] = []
    rules: OneOrMore[Literal["vws", "haizea"]] = []
    restartable: OneOrMore[bool] = []
    smallest_first: OneOrMore[bool] = []
    patience_h: OneOrMore[float] = []
    useful: OneOrMore[float] = []
    setbacks_max: OneOrMore[int] = []
    spared_after_h: OneOrMore[float] = []
    order: OneOrMore[str] = []
    preemption: OneOrMore[str] = []


class _Grid(_Table):
    site: dict[str, Any] = {}
    workloads: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    policies: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Cell:
    """One replay: a workload on a site under a policy, with the names that the grid gives them."""

    workload: str
    policy: str
    jobs: Workload
    site: SimulatedSite
    rules: SimulatedPolicy


def read_grid(path: Path) -> list[Cell]:
    """The cells of a grid's file, workload by workload.

    Raises InvalidRequest naming the key or the trace that is wrong, OSError for a file that cannot be read.
    """
    try:
        grid = _checked(_Grid, tomllib.loads(path.read_text(encoding="utf-8")), path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not TOML: {error}", field="--sweep", asked=str(path)) from error
    policies = [
        named
        for name, given in grid.policies.items()
        for named in _policies(name, _checked(_PolicyTable, given, path, "policies", name), path)
    ]
    return [
        Cell(name, policy, jobs, site, rules)
        for name, given in grid.workloads.items()
        for jobs, site in [_workload(name, grid.site | given, path)]
        for policy, rules in policies
    ]


def _workload(name: str, given: dict[str, Any], path: Path) -> tuple[Workload, SimulatedSite]:
    table = _checked(_WorkloadTable, given, path, "workloads", name)
    traces = {kind: path.parent / file for kind in ("swf", "lwf") if (file := getattr(table, kind))}
    if not traces:
        where = f"workloads.{name}"
        problem = f"{path}: {where} names no trace"
        raise InvalidRequest(problem, field=where, possible='swf = "FILE", lwf = "FILE" or both')
    return read_workload(table.site(), **traces, vm_memory_mib=table.vm_memory), table.site()


def _policies(name: str, table: _PolicyTable, path: Path) -> Iterator[tuple[str, SimulatedPolicy]]:
    """A policy for each combination of the values of its lists, named by those that it chose."""
    choices = {key: values for key, values in table if values}
    varied = [key for key, values in choices.items() if len(values) > 1]
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        called = " ".join([name, *(f"{key}={_toml(chosen[key])}" for key in varied)])
        config = chosen.pop("config", None)
        yield called, _policy(f"policies.{name}", (configured(path.parent / config) if config else {}) | chosen, path)


def _policy(where: str, fields: dict[str, Any], path: Path) -> SimulatedPolicy:
    policy = SimulatedPolicy(**fields)
    try:
        check_simulated(policy)
    except InvalidRequest as wrong:
        field = f"{where}.{(wrong.field or '').rpartition('.')[2]}"
        raise InvalidRequest(
            f"{path}: {field}: {wrong.problem}", field=field, asked=wrong.asked, possible=wrong.possible
        ) from wrong
    return policy


def _toml(value: Any) -> str:
    return str(value).lower()


def _checked(model: type[M], data: Any, path: Path, *where: str) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        key, kind = str(errors[0]["loc"][0]), errors[0]["type"]
        field = ".".join([*where, key])
        asked, possible = None if kind == "missing" else errors[0]["input"], None
        if kind == "extra_forbidden":
            said, possible = "there is no such key", ", ".join(model.model_fields)
        else:  # of a value that may be of several kinds, what each of them says
            said = ", or: ".join(dict.fromkeys(e["msg"] for e in errors if e["loc"][0] == key))
        raise InvalidRequest(f"{path}: {field}: {said}", field=field, asked=asked, possible=possible) from error
