"""Label Studio's protocol and X-AnyLabeling's: what they send, what they take, and that nothing else is opened."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from made_shapes import CLASSES as CLASSES_OF_RUN

from tag2mask import cli
from tag2mask.data import read_mask, write_mask
from tag2mask.data.brush import decode_brush, encode_brush
from tag2mask.errors import DataError, UserError
from tag2mask.exports.polygons import draw
from tag2mask.serve import corrections as learning
from tag2mask.serve.corrections import TAKEN, WAITING, Corrections
from tag2mask.serve.fetch import Photos
from tag2mask.serve.label_studio import mask_of, photo_name, read_control
from tag2mask.serve.model import LiveModel

pytest.importorskip("fastapi")

CONFIGURATION = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="disc"/><Label value="square"/><Label value="other"/></BrushLabels>
</View>"""


def data_uri(content):
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def tasks(*images):
    return {"tasks": [{"id": 1, "data": {"image": one}} for one in images], "label_config": CONFIGURATION}


# --- Brush masks -------------------------------------------------------------------------------------------------

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_brush_masks_come_back(mask):
    assert (decode_brush(encode_brush(mask), *mask.shape) == mask).all()


def test_long_runs():
    mask = np.zeros((700, 300), bool)
    mask[100:, 3:] = True
    assert (decode_brush(encode_brush(mask), 700, 300) == mask).all()


@settings(deadline=None, max_examples=30)
@given(MASKS)
def test_brush_masks_are_those_of_label_studios_sdk(mask):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    assert (brush.decode_rle(encode_brush(mask)).reshape(*mask.shape, 4)[..., 3] == 255 * mask).all()
    theirs = brush.encode_rle(np.repeat(255 * mask.ravel().astype(np.uint8), 4))
    assert (decode_brush(theirs, *mask.shape) == mask).all()


def test_values_that_stand_one_by_one():
    """Label Studio's editor writes short runs so: a bit 0, which size, how many, the values."""
    values = [0, 0, 0, 0, 9, 9, 9, 255]
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{7:03b}"
    bits += "".join(f"{value:08b}" for value in values)
    packed = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    assert decode_brush(packed, 1, 2).tolist() == [[False, True]]


@given(st.binary(max_size=60))
def test_damaged_brush_masks_are_refused(content):
    good = encode_brush(np.eye(9, dtype=bool))
    for packed in (list(content), good[:7] + list(content), good[: len(content)]):
        with suppress(DataError):
            assert decode_brush(packed, 9, 9).shape == (9, 9)
    with pytest.raises(DataError, match="a photo of 9 x 8 pixels"):
        decode_brush(good, 9, 8)
    for wrong in (None, [300], ["a"], 10**15, "text", {"a": 1}):
        with pytest.raises(DataError):
            decode_brush(wrong, 9, 9)


# --- Predictions -------------------------------------------------------------------------------------------------


def test_setup(client, model):
    answer = client.post(
        "/setup", json={"project": "1.2", "schema": CONFIGURATION, "hostname": "x", "access_token": "t"}
    )
    assert answer.json() == {"model_version": model.version}
    other = client.post("/setup", json={"schema": CONFIGURATION.replace("disc", "cat").replace("square", "dog")})
    assert other.status_code == 422
    assert "'disc', 'square'" in other.json()["detail"]


def test_predictions_are_brush_masks_with_scores(client, model, shapes_folder, photo):
    wanted = model.predict(shapes_folder / "photos/p13.jpg")
    answer = client.post("/predict", json=tasks(data_uri(photo), data_uri(photo))).json()
    assert len(answer["results"]) == 2
    for one in answer["results"]:
        assert one["model_version"] == model.version
        assert one["score"] == pytest.approx(wanted.score, abs=1e-3)
        assert {region["value"]["brushlabels"][0] for region in one["result"]} == {name for _, name in wanted.found()}
        for region in one["result"]:
            assert (region["from_name"], region["to_name"], region["type"]) == ("tag", "image", "brushlabels")
            assert (region["original_height"], region["original_width"]) == wanted.mask.shape
            assert 0 < region["score"] <= 1
        assert (mask_of(one["result"], model.classes, wanted.mask.shape) == wanted.mask).all()


