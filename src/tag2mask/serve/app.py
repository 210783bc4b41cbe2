"""The server's pages and protocols: a photo in and its mask out, Label Studio, X-AnyLabeling."""

from __future__ import annotations

import base64
import logging
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse
from pycocotools import mask as rle
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tag2mask.data import photo_size
from tag2mask.data.decode import mask_image
from tag2mask.errors import DataError, UserError
from tag2mask.exports.polygons import components, polygon
from tag2mask.serve.corrections import Corrections
from tag2mask.serve.fetch import MOST_BYTES, Photos, split
from tag2mask.serve.label_studio import SPECK, mask_of, photo_name, place_of, prediction_of, read_control
from tag2mask.serve.model import LiveModel, Prediction
from tag2mask.serve.page import page

log = logging.getLogger("tag2mask")

MOST_TASKS = 1000
"""Tasks in a request."""

MOST_WAITING = 64
"""Requests for predictions that are at work or wait for their turn."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANNOTATED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")


class Setup(BaseModel):
    """What Label Studio says of a project when a model is connected."""

    schema_: str = Field(alias="schema")
    access_token: str | None = None


class Task(BaseModel):
    """A task of Label Studio."""

    data: dict[str, Any]


class Tasks(BaseModel):
    """Tasks to predict."""

    tasks: list[Task] = Field(max_length=MOST_TASKS)
    label_config: str


class Project(BaseModel):
    """A project of Label Studio."""

    label_config: str


class Annotation(BaseModel):
    """What a person drew."""

    result: list[dict[str, Any]]
    was_cancelled: bool = False


class Event(BaseModel):
    """What happened in Label Studio."""

    action: str
    project: Project | None = None
    task: Task | None = None
    annotation: Annotation | None = None


class RemotePhoto(BaseModel):
    """A photo from X-AnyLabeling, in a data URI."""

    image: str


class RefusedError(Exception):
    """A request that is too large, or one too many."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Turns:
    """How many requests may wait."""

    def __init__(self, most: int) -> None:
        self.free = most

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place while a request is worked on."""
        if not self.free:
            raise RefusedError(503, "too many requests wait; send this one again later")
        self.free -= 1
        try:
            yield
        finally:
            self.free += 1


def make_app(model: LiveModel, corrections: Corrections, photos: Photos, loopback: bool = True) -> FastAPI:
    """Return the server.

    Args:
        model: what predicts.
        corrections: where annotations go.
        photos: where the photos of Label Studio's tasks come from.
        loopback: it is reached from this machine alone: requests under other names are refused.
    """
    app = FastAPI(title="tag2mask", docs_url=None, redoc_url=None)  # whose scripts come from outside
    app.add_middleware(Guard, loopback=loopback)
    turns = Turns(MOST_WAITING)
    html, policy = page(model.run.resolve().name, model.classes)

    @app.exception_handler(UserError)
    async def wrong(_: Request, error: UserError) -> JSONResponse:
        log.warning("refused: %s", error)
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, error.status, {"Retry-After": "2"} if error.status == 503 else None)

    async def saved(write: Callable[[Path], None], name: str = "upload") -> Prediction:
        """Return what the model says of a photo that ``write`` puts into a file."""

        def work() -> Prediction:
            with tempfile.TemporaryDirectory(prefix="tag2mask-") as folder:
                file = Path(folder) / "photo"
                try:
                    write(file)
                    return model.predict(file)
                except DataError as error:
                    raise DataError(str(error).replace(str(file), name)) from None

        return await run_in_threadpool(work)

    @app.get("/", response_class=HTMLResponse)
    async def start() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "UP", "model_class": "tag2mask", "model_version": model.version}

    @app.post("/setup")
    async def setup(request: Request) -> dict[str, str]:
        given = await parsed(request, Setup)
        read_control(given.schema_, model.classes)
        photos.token = photos.token or given.access_token
        return {"model_version": model.version}

    @app.post("/predict")
    async def predict(request: Request, format: Literal["png", "json"] = "png") -> Response:
        with turns.one():
            if is_json(request):
                return JSONResponse(await predict_tasks(request))
            content, name = await photo_in(request)
            prediction = await saved(lambda file: content.save(file), name)
        if format == "json":
            return JSONResponse(as_record(prediction))
        return Response(png(prediction), media_type="image/png")

    async def predict_tasks(request: Request) -> dict[str, Any]:
        given = await parsed(request, Tasks)
        control = read_control(given.label_config, model.classes)
        results: list[Any] = []
        failed = ""
        for task in given.tasks:
            if await request.is_disconnected():
                break
            try:
                place = place_of(task.data, control)
                prediction = await saved(lambda file, place=place: photos.save(place, file))  # type: ignore[misc]
                results.append(prediction_of(prediction, control))
            except UserError as error:
                failed = str(error)
                log.warning("no prediction for a task: %s", error)
                results.append([])  # no prediction, where {} would be an empty one
        if failed and not any(results):
            raise DataError(failed)
        return {"results": results, "model_version": model.version}

    @app.post("/webhook")
    async def webhook(request: Request) -> dict[str, Any]:
        event = await parsed(request, Event)
        drawn = event.annotation
        if event.action not in _ANNOTATED or drawn is None or drawn.was_cancelled:
            return {"status": "ignored"}
        if event.project is None or event.task is None:
            raise DataError("the webhook has no project and task; let it send its payload")
        control, data = read_control(event.project.label_config, model.classes), event.task.data

        def take() -> str:
            name = photo_name(place_of(data, control), corrections.photos)
            mask = mask_of(drawn.result, model.classes, photo_size(corrections.photos[name]))
            corrections.refine_in_background({name: mask})
            return name

        return {"status": "ok", "photo": await run_in_threadpool(take)}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        about = {
            "display_name": f"tag2mask {model.version}",
            "classes": list(model.classes),
            "widgets": [{"name": "button_run"}, {"name": "toggle_preserve_existing_annotations"}],
            "batch_processing_mode": "default",
        }
        return {"success": True, "data": {"tag2mask": about}}

    @app.post("/v1/predict")
    async def remote(request: Request) -> dict[str, Any]:
        with turns.one():
            given = await parsed(request, RemotePhoto)
            if not given.image.startswith("data:"):
                raise DataError("image must be a data URI")
            found = await saved(lambda file: photos.save(given.image, file))
        return {"success": True, "data": {"shapes": as_shapes(found), "description": ""}}

    return app


class Guard:
    """Refuses what a page of another site has a browser send, under another name for this machine too."""

    def __init__(self, app: ASGIApp, loopback: bool) -> None:
        self.app, self.loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Request(scope).headers
        host, origin = headers.get("host", ""), headers.get("origin")
        named = self.loopback and split(f"//{host}").hostname not in LOOPBACK
        if named or (origin is not None and split(origin).netloc != host):
            await JSONResponse({"detail": "requests of other sites are refused"}, 403)(scope, receive, send)
            return

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        await self.app(scope, receive, careful)


class Upload:
    """A photo that was sent, in a file of its own or in memory."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def save(self, target: Path) -> None:
        """Write it to a file."""
        self.file.seek(0)
        with target.open("wb") as out:
            shutil.copyfileobj(self.file, out)
        self.file.close()


