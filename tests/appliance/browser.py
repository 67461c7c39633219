"""Controls Chromium with WebDriver (w3.org/TR/webdriver2), by HTTP requests to Debian's chromedriver."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request

from machine import free_port

# Key of an element reference in a response.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, folder):
        port = free_port()
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}"
        try:
            self._wait_ready()
            arguments = [
                "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                "--autoplay-policy=no-user-gesture-required", "--window-size=1000,1400",
                f"--user-data-dir={folder}/chromium",
            ]
            options = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": options}})
            self._url += f"/session/{session['sessionId']}"
        except BaseException:
            self._driver.kill()
            raise

    def _wait_ready(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self._ask("GET", "/status")["ready"]:
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("chromedriver has not started within 60 s")

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode(errors='replace')}") from error

    def open(self, url):
        self._ask("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """Runs `script` in the page and returns its result."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.textContent", selector) or ""

    def _element(self, selector):
        element = self._ask("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        return f"/element/{element}"

    def click(self, selector):
        self._ask("POST", f"{self._element(selector)}/click", {})

    def choose_file(self, selector, file):
        self._ask("POST", f"{self._element(selector)}/value", {"text": str(file)})

    def wait(self, what, seconds, condition):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # Requests fail while a page is loading.
            try:
                result = condition()
            except AssertionError:
                result = None
            if result:
                return result
            time.sleep(0.3)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.text('body')[-2000:]}")

    def screenshot(self, file):
        file.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def close(self):
        try:
            self._ask("DELETE", "")
        except (OSError, AssertionError):
            pass
        self._driver.terminate()
        self._driver.wait(20)