def test_predictions_are_polygons_where_the_project_has_no_brush(client, model, shapes_folder, photo):
    wanted = model.predict(shapes_folder / "photos/p13.jpg").mask
    sent = tasks(data_uri(photo)) | {"label_config": CONFIGURATION.replace("BrushLabels", "PolygonLabels")}
    [answer] = client.post("/predict", json=sent).json()["results"]
    drawn = mask_of(answer["result"], model.classes, wanted.shape)
    assert (drawn == wanted).mean() > 0.98


def test_labels_that_the_project_lacks_are_left_out(client, photo):
    sent = tasks(data_uri(photo)) | {"label_config": CONFIGURATION.replace("disc", "cat")}
    [answer] = client.post("/predict", json=sent).json()["results"]
    assert {region["value"]["brushlabels"][0] for region in answer["result"]} <= {"square"}


@pytest.mark.parametrize(
    "image", ["/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/x", "../x", "data:,x", ""]
)
def test_nothing_else_is_opened(client, image):
    answer = client.post("/predict", json=tasks(image))
    assert answer.status_code == 422
    assert "photo" in answer.json()["detail"]


def test_one_bad_task_of_several(client, photo, bomb):
    sent = tasks("/etc/passwd", data_uri(photo), data_uri(bomb))
    sent["tasks"].append({"data": {}})
    results = client.post("/predict", json=sent).json()["results"]
    assert [bool(one) for one in results] == [False, True, False, False]
    assert results[0] == []


