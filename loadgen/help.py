"""The help of the commands: their options in sections, and examples. It needs no command's module.

A section lists options by `option_name`. `--help` stands at the end of each command by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

Sections = Mapping[str, tuple[str, ...]]

_RESULT = {"Result": ("--format", "--output")}

HELP: dict[str, tuple[Sections, tuple[str, ...]]] = {
    "run": (
        {
            "What to run": (
                "--target", "--environment", "--variables", "--overrides", "--config", "--payload", "--input",
                "--scenario-name", "--solo", "--dotenv", "--insecure", "--skip-unsupported", "--check",
            ),
            "How the load is made": ("--arrivals", "--seed", "--workers", "--dask", "--calibration"),
            "Limits and gates": ("--drain", "--max-body", "--abort-on", "--junit"),
            "What is shown and saved": ("--output", "--format", "--rows", "--quiet", "--live", "--prometheus"),
        },
        (
            "loadgen run load.yml --target http://127.0.0.1:8000 -o report.json",
            "loadgen run --check load.yml",
            "loadgen run load.yml --live 8089 --workers 2",
            "loadgen run load.yml --rows rows.csv",
            "loadgen run load.yml --abort-on 'errors > 5%' --abort-on 'p99 > 2000' --junit gates.xml",
        ),
    ),
    "quick": (
        {"Load": ("--count", "--num", "--insecure", "--drain", "--max-body"), "What is shown and saved": ("--output", "--quiet")},
        ("loadgen quick --count 20 --num 50 http://127.0.0.1:8000/live",),
    ),
    "ab": (
        {
            "Load": ("-n", "-c", "-t", "-s", "-k", "-r", "--calibration"),
            "Connections": ("-b", "-B", "-f", "-Z", "-I", "-E"),
            "Requests": ("-m", "-i", "-H", "-C", "-A", "-p", "-u", "-T", "-X", "-P", "-l"),
            "What is shown and saved": ("--output", "-e", "-g", "-d", "-S", "-q", "-v", "-V"),
        },
        (
            "loadgen ab -n 10000 -c 100 -k http://127.0.0.1:8000/live",
            "loadgen ab -t 30 -c 50 -p body.json -T application/json http://127.0.0.1:8000/links",
        ),
    ),
    "ping": (
        {
            "Request": ("--headers", "--qs", "--auth", "--json", "--form", "--body", "--insecure", "--h1"),
            "What is checked": ("--expect",),
            "What is shown": ("--verbose", "--showBody", "--pretty", "--query", "--jmespath", "--cheerio"),
            **_RESULT,
        },
        (
            "loadgen ping http://127.0.0.1:8000/live --expect statusCode=200",
            "loadgen ping post http://127.0.0.1:8000/links --json '{url: \"https://example.org/\"}' -bp",
        ),
    ),
    "init": (
        {
            "What to make it of": (
                "--target", "--writes", "--value", "--static", "--limit", "--no-probe", "--insecure",
            ),
            "Result": ("--force", "--output"),
        },
        (
            "loadgen init http://127.0.0.1:8000",
            "loadgen init openapi.yaml --target http://127.0.0.1:8000 --writes -o load.yml",
            "loadgen init session.har -o session.yml",
        ),
    ),
    "schema": ({"Result": ("--output",)}, ("loadgen schema -o artillery.schema.json",)),
    "diff": (
        {
            "Reports": ("--old", "--new", "--explain"),
            "Verdicts": ("--fail-on", "--run-deviation", "--least-effect", "--junit"),
            "Result": ("--all", "--format", "--output"),
        },
        (
            "loadgen diff before.json after.json",
            "loadgen diff --old old1.json --old old2.json --new new1.json --new new2.json -o diff.html",
            "loadgen diff before.json after.json --fail-on 'p99 worse' --fail-on 'errors > 0.1%' --junit gates.xml",
        ),
    ),
    "history": (
        {
            "Reports": ("--metric", "--order", "--last", "--explain"),
            "Verdicts": ("--fail-on", "--least-effect", "--junit"),
            **_RESULT,
        },
        (
            "loadgen history results",
            "loadgen history results --metric p95 -o history.html",
            "loadgen history results --last 50 --fail-on worse",
        ),
    ),
    "duel": (
        {
            "What to run": ("--minutes", "--environment", "--variables", "--payload", "--insecure", "--seed", "--calibration"),
            "Verdicts": ("--fail-on", "--least-effect", "--junit"),
            **_RESULT,
        },
        (
            "loadgen duel http://127.0.0.1:8000 http://127.0.0.1:8001 load.yml --minutes 2",
            "loadgen duel http://127.0.0.1:8000 http://127.0.0.1:8001 load.yml --fail-on 'p99 worse' --junit gates.xml",
        ),
    ),
    "report": (
        {"Result": ("--format", "--periods", "--output", "--explain")},
        ("loadgen report report.json -o report.html", "loadgen report part1.json part2.json --format markdown"),
    ),
    "lab": (
        {
            "Experiments": ("--full", "--only", "--list", "--strategies", "--servers", "--clicks"),
            "Your own application": (
                "--app", "--script", "--python", "--server", "--setup", "--url-variable", "--dotenv", "--rounds", "--seed",
            ),
            "Database": ("--database-url", "--yes", "--db-rtt"),
            "Result": ("--out", "--format", "--output"),
        },
        (
            "loadgen lab",
            "loadgen lab --only B.3,A.pool10",
            "loadgen lab --list",
            "loadgen lab --only hikaricp-spike,forty-threads",
            "loadgen lab --app app:app --script load.yml --strategies queue,fair",
        ),
    ),
    "doctor": (
        {
            "Your own application": (
                "--app", "--script", "--python", "--server", "--setup", "--url-variable", "--dotenv", "--servers", "--seconds",
            ),
            "Database": ("--database-url", "--yes", "--db-rtt", "--max-connections"),
            "Result": ("--out", "--format", "--output"),
        },
        (
            "loadgen doctor --app app:app --script load.yml",
            "loadgen doctor --app 'shop:create_app()' --script load.yml --setup 'flask db upgrade' -o doctor.html",
        ),
    ),
    "sweep": (
        {
            "What to load": ("--rate", "--servers", "--strategy"),
            "Your own application": ("--app", "--script", "--python", "--server", "--setup", "--url-variable", "--dotenv"),
            "What to look for": ("--p99", "--sizes", "--max-connections", "--memory"),
            "How long": ("--precision", "--seconds", "--max-rounds", "--max-seconds", "--seed"),
            "Database": ("--database-url", "--yes", "--db-rtt"),
            "Result": ("--out", "--format", "--output"),
        },
        ("loadgen sweep --app app:app --script load.yml --rate 100 --p99 100 --servers 2",),
    ),
    "capacity": (
        {
            "Target": ("--p99", "--errors"),
            "What to run": (
                "--target", "--environment", "--variables", "--payload", "--insecure", "--first-rate", "--seed",
            ),
            "Your own application": (
                "--app", "--python", "--server", "--setup", "--url-variable", "--dotenv",
                "--strategies", "--sizes", "--servers", "--out",
            ),
            "How long": ("--max-seconds", "--precision"),
            "Result": ("--report", "--format", "--output"),
        },
        (
            "loadgen capacity load.yml --target http://127.0.0.1:8000 --p99 100",
            "loadgen capacity load.yml --app app:app --p99 100 --strategies queue,fair --sizes 5,10,20 --max-seconds 60",
        ),
    ),
    "plan": (
        {
            "What to predict": ("--sizes", "--servers", "--rate", "--p99", "--max-connections", "--cold"),
            "The workers": ("--worker", "--threads", "--cores"),
            "The pool": ("--timeout", "--max-overflow", "--max-waiting", "--hand-over"),
            "What the report does not say": (
                "--measured-servers", "--statements", "--wake-ms", "--db-cores", "--db-cpu-ms", "--connect-ms", "--arrivals",
            ),
            "Simulation": ("--requests", "--seed", "--explain"),
            **_RESULT,
        },
        ("loadgen plan report.json --servers 4 --rate 600 --sizes 1-20 --p99 150",),
    ),
}  # fmt: skip
"""By command: its sections, and examples that can be typed."""


def option_name(option: click.Option) -> str:
    """The name that stands for an option: its first long one, else its first."""
    return next((name for name in option.opts if name.startswith("--")), option.opts[0])


def format_options(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options of a command in their sections, those that no section names under "Options", and its examples."""
    sections, examples = HELP.get(command.name or "", ({}, ()))
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = {option_name(option): record for option in options if (record := option.get_help_record(context))}
    for title, names in sections.items():
        with formatter.section(title):
            formatter.write_dl([records.pop(name) for name in names if name in records])
    with formatter.section("Options"):
        formatter.write_dl(list(records.values()))
    if examples:
        with formatter.section("Examples"):
            # A long example is not wrapped: it is to be copied.
            formatter.write("".join(f"  {example}\n" for example in examples))
