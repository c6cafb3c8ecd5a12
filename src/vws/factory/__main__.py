"""The build itself, started by apart.py: one line of JSON in, lines of JSON out."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from vws.core.errors import InvalidRequest
from vws.factory.build import as_json, build
from vws.factory.log import Log
from vws.factory.recipes import load
from vws.guest.debs import BuildError

# What is no room for anything.
FULL_BYTES = 16 << 20


def say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    asked = json.load(sys.stdin)
    recipe, out, cache = (Path(asked[name]) for name in ("recipe", "out", "cache"))
    plan = load(recipe, Path(asked["image"]) if "image" in asked else None)
    log = Log(cache / "logs" / f"{plan.recipe.name}.log", lambda at_s, step: say(step=step, at_s=at_s))
    try:
        say(built=as_json(build(plan, out, cache, log)))
    except InvalidRequest as error:
        parts = {"field": error.field, "asked": error.asked, "possible": error.possible}
        say(failed={"code": error.code, "problem": f"{recipe}: {error.problem}", "log": str(log.path), **parts})
    except ModuleNotFoundError as error:
        said = {"problem": f"the Python package {error.name} is not installed", "possible": "make setup"}
        say(failed={"code": "build-failed", "log": str(log.path), **said})
    except (BuildError, OSError) as error:
        problem, possible = told(error, out, cache)
        say(failed={"code": "build-failed", "problem": problem, "possible": possible, "log": str(log.path)})


def told(error: Exception, out: Path, cache: Path) -> tuple[str, str]:
    """(what went wrong, what to do)"""
    if os.strerror(errno.ENOSPC) in str(error):
        full = [place for place in (out.parent, cache) if shutil.disk_usage(place).free < FULL_BYTES]
        where = " and of ".join(map(str, full)) or f"{out.parent}, of {cache} or of the build in memory"
        return f"there is no room left on the disk of {where}", "room there, or other disks: --out FILE, --cache FOLDER"
    problem, _, possible = str(error).partition(". Next: ")
    return problem, possible or "mend what the log says, then build again"


if __name__ == "__main__":
    main()