@contextmanager
def label_studio(content):
    """A server that keeps a photo at /studio/data/upload/1/a.jpg; yields its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            known = {"/studio/data/upload/1/a.jpg": 200, "/studio/data/away.jpg": 302, "/elsewhere.jpg": 200}
            self.send_response(known.get(self.path, 404))
            self.send_header("Location", "/elsewhere.jpg")
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"access": "short"}')

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/studio", asked
    finally:
        server.shutdown()
        server.server_close()


def test_photos_are_fetched_from_label_studio_alone(serving, photo):
    with label_studio(photo) as (host, asked):
        client = serving(photos=Photos(host + "/", None))
        client.post("/setup", json={"schema": CONFIGURATION, "access_token": "secret"})
        for good in ("/data/upload/1/a.jpg", f"{host}/data/upload/1/a.jpg"):
            assert client.post("/predict", json=tasks(good)).status_code == 200
        assert asked == [("/studio/data/upload/1/a.jpg", "Token secret")] * 2
        other = host.replace("127.0.0.1", "localhost")
        for bad in (
            f"{other}/data/upload/1/a", f"{host}/api/users", f"{host}/data/../elsewhere.jpg", "//evil.example/data/a",
            f"{host.replace('http', 'ftp')}/data/a", f"{host.replace('//', '//x@')}/data/a", "data/up\\..\\x", "http://[",
        ):  # fmt: skip
            answer = client.post("/predict", json=tasks(bad))
            assert answer.status_code == 422, bad
        assert [path for path, _ in asked if "elsewhere" in path or "api" in path] == []
        assert "404" in client.post("/predict", json=tasks("/data/none.jpg")).json()["detail"]
        assert "302" in client.post("/predict", json=tasks("/data/away.jpg")).json()["detail"]
        assert asked[-1][0] == "/studio/data/away.jpg"
    assert "cannot be fetched" in client.post("/predict", json=tasks("/data/upload/1/a.jpg")).json()["detail"]


def test_a_personal_token_is_changed_first(photo, tmp_path):
    with label_studio(photo) as (host, asked):
        Photos(host, "aa.bb.cc").save("/data/upload/1/a.jpg", tmp_path / "photo")
    assert asked == [
        ("/studio/api/token/refresh", json.dumps({"refresh": "aa.bb.cc"})),
        ("/studio/data/upload/1/a.jpg", "Bearer short"),
    ]
    assert (tmp_path / "photo").read_bytes() == photo


def test_addresses_of_label_studio():
    for wrong in ("localhost:8080", "file:///x", "http://"):
        with pytest.raises(UserError, match="give its address"):
            Photos(wrong)


# --- Configurations and annotations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "configuration",
    [
        "<View>",
        "<View/>",
        '<!DOCTYPE x [<!ENTITY a "aaaa">]><View>&a;</View>',
        CONFIGURATION.replace("$image", "http://x"),
        CONFIGURATION.replace('toName="image"', 'toName="text"'),
        CONFIGURATION.replace("BrushLabels", "RectangleLabels"),
    ],
)
def test_configurations_without_masks(configuration):
    with pytest.raises(DataError, match="labelling configuration"):
        read_control(configuration, CLASSES_OF_RUN)


def region(mask, label, **changes):
    height, width = mask.shape
    return {
        "type": "brushlabels", "original_height": height, "original_width": width, "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]},
    } | changes  # fmt: skip


def test_later_regions_cover_earlier_ones():
    square, row = np.ones((4, 5), bool), np.zeros((4, 5), bool)
    row[1] = True
    other = {"type": "choices", "value": {"choices": ["good"]}}
    mask = mask_of([region(square, "disc"), other, region(row, "square")], CLASSES_OF_RUN, (4, 5))
    assert mask.tolist() == [[1] * 5, [2] * 5, [1] * 5, [1] * 5]


def test_polygons_are_drawn():
    points = [[10, 10], [90, 10], [50, 80]]
    drawn = region(
        np.ones((40, 60), bool), "", type="polygonlabels", value={"points": points, "polygonlabels": ["square"]}
    )
    assert ((mask_of([drawn], CLASSES_OF_RUN, (40, 60)) == 2) == draw(np.array(points) * (0.6, 0.4), 40, 60)).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"original_width": 6}, "the photo has 4 x 5"),
        ({"image_rotation": 90}, "turned by 90"),
        ({"value": {"brushlabels": ["cat"], "rle": []}}, "the label 'cat'"),
        ({"value": {"brushlabels": [], "rle": []}}, "no label"),
        ({"value": {"brushlabels": ["disc"], "rle": encode_brush(np.ones((9, 9), bool))}}, "324 values"),
        ({"value": {"brushlabels": ["disc"]}}, "cut off"),
        ({"type": "polygonlabels", "value": {"polygonlabels": ["disc"], "points": [[1, 2]]}}, "three points"),
        (
            {"type": "polygonlabels", "value": {"polygonlabels": ["disc"], "points": [[0, 1], [1e9, 0], [1, 1]]}},
            "coordinates",
        ),
        ({"type": "polygonlabels", "value": {"polygonlabels": ["disc"], "points": [[0, 0], [9, 99]] * 99}}, "longer"),
    ],
)
def test_bad_regions(changes, says):
    with pytest.raises(DataError, match=says):
        mask_of([region(np.ones((4, 5), bool), "disc", **changes)], CLASSES_OF_RUN, (4, 5))


def test_names_of_photos():
    names = ["a", "deep/a", "b c(1)", "0a1b2c3d-x"]
    for place, name in {
        "/data/upload/3/0a1b2c3d-a.jpg": "a",
        "http://host/data/deep/a.png?x=1": "deep/a",
        "/data/local-files/?d=all/deep/a.JPG": "deep/a",
        "/data/local-files/?d=b%20c%281%29.jpg": "b c(1)",
        "/data/upload/3/0a1b2c3d-b_c1.jpg": "b c(1)",
        "/data/upload/3/0a1b2c3d-x.jpg": "0a1b2c3d-x",
    }.items():
        assert photo_name(place, names) == name
    for place in ("/data/upload/1/0a1b2c3d-none.jpg", "", "/", "http://[", "data:image/png;base64,xx"):
        with pytest.raises(DataError, match="no training photo"):
            photo_name(place, names)
    with pytest.raises(DataError, match="could be 'p/x y', 'q/x y'"):
        photo_name("/data/upload/1/0a1b2c3d-x_y.jpg", ["p/x y", "q/x y"])


# --- Corrections that come back ----------------------------------------------------------------------------------


def event(mask, photo="p00.jpg", action="ANNOTATION_CREATED", **changes):
    return {
        "action": action,
        "project": {"id": 1, "label_config": CONFIGURATION},
        "task": {"data": {"image": f"/data/upload/1/0a1b2c3d-{photo}"}},
        "annotation": {"id": 5, "result": [region(mask, "disc")]},
    } | changes


@pytest.fixture
def refining(a_run, monkeypatch):
    """Corrections of a run whose refinement is in the test's hand: it waits for ``go_on`` and notes what it got."""
    got, done, go_on, ended = [], threading.Event(), threading.Event(), [True]

    def refine(run, folder):
        assert go_on.wait(10)
        got.append({file.stem: read_mask(file) for file in folder.rglob("*.png")})
        if not ended[0]:
            done.set()
        return ended[0]

    monkeypatch.setattr(learning, "refine", refine)
    made = Corrections(a_run, done.set)
    made.got, made.done, made.go_on, made.ended = got, done, go_on, ended
    return made