async def body_of(request: Request) -> AsyncGenerator[bytes, None]:
    """Yield what a request sends, as far as it is no larger than `MOST_BYTES`."""
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise RefusedError(413, f"more than {MOST_BYTES // 2**20} MB; make a smaller copy of the photo")
        yield part


async def photo_in(request: Request) -> tuple[Upload, str]:
    """Return the photo of a request, the body itself or the file of a form, and what to call it."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        file = tempfile.SpooledTemporaryFile(max_size=2**20)  # noqa: SIM115 - Upload closes it
        async for part in body_of(request):
            file.write(part)
        return Upload(file), "upload"
    try:
        form = await MultiPartParser(request.headers, body_of(request), max_files=1, max_fields=10).parse()
    except (MultiPartException, KeyError) as error:
        raise DataError(f"the form cannot be read ({error}); send one photo") from None
    sent = next((value for value in form.values() if isinstance(value, UploadFile)), None)
    if sent is None:
        raise DataError("the form has no file; send one photo")
    return Upload(sent.file), sent.filename or "upload"


def is_json(request: Request) -> bool:
    """Return whether a request says that it is JSON: no page of another site can say so unasked."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


async def parsed(request: Request, kind: type[Any]) -> Any:
    """Return a request's JSON as one of the models above.

    Raises:
        DataError: it is something else.
    """
    if not is_json(request):
        raise DataError("send JSON, with Content-Type: application/json")
    content = b"".join([part async for part in body_of(request)])
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise DataError(f"{'.'.join(map(str, first['loc'])) or 'the request'}: {first['msg']}") from None


def png(prediction: Prediction) -> bytes:
    """Return a mask as a palette PNG."""
    file = BytesIO()
    mask_image(prediction.mask).save(file, "PNG")
    return file.getvalue()


def as_record(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON: the classes found with their run lengths as COCO has them, and the palette PNG."""
    height, width = prediction.mask.shape
    classes = []
    for label, name in prediction.found():
        packed = rle.encode(np.asfortranarray(prediction.mask == label, np.uint8))
        classes.append(
            {
                "name": name,
                "label": label,
                "score": round(float(prediction.scores[label]), 4),
                "share": round(int(prediction.pixels[label]) / prediction.mask.size, 4),
                "rle": {"size": [height, width], "counts": packed["counts"].decode("ascii")},
            }
        )
    return {
        "model_version": prediction.version,
        "height": height,
        "width": width,
        "score": round(prediction.score, 4),
        "classes": classes,
        "png": f"data:image/png;base64,{base64.b64encode(png(prediction)).decode()}",
    }


def as_shapes(prediction: Prediction) -> list[dict[str, Any]]:
    """Return a prediction as X-AnyLabeling takes it: a polygon for each component."""
    return [
        {
            "label": prediction.classes[piece.label - 1],
            "shape_type": "polygon",
            "points": polygon(piece).round(2).tolist(),
            "score": round(float(prediction.scores[piece.label]), 4),
        }
        for piece in components(prediction.mask, SPECK)
    ]
