"""What a policy lets run, and what its file may say."""

import hashlib
import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.attesting import DAY, FULL, NOW, attestation, image, trusted
from vws.core import trust
from vws.core.bill import Flaw, flaws_of, read_bill
from vws.core.errors import InvalidRequest
from vws.core.image_policy import Asked, Facts, ImageRefused, Policy, judge, must_be_allowed
from vws.core.image_policy_file import PolicyFile, read_policy
from vws.core.manifest import digest
from vws.core.trust import judged

BILL = json.dumps(
    {
        "bomFormat": "CycloneDX",
        "components": [
            {
                "name": "libssl3",
                "version": "3.0.9-1",
                "purl": "pkg:deb/debian/libssl3@3.0.9-1?upstream=openssl@3.0.9-1",
            },
            {"name": "bash", "version": "5.2.15-2", "purl": "pkg:deb/debian/bash@5.2.15-2?arch=amd64"},
            {"name": "nothing known of it"},
        ],
    }
).encode()
SHA = hashlib.sha256(BILL).hexdigest()
CARL = Asked("carl", "cms")
STRICT = """
[[rule]]
for = ["vo:cms"]
signers = ["desy"]
assert = {maker = "DESY", remote-root-login = "off", listening = ["22/tcp", "80/tcp"]}
updates-within = "30d"
age-within = "180d"
"""


def policy(text, flaws=None):
    return Policy(read_policy(text).rules, flaws or {})


def facts(*attestations, signers=("desy", "cern"), bill=None, **more):
    of = digest(image())
    attested = tuple(judged(each, of, trusted(*signers), NOW) for each in attestations)
    bills = (bill,) if bill else ()
    return Facts("debian", of, NOW - 3 * DAY, attested=attested, bills=bills, **more)


def refused(text, *attestations, asked=CARL, flaws=None, **more):
    decision = judge(policy(text, flaws), asked, facts(*attestations, **more), NOW)
    assert not decision.allowed, decision
    return decision


def allowed(text, *attestations, asked=CARL, flaws=None, **more):
    decision = judge(policy(text, flaws), asked, facts(*attestations, **more), NOW)
    assert decision.allowed, decision
    return decision


def test_without_a_policy_everything_runs_and_that_is_said():
    decision = judge(None, CARL, facts(), NOW)
    assert decision.allowed
    assert "no policy" in decision.reason


def test_a_rule_that_is_met_says_by_whom():
    decision = allowed(STRICT, attestation())
    assert decision.reason == "desy vouches for it"
    assert decision.rule == "image-policy.toml:2, rule 1"
    assert set(decision.keys) == {"desy"}
    assert decision.envelopes == (attestation().decode(),)
    assert [need.met for need in decision.needs] == [True] * 6


def test_the_first_rule_for_somebody_decides():
    text = """
[[rule]]
for = "user:carl"
signers = "cern"
[[rule]]
for = "vo:cms"
[[rule]]
for = "all"
network = "isolated"
"""
    assert "rule 1" in refused(text).rule
    assert "rule 2" in allowed(text, asked=Asked("dora", "cms")).rule
    other = allowed(text, asked=Asked("ed"))
    assert other.isolated
    assert other.reason.endswith("without a network to others")


def test_nobody_may_run_anything_that_no_rule_is_for():
    assert refused(STRICT, asked=Asked("ed")).reason == "no rule of the site's image policy is for ed, who is in no VO"
    assert "carl of the VO atlas" in refused(STRICT, asked=Asked("carl", "atlas")).reason


def lacking(**changes):
    return attestation(assertions={k: v for k, v in (FULL | changes).items() if v is not None})


@pytest.mark.parametrize(
    ("content", "reason", "possible"),
    [
        (None, "it is not signed", "signed by desy"),
        (lacking(maker="ACME"), "its maker is ACME", "maker is DESY"),
        (lacking(maker=None), "says nothing of maker", "maker is DESY"),
        (lacking(listening=["22/tcp", "23/tcp"]), "its listening is 23/tcp", "listening is 22/tcp or 80/tcp"),
        (lacking(**{"updates-until": "2026-12-01"}), "updates are as of 2026-12-01, 45d8h ago", "within 30d"),
        (lacking(**{"updates-until": None}), "does not say until when", "updates-until"),
        (
            attestation(assertions=FULL | {"updates-until": "2026-07-01"}, at=NOW - 181 * DAY),
            "it was signed 181d ago",
            "no older than 180d",
        ),
        (attestation(by="cern"), "signed by cern, whom this rule does not trust", "signed by desy"),
        (attestation(by="mallory"), "is not on record here", "signed by desy"),
        (attestation(image("b")), "is about another image", "signed by desy"),
        (attestation(expires=NOW), "expired at", "signed by desy"),
    ],
)
def test_each_thing_that_is_missing_is_said_with_what_would_be_accepted(content, reason, possible):
    decision = refused(STRICT, *([content] if content else []))
    assert reason in decision.reason
    assert possible in decision.possible
    with pytest.raises(ImageRefused, match="may not be run here") as caught:
        must_be_allowed(decision, "groups[0].image")
    assert caught.value.details["rule"] == "image-policy.toml:2, rule 1"


