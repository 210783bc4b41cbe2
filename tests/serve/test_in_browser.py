"""The page in a browser: photos chosen, masks shown, a bad file refused, on a phone and in dark mode."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from browser import PROGRAM, Browser

uvicorn = pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium")


@pytest.fixture
def address(serving):
    """A server at a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(serving().app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)
    listener.close()


def until(browser, condition):
    for _ in range(100):
        if browser.run(condition):
            return
        time.sleep(0.1)
    raise AssertionError(browser.run("document.body.innerText"))


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_photos_become_masks(address, shapes_folder, width, dark):
    browser = Browser()
    try:
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.call("Emulation.setEmulatedMedia", features=[scheme])
        browser.call("Page.navigate", url=address)
        until(browser, "document.readyState === 'complete' && !!document.getElementById('files')")
        assert browser.run("document.getElementById('tools').hidden")
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        files = browser.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
        chosen = [str(shapes_folder / name) for name in ("photos/p13.jpg", "tags.csv")]
        browser.call("DOM.setFileInputFiles", files=chosen, nodeId=files)
        until(browser, "document.getElementById('status').textContent === '1 of 2 photos done, 1 refused.'")
        assert browser.run("document.querySelectorAll('.legend li').length") >= 1
        assert browser.run("document.querySelector('.actions a').download") == "p13.png"
        assert "cannot be read" in browser.run("document.querySelector('.failed .state').textContent")
        shown = "(() => { const c = document.querySelector('canvas'), d = c.getContext('2d')"
        shown += ".getImageData(0, 0, c.width, c.height).data; return d.some((v, i) => i % 4 === 3 && v === 255); })()"
        assert browser.run(shown), "no pixel of the mask is drawn"
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        bright = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]") > 128
        assert bright != dark
        assert not browser.said("Runtime.exceptionThrown")
        errors = [one["entry"]["text"] for one in browser.said("Log.entryAdded")]
        assert [text for text in errors if "422" not in text] == []
        browser.click("#clear")
        assert browser.run("document.getElementById('cards').children.length") == 0
        assert browser.run("document.activeElement.id") == "files"
    finally:
        browser.close()