def test_annotations_are_kept_and_learnt_from(serving, refining):
    client, shape = serving(corrections=refining), read_mask(refining.run / "proxy/p00.png").shape
    full, empty = np.ones(shape, bool), np.zeros(shape, bool)
    assert client.post("/webhook", json=event(full)).json() == {"status": "ok", "photo": "p00"}
    while not (refining.run / TAKEN).is_dir():
        pass
    client.post("/webhook", json=event(empty))  # corrected once more, while the first is learnt from
    assert len(list((refining.run / WAITING).rglob("*.png"))) == 1
    refining.go_on.set()
    while len(refining.got) < 2:
        assert refining.done.wait(10)
    first, second = refining.got
    assert (first["p00"] == 1).all()
    assert (second["p00"] == 0).all()


def test_a_refinement_that_fails_is_tried_again(serving, refining):
    client, shape = serving(corrections=refining), read_mask(refining.run / "proxy/p00.png").shape
    refining.go_on.set()
    refining.ended[0] = False
    client.post("/webhook", json=event(np.ones(shape, bool)))
    assert refining.done.wait(10)
    assert len(list((refining.run / TAKEN).rglob("*.png"))) == 1
    refining.done.clear()
    refining.ended[0] = True
    again = Corrections(refining.run, refining.done.set)  # the next server
    again.take_up()
    assert refining.done.wait(10)
    assert not (refining.run / TAKEN).exists()


@pytest.mark.skipif(not any(one.callback.__name__ == "refine" for one in cli.app.registered_commands), reason="none")
def test_the_command_learns_from_the_masks(a_run, tmp_path):
    write_mask(tmp_path / "masks/p00.png", read_mask(a_run / "proxy/p00.png") * 0)
    assert learning.refine(a_run, tmp_path / "masks")


def test_an_annotation_changes_the_model(serving, a_run):
    """From the submitted annotation to the new model, with nothing replaced."""
    live, swapped = LiveModel(a_run), threading.Event()

    def reload():
        live.reload()
        swapped.set()

    client = serving(model=live, corrections=Corrections(a_run, reload))
    before = client.get("/health").json()["model_version"]
    shape = read_mask(a_run / "proxy/p00.png").shape
    assert client.post("/webhook", json=event(np.ones(shape, bool))).json() == {"status": "ok", "photo": "p00"}
    assert swapped.wait(120)
    assert client.get("/health").json()["model_version"] != before
    assert (read_mask(a_run / "refined/p00.png") == 1).all()
    assert not (a_run / WAITING / "p00.png").exists()
    assert not (a_run / TAKEN).exists()


