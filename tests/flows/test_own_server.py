"""Promise: the login of Prefect's server goes to a program of its owner alone, whoever took the port."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.runtime.prefect_api import require_own_server
from services.serving.process import free_port
from tasks.core.errors import Unavailable

NOBODY = 65534
SERVER = """
import os, socket, sys
if int(sys.argv[3]) != os.getuid():
    os.setgroups([]), os.setgid(int(sys.argv[3])), os.setuid(int(sys.argv[3]))
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
connection, _ = server.accept()
request = connection.recv(65536)
connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\ntrue")
if sys.argv[2] == "closes":
    connection.close()
print(request, flush=True)
sys.stdin.read()
"""


def serve(port: int, user: int, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", "-c", SERVER, str(port), then, str(user)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen(command, text=True, **pipes)
    assert server.stdout.readline() == "listening\n"
    return server


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("then", ["stays", "closes"])
def test_another_users_server_gets_no_login(then):
    port = free_port()
    with serve(port, NOBODY, then) as server:
        with pytest.raises(Unavailable, match="Another user's program"):
            require_own_server("127.0.0.1", port)
        assert "uthorization" not in server.communicate()[0]


def test_the_own_server_is_taken_and_a_missing_one_is_no_error():
    port = free_port()
    with serve(port, os.getuid(), "stays") as server:
        require_own_server("127.0.0.1", port)
        server.communicate()
    require_own_server("127.0.0.1", port)
