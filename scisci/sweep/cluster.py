"""Ray clusters: one of this process's own, or a running one that it joins."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from types import MappingProxyType
from typing import Any, TypeVar

import psutil

from scisci.contracts.errors import UserError
from scisci.sweep.resources import Needs, describe

PACKAGE = Path(__file__).resolve().parents[1]
OBJECT_STORE_BYTES = 80 * 2**20  # near Ray's least: jobs and outcomes are a few kB
PATIENCE_SECONDS = 30.0
COUNT_AGAIN_SECONDS = 30.0
ENDED, SILENT = (
    f"the Ray cluster {lost}; what is recorded stays, and the same command goes on"
    for lost in ("has ended", "does not answer")
)
T = TypeVar("T")


class Cluster:
    """What the machines of a Ray cluster hold, and whether this process still reaches it.

    All its workers have the variables in `environment`.
    """

    def __init__(self, ray: Any, grows: bool, environment: Mapping[str, str]) -> None:
        self.ray, self._grows, self.environment, self.answers = ray, grows, environment, True
        context = ray.get_runtime_context()
        self._nodes = ray.nodes()
        own = next(node for node in self._nodes if node["NodeID"] == context.get_node_id())
        head, _, port = context.gcs_address.rpartition(":")
        self._vital = [(head, int(port)), (own["NodeManagerAddress"], own["NodeManagerPort"])]
        self._capacities: dict[Needs, int] = {}
        self._counted = time.monotonic()

    def check(self) -> None:
        """Raise a `UserError` if the head or this machine's own node is gone: Ray would wait for them without end."""
        for host, port in self._vital:
            try:
                _reach(host, port)
            except OSError as error:
                self.answers &= not isinstance(error, TimeoutError)
                raise UserError(ENDED if self.answers else SILENT) from error

    def count(self, anew: bool = False) -> None:
        """See which nodes have left a running cluster and come to it; now and then, or at once with `anew`."""
        if self._grows and (anew or time.monotonic() - self._counted > COUNT_AGAIN_SECONDS):
            self._nodes, self._counted = self._ask(self.ray.nodes), time.monotonic()
            self._capacities.clear()

    def _ask(self, call: Callable[[], T]) -> T:
        """What `call` returns; a head that dies meanwhile, or hangs, is a `UserError`: Ray would wait for it."""
        answers: Queue[T] = Queue()
        threading.Thread(target=lambda: answers.put(call()), daemon=True).start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Empty):
                return answers.get(timeout=1.0)
            self.check()
        self.answers = False
        raise UserError(SILENT)

    def capacity(self, needs: Needs) -> int:
        """How many runs of these needs the cluster holds at a time."""
        if needs not in self._capacities:
            self._capacities[needs] = sum(needs.times_in(node["Resources"]) for node in self._nodes if node["Alive"])
        return self._capacities[needs]

    def __str__(self) -> str:
        nodes = [node["Resources"] for node in self._nodes if node["Alive"]]
        kinds = {describe(*(node.get(name, 0) for name in ("CPU", "GPU", "memory"))): None for node in nodes}
        return " / ".join(kinds)


def _reach(host: str, port: int) -> None:
    """See that something listens at an address."""
    socket.create_connection((host.strip("[]"), port), PATIENCE_SECONDS).close()


@contextlib.contextmanager
def local(
    cpus: int, gpus: bool, environment: Mapping[str, str] = MappingProxyType({}), ahead: Sequence[str] = ()
) -> Iterator[Cluster]:
    """A cluster on this machine that keeps to itself: no dashboard, nothing on the terminal.

    Without `gpus` Ray does not look for any. All workers have the variables in `environment`. If there are modules to
    import `ahead`, a worker for each core starts with Ray and imports them. All its processes end with this one,
    however it ends.
    """
    settings = {
        # Ray would run workers at low priority, which anything else on the machine slows down several times over
        "RAY_worker_niceness": "0",
        "RAY_prestart_worker_first_driver": "0",
    }
    if ahead:
        settings |= {"RAY_enable_worker_prestart": "1", "RAY_preload_python_modules": ",".join(ahead)}
    parent = os.environ.get("RAY_TMPDIR", "/tmp")
    with (
        tempfile.TemporaryDirectory(prefix="scisci-", dir=parent, ignore_cleanup_errors=True) as temporary,
        _connected(
            environment,
            settings,
            address="local",
            num_cpus=cpus,
            num_gpus=None if gpus else 0,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=temporary,
        ) as cluster,
    ):
        try:
            yield cluster
        finally:
            _end_autoscaler()


def _end_autoscaler() -> None:
    """Kill Ray's process that would add machines: it does not end when it is told to, and Ray waits a second for it."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(Path(part).name == "monitor.py" for part in child.cmdline()):
                child.kill()


@contextlib.contextmanager
def joined(address: str) -> Iterator[Cluster]:
    """The running cluster at `address` ("auto" or "host:port"), of which this machine must be a node."""
    if "://" in address:
        raise UserError(f"cannot join a cluster by {address}; run the command on a node of it, with '--address auto'")
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            _reach(host, int(port))
        except OSError as error:
            raise UserError(f"no Ray cluster answers at {address}") from error
    with _connected(address=address) as cluster:
        yield cluster


@contextlib.contextmanager
def _connected(
    environment: Mapping[str, str] = MappingProxyType({}),
    settings: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> Iterator[Cluster]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # reports of dead workers would break into the progress bar; the run's record says it better
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    import ray

    inherited = {**settings, **os.environ, **environment}
    if paths := os.environ.get("PYTHONPATH"):
        inherited["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
    # workers look for modules first where Ray starts: so they find this scisci, not that of a checkout
    with contextlib.chdir(PACKAGE.parent), _own_answer_to_sigterm(), _variables(inherited):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises it bare, too
            aim = "start Ray" if options["address"] == "local" else f"join the Ray cluster at {options['address']}"
            raise UserError(f"cannot {aim}: {' '.join(str(error).split())}") from error
    cluster = None
    try:
        cluster = Cluster(ray, grows=options["address"] != "local", environment=environment)
        yield cluster
    finally:
        if cluster is None or cluster.answers:
            ray.shutdown()
        else:
            # to disconnect would be to wait for the head, and without that Ray's threads crash a process at its end
            atexit.unregister(ray.shutdown)
            atexit.register(_leave)


@contextlib.contextmanager
def _variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Have these variables, for processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _own_answer_to_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray's prints stack traces before it calls that, and may abort after."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _leave() -> None:
    """End this process at once, by the exit code of a `UserError`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
