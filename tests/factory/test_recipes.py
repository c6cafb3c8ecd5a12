"""Recipes read: what is wrong in one is told with file, line and key; chains; files that must lie beside."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vws.core.disks import Disk
from vws.core.errors import InvalidRequest
from vws.core.recipe import By, FileEntry, Init, Recipe
from vws.core.recipe_keys import read_recipe, schema
from vws.factory.recipes import load

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "appliances").glob("*.yaml"))
VALIDATOR = jsonschema_rs.Draft202012Validator(schema())
HEAD = "vws: recipe/1\nname: mine\n"
DEBIAN = HEAD + "debian: {suite: bookworm}\n"


@pytest.fixture
def recipe(tmp_path):
    def write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def refused(path: Path, image: Path | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        load(path, image)
    return error.value


# ---------------------------------------------------------------- what comes with VWS


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_here_are_read_and_editors_agree(path):
    plan = load(path)
    assert plan.recipe.name == path.stem
    assert plan.image is None
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


def test_there_are_three_and_they_boot_in_their_own_ways():
    found = {path.stem: load(path).recipe for path in RECIPES}
    assert {name: (each.by, each.init) for name, each in found.items()} == {
        "demo": (By.KERNEL, Init.VWS),
        "debian": (By.KERNEL, Init.VWS),
        "cloud": (By.LOADER, Init.SYSTEM),
    }


def test_the_schema_is_the_one_that_is_installed():
    assert json.loads((ROOT / "src/vws/recipe.schema.json").read_text()) == schema()
    assert "filled" not in json.dumps(schema())


# ---------------------------------------------------------------- what is wrong in one


@pytest.mark.parametrize(
    ("text", "line", "said", "possible"),
    [
        ("name: x\n", 1, "does not say that it is a recipe", "vws: recipe/1"),
        ("", 1, "the file is empty", "vws: recipe/1, and what follows"),
        ("- a\n", 1, "no table of keys and values", "vws: recipe/1, and what follows"),
        ("vws: cluster/1\nname: x\n", 1, "does not say that it is a recipe", "vws: recipe/1"),
        (DEBIAN + "pakages: [curl]\n", 4, "has no key 'pakages'", "programs"),
        (HEAD + "debian: {suite: bookworm, package: [a1]}\n", 3, "did you mean packages?", "suite, packages, without"),
        (HEAD + "debian: {suite: bookworm, packages: ['a b']}\n", 3, "debian.packages[0] is 'a b'", "curl"),
        (DEBIAN + "files:\n  - {path: /etc/../x, text: a}\n", 5, "files[0].path is '/etc/../x'", "an absolute path"),
        (DEBIAN + "files:\n  - {path: /x, from: ../secret}\n", 5, "files[0].from is '../secret'", "beside the recipe"),
        (DEBIAN + "files:\n  - {path: /x, from: /etc/shadow}\n", 5, "files[0].from is", "beside the recipe"),
        (DEBIAN + "files:\n  - {path: /x}\n", 5, "says nothing", "one of from and text and link"),
        (DEBIAN + "files:\n  - {path: /x, text: a, mode: 0644}\n", 5, 'write it in quotes: "0644"', "octal digits"),
        (DEBIAN + "disk: {size: 1KB}\n", 4, "disk.size cannot be read", "512MiB"),
        (DEBIAN + "disk: {size: 4MiB}\n", 4, "disk.size is 4MiB", "from 16 MiB"),
        (DEBIAN + "disks:\n  Data: {size: 1GiB}\n", 5, "cannot have a 'Data'", "lower-case"),
        (DEBIAN + "disks:\n  data: {mount: /data}\n", 5, "disks.data says no size", "size: a size such as"),
        (DEBIAN + "disks: {a1: {size: 1GiB, file: x}}\n", 4, "disks.a1 has no key 'file'", "filesystem"),
        (DEBIAN + "disks:\n  a1:\n    size: 1GiB\n    filesystem: zfs\n", 7, "disks.a1.filesystem is 'zfs'", "ext4 or"),
        (
            DEBIAN + "disks:\n  a1: {size: 1GiB,\n    filesystem: swap, mount: /x}\n",
            6,
            "swap is not mounted",
            "no mount",
        ),
        (DEBIAN + "disks:\n  a1: {size: 1GiB, mount: /etc/x}\n", 5, "/etc/x is needed before", "/srv/data"),
        (DEBIAN + "disks:\n  a1: {size: 1, mount: /x}\n  b1: {size: 1, mount: /x}\n", 6, "mount /x", "each its own"),
        (DEBIAN + "disks:\n  a1: {size: 1, label: x}\n  b1: {size: 1, label: x}\n", 6, "label x", "each its own"),
        (DEBIAN + "boot: {by: uefi}\n", 4, "boot.by is 'uefi'", "kernel or loader"),
        (DEBIAN + "users:\n  Ann: {}\n", 5, "cannot have a 'Ann'", "lower-case"),
        (DEBIAN + "commands:\n  - run: a\n    within: 1y\n", 6, "commands[0].within cannot be read", "90s"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(recipe, text, line, said, possible):
    error = refused(recipe(text))
    assert f"recipe.yaml: line {line}, column" in error.problem
    assert said in error.problem
    assert possible in error.possible
    assert error.details["line"] == line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD, "debian: the recipe says no system"),
        (HEAD + "debian: {packages: [curl]}\n", "debian.suite: the recipe does not say which Debian"),
        (DEBIAN + "programs: {/usr/bin/curl: curl}\n", "programs: programs are for a system in memory"),
        (DEBIAN + "boot: {by: loader}\n", "boot.by: a boot loader starts a system with an init of its own"),
        (DEBIAN + "services: {enable: [ssh]}\n", "services: there are no units without systemd"),
        (HEAD + "programs: {/usr/bin/a: a1}\ndisks: {a: {size: 1, mount: /data}}\n", "disks.a.mount: /data is on the"),
        (HEAD + "programs: {/bin/curl: curl}\n", "files: /bin/curl would not be seen"),
        (HEAD + "programs: {/usr/bin/curl: curl}\nusers: {ann: {}}\n", "users: a system in memory has no users"),
        (HEAD + "programs: {/usr/bin/curl: curl}\ncommands: [{run: a}]\n", "a system in memory has no commands"),
    ],
)
def test_what_does_not_go_together_is_told(recipe, text, said):
    error = refused(recipe(text))
    assert said in error.problem
    assert error.possible


def test_further_disks_of_a_chain_are_added_up_by_their_names(recipe):
    recipe(DEBIAN + "disks: {page: {size: 1GiB, filesystem: swap}, data: {size: 1GiB, mount: /srv}}\n", "base.yaml")
    found = load(recipe(HEAD + "from: base.yaml\ndisks: {data: {size: 2GiB, label: d}}\n")).recipe
    assert found.beside == (Disk("data", 2048, "ext4", "d"), Disk("page", 1024, "swap"))
    assert found.mounted_mib == found.disk_mib, "none of them can be filled"


def test_disks_of_a_chain_are_mounted_apart(recipe):
    recipe(DEBIAN + "disks: {a1: {size: 1, mount: /x}}\n", "base.yaml")
    error = refused(recipe(HEAD + "from: base.yaml\ndisks: {b1: {size: 1, mount: /x}}\n"))
    assert "disks.b1.mount: the disk a1 has the mount /x too" in error.problem


def test_a_shells_variables_are_the_shells(recipe):
    plan = load(recipe(DEBIAN + 'commands:\n  - run: echo "${HOME}" $${x} ${\n'))
    assert plan.recipe.commands[0].run == 'echo "${HOME}" $${x} ${'


# ---------------------------------------------------------------- files beside it


def test_a_file_that_is_not_there_or_leads_out_is_refused(recipe, tmp_path):
    path = recipe(DEBIAN + "files:\n  - {path: /x, from: files/x}\n", "in/recipe.yaml")
    assert "files[0].from: there is no files/x beside the recipe" in refused(path).problem
    (tmp_path / "secret").write_text("s")
    (path.parent / "files").mkdir()
    (path.parent / "files/x").symlink_to(tmp_path / "secret")
    error = refused(path)
    assert "files[0].from: files/x leads out of the recipe's folder" in error.problem
    assert error.asked == "files/x"


def test_a_recipe_that_is_a_pipe_or_no_text_is_refused(tmp_path, recipe):
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"vws: recipe/1\n\xff\n")
    assert "line 2: this is no text in UTF-8" in refused(path).problem
    with pytest.raises((InvalidRequest, OSError)):
        load(Path("/dev/null"))


# ---------------------------------------------------------------- chains


def test_a_chain_is_one_recipe(recipe, tmp_path):
    (tmp_path / "motd").write_text("hello")
    recipe(
        DEBIAN + "files: [{path: /etc/motd, from: motd}]\ndisk: {size: 2GiB, label: big}\n"
        "kernel: {modules: [nfs]}\nservices: {run: {a: /bin/a}}\nmemory: 1GiB\nroles: {x: first}\n",
        "base.yaml",
    )
    plan = load(
        recipe(
            HEAD.replace("mine", "ours") + "from: base.yaml\ndebian: {packages: [curl]}\ndisk: {size: 3GiB}\n"
            "files: [{path: /x, text: x}]\nkernel: {modules: [nfs, loop]}\nroles: {x: second, y: third}\n"
        )
    )
    ours = plan.recipe
    assert (ours.name, ours.debian.suite, ours.debian.packages) == ("ours", "bookworm", ("curl",))
    assert (ours.disk_mib, ours.disk.label, ours.memory_mib) == (3072, "big", 1024)
    assert ours.files == (
        FileEntry("/etc/motd", source=str((tmp_path / "motd").resolve())),
        FileEntry("/x", text="x"),
    )
    assert (ours.kernel.modules, ours.services.run) == (("nfs", "loop"), {"a": "/bin/a"})
    assert ours.roles == {"x": "second", "y": "third"}
    assert [each.name for each in plan.sources] == ["base.yaml", "motd", "ours.yaml"]


def test_a_cycle_is_told_with_its_way(recipe):
    recipe(HEAD + "from: recipe.yaml\n", "b.yaml")
    error = refused(recipe(HEAD + "from: b.yaml\n"))
    assert "from: leads back to where it began: recipe.yaml -> b.yaml -> recipe.yaml" in error.problem
    assert "leads back" in refused(recipe(HEAD + "from: recipe.yaml\n")).problem


def test_what_is_built_on_has_to_be_there_and_known(recipe, tmp_path):
    assert "there is no base.yaml beside" in refused(recipe(HEAD + "from: base.yaml\n")).problem
    (tmp_path / "disk.iso").write_text("x")
    error = refused(recipe(HEAD + "from: disk.iso\n"))
    assert "from: disk.iso is neither a recipe nor an image" in error.problem
    assert ".vws" in error.possible


def test_from_on_the_command_line_goes_before_the_recipes(recipe, tmp_path):
    image = tmp_path / "elsewhere.vws"
    image.write_bytes(b"x")
    plan = load(recipe(HEAD + "from: not-there.yaml\n"), image)
    assert plan.image == image
    assert [each.name for each in plan.sources] == ["elsewhere.vws", "mine.yaml"]


def test_what_a_recipes_file_is_called_is_in_nothing_that_is_built(recipe):
    assert load(recipe(DEBIAN, "a.yaml")) == load(recipe(DEBIAN, "sub/b.yaml"))


def test_equal_recipes_are_equal_values():
    text = (ROOT / "appliances/debian.yaml").read_text()
    assert read_recipe(text) == read_recipe(text)


# ---------------------------------------------------------------- whatever comes

WORDS = st.sampled_from(
    ["&a", "*a", "!!python/object:os.system", "<<", "- ", "{", "[", ": ", "? ", "|", "%TAG", "\t", "\0", "\x85", "---"]
)


@settings(deadline=None)
@given(data=st.data())
def test_any_text_is_a_recipe_or_refused_with_its_place(data):
    lines = data.draw(st.sampled_from(RECIPES)).read_text().splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        at = data.draw(st.integers(0, len(lines[number])))
        new = data.draw(WORDS | st.text(max_size=12) | st.just(lines[data.draw(st.integers(0, len(lines) - 1))]))
        lines[number] = lines[number][:at] + new + lines[number][data.draw(st.sampled_from([at, len(lines[number])])) :]
    read_or_refused("".join(lines))


@given(st.text(max_size=300))
def test_any_text_at_all_is_refused_as_a_recipe(text):
    assert read_or_refused(text) is None


def read_or_refused(text: str) -> Recipe | None:
    try:
        return read_recipe(text)
    except InvalidRequest as error:
        refused = error
    assert refused.problem.startswith("line ")
    assert 1 <= refused.details["line"] <= text.count("\n") + text.count("\r") + text.count("\x85") + 2
    return None


def test_what_unpacks_to_gigabytes_and_what_is_nested_without_end_is_refused_at_once():
    bomb = HEAD + "a: &a [x, x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}]\n" for n in range(20))
    for text in (bomb, HEAD + "files: " + "[" * 100_000, HEAD + "files: " + "{a: " * 50_000):
        began = time.monotonic()
        assert read_or_refused(text) is None
        assert time.monotonic() - began < 10
