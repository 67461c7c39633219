"""Run by `./ci/appliance test`, which builds what is needed and sets APPLIANCE to where it is."""

import http.server
import os
import re
import threading
from pathlib import Path

import pytest
from machine import Machine

BUILT = Path(os.environ["APPLIANCE"])


@pytest.fixture
def machine(tmp_path, request):
    machine = Machine(BUILT, tmp_path)
    yield machine
    machine.power_off()


class Depot(http.server.ThreadingHTTPServer):
    """Bundles over HTTP, in parts if asked (RAUC streams them). Counts what it sends."""

    daemon_threads = True

    def __init__(self, folder):
        self.folder = folder
        self.sent = 0
        super().__init__(("127.0.0.1", 0), Download)

    def url(self, name):
        # 10.0.2.2: the host, from QEMU's user network.
        return f"http://10.0.2.2:{self.server_port}/{name}"


class Download(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        file = self.server.folder / self.path.lstrip("/")
        if "/" in self.path.lstrip("/") or not file.is_file():
            self.send_error(404)
            return
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or size - 1)) if asked else (0, size - 1)
        last = min(last, size - 1)
        if first > last:
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if body:
            with file.open("rb") as content:
                content.seek(first)
                data = content.read(last - first + 1)
            self.server.sent += len(data)
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def depot():
    depot = Depot(BUILT / "bundles")
    threading.Thread(target=depot.serve_forever, daemon=True).start()
    yield depot
    depot.shutdown()