def test_why_a_refinement_failed_is_said(tmp_path, caplog):
    assert not learning.refine(tmp_path, tmp_path)
    assert f"corrections stay in {tmp_path}: " in caplog.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": {"data": {"image": "/data/upload/1/0a1b2c3d-none.jpg"}}}, "no training photo"),
        (
            {"task": {"data": {"image": "/data/upload/1/0a1b2c3d-p13.jpg"}}},
            "no training photo",
        ),  # of the evaluation split
        ({"task": {"data": {}}}, "'image' is missing"),
        ({"task": None}, "payload"),
        ({"annotation": {"result": [region(np.ones((3, 3), bool), "disc")]}}, "3 x 3 pixels"),
        ({"project": {"label_config": "<View/>"}}, "labelling configuration"),
    ],
)
def test_bad_annotations_leave_nothing(serving, refining, changes, says):
    answer = serving(corrections=refining).post("/webhook", json=event(np.ones((3, 3), bool), **changes))
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert not (refining.run / WAITING).exists()


STRANGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
KEYS = ("type", "original_width", "image_rotation", "value", "rle", "points", "brushlabels", "polygonlabels")


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KEYS), STRANGE, st.sampled_from(("brushlabels", "polygonlabels")))
def test_strange_annotations_are_taken_or_refused(key, strange, kind):
    points = [[10, 10], [90, 10], [50, 80]]
    drawn = region(np.ones((4, 5), bool), "disc", type=kind)
    drawn["value"] |= {"points": points, "polygonlabels": ["disc"]}
    place = drawn if key in drawn else drawn["value"]
    place[key] = strange
    with suppress(DataError):
        assert mask_of([drawn], CLASSES_OF_RUN, (4, 5)).shape == (4, 5)


@given(STRANGE)
def test_strange_requests_are_refused(strange):
    from tag2mask.serve.app import Event, Tasks

    for kind in (Event, Tasks):
        with suppress(ValueError):
            kind.model_validate_json(json.dumps(strange))


def test_what_is_no_annotation_is_passed_over(serving, refining):
    client = serving(corrections=refining)
    skipped = {"annotation": {"result": [], "was_cancelled": True}}
    for sent in ({"action": "PROJECT_UPDATED"}, {"action": "START_TRAINING"}, event(np.ones((3, 3), bool), **skipped)):
        assert client.post("/webhook", json=sent).json() == {"status": "ignored"}
    assert not (refining.run / WAITING).exists()


def test_a_segmenter_without_its_run_learns_nothing(serving, tmp_path, finished_run, command):
    assert command("export", "huggingface", finished_run, "--out", tmp_path / "shared").code == 0
    from tag2mask.serve.model import LiveModel

    client = serving(LiveModel(tmp_path / "shared"))
    answer = client.post("/webhook", json=event(np.ones((3, 3), bool)))
    assert answer.status_code == 422
    assert "no run folder" in answer.json()["detail"]


# --- X-AnyLabeling -----------------------------------------------------------------------------------------------


def test_x_anylabeling(client, model, shapes_folder, photo):
    listed = client.get("/v1/models").json()["data"]
    assert listed["tag2mask"]["classes"] == list(model.classes)
    sent = {"model": "tag2mask", "image": data_uri(photo), "params": {"conf_threshold": 0.0}}
    shapes = client.post("/v1/predict", json=sent).json()["data"]["shapes"]
    wanted = model.predict(shapes_folder / "photos/p13.jpg").mask
    drawn = np.zeros_like(wanted)
    for shape in shapes:
        assert shape["shape_type"] == "polygon"
        drawn[draw(np.array(shape["points"]), *wanted.shape)] = model.classes.index(shape["label"]) + 1
    assert (drawn == wanted).mean() > 0.98
    assert client.post("/v1/predict", json=sent | {"image": "/etc/passwd"}).status_code == 422
