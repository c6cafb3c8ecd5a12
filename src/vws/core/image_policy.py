"""A site's policy for images: who may run what, as plain functions of what is known.

The first rule that names who asks decides; nobody falls through to a milder one. A rule says what must be so (`Need`s),
and each is answered with what was found, so that a refusal and a dry run tell the same: which rule, what is missing,
what would be accepted.

Assertions count only if a signer whom the rule names makes them, all in one attestation. What can be known without a
signer (packages, by the bill of materials; age, by when the image came) is demanded of unsigned images too.

A site without a policy lets everybody run everything, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vws.core.bill import Bill, Flaws, Forbidden, flaws_in
from vws.core.errors import Forbidden as NotYours
from vws.core.errors import InvalidRequest
from vws.core.image_names import with_digest
from vws.core.spans import show_duration
from vws.core.trust import PACKAGES, UPDATES_UNTIL, Attested, Statement, Value, read_time, updates_to_come

ANY, ISOLATED, REFUSED = "any", "isolated", "refused"
SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Rule:
    """parties: `all`, `vo:NAME`, `user:NAME`. signers: of whom one must have signed; (): it need not be signed.

    network: what is allowed to what the rule lets through; unsigned: to what none of the signers vouches for (REFUSED:
    it is not let through). asserted: values of which one (of a list: no others than these) must be asserted.
    updates_within_s, age_within_s: seconds. severities: of vulnerabilities that the tracker must not know.
    where: the rule in its file, for people.
    """

    where: str
    parties: tuple[str, ...]
    signers: tuple[str, ...] = ()
    network: str = ANY
    unsigned: str = REFUSED
    asserted: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    updates_within_s: int | None = None
    age_within_s: int | None = None
    forbidden: tuple[Forbidden, ...] = ()
    severities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """flaws: what the tracker's file knows of the release that it was read for."""

    rules: tuple[Rule, ...]
    flaws: Flaws = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who wants to run an image; vo: "" for none."""

    user: str
    vo: str = ""

    @property
    def parties(self) -> frozenset[str]:
        return frozenset({"all", f"user:{self.user}"} | ({f"vo:{self.vo}"} if self.vo else set()))


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an image. came_at: UTC seconds. revoked: why nobody may run it any more; "": somebody may.
    attested: in the order in which they came; bills: likewise. bill_problem: why there are not more of them. gone:
    signers of whom every key was revoked."""

    name: str
    digest: str
    came_at: float
    revoked: str = ""
    attested: tuple[Attested, ...] = ()
    bills: tuple[Bill, ...] = ()
    bill_problem: str = ""
    gone: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a rule demands. found: what is so; possible: what would be accepted."""

    what: str
    met: bool
    found: str
    possible: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says of one image for one user. image: what people call it. keys: by each signer's name, the
    public key (PEM) that counts; {}: nobody vouches for it. envelopes: theirs, JSON. isolated: it may have no network
    but its node's gateway."""

    image: str
    digest: str
    allowed: bool
    rule: str
    reason: str
    possible: str = ""
    isolated: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    envelopes: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    @property
    def named(self) -> str:
        """The image, as people call it, and which it is."""
        return with_digest(self.image, self.digest)

    @property
    def told(self) -> dict[str, Any]:
        """For an event."""
        vouching = {"signers": sorted(self.keys)} if self.keys else {}
        network = {"network": ISOLATED} if self.isolated else {}
        return {"reason": self.reason, "digest": self.digest, "rule": self.rule, **vouching, **network}


class ImageRefused(NotYours):
    """`details`: image (what people call it), digest, rule."""

    code = "image-refused"


# What decides about (image id, user) at a time, in UTC seconds.
Judge = Callable[[Any, str, float], Decision]


def everything_allowed(image: Any, user: str, now: float) -> Decision:
    """The judge of a site without a policy."""
    return Decision(image.name, "", True, "", NO_POLICY)


NO_POLICY = "the site has no policy for images: everything may run, signed or not"


def must_be_allowed(decision: Decision, field: str) -> None:
    """Raise ImageRefused, saying which rule, why, and what would be accepted."""
    if not decision.allowed:
        by = f" ({decision.rule})" if decision.rule else ""
        raise ImageRefused(
            f"the image {decision.named} may not be run here: {decision.reason}{by}",
            field=field,
            asked=decision.image,
            possible=decision.possible or "another image: vws image list",
            details={"image": decision.image, "digest": decision.digest, "rule": decision.rule},
        )


# ---------------------------------------------------------------- judging


