"""The server: photos in and masks out, its page, its limits, what it refuses."""

from __future__ import annotations

import base64
import re
import socket
import sys
import threading
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

pytest.importorskip("fastapi")

import tag2mask as t2m
from tag2mask.data import voc_palette
from tag2mask.errors import RunError, UserError
from tag2mask.serve import app, fetch, serve
from tag2mask.serve import model as held
from tag2mask.serve.model import LiveModel


def mask_in(png):
    image = Image.open(BytesIO(png))
    assert image.mode == "P"
    assert image.getpalette() == voc_palette().ravel().tolist()
    return np.asarray(image)


def test_a_photo_gets_the_mask_of_the_command(client, seeing_run, shapes_folder, photo):
    wanted = t2m.load_segmenter(seeing_run).predict(shapes_folder / "photos/p13.jpg")
    body = client.post("/predict", content=photo)
    form = client.post("/predict", files={"photo": ("p13.jpg", photo)})
    for answer in (body, form):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        assert (mask_in(answer.content) == wanted).all()


def test_json_has_the_classes_as_run_lengths(client, seeing_run, shapes_folder, photo):
    model = t2m.load_segmenter(seeing_run)
    probable = model.predict_proba(shapes_folder / "photos/p13.jpg")
    found = client.post("/predict?format=json", content=photo).json()
    mask = mask_in(base64.b64decode(found["png"].partition(",")[2]))
    assert (found["height"], found["width"]) == mask.shape
    assert {one["label"] for one in found["classes"]} == set(np.unique(mask)) - {0}
    for one in found["classes"]:
        inside = mask == one["label"]
        assert (rle.decode(one["rle"]).astype(bool) == inside).all()
        assert one["name"] == model.classes[one["label"] - 1]
        assert one["score"] == pytest.approx(probable[one["label"]][inside].mean(), abs=1e-3)
        assert one["share"] == pytest.approx(inside.mean(), abs=1e-3)
    assert found["score"] == pytest.approx(np.take_along_axis(probable, mask[None].astype(int), 0).mean(), abs=1e-3)


def test_health(client, model):
    assert client.get("/health").json() == {
        "status": "UP", "model_class": "tag2mask", "model_version": model.version,
    }  # fmt: skip


def refused(answer, status, says):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    assert says in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert "/tmp" not in answer.json()["detail"]


def test_what_is_no_photo_is_refused_and_the_server_goes_on(client, photo, bomb):
    for content in (b"", b"hello", photo[:300], b"%!PS-Adobe"):
        refused(client.post("/predict", content=content), 422, "cannot be read")
    refused(client.post("/predict", content=bomb), 422, "million pixels")
    refused(client.post("/predict", files={"x": ("../../etc/passwd", b"no photo")}), 422, "../../etc/passwd: the photo")
    refused(client.post("/predict", data={"photo": "/etc/passwd"}), 422, "cannot be read")
    form = {"content-type": "multipart/form-data"}
    refused(client.post("/predict", content=b"--", headers=form), 422, "form")
    refused(client.post("/predict", files={"a": b"1", "b": b"2"}), 422, "form")
    assert client.post("/predict?format=exe", content=photo).status_code == 422
    assert client.post("/predict", content=photo).status_code == 200


def test_a_photo_of_more_pixels_than_the_server_takes(client, photo, monkeypatch):
    monkeypatch.setattr(held, "MOST_PIXELS", 1000)
    refused(client.post("/predict", content=photo), 422, "smaller copy")


def test_too_many_bytes(client, photo, monkeypatch):
    for module in (app, fetch):
        monkeypatch.setattr(module, "MOST_BYTES", 1000)
    refused(client.post("/predict", content=photo), 413, "more than")
    refused(client.post("/predict", content=iter([photo, photo])), 413, "more than")
    refused(client.post("/predict", files={"photo": photo}), 413, "more than")
    json = {"content-type": "application/json"}
    refused(client.post("/predict", content=b" " * 2000, headers=json), 413, "more than")


