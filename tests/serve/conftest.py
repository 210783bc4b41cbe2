"""A server around the finished run, spoken to in this process."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.runs.trained import load_segmenter
from tag2mask.serve.app import make_app
from tag2mask.serve.corrections import Corrections
from tag2mask.serve.fetch import Photos
from tag2mask.serve.model import LiveModel


@pytest.fixture(scope="session")
def seeing_run(finished_run, shapes_folder, tmp_path_factory):
    """The finished run with a segmenter that finds both classes in every photo, wherever; read only."""
    out = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("serve") / "seeing"))
    file = out / "segmenter-retrained.safetensors"
    network, random = SegmentationNetwork.load(file), torch.Generator().manual_seed(0)
    weight, bias = list(network.head.parameters())[-2:]
    torch.nn.init.normal_(weight, std=3.0, generator=random)
    network.save(file)
    probable = load_segmenter(out).predict_proba(shapes_folder / "photos/p13.jpg")
    with torch.no_grad():  # equal chances in the middle of the range
        bias -= torch.tensor(np.log(probable).mean((1, 2)))
    network.save(file)
    return out


@pytest.fixture(scope="session")
def model(seeing_run, shapes_folder):
    live = LiveModel(seeing_run)
    assert len(live.predict(shapes_folder / "photos/p13.jpg").found()) == 2
    return live


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
