"""Runs the commands that docs/guide.md and docs/planning.md show, and puts what they print below them. Takes three minutes.

    python -m benchmarks.guide [--only KEY,KEY]

On a machine that does nothing else. A block of output begins with a comment that names it; its command is the block of shell
above it, and is run in a copy of examples/library. Long outputs are cut to the part that the page is about.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from db.embedded import temporary_postgres
from loadgen.lab.stack import Servers, service

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "docs" / "guide.md", ROOT / "docs" / "planning.md")
BLOCK = re.compile(
    r"```sh\n(?P<command>(?:(?!```).)*?)```\n(?P<between>(?:(?!```).)*?)"
    r"(?P<mark><!-- benchmarks/guide.py: (?P<key>[\w-]+) -->\n```\n)(?P<output>.*?)```",
    re.DOTALL,
)
FIGURES = (
    *("figure", "requests", "answered well", "failed", "good per second", "backends at peak", "servers' CPU"),
    *("database's CPU", "response p50", "response p95", "response p99"),
    *("held mean", "worker CPU mean", "worker CPU in a loan mean"),
)
WIDTH = 130
PYTHON = "/home/me/library/.venv/bin/python"


def first(told: str) -> str:
    """What a comparison says while it runs, up to the sentence with its result."""
    lines = [line for line in told.splitlines() if line and not line.startswith(("Everything is in", "waiting for"))]
    return wrapped([*lines[:-1], "", lines[-1]]) + "...\n"


def figures(printed: str) -> str:
    """Some rows of the Markdown table of every figure, with its heading."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    kept = [line for line in lines if line[2:].split(" |")[0].split(" (")[0] in FIGURES or line.startswith("| -")]
    return "\n".join(kept) + "\n"


def whole(printed: str) -> str:
    """All of it."""
    return wrapped(printed.splitlines())


def sentence(printed: str) -> str:
    """The paragraph with the answer."""
    return wrapped(next(part for part in printed.split("\n\n") if "users/s: " in part).strip().splitlines())


def wrapped(lines: Sequence[str]) -> str:
    """The lines, long sentences in several; the rows of tables stay whole."""
    return "".join(
        f"{part}\n" for line in lines for part in (textwrap.wrap(line, WIDTH) if "  " not in line else [line]) or [""]
    )


SHOWN: Mapping[str, Callable[[str], str]] = {
    "first": first,
    "figures": figures,
    "plan": lambda printed: whole(printed.split("\n\nMeasured in")[0]),
    "sweep": sentence,
    "explain": whole,
}


def printed(command: str, folder: Path) -> tuple[str, str]:
    """What the commands print as their result, and what they tell meanwhile. Raises SystemExit if one fails."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stderr, done.stdout, sep="\n", file=sys.stderr)
    if done.returncode not in {0, 1}:
        sys.exit(f"exit code {done.returncode}: {command}")
    places = (sys.executable, str(Path(sys.executable).with_name("python3")))
    return done.stdout, done.stderr.replace(places[1], PYTHON).replace(places[0], PYTHON)


def main() -> None:
    """Run the commands of the blocks, one after the other, and write their pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="keys of blocks, separated by commas (all)")
    given = parser.parse_args()
    only = set(filter(None, given.only.split(",")))
    if unknown := only - SHOWN.keys():
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(SHOWN)}")
    with tempfile.TemporaryDirectory() as name, temporary_postgres() as postgres:
        folder = Path(name) / "examples" / "library"
        shutil.copytree(ROOT / "examples" / "library", folder)
        shutil.copy(ROOT / "examples" / "quickstart.yml", folder / "quickstart.yml")
        settings = {"DATABASE_URL": postgres.url, "DB_POOL": "fair"}
        for page in PAGES:
            text = page.read_text()
            for block in BLOCK.finditer(text):
                key = block["key"]
                if only and key not in only:
                    continue
                if key == "explain":
                    with Servers(service(), 2, settings, Path(name) / "service.log") as servers:
                        output = printed(block["command"].replace("$SERVICE", servers.url), folder)
                else:
                    output = printed(block["command"].replace("cd examples/library\n", ""), folder)
                text = text.replace(block["mark"] + block["output"], block["mark"] + SHOWN[key](output[key == "first"]))
            page.write_text(text)


if __name__ == "__main__":
    main()
