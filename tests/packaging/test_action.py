"""The GitHub action of this repository: its steps are run here as a runner would, in somebody else's new repository."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.paths import ROOT
from tests.support.server_process import free_port, wait_until

ACTION = YAML(typ="safe").load((ROOT / "action.yml").read_text("utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
SCRIPTS = {name: step["run"] for name, step in STEPS.items() if "run" in step}

SERVICE = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Slow(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(float(sys.argv[2]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Slow).serve_forever()
"""
SCRIPT = """
config: {target: "http://127.0.0.1:1", phases: [{duration: 4, arrivalRate: 25}]}
scenarios: [{flow: [get: {url: /}]}]
"""
GH = """#!/bin/sh
echo "$@" >>"$GH_LOG"
case "$*" in
*--jq*) echo "$GH_FOUND" ;;
*)
  while [ "$1" != --field ]; do shift; done
  cat "${2#body=@}" >>"$GH_LOG"
  ;;
esac
exit "${GH_CODE:-0}"
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_is_bash_and_takes_what_users_write_from_its_environment(name):
    done = subprocess.run(["bash", "-n"], input=SCRIPTS[name], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # Text of a workflow that stands in a script could be a command of somebody else's.
    assert "${{" not in SCRIPTS[name] and STEPS[name]["shell"] == "bash"


def test_every_input_is_used_and_no_registry_is_named():
    text = (ROOT / "action.yml").read_text("utf-8")
    used = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert used == set(ACTION["inputs"])
    assert not re.search(r"https?://|index-url", text)


def test_the_workflow_of_the_documentation_uses_inputs_that_there_are():
    [block] = [
        b
        for b in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/ci.md").read_text(), re.DOTALL)
        if "OWNER/poolbench@" in b
    ]
    steps = YAML(typ="safe").load(block)["jobs"]["load"]["steps"]
    [given] = [step["with"] for step in steps if "poolbench" in step.get("uses", "")]
    assert set(given) <= set(ACTION["inputs"])
    assert {name for name, each in ACTION["inputs"].items() if each.get("required")} <= set(given)


class Runner:
    """The part of a runner that the steps rely on: inputs and outputs, and the files of GITHUB_OUTPUT and the summary."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder, self.temporary = folder, temporary
        self.outputs: dict[str, str] = {}
        self.summary = folder / "summary.md"
        self.comments = folder / "comments.txt"
        (folder / "bin").mkdir()
        (folder / "bin/gh").write_text(GH)
        (folder / "bin/gh").chmod(0o755)

    def step(self, step: str, /, code: int = 0, gh_code: int = 0, gh_found: str = "", **inputs: str) -> str:
        """Run a step's script; its output. `gh_found`: the ids of comments that gh finds."""
        given = {key: str(each.get("default", "")) for key, each in ACTION["inputs"].items()} | inputs
        contexts = {
            **{f"inputs.{key}": value for key, value in given.items()},
            **{f"steps.load.outputs.{key}": value for key, value in self.outputs.items()},
            "github.token": "token",
            "github.event.pull_request.number": "7",
        }
        asked = {
            key: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: contexts.get(found[1], ""), value)
            for key, value in STEPS[step].get("env", {}).items()
        }
        output = self.folder / "output"
        output.write_text("")
        own = {key: v for key, v in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "GITHUB"))}
        settings = {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.base_prefix) / 'bin'}:{own['PATH']}",
            "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_REPOSITORY": "me/shop", "GITHUB_SHA": "0123456789abcdef", "RUNNER_TEMP": str(self.temporary),
            "GH_LOG": str(self.comments), "GH_CODE": str(gh_code), "GH_FOUND": gh_found,
        }  # fmt: skip
        script = self.folder / "step.sh"
        script.write_text(SCRIPTS[step])
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", script]
        done = subprocess.run(
            command, cwd=self.folder, env={**own, **settings, **asked}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        for line in output.read_text().splitlines():
            key, _, value = line.partition("=")
            self.outputs[key] = value
        return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("version", "said"), [("3.10.12", "the runner has Python 3.10.12"), ("", "the runner has none")]
)
def test_a_python_that_is_too_old_is_one_clear_line(tmp_path, version, said):
    python = tmp_path / "bin/python3"
    runner = Runner(tmp_path, tmp_path)
    told = f'[ "$1" != --version ] || echo Python {version}' if version else ""
    python.write_text(f"#!/bin/sh\n{told}\nexit 1\n")
    python.chmod(0o755)
    (line,) = runner.step("Install Poolbench", code=2).splitlines()
    assert line.startswith("::error::Poolbench needs Python 3.11 or newer; ") and said in line


@pytest.mark.parametrize(("code", "result"), [(0, "passed"), (1, "failed"), (2, "failed"), (3, "failed")])
@pytest.mark.parametrize("against", ["http://old", ""], ids=["duel", "diff"])
def test_a_comparison_that_could_not_be_made_fails_the_step(tmp_path, code, result, against):
    loadgen = tmp_path / "poolbench/bin/loadgen"
    loadgen.parent.mkdir(parents=True)
    loadgen.write_text(f"""#!/bin/sh
echo "$@" >>{tmp_path}/arguments
case $1 in
run) while [ "$1" != -o ]; do shift; done; echo '{{"aggregate": {{"counters": {{"http.responses": 9}}}}}}' >"$2" ;;
*) exit {code} ;;
esac
""")
    loadgen.chmod(0o755)
    (tmp_path / "old.json").write_text("{}")
    runner = Runner(tmp_path, tmp_path)
    given = {"script": "load.yml", "target": "http://new", "runs": "1", "against": against, "baseline": "old.json"}
    runner.step("Run and compare", code=code if code > 1 else 0, options="-e ci\n-k\n", **given)
    assert runner.outputs["result"] == result
    loaded = next(
        line for line in (tmp_path / "arguments").read_text().splitlines() if line.startswith(("run", "duel"))
    )
    assert " -e ci -k " in loaded
    # What is slower becomes the baseline all the same: the next ones are compared with it.
    assert runner.outputs.get("sound") == (None if against else "true")