def test_too_many_requests_at_a_time(serving, photo, monkeypatch):
    monkeypatch.setattr(app, "MOST_WAITING", 0)
    answer = serving().post("/predict", content=photo)
    refused(answer, 503, "again later")
    assert answer.headers["retry-after"] == "2"


def test_a_place_is_given_back_after_an_error(serving, photo, monkeypatch):
    monkeypatch.setattr(app, "MOST_WAITING", 1)
    client = serving()
    for _ in range(3):
        refused(client.post("/predict", content=b"no photo"), 422, "cannot be read")
    assert client.post("/predict", content=photo).status_code == 200


def test_an_error_in_the_program_is_one_answer(serving, model, photo, monkeypatch):
    client = serving()
    with monkeypatch.context() as patch:
        patch.setattr(LiveModel, "predict", lambda *_: 1 / 0)
        assert client.post("/predict", content=photo).status_code == 500
    assert client.post("/predict", content=photo).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "["},
        {"host": "127.0.0.1.evil.example:9090"},
        {"origin": "http://evil.example"},
    ],
)
def test_pages_of_other_sites_are_refused(client, headers):
    refused(client.get("/health", headers=headers), 403, "other sites")


def test_other_names_where_other_machines_may_call(serving):
    client = serving(loopback=False)
    assert client.get("/health", headers={"host": "gpu.example:9090"}).status_code == 200
    refused(client.get("/health", headers={"host": "gpu.example", "origin": "http://evil.example"}), 403, "other sites")


@pytest.mark.parametrize("path", ["/setup", "/webhook", "/v1/predict"])
def test_json_must_say_that_it_is_json(client, path):
    """A page of another site can send text unasked, but no JSON."""
    refused(client.post(path, content=b"{}", headers={"content-type": "text/plain"}), 422, "send JSON")
    refused(client.post(path, json={"wrong": 1}), 422, "Field required")
    refused(client.post(path, content=b"{", headers={"content-type": "application/json"}), 422, "JSON")


def test_the_page_loads_nothing_from_outside(client):
    answer = client.get("/")
    assert "disc" in answer.text
    assert "seeing" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"(?:src|href)=|@import|url\(", answer.text)


def test_names_on_the_page_are_escaped():
    from tag2mask.serve.page import page

    html, _ = page("<b>", ["</script><script>alert(1)</script>"])
    assert "&lt;b&gt;" in html
    assert "alert(1)</script>" not in html


def test_the_model_is_exchanged_as_a_whole(a_run, shapes_folder):
    """A photo that has begun ends with the model that it began with; a broken new model changes nothing."""
    live, photo = LiveModel(a_run), shapes_folder / "photos/p13.jpg"
    before, begun, go_on = live.predict(photo), threading.Event(), threading.Event()
    scored = live._loaded.segmenter.predict_scored

    def slow(photo):
        begun.set()
        assert go_on.wait(10)
        return scored(photo)

    live._loaded.segmenter.predict_scored = slow
    seen = []
    thread = threading.Thread(target=lambda: seen.append(live.predict(photo)))
    thread.start()
    begun.wait(10)
    file = a_run / "segmenter-retrained.safetensors"
    kept = file.read_bytes()
    file.write_bytes(b"broken")
    live.reload()
    assert live.version == before.version
    file.write_bytes(kept)
    live.reload()
    go_on.set()
    thread.join()
    assert seen[0].version == before.version
    assert live.version != before.version
    assert live.predict(photo).version == live.version


def test_a_missing_package_is_said(finished_run, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr("tag2mask.serve.find_spec", lambda name: None if name == "uvicorn" else name)
    said = command("serve", finished_run)
    assert said.code == 2
    assert "serve needs uvicorn: python -m pip install 'tag2mask[serve]'" in said.err


def test_a_port_that_is_taken(finished_run, command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = command("serve", finished_run, "--port", taken.getsockname()[1])
    assert said.code == 2
    assert "choose another with --port" in said.err.splitlines()[-1]


def test_no_run(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        serve(tmp_path)
    with pytest.raises(UserError, match="give its address"):
        serve(tmp_path, label_studio="file:///etc")
