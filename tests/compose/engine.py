"""A container engine of our own, from nothing: Debian's docker.io, Compose from PyPI, one base image made by debootstrap.

Nothing is pulled. Socket, data and control groups are below a temporary folder and below this process's own group, so that
neither another engine of the machine nor what it runs is touched; leaving ends the engine and removes what it made. Only its
images stay where POOLBENCH_ENGINE names a folder for its data: the next engine there builds none of them again.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from db.child import Child, ChildError

BASE_IMAGE = "debian:bookworm-slim"
"""The name under which the base is imported: the one in the Dockerfiles' FROM, so that nothing is pulled."""

BASE = "--variant=minbase", "--include=ca-certificates", "bookworm"
"""What debootstrap makes; or what it has made already in the folder that POOLBENCH_BASE names."""

_SLIM = {
    "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
    "etc/apt/apt.conf.d/docker-clean": 'Dir::Cache { pkgcache ""; srcpkgcache ""; };\n',
    "etc/dpkg/dpkg.cfg.d/docker": "force-unsafe-io\npath-exclude /usr/share/man/*\npath-exclude /usr/share/locale/*\n"
    "path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n",
}
"""Files of the official image of this name: no translations, no manuals, and no waiting for the disk after each file."""

_NOT_IN_SLIM = (
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/*.bin",
    "var/lib/apt/lists/*",
    "usr/share/man/*",
    "usr/share/locale/*",
)

_DOCKER = "/usr/bin/docker"  # docker.io's; another program of that name may come first in PATH
_CGROUPS = Path("/sys/fs/cgroup")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_CPU_SHARES = 4096  # 1024 is one process
_START_PATIENCE_S = 60.0


class NoEngine(Exception):
    """An engine cannot be had here; the message says why."""


class Engine:
    """A `dockerd`, for as long as the block lasts. Raises NoEngine on entering.

    cpu_shares: the CPU that all containers together get while the machine is busy; 1024 is that of one process.
    """

    def __init__(self, cpu_shares: int = _CPU_SHARES) -> None:
        self._cpu_shares = cpu_shares

    def __enter__(self) -> Self:
        install()
        self.folder = Path(tempfile.mkdtemp(prefix="poolbench-engine-", dir="/var/tmp"))
        self._data = Path(os.environ.get("POOLBENCH_ENGINE") or self.folder / "data").resolve()
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{self.folder}/socket"}
        self._groups = Groups(self._cpu_shares)
        try:
            self._start()
            self._import_base()
            self._try()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was begun is taken away, whoever is impatient
        with contextlib.suppress(subprocess.CalledProcessError):
            if containers := self.docker("ps", "--all", "--quiet").split():
                self.docker("rm", "--force", "--volumes", *containers)
            self.docker("network", "prune", "--force")
        self._daemon.stop()
        for mounted in reversed([line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]):
            if mounted.startswith((f"{self.folder}/", f"{self._data}/")):
                subprocess.run(["umount", "--lazy", mounted], check=True)
        shutil.rmtree(self.folder)
        self._groups.remove()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def docker(self, *arguments: str) -> str:
        """What the command prints. Raises CalledProcessError."""
        return subprocess.run(
            [_DOCKER, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120
        ).stdout

    def _start(self) -> None:
        options = {
            "--host": self.environment["DOCKER_HOST"],
            "--data-root": self._data,
            "--exec-root": self.folder / "exec",
            "--pidfile": self.folder / "pid",
            "--bridge": "none",
            "--iptables": "false",  # ports are published by docker-proxy, names resolve on the stack's own networks
            "--ip6tables": "false",
        }
        if self._groups.parent:
            options["--cgroup-parent"] = self._groups.parent
        self._daemon = Child(
            ["/usr/sbin/dockerd", *(f"{name}={value}" for name, value in options.items())],
            log=self.folder / "log",
            patience_s=60.0,
            death_signal=signal.SIGTERM,
        )
        try:
            self._daemon.await_ready(self._answers, _START_PATIENCE_S, every_s=0.1)
        except ChildError as error:
            raise NoEngine(f"dockerd did not start: {error}") from None

    def _answers(self) -> bool:
        return not subprocess.run([_DOCKER, "info"], env=self.environment, capture_output=True, check=False).returncode

    def _try(self) -> None:
        """Run a container, on a network of its own, and one that must reach Debian's archive as a build does."""
        run = "run", "--rm", "--network"
        for arguments in (
            ("network", "create", "poolbench-trial"),
            (*run, "poolbench-trial", BASE_IMAGE, "true"),
            (*run, "host", BASE_IMAGE, "apt-get", "update", "-q"),
            ("network", "rm", "poolbench-trial"),
        ):
            tried = [_DOCKER, *arguments]
            done = subprocess.run(tried, env=self.environment, capture_output=True, text=True, check=False, timeout=120)
            if done.returncode:
                raise NoEngine(f"{' '.join(tried)} failed: {(done.stdout + done.stderr)[-500:]}")

    def _import_base(self) -> None:
        if self.docker("image", "ls", "--quiet", BASE_IMAGE):
            return
        root = Path(os.environ.get("POOLBENCH_BASE") or self.folder / "root")
        if not (root / "etc/os-release").exists():
            _run("debootstrap", *BASE, str(root))
        # This machine's certificates, for pip inside the builds: its way out may be one with a certificate of its own.
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
            (root / "etc/pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\n")
        for path, text in _SLIM.items():
            (root / path).write_text(text)
        left_out = [f"--exclude=./{each}" for each in _NOT_IN_SLIM]
        with subprocess.Popen(["tar", "-C", str(root), *left_out, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run([_DOCKER, "import", "-", BASE_IMAGE], env=self.environment, stdin=tar.stdout, check=True)
        shutil.rmtree(self.folder / "root", ignore_errors=True)


def install() -> None:
    """See to it that the programs are there. Raises NoEngine."""
    missing = [package for package, path in _PACKAGES.items() if not Path(path).exists()]
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        raise NoEngine("a container engine of one's own needs Linux and root")
    if missing and not shutil.which("apt-get"):
        raise NoEngine(f"no {', '.join(missing)}, and no apt-get that could get it")
    if missing:
        _run("apt-get", "update", "-q")
        _run("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)


_PACKAGES = {"docker.io": "/usr/sbin/dockerd", "debootstrap": "/usr/sbin/debootstrap"}


class Groups:
    """Where the containers' control groups go: with cgroup v1 below our own, whose limits hold for all that we start.

    `parent` is empty with v2, where a group that has processes can have no others below it.
    """

    def __init__(self, cpu_shares: int) -> None:
        self._cpu_shares = cpu_shares
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        own = {controllers: path for _, controllers, path in lines}.get("memory")
        self.parent = "" if own is None else f"{own.rstrip('/')}/poolbench-engine-{os.getpid()}"
        self._made: list[Path] = []
        for hierarchy in sorted(_CGROUPS.iterdir()) if self.parent else ():
            folders = Path(self.parent).relative_to("/")
            for folder in reversed([hierarchy / folders, *(hierarchy / each for each in folders.parents[:-1])]):
                self._make(folder)

    def _make(self, folder: Path) -> None:
        if not folder.exists() and (folder.parent / "cgroup.procs").exists():
            folder.mkdir()
            self._made.append(folder)
            if (folder / "cpu.shares").exists():
                (folder / "cpu.shares").write_text(str(self._cpu_shares))

    def remove(self) -> None:
        """Those that are empty, and were not there before."""
        for made in reversed(self._made):
            for folder in sorted((each for each in made.rglob("*") if each.is_dir()), reverse=True):
                folder.rmdir()
            made.rmdir()


def _run(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise NoEngine(f"{command[0]} failed: {done.stdout[-500:]}")
