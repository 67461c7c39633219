"""Fixtures. `./ci/image/appliance test` builds the required files, sets APPLIANCE to their folder and runs pytest."""

import http.server
import os
import re
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from machine import Machine

BUILT = Path(os.environ["APPLIANCE"])
# Address of the host in QEMU's user network.
HOST = "10.0.2.2"


def pytest_collection_modifyitems(items):
    """Starts the longest groups first, to shorten the total time."""
    longest = ["bad", "boot-files", "refused", "update", "watchdog"]

    def position(item):
        group = item.get_closest_marker("xdist_group")
        name = group.args[0] if group and group.args else ""
        return longest.index(name) if name in longest else len(longest)

    items.sort(key=position)


@pytest.fixture
def machine(tmp_path, request):
    machine = Machine(BUILT, tmp_path)
    yield machine
    machine.power_off()


class Depot(http.server.ThreadingHTTPServer):
    """Serves bundles over HTTP with range requests, which RAUC uses for streaming. Counts the bytes sent."""

    daemon_threads = True

    def __init__(self, folder, certificate=None, key=None):
        self.folder = folder
        self.sent = 0
        self.scheme = "https" if certificate else "http"
        super().__init__(("127.0.0.1", 0), Download)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            # The thread of each connection performs the handshake.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def url(self, name):
        return f"{self.scheme}://{HOST}:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        # Clients that do not trust the certificate close the connection.
        pass


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
    with Depot(BUILT / "bundles") as depot:
        yield depot


def make_certificate(folder):
    """Creates a self-signed certificate for the host, which no device trusts yet. Returns certificate and key."""
    certificate, key = folder / "host.pem", folder / "host.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30",
            "-subj", "/CN=depot", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )
    return certificate, key
