"""A whole stack of a test's own, looked at through Prefect's API; and somebody who is told of alerts."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import httpx
import psutil

from tasks.foundation.settings import Settings
from tasks.ledger.approvals import Approval, listed
from tasks.ledger.store import Store
from tasks.serve.supervision import Supervisor
from tests.end_to_end.terminal import World
from tests.waiting import wait_for

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Home:
    """A world whose stack runs, with its own Prefect server and worker."""

    def __init__(self, world: World) -> None:
        self.world = world
        api = f"http://127.0.0.1:{world.variables['DRIFTLINE_PREFECT_PORT']}/api"
        self.http = httpx.Client(base_url=api, timeout=30, trust_env=False)

    def start(self, flow: str, case: str, **request: Any) -> str:
        """Start a deployment as a schedule or a button would; gives the run's id."""
        asked = {"parameters": {"request": {"case": case, **request}}, "state": {"type": "SCHEDULED"}}
        url, deadline = f"/deployments/{self.deployment(flow, case)}/create_flow_run", time.monotonic() + 30
        while (made := self.http.post(url, json=asked)).status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.2)  # its database is busy; Prefect's own clients ask again, too
        return str(made.raise_for_status().json()["id"])

    def deployment(self, flow: str, case: str) -> str:
        return str(self.http.get(f"/deployments/name/{flow}/{case}").raise_for_status().json()["id"])

    def runs(self, flow: str, case: str) -> list[dict[str, Any]]:
        """All runs of a deployment, oldest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [case]}}}
        found = self.http.post("/flow_runs/filter", json=body).raise_for_status().json()
        return sorted(found, key=lambda run: run["created"])

    def states(self, flow: str, case: str) -> list[str]:
        return [run["state_type"] for run in self.runs(flow, case)]

    def run(self, id_: str) -> dict[str, Any]:
        return self.http.get(f"/flow_runs/{id_}").raise_for_status().json()

    def ended(self, id_: str, patience: float = 120) -> dict[str, Any]:
        assert wait_for(lambda: self.run(id_)["state_type"] in ENDED, patience), self.run(id_)["state"]
        return self.run(id_)

    def reached(self, flow: str, case: str, step: str, patience: float = 120) -> bool:
        """Wait until a run of the deployment is at a step, or was too quick and is over."""

        def is_there() -> bool:
            if "COMPLETED" in self.states(flow, case):
                return True
            live = [run["id"] for run in self.runs(flow, case) if run["state_type"] == "RUNNING"]
            body = {"flow_runs": {"id": {"any_": live}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
            found = self.http.post("/task_runs/filter", json=body).raise_for_status().json() if live else []
            return any(run["name"].startswith(step) for run in found)

        return wait_for(is_there, patience)

    def kill_run(self, flow: str, case: str) -> None:
        """kill -9 of the processes of a deployment's runs."""
        ids = {run["id"] for run in self.runs(flow, case)}
        for process in self.processes():
            if process.environ().get("PREFECT__FLOW_RUN_ID") in ids:
                process.kill()

    def kill_program(self, name: str) -> None:
        """kill -9 of a program of the stack, with whatever its starter started."""
        process = psutil.Process(Supervisor(self.world.state).processes()[name]["pid"])
        for each in [process, *process.children()] if name == "prefect" else [process]:
            each.kill()

    def kill_all(self) -> None:
        """kill -9 of everything that belongs to this world: supervisor, servers, worker, runs, releases."""
        for process in self.processes():
            process.kill()

    @contextmanager
    def store(self) -> Iterator[Store]:
        with closing(Store(Settings(state=self.world.state))) as store:
            yield store

    def approvals(self, case: str) -> list[Approval]:
        with self.store() as store:
            return listed(store, case)

    def at_gateway(self, case: str) -> str:
        """The digest of the release that answers for a case."""
        url = f"http://127.0.0.1:{self.world.variables['DRIFTLINE_GATEWAY_PORT']}/readyz"
        return str(httpx.get(url, trust_env=False, timeout=30).raise_for_status().json()["champions"][case])

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DRIFTLINE_STATE") == str(self.world.state) and process.pid != os.getpid():
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


class Told:
    """What arrived at a webhook, and by mail."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.mails: list[str] = []


@contextmanager
def listening() -> Iterator[tuple[Told, str]]:
    """Somebody who listens on loopback; gives what they were told, and the channels that lead there."""
    told = Told()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.posts.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Mail(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                word = line[:4].upper()
                self.wfile.write({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 fine\r\n"))
                if word == b"DATA":
                    lines = iter(self.rfile.readline, b".\r\n")
                    told.mails.append(b"".join(lines).decode())
                    self.wfile.write(b"250 taken\r\n")
                if word == b"QUIT":
                    return

    hook, mail = ThreadingHTTPServer(("127.0.0.1", 0), Hook), ThreadingTCPServer(("127.0.0.1", 0), Mail)
    for server in (hook, mail):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    web, post = (f"127.0.0.1:{server.server_address[1]}" for server in (hook, mail))
    address = "from=driftline@example.org&to=team@example.org&mode=insecure"
    try:
        yield told, f"http://{web}/hook slack+http://{web}/slack mailto://{post}?{address}"
    finally:
        for server in (hook, mail):
            server.shutdown()
            server.server_close()
