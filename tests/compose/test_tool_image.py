"""The tool's image: built from a plain Debian, and used with a folder of the user's."""

import json
import os
import subprocess
import sys

import pytest

from tests.compose.engine import BASE_IMAGE
from tests.compose.images import TOOL, build_tool
from tests.support.server_process import free_port, wait_until

pytestmark = pytest.mark.timeout(1200)

SCRIPT = """
config: {target: "http://127.0.0.1:PORT", phases: [{duration: 2, arrivalRate: 20}]}
scenarios: [{flow: [get: {url: /}]}]
"""
USER = "12345"


@pytest.fixture(scope="module")
def image(engine):
    """The name of the image."""
    build_tool(engine)
    return TOOL


@pytest.fixture
def run(engine, image):
    """run(*arguments, options=[...]) -> what the command prints, in a container that may do as little as possible."""

    def start(*arguments: str, options: tuple[str, ...] = ()) -> str:
        confined = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host")
        return engine.docker("run", "--rm", *confined, *options, image, *arguments)

    return start


def test_the_image_is_small_and_has_nobody_who_is_root(engine, image, run, finding):
    [about] = json.loads(engine.docker("image", "inspect", image))
    assert about["Config"]["Entrypoint"] == ["loadgen"] and about["Config"]["User"] == "10001:10001"
    [base] = json.loads(engine.docker("image", "inspect", BASE_IMAGE))
    assert about["Size"] - base["Size"] < 450 * 10**6
    finding(f"image of the tool: {about['Size'] // 10**6} MB, {base['Size'] // 10**6} MB of them the base")
    assert "Put load on an HTTP service" in run()
    assert run("--version").startswith("loadgen ")
    assert run("-c", "command -v pip gcc; id -u", options=("--entrypoint", "sh")).split() == ["10001"]


def test_a_script_is_run_and_its_report_is_the_users(run, tmp_path, start_process):
    port = free_port()
    start_process([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port)])
    curl = ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}/"]
    wait_until(lambda: subprocess.run(curl, check=False).returncode == 0, "the service answers", 20)
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, int(USER), int(USER))
    (folder / "load.yml").write_text(SCRIPT.replace("PORT", str(port)))
    mounted = ("--user", f"{USER}:{USER}", "-v", f"{folder}:/work")
    assert "http.codes.200" in run("run", "load.yml", "-o", "report.json", options=mounted)
    run("report", "report.json", "-o", "report.html", options=mounted)
    counters = json.loads((folder / "report.json").read_text())["aggregate"]["counters"]
    assert counters["http.codes.200"] == 40
    assert (folder / "report.html").stat().st_uid == int(USER)
