"""A server around the finished run, spoken to in this process."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from tag2mask.serve.app import make_app
from tag2mask.serve.corrections import Corrections
from tag2mask.serve.fetch import Photos
from tag2mask.serve.model import LiveModel


@pytest.fixture(scope="session")
def model(finished_run):
    return LiveModel(finished_run)


@pytest.fixture
def serving(model):
    """Make a client of a server, of another model or with other photos if they are given."""

    def start(model=model, corrections=None, photos=None, **options):
        corrections = corrections or Corrections(model.run, model.reload)
        app = make_app(model, corrections, photos or Photos(), **options)
        return TestClient(app, base_url="http://127.0.0.1:9090", raise_server_exceptions=False)

    return start


@pytest.fixture
def client(serving):
    return serving()


@pytest.fixture(scope="session")
def photo(shapes_folder):
    """The content of a photo that was not trained on."""
    return (shapes_folder / "photos/p13.jpg").read_bytes()


@pytest.fixture(scope="session")
def bomb():
    """A small PNG of 400 million pixels."""
    file = BytesIO()
    Image.new("1", (20000, 20000)).save(file, "PNG")
    return file.getvalue()