def test_nobody_is_sent_to_a_signer_who_was_revoked():
    both = STRICT.replace('"desy"', '"desy", "cern"')
    assert refused(both, gone=frozenset({"desy"})).possible == "an image signed by cern"
    decision = refused(STRICT, gone=frozenset({"desy"}))
    assert "a new key of theirs" in decision.possible
    assert "all of these were revoked" in decision.possible


def test_nobody_vouches_for_updates_that_are_still_to_come(monkeypatch):
    for until in ("2027-01-14", "2027-01-15"):  # signed on the 14th, which may be the 15th where the maker is
        assert allowed(STRICT, lacking(**{"updates-until": until}))
    with pytest.raises(InvalidRequest, match="updates until 2099-12-31 were still to come when it was signed"):
        lacking(**{"updates-until": "2099-12-31"})
    monkeypatch.setattr(trust, "UPDATES_AHEAD_S_MAX", 1 << 40)  # as another program than ours signs
    forged = lacking(**{"updates-until": "2099-12-31"})
    monkeypatch.undo()
    assert "cannot be true: updates until 2099-12-31 were still to come" in refused(STRICT, forged).reason


def test_one_good_attestation_is_enough():
    assert allowed(STRICT, attestation(image("b")), lacking(maker="ACME"), attestation()).keys


def test_a_signer_of_another_vo_does_not_count_for_this_one():
    text = STRICT + '[[rule]]\nfor = "vo:atlas"\nsigners = "cern"\n'
    content = attestation(by="cern")
    assert allowed(text, content, asked=Asked("ann", "atlas")).keys
    assert "whom this rule does not trust" in refused(text, content).reason


def test_unsigned_images_may_run_isolated():
    text = '[[rule]]\nfor = "all"\nsigners = "desy"\nunsigned = "isolated"\nage-within = "2d"\n'
    assert not allowed(text, attestation()).isolated
    young = text.replace("2d", "4d")
    assert allowed(young, lacking(maker="x"), signers=()).isolated
    assert "it came 3d ago" in refused(text).reason


def test_a_revoked_image_is_refused_even_without_a_policy():
    assert "was revoked: a bad kernel" in judge(None, CARL, facts(revoked="a bad kernel"), NOW).reason


# ---------------------------------------------------------------- packages

PACKED = '[[rule]]\nfor = "all"\nsigners = "desy"\nforbidden = ["openssl < 3.0.11-1~deb12u2", "telnetd"]\n'
BY_BILL = attestation(assertions={"packages": f"sha256:{SHA}"})


def test_forbidden_packages_are_found_by_their_source_too():
    decision = refused(PACKED, BY_BILL, bill=read_bill(BILL, SHA))
    assert decision.reason == "it has libssl3 3.0.9-1, and openssl < 3.0.11-1~deb12u2 is forbidden"
    assert allowed(PACKED.replace("3.0.11", "3.0.8"), BY_BILL, bill=read_bill(BILL, SHA))


def test_a_bill_counts_only_if_the_signer_vouches_for_it():
    bill = read_bill(BILL, SHA)
    assert "does not vouch for its bill" in refused(PACKED, attestation(), bill=bill).reason
    other = attestation(assertions={"packages": "sha256:" + "0" * 64})
    assert "not the one that its attestation vouches for" in refused(PACKED, other, bill=bill).reason
    assert "no bill of materials" in refused(PACKED, BY_BILL).reason
    assert "cannot be read" in refused(PACKED, BY_BILL, bill_problem="its bill cannot be read").reason
    unsigned = '[[rule]]\nfor = "all"\nforbidden = "bash"\n'
    assert "bash is forbidden" in refused(unsigned, bill=bill).reason


ENTRY = {
    "CVE-1": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "3.0.11-1", "urgency": "high"}}},
    "CVE-2": {"releases": {"bookworm": {"status": "open", "urgency": "medium**"}}},
    "CVE-3": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "0", "urgency": "high"}}},
    "CVE-4": {"releases": {"sid": {"status": "open", "urgency": "high"}}},
    "CVE-5": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "3.0.8", "urgency": "high"}}},
    "CVE-6": "nonsense",
}


def test_the_tracker_says_what_is_known_against_a_package():
    flaws = flaws_of(ENTRY, "bookworm")
    assert flaws == (Flaw("CVE-1", "high", "3.0.11-1"), Flaw("CVE-2", "medium"), Flaw("CVE-5", "high", "3.0.8"))
    text = '[[rule]]\nfor = "all"\nvulnerabilities = ["high"]\n[tracker]\nfile = "t.json"\nrelease = "bookworm"\n'
    decision = refused(text, bill=read_bill(BILL, SHA), flaws={"openssl": flaws})
    assert decision.reason == "it has CVE-1 in libssl3 3.0.9-1 (fixed in 3.0.11-1)"
    assert (
        "CVE-2" in refused(text.replace("high", "medium"), bill=read_bill(BILL, SHA), flaws={"openssl": flaws}).reason
    )
    assert allowed(text.replace("high", "low"), bill=read_bill(BILL, SHA), flaws={"openssl": flaws})


