"""The compose file's stack on an engine of our own, as a test sees it."""

import json
import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.compose.engine import BASE_IMAGE, Engine
from tests.support.paths import ROOT
from tests.support.server_process import Answer, free_port, wait_until

COMPOSE = Path(sys.executable).with_name("docker-compose")
FILES = ("-f", "docker-compose.yml", "-f", "docker-compose.local.yml")
PATIENCE_S = 900.0  # a build fetches packages


class Stack:
    """The services of docker-compose.yml, built by docker-compose.local.yml."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.port = free_port()
        self._environment = engine.environment | {
            "BASE_IMAGE": BASE_IMAGE,
            "COMPOSE_PARALLEL_LIMIT": "1",  # the classic builder: stages that two services share are built once
            "POOLBENCH_PORT": str(self.port),
        }

    def compose(self, *arguments: str, **settings: str) -> str:
        """What `docker compose` prints. Raises CalledProcessError, its complaint in the captured output."""
        done = subprocess.run(
            [COMPOSE, "--progress", "plain", *FILES, *arguments],
            cwd=ROOT,
            env=self._environment | settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:])  # noqa: T201 - pytest shows it with the failure
            done.check_returncode()
        return done.stdout

    def run_in(self, service: str, *command: str, index: int = 1) -> str:
        """What a command prints in a container of the service."""
        return self.compose("exec", "-T", "--index", str(index), service, *command)

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the engine knows of each container of the service."""
        found = self.compose("ps", "--all", "--quiet", service).split()
        return sorted(json.loads(self._engine.docker("inspect", *found)), key=lambda each: each["Name"])

    def kill(self, service: str) -> float:
        """SIGKILL from outside to the first container's first process, as a crash would; when it was sent.

        Not `docker kill`: for the engine that is a wish, after which it starts nothing again.
        """
        (pid, *_) = (each["State"]["Pid"] for each in self.containers(service))
        killed_s = time.monotonic()
        os.kill(pid, 9)
        return killed_s

    def volume(self, name: str) -> Path:
        """Where a volume's files are on this machine."""
        return Path(self._engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", f"poolbench_{name}").strip())

    @property
    def token(self) -> str:
        """The API's, made at the first start."""
        return (self.volume("secrets") / "api-token").read_text()

    @property
    def admin_url(self) -> str:
        """The database, for a look at what it holds; from this machine, which is on the stack's networks as well."""
        password = (self.volume("secrets") / "postgres-password").read_text()
        (container,) = self.containers("db")
        address = container["NetworkSettings"]["Networks"]["poolbench_database"]["IPAddress"]
        return f"postgresql://postgres:{quote(password)}@{address}:5432/poolbench?connect_timeout=5"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request to the balancer, each on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            body, given = json.dumps(body), given | {"Content-Type": "application/json"}
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def new_link(self, url: str = "https://example.com/a", **headers: str) -> dict[str, Any]:
        """A link made with the token."""
        answer = self.request("POST", "/links", {"url": url}, Authorization=f"Bearer {self.token}", **headers)
        assert answer.status == 201, answer
        return answer.json

    def wait_until_whole(self) -> None:
        """Return when four servers are healthy and the balancer sees the database."""

        def whole() -> bool:
            states = [each["State"].get("Health", {}).get("Status") for each in self.containers("app")]
            return states == ["healthy"] * 4 and self.request("GET", "/health").status == 200

        wait_until(whole, "four healthy servers", 60.0)
