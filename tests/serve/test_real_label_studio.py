"""Label Studio itself: connected, it shows predictions, and what is submitted there comes back.

    TAG2MASK_LABEL_STUDIO=/path/to/bin/label-studio python -m pytest tests/serve/test_real_label_studio.py

with the program of an environment of its own; it takes a minute. The variable TAG2MASK_PICTURE names a PNG to write.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from browser import PROGRAM, Browser

from tag2mask.data import read_mask
from tag2mask.serve.corrections import TAKEN, WAITING
from tag2mask.serve.label_studio import mask_of

LABEL_STUDIO = os.environ.get("TAG2MASK_LABEL_STUDIO")
pytestmark = pytest.mark.skipif(not LABEL_STUDIO, reason="TAG2MASK_LABEL_STUDIO names no Label Studio")
USER = {"email": "a@example.com", "password": "not-secret-1"}
CONFIGURATION = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="disc"/><Label value="square"/></BrushLabels></View>"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def running(command, url, **environment):
    """Run a program that answers at an address."""
    import httpx

    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(240):
            assert process.poll() is None, f"{command[0]} has ended"
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_predictions_and_annotations(seeing_run, shapes_folder, tmp_path):
    import httpx

    run = Path(shutil.copytree(seeing_run, tmp_path / "run"))

    studio, ours = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path / "studio"), "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false", "LATEST_VERSION_CHECK": "false", "COLLECT_ANALYTICS": "false",
    }  # fmt: skip
    start = ["start", "--no-browser", "-b", "--internal-host", "127.0.0.1", "--port", studio.rpartition(":")[2]]
    start += ["--username", USER["email"], "--password", USER["password"]]
    with ExitStack() as stack:
        stack.enter_context(running([LABEL_STUDIO, *start], studio, **settings))
        client = stack.enter_context(httpx.Client(base_url=studio, headers={"referer": studio}, timeout=60))
        client.get("/user/login")
        client.post("/user/login", data=USER | {"csrfmiddlewaretoken": client.cookies["csrftoken"]})
        client.headers["x-csrftoken"] = client.cookies["csrftoken"]
        token = client.post("/api/token/").json()["token"]
        serve = [sys.executable, "-m", "tag2mask", "serve", str(run), "--port", ours.rpartition(":")[2]]
        serve += ["--label-studio", studio]
        stack.enter_context(running(serve, ours, LABEL_STUDIO_API_KEY=token))

        project = client.post("/api/projects", json={"title": "shapes", "label_config": CONFIGURATION}).json()["id"]
        names = ("p00", "p12")
        photos = [(name, (f"{name}.jpg", (shapes_folder / f"photos/{name}.jpg").read_bytes())) for name in names]
        client.post(f"/api/projects/{project}/import", files=photos)
        backend = client.post("/api/ml", json={"project": project, "url": ours, "title": "tag2mask"}).json()
        assert backend["state"] == "CO", backend
        client.post(
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}",
            json={"selectedItems": {"all": True, "excluded": []}},
        )
        tasks = client.get("/api/tasks", params={"project": project}).json()["tasks"]
        for task in tasks:
            [prediction] = client.get(f"/api/tasks/{task['id']}").json()["predictions"]
            name = task["data"]["image"].rpartition("-")[2].removesuffix(".jpg")
            size = read_mask(run / f"proxy/{name}.png").shape
            assert 0 < prediction["score"] <= 1
            assert prediction["model_version"] == backend["model_version"]
            assert prediction["result"]
            drawn = mask_of(prediction["result"], ("disc", "square"), size)
            client.post(f"/api/tasks/{task['id']}/annotations", json={"result": prediction["result"]})
            assert (came_back(run, name) == drawn).all()
        if PROGRAM and "TAG2MASK_PICTURE" in os.environ:
            look(client, f"{studio}/projects/{project}/data?task={tasks[0]['id']}")


def came_back(run, name):
    """Wait for a corrected mask; `tag2mask refine` may move it into the run at any time."""
    for _ in range(100):
        for folder in (WAITING, TAKEN, "corrected"):
            if (file := run / folder / f"{name}.png").is_file():
                return np.array(read_mask(file))
        time.sleep(0.1)
    raise AssertionError("the annotation has not come")


def look(client, url):
    browser = Browser()
    for name, value in client.cookies.items():
        browser.call("Network.setCookie", name=name, value=value, url=url)
    browser.call("Page.navigate", url=url)
    time.sleep(10)
    browser.picture(Path(os.environ["TAG2MASK_PICTURE"]))
    browser.close()