BILL_KEYS = ["bomFormat", "components", "name", "version", "purl"]


def nested(keys):
    """JSON in which these keys are frequent."""
    named = st.sampled_from(keys) | st.text(max_size=3)
    return st.recursive(
        st.none() | st.text(max_size=9) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(named, inner, max_size=4),
        max_leaves=9,
    )


@given(st.binary(max_size=200) | nested(BILL_KEYS).map(lambda said: json.dumps(said).encode()))
@example(
    b'{"bomFormat": "CycloneDX", "components": [{"name": "a", "version": "?", "purl": "pkg:deb/a?upstream=%zz@"}]}'
)
def test_anything_is_a_bill_or_refused(content):
    with suppress(InvalidRequest):
        assert all(package.name is not None for package in read_bill(content, SHA).packages)


@given(nested(["releases", "bookworm", "status", "CVE-1"]))
def test_anything_in_a_tracker_is_read_or_left_out(entry):
    assert isinstance(flaws_of(entry, "bookworm"), tuple)


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("text", "problem", "possible"),
    [
        ("", "there is no rule", "[[rule]]"),
        ("[[rule]", "image-policy.toml is not TOML: ", "TOML"),
        ('[[rule]]\nfor = "all"\n\nsigner = "desy"\n', "toml:4, rule 1: 'signer' is no key; did you mean sig", "for"),
        ('[[rule]]\n# none\n[[rule]]\nfor = "all"\n', "toml:1, rule 1: it is not said for whom it is", '"vo:cms"'),
        ('[[rule]]\nfor = ["cms"]\n', "toml:2, rule 1: 'cms' is nobody", '"user:ann"'),
        ('[[rule]]\nfor = ["vo:atlas"]\n', "there is no VO atlas", "a VO of site.toml: cms"),
        ('[[rule]]\nfor = "all"\nnetwork = "none"\n', "toml:3, rule 1: 'none' is none of any, isolated", None),
        ('[[rule]]\nfor = "all"\nage-within = 30\n', "toml:3, rule 1: '30' has no unit; write \"30d\" for days", None),
        ('[[rule]]\nfor = "all"\nage-within = "30"\n', "'30' has no unit; write \"30d\" for days, \"12h\"", None),
        ('[[rule]]\nfor = "all"\nassert = {maker = "x"}\n', "means nothing without signers", "signers = "),
        ('[[rule]]\nfor = "all"\nforbidden = ["a ! b"]\n', "'a ! b' names no package", "openssl <"),
        ('[[rule]]\nfor = "all"\nforbidden = ["a < %"]\n', "'%' is no version", "openssl <"),
        ('[[rule]]\nfor = "all"\nvulnerabilities = ["dire"]\n', "'dire' is none of high, medium", None),
        ('[[rule]]\nfor = "all"\nvulnerabilities = ["high"]\n', "rule 1: vulnerabilities are not known", "[tracker]"),
        ('[[rule]]\nfor = "all"\n[[rule]]\nfor = "vo:cms"\n', "toml:4, rule 2: it is never reached", "rules for few"),
        ('[[rule]]\nfor = "all"\n[tracker]\nfile = "x"\n', "toml:3, [tracker]: release is not said", "bookworm"),
        ('[[rule]]\nfor = "all"\n[trackers]\n', "'trackers' is no key; did you mean tracker?", None),
        ('rule = [3]\n', "toml:1, rule 1: a rule is no table", None),
    ],
)  # fmt: skip
def test_an_error_in_the_file_names_line_and_key_and_what_is_allowed(text, problem, possible):
    with pytest.raises(InvalidRequest) as caught:
        read_policy(text, vos=["cms"])
    assert problem in caught.value.problem
    assert possible is None or possible in caught.value.possible


KEYS = ["rule", "tracker", "for", "signers", "assert", "age-within", "forbidden", "network", "file", "release"]
LINES = st.sampled_from(["[[rule]]", "[tracker]", 'for = "all"', 'for = ["vo:cms"]', "signers = ['x']", "", "#"])
WILD = st.builds(
    "{} = {}".format,
    st.sampled_from(KEYS),
    st.sampled_from(['"a"', "[]", "{}", "3", "true", '["x", 3]', '"30d"', "1e9"]),
)


@given(st.lists(LINES | WILD | st.text(max_size=12), max_size=12).map("\n".join))
def test_any_text_is_a_policy_or_refused(text):
    with suppress(InvalidRequest):
        found = read_policy(text, vos=["cms"])
        assert isinstance(found, PolicyFile)
        judge(Policy(found.rules), CARL, facts(attestation()), NOW)
