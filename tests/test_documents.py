"""The written documents say what is true: commands parse, settings are the code's, links lead somewhere.

Prose goes stale silently. What of it a machine can compare with the code is compared here, in both directions: what
the documents name must exist, and what exists for users and administrators must be named. Hosts and paths are held
against lists of what may be shown, because a list of what may not would have to name it. What is drawn from the code is
in tests/test_docs.py.
"""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from vws import __version__
from vws.cli import doctor
from vws.cli.main import cli
from vws.config import ImagesConfig, ServiceConfig, SiteConfig
from vws.core import errors
from vws.core.chosen import REGISTRY
from vws.core.image_policy_file import KEYS, read_policy
from vws.core.information import SiteInformation
from vws.core.lifecycle import COMMANDS, Command, State
from vws.core.membership import VO, Limits, User, UserGroup
from vws.core.pools import PoolConfig
from vws.core.rates import Configured
from vws.core.site import LeaseState, NodeState, Role
from vws.core.tariff import PRICES, Band, Tariff
from vws.core.wire import from_json, to_json
from vws.frontends.rest import (
    addresses,
    contexts,
    events,
    guests,
    images,
    leases,
    link,
    maintenances,
    nodes,
    plan,
    site,
    tokens,
    usage,
    workspaces,
)  # fmt: skip
from vws.node.config import FakeConfig, NodeConfig
from vws.planning import PlanningConfig
from vws.policies import PolicyConfig, check_policy
from vws.sim import grid
from vws.sim.workload import Workload

ROOT = Path(__file__).parents[1]
README, ARCHITECTURE, CHANGELOG = ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"
USER, ADMIN, GLOSSARY = (ROOT / "docs" / f"{name}.md" for name in ("user-guide", "admin-guide", "glossary"))
INDEX, SIMULATING = ROOT / "docs" / "README.md", ROOT / "docs" / "simulating.md"
POLICY, CONTEXTUALISING, CLUSTERS = (ROOT / "docs" / f"{name}.md" for name in ("policy", "contextualising", "clusters"))
APPLIANCES = ROOT / "docs" / "appliances.md"
GUIDES = (USER, ADMIN, SIMULATING, POLICY, CLUSTERS, CONTEXTUALISING, APPLIANCES)
DOCUMENTS = (
    README,
    ARCHITECTURE,
    CHANGELOG,
    INDEX,
    USER,
    ADMIN,
    GLOSSARY,
    SIMULATING,
    POLICY,
    CONTEXTUALISING,
    CLUSTERS,
    APPLIANCES,
)

HOSTS = {
    "127.0.0.1", "192.0.2.10", "example.org", "keepachangelog.com", "localhost", "semver.org", "slurm.schedmd.com",
    "vws.example.org", "www.rfc-editor.org",
}  # fmt: skip
# The first parts of paths: of a machine's file system, and of URLs.
PATHS = {
    "bin",
    "context",
    "data",
    "dev",
    "etc",
    "metrics",
    "opt",
    "path",
    "proc",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr",
    "v1",
    "var",
}


def named(name: Path) -> str:
    return str(name.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block: its document, first line's number, language and text."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{named(self.document)}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    language, start, lines = None, 0, []
    for number, line in enumerate(document.read_text().splitlines(), start=1):
        fence = re.match(r"(\s*)```(\w*)", line)
        if fence and language is None:
            indent, language, start, lines = len(fence[1]), fence[2], number + 1, []
        elif fence:
            yield Block(document, start, language or "", "\n".join(lines))
            language = None
        elif language is not None:
            lines.append(line[indent:])
    assert language is None, f"{named(document)}:{start}: this block has no end"


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]


def blocks_in(*languages: str) -> list[Block]:
    found = [block for block in BLOCKS if block.language in languages]
    assert found, f"no block is in {languages}: is the fence written otherwise?"
    return found


def without_blocks(document: Path) -> str:
    return re.sub(r"^\s*```.*?^\s*```", "", document.read_text(), flags=re.M | re.S)


