"""The group itself: help, what is imported, where errors go."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.cli.conftest import FakeClient
from vws.cli.main import MODULES, cli
from vws.cli.names import Name
from vws.cli.session import Session, connect

Run = Callable[..., Result]


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                found = command.get_command(ctx, name)
                assert found is not None
                yield from commands(found, (*path, name))


def test_every_command_has_a_purpose_and_examples_that_name_it() -> None:
    for path, command in commands(cli):
        text = command.help or ""
        assert "Examples:" in text, path
        assert text.strip().splitlines()[0].rstrip(".:").strip(), path
        assert " ".join(("vws", *path)) in text.partition("Examples:")[2], path


def test_every_option_has_a_help_text() -> None:
    for path, command in commands(cli):
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (path, option.name)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_help_exits_0(vws: Run, name: str) -> None:
    result = vws(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: vws {name}")


def test_unknown_commands_and_options_are_status_2(vws: Run) -> None:
    assert vws("lend").exit_code == 2
    assert vws("lease", "beg").exit_code == 2
    assert vws("lease", "list", "--frobnicate").exit_code == 2


def test_an_empty_name_is_a_slip_and_never_none(vws: Run, client: FakeClient, home: Path) -> None:
    """Every word that names something, found by its type: a new command is held to it too."""
    (home / "x").write_text("x")
    given = {
        "file": [str(home / "x")],
        "duration_s": ["--for", "1h"],
        "name": ["--name", "x"],
        "reason": ["--reason", "x"],
        "out": ["--out", str(home / "out")],
        "target": ["--to", str(home / "out")],
        "folder": ["--to", str(home / "www")],
        "url": ["--url", "x"],
        "key": ["--key", str(home / "x")],
        "endorser": ["--endorser", "x"],
        "ca": ["--ca", str(home / "x")],
        "certificate": ["--certificate", str(home / "x")],
        "key_file": ["--key", str(home / "x")],
        "called": ["--as", "x"],
        "more": ["x=+1"],
        "fewer": ["x=-1"],
    }
    tried = 0
    for path, command in commands(cli):
        for empty in command.params:
            if not isinstance(empty.type, Name):
                continue
            line = [*path]
            for other in command.params:
                if other is empty:
                    line += ["" if isinstance(other, click.Argument) else f"{other.opts[0]}="]
                elif other.required:
                    named = other.name == "name" and isinstance(other, click.Argument)
                    line += ["x"] if named else given.get(other.name or "") or _said(other)
            result = vws(*line)
            assert (result.exit_code, "cannot be empty" in result.stderr) == (2, True), (line, result.stderr)
            tried += 1
    assert client.asked == []
    assert tried > 30


def _said(parameter: click.Parameter) -> list[str]:
    return ["x"] if isinstance(parameter, click.Argument) else [parameter.opts[0], "x"]


def test_every_name_is_read_as_one() -> None:
    for path, command in commands(cli):
        for argument in command.params:
            if isinstance(argument, click.Argument) and argument.name not in ("file", "source", "command"):
                assert isinstance(argument.type, Name), (path, argument.name)


def test_the_version(vws: Run) -> None:
    from vws import __version__

    assert vws("--version").stdout == f"vws {__version__}\n"


def test_help_imports_nothing_that_is_slow() -> None:
    program = (
        "import sys\n"
        "from vws.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "slow = {'httpx', 'rich', 'vws.client', 'vws.supervisor', 'asyncio', 'pydantic', 'yaml', 'cryptography'}\n"
        "slow = (slow | {'vws.core.site'}) & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_our_own_bugs_are_not_dressed_up_as_failures(client: FakeClient, home: Path) -> None:
    def broken(_: Session) -> FakeClient:
        raise ZeroDivisionError

    result = CliRunner().invoke(cli, ["lease", "list"], obj=Session(broken))
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_reader_that_leaves_is_no_failure(home: Path) -> None:
    """`vws --help | head -1` prints no trace."""
    line = f"{sys.executable} -m vws.cli.main --help | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.stdout.startswith("Usage: vws")
    assert done.stderr == ""


# ---------------------------------------------------------------- which site


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    import vws.client

    made: list[object] = []

    class Client:
        @classmethod
        def from_dir(cls, directory: Path) -> None:
            made.append(directory)

        @classmethod
        def from_environment(cls) -> None:
            made.append("environment")

    monkeypatch.setattr(vws.client, "Client", Client)
    return made


def test_a_named_directory_wins(chosen: list[object], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VWS_URL", "https://example.org")
    session = Session()
    connect(session)
    session.explicit_directory = home
    connect(session)
    assert chosen == ["environment", home]


def test_the_fake_client_of_these_tests_has_the_real_ones_methods() -> None:
    """Else these tests would prove nothing of the command line in use."""
    from inspect import Parameter, signature

    from vws.client import Client

    for name, method in vars(FakeClient).items():
        if name.startswith("_"):
            continue
        real = signature(getattr(Client, name)).parameters
        fake = signature(method).parameters
        open_ended = any(p.kind is Parameter.VAR_KEYWORD for p in [*real.values(), *fake.values()])
        assert open_ended or list(fake)[: len(real)] == list(real)[: len(fake)], name
        for parameter in real.values():
            if parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD and not open_ended:
                assert parameter.name in fake, (name, parameter.name)
