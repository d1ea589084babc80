"""`loadgen plan` with few requests, in this process."""

import json

from click.testing import CliRunner

from loadgen.cli import cli


def plan(*arguments):
    return CliRunner().invoke(cli, ["plan", "--requests", "5000", *map(str, arguments)])


def planned(*arguments):
    """What the command answers in JSON."""
    done = plan(*arguments, "--format", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)