def test_runs_without_an_answer_fail_and_become_no_baseline(tmp_path):
    loadgen = tmp_path / "poolbench/bin/loadgen"
    loadgen.parent.mkdir(parents=True)
    loadgen.write_text("""#!/bin/sh
[ $1 != run ] || { while [ "$1" != -o ]; do shift; done; echo '{"aggregate": {"counters": {"http.requests": 9}}}' >"$2"; }
""")
    loadgen.chmod(0o755)
    runner = Runner(tmp_path, tmp_path)
    said = runner.step("Run and compare", script="load.yml", target="http://new", runs="1")
    assert "::error::no request was answered" in said and runner.outputs["result"] == "failed"
    runner.step("Make them the baseline")
    assert "made" not in runner.outputs


def test_a_comment_replaces_the_one_of_an_earlier_run_and_no_other(tmp_path):
    runner = Runner(tmp_path, tmp_path)
    runner.outputs |= {"reports": str(tmp_path), "result": "passed"}
    runner.step("Comment on the pull request", name="home")
    runner.step("Comment on the pull request", name="home", gh_found="55\n66")
    look, made, _, changed = [line for line in runner.comments.read_text().splitlines() if line.startswith("api ")]
    assert "repos/me/shop/issues/7/comments" in look and 'startswith("<!-- poolbench: home -->")' in look
    assert made.startswith("api repos/me/shop/issues/7/comments --field body=@")
    assert changed.startswith("api --method PATCH repos/me/shop/issues/comments/55 --field body=@")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A runner's folder for temporary files, into which the first step has installed the tool."""
    temporary = tmp_path_factory.mktemp("runner")
    folder = tmp_path_factory.mktemp("install")
    Runner(folder, temporary).step("Install Poolbench")
    return temporary


@pytest.fixture
def runner(tmp_path, installed):
    (tmp_path / "load.yml").write_text(SCRIPT)
    (tmp_path / "service.py").write_text(SERVICE)
    return Runner(tmp_path, installed)


@pytest.fixture
def service(tmp_path, start_process):
    """service(seconds) -> the URL of a service that takes this long for an answer."""

    def start(seconds: float) -> str:
        port = free_port()
        start_process([sys.executable, str(tmp_path / "service.py"), str(port), str(seconds)])
        curl = ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}/"]
        wait_until(lambda: subprocess.run(curl, check=False).returncode == 0, "the service answers")
        return f"http://127.0.0.1:{port}"

    return start


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_baseline_is_made_and_then_a_slower_version_fails(runner, service):
    quick = {"script": "load.yml", "target": service(0.002), "name": "home"}
    said = runner.step("Run and compare", **quick)
    assert runner.outputs["result"] == "unjudged" and "There is no baseline to compare with yet." in said
    reports = Path(runner.outputs["reports"])
    assert sorted(path.name for path in reports.iterdir()) == ["comparison.md", "run1.json", "run2.json", "run3.json"]
    environment = json.loads((reports / "run1.json").read_text())["poolbench"]["environment"]
    assert environment["commit"] == "0123456789abcdef"
    assert "no baseline" in runner.summary.read_text()
    runner.step("Make them the baseline", **quick)
    assert runner.outputs["made"] == "true"
    runner.step("Result")

    slow = {"script": "load.yml", "target": service(0.2), "name": "home", "rules": "errors > 0.1%\np99 > +50%\n"}
    runner.step("Run and compare", **slow)
    assert runner.outputs["result"] == "failed"
    assert "FAILED: p99" in (reports / "comparison.md").read_text()
    assert (reports / "gates.xml").read_text().count("<testcase") == 2
    assert "## loadgen diff: 1 of 2 gates failed" in runner.summary.read_text()

    runner.step("Comment on the pull request", **slow)
    written = runner.comments.read_text()
    assert "<!-- poolbench: home -->\n### home: failed" in written
    assert "::warning::" in runner.step("Comment on the pull request", gh_code=1, **slow)
    assert "::error::" in runner.step("Result", code=1)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_versions_that_run_are_put_under_load_together(runner, service):
    runner.step(
        "Run and compare",
        script="load.yml",
        target=service(0.2),
        against=service(0.002),
        minutes="0.2",
        rules="p50 worse",
    )
    assert runner.outputs["result"] == "failed"
    assert "FAILED: p50 worse" in (Path(runner.outputs["reports"]) / "comparison.md").read_text()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("inputs", "code", "words"),
    [
        ({"name": "../x"}, 2, "::error::name '../x'"),
        ({"runs": "many"}, 2, "::error::runs 'many'"),
        ({"script": "nowhere.yml"}, 1, "nowhere.yml"),
        ({"runs": "1", "options": "--workers none"}, 2, "--workers"),
        ({"runs": "1", "baseline": "old/*.json"}, 2, "::error::baseline 'old/*.json': no file matches"),
        ({"runs": "1", "baseline": "service.py"}, 2, "service.py: no report"),
    ],
)
def test_bad_inputs_end_the_step_with_their_names(runner, service, inputs, code, words):
    assert words in runner.step("Run and compare", code=code, **{"script": "load.yml", "target": service(0), **inputs})