def judge(policy: Policy | None, asked: Asked, facts: Facts, now: float) -> Decision:
    """What the policy says. Never raises."""
    if facts.revoked:
        why = f"it was revoked: {facts.revoked}"
        return Decision(facts.name, facts.digest, False, "", why, "another image: vws image list")
    if policy is None:
        return Decision(facts.name, facts.digest, True, "", NO_POLICY)
    rule = next((rule for rule in policy.rules if asked.parties.intersection(rule.parties)), None)
    if rule is None:
        who = f"{asked.user} of the VO {asked.vo}" if asked.vo else f"{asked.user}, who is in no VO"
        why = f"no rule of the site's image policy is for {who}"
        return Decision(facts.name, facts.digest, False, "", why, "a rule for them; the site's administrator writes it")
    return _by_rule(policy, rule, facts, now)


def _by_rule(policy: Policy, rule: Rule, facts: Facts, now: float) -> Decision:
    if not rule.signers:
        return _unsigned(policy, rule, facts, now, rule.network, "its rule asks for no signature")
    tried = [_vouched(policy, rule, facts, each, now) for each in facts.attested if _counts(rule, each)]
    best = next((each for each in tried if each.allowed), None)
    if best is not None:
        return best
    if rule.unsigned != REFUSED:
        return _unsigned(policy, rule, facts, now, rule.unsigned, "its rule lets such images run")
    # What came last says most about what is to be mended.
    return tried[-1] if tried else _unvouched(rule, facts)


def _counts(rule: Rule, attested: Attested) -> bool:
    return not attested.problem and bool(attested.keys.keys() & set(rule.signers))


def _unvouched(rule: Rule, facts: Facts) -> Decision:
    return _decided(rule, facts, [_signature_need(rule, facts)])


def _signature_need(rule: Rule, facts: Facts) -> Need:
    """That one of the rule's signers vouches for it, which none does."""
    wanted = f"signed by {_either(rule.signers)}"
    problems = list(dict.fromkeys(each.problem for each in facts.attested if each.problem))
    others = sorted({name for each in facts.attested if not each.problem for name in each.keys})
    if others:
        problems.append(f"it is signed by {', '.join(others)}, whom this rule does not trust")
    left = [name for name in rule.signers if name not in facts.gone]
    possible = f"an image signed by {_either(left)}"
    if not left:
        possible = "a new key of theirs, or other signers, from the site's administrator: all of these were revoked"
    return Need(wanted, False, "; ".join(problems[-SHOWN_MAX:]) or "it is not signed", possible)


def _vouched(policy: Policy, rule: Rule, facts: Facts, attested: Attested, now: float) -> Decision:
    said = attested.statement
    assert said is not None, "what counts was read"
    keys = {name: pem for name, pem in attested.keys.items() if name in rule.signers}
    vouching = ", ".join(sorted(keys))
    needs = [Need(f"signed by {_either(rule.signers)}", True, f"{vouching} vouches for it")]
    needs += [_asserted(name, wanted, said.assertions) for name, wanted in rule.asserted.items()]
    if rule.updates_within_s is not None:
        needs.append(_updated(rule.updates_within_s, said, now))
    if rule.age_within_s is not None:
        needs.append(_young(rule.age_within_s, said.signed_at, "it was signed", now))
    named = said.assertions.get(PACKAGES)
    needs += _harmless(policy, rule, facts, None if named is None else str(named))
    isolated = rule.network == ISOLATED
    return _decided(rule, facts, needs, keys, (attested.content.decode("utf-8", "replace"),), isolated, vouching)


def _unsigned(policy: Policy, rule: Rule, facts: Facts, now: float, network: str, why: str) -> Decision:
    needs = []
    if rule.age_within_s is not None:
        needs.append(_young(rule.age_within_s, int(facts.came_at), "it came", now))
    needs += _harmless(policy, rule, facts, "")
    return _decided(rule, facts, needs, isolated=network == ISOLATED, why=why)


def _decided(
    rule: Rule,
    facts: Facts,
    needs: list[Need],
    keys: Mapping[str, str] | None = None,
    envelopes: tuple[str, ...] = (),
    isolated: bool = False,
    vouching: str = "",
    why: str = "",
) -> Decision:
    missing = [need for need in needs if not need.met]
    network = "; without a network to others" if isolated else ""
    granted = (f"{vouching} vouches for it" if vouching else f"nobody vouches for it, and {why}") + network
    return Decision(
        image=facts.name,
        digest=facts.digest,
        allowed=not missing,
        rule=rule.where,
        reason="; ".join(need.found for need in missing) or granted,
        possible="; ".join(dict.fromkeys(need.possible for need in missing if need.possible)),
        isolated=isolated,
        keys=dict(keys or {}),
        envelopes=envelopes,
        needs=tuple(needs),
    )