def quoted_in(*documents: Path) -> set[str]:
    """All that stands in backquotes."""
    return {word for document in documents for word in re.findall(r"`([^`\n]+)`", document.read_text())}


# ---------------------------------------------------------------- commands


def typed(block: Block) -> Iterator[str]:
    """The lines of a block that a reader would type, those that are continued joined."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.language == "sh":
            yield line
        elif line.startswith(("$ ", "# ")):
            yield line[2:]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell line: what stands between ; | & ( ) and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in lexer:
        if word and set(word) <= set("();<>|&"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def without_prefix(words: list[str]) -> list[str]:
    """`words` without variables set for one command, and without what merely starts another program."""
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("sudo", "export")):
        words = words[1:]
    return words


def shown_commands() -> Iterator[tuple[Path, list[str], bool]]:
    """Document, words after `vws`, and whether it stands in a block to be typed."""
    for block in blocks_in("sh", "console"):
        for line in typed(block):
            for words in map(without_prefix, simple_commands(line)):
                if words and Path(words[0]).name == "vws":
                    yield block.document, words[1:], True
    for document in DOCUMENTS:
        for command in re.findall(r"`vws ([^`\n]+)`", without_blocks(document)):
            yield document, next(simple_commands(command)), False


def parse(words: list[str], *, named_only: bool = False) -> tuple[str, ...]:
    """The names of the commands that `words` go through; a click exception if it cannot be typed so. `named_only`: a
    command that is only spoken of may lack its arguments."""
    command: click.Command = cli
    context = click.Context(cli, info_name="vws")
    path: tuple[str, ...] = ()
    while isinstance(command, click.Group):
        rest = command.make_parser(context).parse_args(list(words))[1]
        if not rest:
            return path
        inner = command.get_command(context, rest[0])
        if inner is None:
            raise click.UsageError(f"there is no command {' '.join((*path, rest[0]))}")
        path, words = (*path, rest[0]), rest[1:]
        if not isinstance(inner, click.Group):
            if words or not named_only:
                inner.make_context(path[-1], list(words), parent=context)
            return path
        command, context = inner, click.Context(inner, info_name=path[-1], parent=context)
    return path


@pytest.fixture
def any_file_exists(monkeypatch):
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))


SHOWN = list(shown_commands())


@pytest.mark.parametrize(
    ("document", "words", "in_block"),
    SHOWN,
    ids=[f"{named(where)}: vws {' '.join(words)}" for where, words, _ in SHOWN],
)
@pytest.mark.usefixtures("any_file_exists")
def test_every_command_that_is_shown_can_be_typed(document, words, in_block):
    try:
        parse(words, named_only=not in_block)
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.ClickException as error:
        pytest.fail(error.format_message())


@pytest.mark.parametrize("line", ["lease cancle demo", "lease list --no-such", "lease extend demo", "workspace pause"])
def test_a_command_that_cannot_be_typed_is_seen(line):
    with pytest.raises(click.UsageError):
        parse(line.split())


def all_commands(command: click.Command = cli, *path: str) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from all_commands(inner, *path, name)


@pytest.mark.usefixtures("any_file_exists")
def test_every_command_is_in_a_guide():
    shown = {parse(words, named_only=True) for where, words, _ in SHOWN if where in GUIDES}
    missing = sorted(" ".join(path) for path in set(all_commands()) - shown)
    assert not missing, f"no guide shows: vws {', vws '.join(missing)}"


def test_every_make_target_that_is_shown_exists_and_the_other_way_round():
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.M))
    shown = {words.split()[1] for words in quoted_in(*DOCUMENTS) if words.startswith("make ")}
    assert shown == targets - {"help"}


def test_processes_are_started_as_shown():
    """`python -m vws.main ...` in a unit or a block: processes and options that the program has."""
    source = (ROOT / "src/vws/main.py").read_text()
    lines = [line for block in BLOCKS for line in re.findall(r"-m vws\.main (.*)", block.text)]
    assert len(lines) >= 2
    for line in lines:
        process, *words = line.split()
        assert all(f'"{word}"' in source for word in [process, *words] if word == process or word.startswith("--"))


# ---------------------------------------------------------------- settings

SECTIONS = {
    "[service]": ServiceConfig, "[images]": ImagesConfig, "[site]": SiteInformation,
    "[planning]": PlanningConfig, "[rates]": Configured,
    "[node]": NodeConfig, "[fake]": FakeConfig,
    "[policy]": PolicyConfig, "[vos.NAME]": VO, "[groups.NAME]": UserGroup, "[users.NAME]": User,
    "[pools.NAME]": PoolConfig, "[tariff]": Tariff, "[[tariff.bands]]": Band,
}  # fmt: skip


def settings_shown(section: str) -> dict[str, str]:
    """Key to default, from the table under the heading that names the section."""
    guides = ADMIN.read_text() + POLICY.read_text()
    part = re.search(rf"^#+ `{re.escape(section)}`$.*?(?=^#|\Z)", guides, flags=re.M | re.S)
    assert part, f"no guide has a heading for {section}"
    return dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", part[0], flags=re.M))


def as_written(default: Any) -> Any:
    """A default as site.toml would have it: what is None is left out."""
    if dataclasses.is_dataclass(default):
        return {
            field.name: getattr(default, field.name)
            for field in dataclasses.fields(default)
            if getattr(default, field.name) != field.default
        }
    return to_json(default)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_in_a_guide_with_its_default(section):
    shown, config = settings_shown(section), SECTIONS[section]()
    assert set(shown) == {field.name for field in dataclasses.fields(config)}
    for key, text in shown.items():
        default = None if text == "none" else tomllib.loads(f"x = {text}")["x"]
        assert default == as_written(getattr(config, key)), f"{section} {key}"


def test_the_sections_are_all_of_the_configuration():
    assert {field.name for field in dataclasses.fields(SiteConfig)} == {re.findall(r"\w+", s)[0] for s in SECTIONS}


def test_every_limit_and_every_named_function_is_in_the_guide_to_policies():
    names = {field.name for field in dataclasses.fields(Limits)} | {*PRICES, *REGISTRY}
    names |= {name for functions in REGISTRY.values() for name in functions}
    assert names <= quoted_in(POLICY)


def test_the_example_of_a_policy_contradicts_nothing():
    (example,) = [block for block in blocks_in("toml") if block.document == POLICY]
    config = from_json(SiteConfig, tomllib.loads(example.text), str(example))
    check_policy(config.policy, config.members, config.tariff)


def test_the_example_of_an_image_policy_is_one_with_every_key():
    (example,) = [block for block in BLOCKS if block.text.startswith("# image-policy.toml")]
    policy = read_policy(example.text, vos=["cms"])
    assert len(policy.rules) == 2
    missing = {key for key in KEYS if f"{key} =" not in example.text}
    assert not missing


def test_every_example_of_a_configuration_is_read():
    for block in blocks_in("toml"):
        if block.document != SIMULATING:
            from_json(SiteConfig, tomllib.loads(block.text), str(block))


def test_every_example_of_a_grid_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(grid, "read_workload", lambda site, **_: Workload(()))
    grids = [block for block in blocks_in("toml") if block.document == SIMULATING]
    assert grids
    for block in grids:
        (tmp_path / "grid.toml").write_text(block.text)
        assert grid.read_grid(tmp_path / "grid.toml"), str(block)


# ---------------------------------------------------------------- what must be named


def subclasses(kind: type) -> Iterator[type]:
    for inner in kind.__subclasses__():
        yield inner
        yield from subclasses(inner)


def test_every_error_code_is_in_the_user_guide():
    codes = {kind.code for kind in subclasses(errors.VwsError) if kind.__module__ == errors.__name__}  # type: ignore[attr-defined]
    assert codes <= quoted_in(USER)


def test_every_state_and_command_is_in_the_user_guide():
    assert {str(value) for kind in (State, LeaseState, Command) for value in kind} <= quoted_in(USER)


def test_commands_are_said_to_be_allowed_where_they_are():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|$", USER.read_text(), flags=re.M))
    for command in Command:
        allowed = {str(state) for state, row in COMMANDS.items() if row.get(command, state) != state}
        shown = set(rows[command].split(", "))
        assert shown == {"always"} if command is Command.TERMINATE else shown == allowed, command


def test_every_state_of_a_node_and_every_role_is_in_the_admin_guide():
    assert {str(value) for kind in (NodeState, Role) for value in kind} <= quoted_in(ADMIN)


@pytest.mark.parametrize(
    ("guides", "parts"),
    [
        (
            (USER, ADMIN),
            (leases, workspaces, guests, images, nodes, maintenances, addresses, plan, tokens, events, usage, site),
        ),
        ((CONTEXTUALISING,), (contexts,)),
        ((ARCHITECTURE,), (link,)),
    ],
    ids=["guides", "contexts", "architecture"],
)
def test_every_rest_operation_is_shown(guides, parts):
    text = re.sub(r"\{\w+\}", "{}", "".join(guide.read_text() for guide in guides))
    paths = {route.path for part in parts for route in part.routes.routes}
    missing = sorted(path for path in paths if re.sub(r"\{\w+\}", "{}", path) not in text)
    assert paths
    assert not missing


def test_every_metric_is_in_the_admin_guide():
    source = (ROOT / "src/vws/frontends/rest/metrics.py").read_text()
    metrics = set(re.findall(r'"(vws_[a-z_]+)"', source)) | {"vws_leases", "vws_workspaces", "vws_nodes"}
    assert metrics <= quoted_in(ADMIN)


def test_every_finding_of_the_doctor_is_in_the_admin_guide():
    findings = {finding.name for finding in doctor.findings()} - set(doctor.PROGRAMS)
    packages = {package for package, _ in doctor.PROGRAMS.values()}
    assert findings | packages <= quoted_in(ADMIN)


def test_the_changelog_has_this_version():
    assert re.search(rf"^## \[{re.escape(__version__)}\]", CHANGELOG.read_text(), flags=re.M)


# ---------------------------------------------------------------- form


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(document)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{target} leads nowhere"
        assert path.is_relative_to(ROOT), f"{target} leads out of the repository"
        assert not anchor or anchor in anchors(path), f"{named(path)} has no heading #{anchor}"


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", without_blocks(document), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_blocks_of_json_are_json():
    for block in blocks_in("json"):
        json.loads(block.text)


def test_blocks_of_python_compile():
    for block in blocks_in("python"):
        compile(block.text, str(block), "exec")


def test_units_are_well_formed():
    known = argparse.ArgumentParser()
    known.add_argument("--dir", required=True)
    for block in blocks_in("ini"):
        unit = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",))
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(block.text)
        assert unit.sections() == ["Unit", "Service", "Install"], block
        command = shlex.split(unit["Service"]["ExecStart"])
        assert command[1:3] == ["-m", "vws.main"], block
        known.parse_args(command[4:])


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_only_known_hosts_and_paths_are_shown(document):
    text = document.read_text()
    hosts = set(re.findall(r"https?://([\w.-]+)", text))
    assert hosts <= HOSTS
    paths = set(re.findall(r"(?<![\w.~}/:<>*`])/([a-z][a-z0-9]+)(?=[/\s`'\")])", re.sub(r"https?://\S+", "", text)))
    quoted = set(re.findall(r"`/([a-z][a-z0-9]+)", text))
    assert paths | quoted <= PATHS


def test_every_document_is_in_the_index():
    linked = set(re.findall(r"\]\(([^)#\s]+)\)", INDEX.read_text()))
    unlinked = {path.name for path in INDEX.parent.glob("*.*") if path != INDEX} - linked
    assert not unlinked


def test_no_licence_is_claimed_without_a_licence():
    assert (ROOT / "LICENSE").exists() or not re.search(r"licen[cs]e", README.read_text(), flags=re.I)
