"""The documentation is whole: links lead somewhere, every page can be reached, and the reference leaves nothing out."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import lab_example
from loadgen.cli import _COMMANDS, cli
from loadgen.help import HELP
from poolbench.plugin import PoolbenchPlugin
from reports import names
from tests.support.paths import ROOT

UNLISTED = {"decisions.md"}
"""Pages that are about the making of the project, and not in llms.txt."""
LLMS = ROOT / "llms.txt"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
COMMANDS = [
    text
    for room in ("db", "loadgen", "reports")
    for each in (ROOT / room).rglob("*.py")
    # In an application of WSGI, `environ` is a request.
    if "start_response" not in (text := each.read_text())
]
NOT_FOR_USERS = {"PATH", "PGPASSWORD", "POOLBENCH_ATTACHED"}
"""Variables that everybody's programs read, and one that the tool sets itself."""
SOURCES = [ROOT / "app.py", *(each for room in ("db", "wsgi") for each in (ROOT / room).rglob("*.py"))]


def links(page):
    """Pairs of (file, heading) for each link of a page to a file of the project; the heading is "" for the whole file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, heading = target.partition("#")
            yield (page.parent / path).resolve() if path else page, heading


def anchors(page):
    """The headings of a page, as the addresses that GitHub gives them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, LLMS], ids=[str(page.relative_to(ROOT)) for page in [*PAGES, LLMS]])
def test_every_link_leads_to_a_file_and_a_heading(page):
    lost = [
        f"{path.name}#{heading}"
        for path, heading in links(page)
        if not path.exists() or (heading and heading not in anchors(path))
    ]
    assert not lost


def test_every_page_can_be_reached_from_the_readme():
    reached: set[Path] = set()
    found = {ROOT / "README.md"}
    while found:
        page = found.pop()
        reached.add(page)
        found |= {path for path, _ in links(page) if path.suffix == ".md"} - reached
    assert not set(PAGES) - reached


def test_the_reference_names_every_metric():
    plain = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    for value in plain - {names.ENDPOINT_TIME, names.ENDPOINT_CODES, names.SERVER_TIMING}:
        assert f"`{value}" in REFERENCE, value


def test_the_reference_names_every_setting_of_the_service():
    read = {name for path in SOURCES for name in re.findall(r'read\(mapping, "([A-Z_]+)"', path.read_text())}
    assert {"PORT", "DATABASE_URL", "DB_POOL_RESERVE"} <= read
    for name in read:
        assert f"`{name}`" in REFERENCE, name


def test_the_reference_names_every_parameter_of_the_plugins_url():
    assert {"pool", "pool_size", "watch"} <= set(PoolbenchPlugin.names)
    assert [name for name in PoolbenchPlugin.names if not re.search(rf"[`&]{name}[`=]", REFERENCE)] == []


def test_the_reference_names_every_variable_of_the_environment_that_the_commands_read():
    read = {name for text in COMMANDS for name in re.findall(r'\benv(?:iron)?(?:\.get\(|\[)"([A-Z_]+)"', text)}
    assert {"NO_COLOR", "PG_BIN_DIR", "GITHUB_SHA", "VIRTUAL_ENV"} <= read
    assert [name for name in read - NOT_FOR_USERS if not re.search(rf"`{name}[`=]", REFERENCE)] == []


def test_the_commands_that_append_to_the_steps_summary_are_those_of_the_reference_and_say_so_in_their_help():
    row = next(line for line in REFERENCE.splitlines() if line.startswith("| `GITHUB_STEP_SUMMARY`"))
    told = {name for name in _COMMANDS if "$GITHUB_STEP_SUMMARY" in (cli.get_command(None, name).help or "")}
    assert told == set(re.findall(r"`(\w+)`", row.split("|")[2]))


def test_the_reference_gives_every_command_its_exit_codes():
    table = next(line for line in REFERENCE.splitlines() if line.startswith("| code"))
    assert [name for name in _COMMANDS if f"`{name}`" not in table] == []


def test_each_error_that_the_library_raises_has_an_entry_in_troubleshooting():
    source = (ROOT / "poolbench" / "errors.py").read_text()
    raised = re.findall(r"(?m)^class (\w+)\(exc\.", source)
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert raised
    assert [name for name in raised if not re.search(rf"(?m)^### .*`{name}`", text)] == []


def test_llms_txt_has_its_form_and_names_every_command_and_option_as_it_is():
    title, rest = LLMS.read_text().split("\n\n", 1)
    assert title == "# Poolbench"
    assert rest.startswith("> ")
    listed = re.findall(r"(?m)^- `loadgen (\w+)[^`]*`: .+$", rest)
    assert sorted(listed) == sorted(_COMMANDS)
    for line in re.findall(r"(?m)^- `loadgen .+$", rest):
        name = line.split()[2].strip("`:")
        known = {option for section in HELP[name][0].values() for option in section} | {"-o"}
        assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)) <= known, line


def test_llms_txt_leads_to_every_page_of_the_documentation():
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {path.name for path, _ in links(LLMS)} <= UNLISTED


def test_the_readme_shows_what_the_labs_example_found():
    kept = json.loads(lab_example.KEPT.read_text())
    readme = (ROOT / "README.md").read_text()
    assert lab_example.filled(readme, kept) == readme, "run: python -m benchmarks.lab_example FULL BRIEF"
    assert kept["sentence"] in readme
    assert kept["sentence"] in lab_example.EXAMPLE.read_text()
    for claim in kept["claims"]:
        assert f"| {claim['verdict']} | {claim['claim']} |" in readme
    low, high = re.findall(r"served ([\d.]+) to ([\d.]+) times", kept["sentence"])[0]
    gains = [each["brief"] for each in kept["claims"] if "serves more than a connection per request" in each["claim"]]
    assert sorted(gains) == sorted([f"{low} times", f"{high} times"])


def test_each_fault_of_the_doctors_page_has_its_output():
    text = (ROOT / "docs" / "doctor.md").read_text("utf-8")
    assert not re.findall(r"writes (\w+) from here -->\s*<!--", text)