# ---------------------------------------------------------------- what a rule demands


def _asserted(name: str, wanted: tuple[Value, ...], said: Mapping[str, Value]) -> Need:
    what = f"{name} is {_either(wanted)}"
    found = said.get(name)
    if found is None:
        return Need(what, False, f"its attestation says nothing of {name}", f"an attestation by which {what}")
    values = found if isinstance(found, tuple) else (found,)
    others = [value for value in values if not any(_same(value, each) for each in wanted)]
    if others:
        return Need(what, False, f"its {name} is {_either(others)}", f"an attestation by which {what}")
    return Need(what, True, f"its {name} is {', '.join(map(_shown, values)) or 'nothing'}")


def _same(value: Value, wanted: Value) -> bool:
    return type(value) is type(wanted) and value == wanted


def _updated(within_s: int, said: Statement, now: float) -> Need:
    what = f"updates applied within {show_duration(within_s)}"
    possible = f"an image with {what}, and an attestation that says so ({UPDATES_UNTIL})"
    until = said.assertions.get(UPDATES_UNTIL)
    if not isinstance(until, str):
        return Need(what, False, "its attestation does not say until when updates were applied", possible)
    try:
        late_s = now - read_time(until, UPDATES_UNTIL)
        to_come = updates_to_come(said.assertions, said.signed_at)
    except InvalidRequest as error:
        return Need(what, False, error.problem, possible)
    if to_come:
        return Need(what, False, f"its attestation cannot be true: {to_come}", possible)
    found = f"its updates are as of {until}"
    return Need(
        what, late_s <= within_s, found + ("" if late_s <= within_s else f", {show_duration(late_s)} ago"), possible
    )


def _young(within_s: int, since: int, happened: str, now: float) -> Need:
    what, age_s = f"no older than {show_duration(within_s)}", now - since
    return Need(what, age_s <= within_s, f"{happened} {show_duration(age_s)} ago", f"an image {what}")


def _harmless(policy: Policy, rule: Rule, facts: Facts, named: str | None) -> Iterator[Need]:
    """What is demanded of its packages. named: the bill that its signer vouches for, None for none; "" if there is no
    signer whose word would be needed."""
    if not rule.forbidden and not rule.severities:
        return
    bill, problem = _bill(facts, named)
    if bill is None:
        vouched = " that its signer vouches for" if named != "" else ""
        yield Need("a bill of materials", False, problem, f"an image with a bill of materials in CycloneDX{vouched}")
        return
    for forbidden in rule.forbidden:
        yield _without(forbidden, bill)
    if rule.severities:
        yield _sound(policy, rule.severities, bill)


def _bill(facts: Facts, named: str | None) -> tuple[Bill | None, str]:
    """The bill of materials that counts, or why none does."""
    if not facts.bills:
        return None, facts.bill_problem or "it has no bill of materials"
    if named is None:
        return None, f"its attestation does not vouch for its bill of materials ({PACKAGES})"
    found = [bill for bill in facts.bills if named in ("", bill.sha256, f"sha256:{bill.sha256}")]
    return (found[-1], "") if found else (None, "its bill of materials is not the one that its attestation vouches for")


def _without(forbidden: Forbidden, bill: Bill) -> Need:
    found = [str(package) for package in bill.packages if forbidden.meets(package)]
    what = f"without {forbidden}"
    if found:
        return Need(what, False, f"it has {_listed(found)}, and {forbidden} is forbidden", f"an image {what}")
    return Need(what, True, f"it has no {forbidden}")


def _sound(policy: Policy, severities: tuple[str, ...], bill: Bill) -> Need:
    what = f"no known vulnerability of severity {_either(severities)}"
    flaws = flaws_in(bill, policy.flaws, severities)
    if not flaws:
        return Need(what, True, f"the tracker knows none in its {len(bill.packages)} packages")
    found = [f"{flaw.id} in {package}" + (f" (fixed in {flaw.fixed})" if flaw.fixed else "") for package, flaw in flaws]
    return Need(what, False, f"it has {_listed(found)}", f"an image with {what}")


def _either(values: Iterable[Value]) -> str:
    shown = [_shown(value) for value in values]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}" if shown else "nothing"


def _shown(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return ", ".join(found[:SHOWN_MAX]) + more
