"""How long preparation takes: what is configured, and what the site's own history says instead.

A hard lease runs at its start because staging, boot, suspension, resumption, migration and shutdown are planned before
it, so their durations are promises. What is expected is shown beside them. Both come from the same observations
(core/stopwatch.py reads them off the events):

- What moves bytes is known as seconds per MiB, the rest as seconds; each by hypervisor, as guests emulated by TCG take
  ten times as long as under KVM, and boots by image too.
- The *expected* cost is the median; the *promised* one is the 95th percentile times a margin, without the single
  largest observation. Of 1,388 suspensions 19 took 3 to 24 times as long as usual (HPCC 2009): planning all by those
  would keep machines empty for nothing.
- What is old counts less: half as much every `HALF_LIFE` observations, not hours, since a site that rests learns
  nothing new. Only the last `KEPT` are kept.
- The configuration counts as the first `PRIORS` observations. So a new site plans by it, and it fades.

How observations add up to the time of a step is HPCC 2009's: each of a lease's N members takes `enact` to be ordered,
then nodes work side by side, the members on a node one after another (of saved memory core/plan/rules.py has it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum, auto

from vws.core.errors import InvalidRequest

PRIORS = 3
KEPT = 128
HALF_LIFE = 32
IMAGES_KEPT = 256
# An image's own boots are believed from so many on.
IMAGE_COUNT_MIN = 3
# Below, what is measured is not the transfer.
MIB_MIN = 8
MIB_BYTES = 1 << 20
# Beyond, it was not the step that took so long. A guest that does not answer is given up sooner.
LONGEST_S = 86_400.0


class Step(StrEnum):
    """ENACT: from a decision to the first thing done about it on the node, for each member. STAGE: the image to the
    node; CREATE: the rest that is made before a boot. TRANSFER: saved memory from one node to another."""

    ENACT = auto()
    STAGE = auto()
    CREATE = auto()
    BOOT = auto()
    SUSPEND = auto()
    RESUME = auto()
    TRANSFER = auto()
    SHUTDOWN = auto()


# Of these the cost is seconds per MiB.
BY_MIB = frozenset({Step.STAGE, Step.SUSPEND, Step.RESUME, Step.TRANSFER})
_WEIGHTS = tuple(0.5 ** (age / HALF_LIFE) for age in range(KEPT))


@dataclass(frozen=True, slots=True)
class Configured:
    """[rates] in site.toml: what holds until the site knows better. learn: whether it shall. margin: by how much
    promises exceed the 95th percentile of what was observed. Rates in MiB/s, the others in seconds."""

    stage_mib_per_s: float = 50.0
    suspend_mib_per_s: float = 50.0
    resume_mib_per_s: float = 50.0
    transfer_mib_per_s: float = 12.5
    boot_s: float = 20.0
    create_s: float = 1.0
    shutdown_s: float = 3.0
    enact_s: float = 0.5
    margin: float = 1.2
    learn: bool = True

    def cost(self, step: Step) -> float:
        """Seconds, or seconds per MiB."""
        if step in BY_MIB:
            return 1.0 / float(getattr(self, f"{step}_mib_per_s"))
        return float(getattr(self, f"{step}_s"))


def check_configured(configured: Configured) -> Configured:
    """`configured`, or InvalidRequest naming what nothing could be planned with."""
    for setting in fields(Configured):
        value = getattr(configured, setting.name)
        low = 1.0 if setting.name == "margin" else 0.001 if setting.name.endswith("_per_s") else 0.0
        if not low <= value <= 1e6:
            name = f"rates.{setting.name}"
            raise InvalidRequest(f"{name} is {value}", field=name, asked=value, possible=f"{low:g} to 1000000")
    return configured


@dataclass(frozen=True, slots=True)
class Observation:
    """A step took `seconds`, for `mib` MiB if it is one that moves them. hypervisor: of the node."""

    step: Step
    seconds: float
    mib: int = 0
    hypervisor: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """costs: the latest, the oldest first. count: how many there ever were. promised: without the margin."""

    costs: tuple[float, ...]
    count: int
    expected: float
    promised: float


@dataclass(frozen=True, slots=True)
class Key:
    step: Step
    hypervisor: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Rates:
    """All that is known. learned: by hypervisor, boots by image too; what was heard of last comes last."""

    configured: Configured = field(default_factory=Configured)
    learned: Mapping[Key, Estimate] = field(default_factory=dict)

    def cost(self, step: Step, hypervisor: str = "", image: str = "", *, sure: bool = True) -> float:
        """Seconds, or seconds per MiB. sure: as may be promised, else as is to be expected.

        hypervisor "": wherever it may come to be, hence the slowest that is known.
        """
        kinds = [hypervisor] if hypervisor else sorted({key.hypervisor for key in self.learned if key.step is step})
        return max((self._cost(step, kind, image, sure) for kind in kinds), default=self._configured(step, sure))

    def _cost(self, step: Step, hypervisor: str, image: str, sure: bool) -> float:
        found = self.learned.get(Key(step, hypervisor, image)) if image else None
        if found is None or found.count < IMAGE_COUNT_MIN:
            found = self.learned.get(Key(step, hypervisor))
        if found is None:
            return self._configured(step, sure)
        return found.promised * self.configured.margin if sure else found.expected

    def _configured(self, step: Step, sure: bool) -> float:
        return self.configured.cost(step) * (self.configured.margin if sure else 1.0)


# ---------------------------------------------------------------- learning


def learn(rates: Rates, seen: Observation) -> Rates:
    """`rates` with one observation more; as they were if it tells nothing."""
    cost = _cost_of(rates, seen)
    if cost is None:
        return rates
    learned = dict(rates.learned)
    for key in _keys(seen):
        # Taken out first, so that what was heard of last comes last.
        learned[key] = _with(learned.pop(key, None), cost, rates.configured.cost(seen.step))
    images = [key for key in learned if key.image]
    for key in images[: len(images) - IMAGES_KEPT] if len(images) > IMAGES_KEPT else ():
        del learned[key]
    return Rates(rates.configured, learned)


def _keys(seen: Observation) -> Iterable[Key]:
    yield Key(seen.step, seen.hypervisor)
    if seen.step is Step.BOOT and seen.image:
        yield Key(seen.step, seen.hypervisor, seen.image)


def _cost_of(rates: Rates, seen: Observation) -> float | None:
    if not rates.configured.learn or not 0.0 <= seen.seconds <= LONGEST_S:
        return None
    if seen.step not in BY_MIB:
        return seen.seconds
    if seen.mib < MIB_MIN:
        return None
    # The order's way is counted apart; but no more than half of what was measured can have been that.
    enact_s = min(rates.cost(Step.ENACT, seen.hypervisor, sure=False), seen.seconds / 2)
    return (seen.seconds - enact_s) / seen.mib


def _with(before: Estimate | None, cost: float, prior: float) -> Estimate:
    costs = ((*before.costs, cost) if before else (*[prior] * PRIORS, cost))[-KEPT:]
    # The newest is the last and weighs 1.
    weighted = sorted(zip(costs, reversed(_WEIGHTS[: len(costs)]), strict=True))
    return Estimate(
        costs,
        (before.count if before else 0) + 1,
        expected=_quantile(weighted, 0.5),
        promised=_quantile(weighted[:-1], 0.95),
    )


def _quantile(weighted: Sequence[tuple[float, float]], part: float) -> float:
    """The least value such that it and the lesser ones have that part of the weight."""
    wanted = part * sum(weight for _, weight in weighted)
    heard = 0.0
    for value, weight in weighted:
        heard += weight
        if heard >= wanted:
            return value
    return weighted[-1][0]


# ---------------------------------------------------------------- how long it takes


def boot_s(rates: Rates, members: int = 1, *, image: str = "") -> float:
    """Seconds from the order to guests that answer, at most, on nodes that hold the image."""
    return members * rates.cost(Step.ENACT) + rates.cost(Step.CREATE) + rates.cost(Step.BOOT, image=image)


def stage_s(rates: Rates, mib: float, *, limit_mbit: float = 0.0) -> float:
    """Seconds until so much of images is on a node, at most. limit_mbit: the node fetches no faster; 0: no limit."""
    slowest = 8 * MIB_BYTES / (limit_mbit * 1e6) if limit_mbit else 0.0
    return mib * max(rates.cost(Step.STAGE), slowest)
