"""The training loop: it learns, it resumes exactly, it leaves unreadable photos out."""

from __future__ import annotations

import logging
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from tag2mask.config import ClassifierConfig, SegmenterConfig
from tag2mask.data import load, read_photo, write_mask
from tag2mask.data.loading import as_tensor, square
from tag2mask.errors import DataError, WeightsError
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier, targets_of
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import KeptFeatures
from tag2mask.training import loop
from tag2mask.training import segmenter as teaching
from tag2mask.training.classifier import train_classifier
from tag2mask.training.datasets import FrozenFeatures, KeptPhotos, MaskedPhotos, TaggedPhotos
from tag2mask.training.loop import fit
from tag2mask.training.segmenter import train_segmenter

HOW = SegmenterConfig(
    size=48, epochs=3, batch_size=4, learning_rate=1e-3, backbone_learning_rate=1e-4, crop=0.5, schedule="poly"
)
FROZEN = HOW.model_copy(update={"epochs": 3, "train_from": "last", "crop": 1.0, "label_stride": 3, "tag_weight": 1.0})


class Killed(BaseException):
    """The process ends here."""


def kill_after(monkeypatch, epochs):
    save = loop.save_checkpoint

    def save_and_die(file, model, optimiser, epoch, scaler):
        save(file, model, optimiser, epoch, scaler)
        if epoch == epochs:
            raise Killed

    monkeypatch.setattr(loop, "save_checkpoint", save_and_die)


def count_photos(monkeypatch):
    """Return a list that gets the number of photos of every call of a frozen backbone."""
    seen, build = [], teaching.folded_backbone

    def counting(backbone):
        features = build(backbone)

        def count(images):
            seen.append(len(images))
            return features(images)

        return count

    monkeypatch.setattr(teaching, "folded_backbone", counting)
    return seen


def trained(data, checkpoint, how=HOW, seed=0, masks=None, strict=False, shared=None):
    torch.manual_seed(3)
    segmenter = SegmentationNetwork("test_resnet", data.classes, weights="random", tags=how.tag_weight > 0)
    masks = masks or data.samples[0].mask.parent
    kept = KeptFeatures(shared, segmenter.backbone) if shared else None
    train_segmenter(
        segmenter, data.samples, masks, how, seed=seed, workers=0, checkpoint=checkpoint, strict=strict, kept=kept
    )
    return segmenter


def trained_classifier(data, checkpoint, how, strict=False, backbone="test_resnet"):
    torch.manual_seed(3)
    classifier = Classifier(Backbone(backbone, output_stride=32, weights="random"), data.classes)
    train_classifier(classifier, data.samples, how, seed=0, workers=0, checkpoint=checkpoint, strict=strict)
    return classifier


def assert_same(first, second):
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def losses(caplog):
    return [float(record.message.split("loss ")[1]) for record in caplog.records if "loss" in record.message]


@pytest.fixture(autouse=True)
def _messages(caplog):
    caplog.set_level(logging.INFO, "tag2mask")


@pytest.fixture(scope="module")
def data(shapes_folder):
    return load(shapes_folder)


@pytest.fixture(scope="module")
def few(data):
    return data.with_samples(data.samples[::2])


@pytest.mark.parametrize(("how", "epochs"), [(HOW, 1), (HOW, 2), (FROZEN, 1)])
def test_a_killed_training_ends_as_an_unbroken_one(few, tmp_path, monkeypatch, how, epochs):
    whole = trained(few, tmp_path / "unbroken.pt", how)
    with monkeypatch.context() as patch:
        kill_after(patch, epochs)
        with pytest.raises(Killed):
            trained(few, tmp_path / "checkpoint.pt", how)
    torch.rand(17)  # whatever else has happened since
    assert_same(trained(few, tmp_path / "checkpoint.pt", how), whole)


def test_a_classifier_killed_and_resumed(few, tmp_path, monkeypatch):
    how = ClassifierConfig(train="all", size=48, epochs=2, batch_size=8)
    whole = trained_classifier(few, tmp_path / "unbroken.pt", how)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            trained_classifier(few, tmp_path / "checkpoint.pt", how)
    assert_same(trained_classifier(few, tmp_path / "checkpoint.pt", how), whole)


def test_a_finished_training_is_not_done_again(few, tmp_path, caplog):
    finished = trained(few, tmp_path / "checkpoint.pt")
    caplog.clear()
    assert_same(trained(few, tmp_path / "checkpoint.pt"), finished)
    assert losses(caplog) == []


def test_seed_and_nothing_else_decides(few, tmp_path):
    how = HOW.model_copy(update={"epochs": 1})
    first = trained(few, tmp_path / "first.pt", how)
    torch.rand(5)
    assert_same(trained(few, tmp_path / "same.pt", how), first)
    other = trained(few, tmp_path / "other.pt", how, seed=1)
    assert not torch.equal(other.head.decode[-1].weight, first.head.decode[-1].weight)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_corrupt_or_foreign_checkpoint(data, tmp_path, content):
    file = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"model": {"a": torch.zeros(1)}, "optimiser": {}, "epoch": 1}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match="corrupt or of another training") as error:
        trained(data, file)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)


def test_a_segmenter_learns(data, tmp_path, caplog):
    how = HOW.model_copy(update={"size": 64, "epochs": 8, "crop": 1.0, "backbone_learning_rate": 1e-3})
    segmenter = trained(data, tmp_path / "checkpoint.pt", how)
    seen = losses(caplog)
    assert len(seen) == 8
    assert seen[0] == pytest.approx(math.log(3), abs=0.6)
    assert seen[-1] < 0.5 * seen[0]
    assert not segmenter.training


def test_a_classifier_learns(data, tmp_path, caplog):
    how = ClassifierConfig(
        train="all", size=64, epochs=8, batch_size=5, learning_rate=1e-2, backbone_learning_rate=1e-3, crop=1, colour=0
    )
    single = data.with_samples(tuple(sample for sample in data.samples if len(sample.labels) == 1))
    classifier = trained_classifier(single, tmp_path / "checkpoint.pt", how, backbone="resnet10t")
    seen = losses(caplog)
    assert seen[-1] < 0.5 * seen[0]
    photos = TaggedPhotos(single.samples, 2, 64, 1.0, 0.0)
    with torch.no_grad():
        logits = classifier(torch.stack([photos[index][1][0] for index in range(len(photos))])).logits
    assert (logits.argmax(1) + 1).tolist() == [sample.labels[0] for sample in single.samples]


@pytest.mark.parametrize("method", ["plain", "sec", "dsrg"])
def test_a_frozen_backbone_sees_each_photo_once(few, tmp_path, monkeypatch, caplog, method):
    seen, how = count_photos(monkeypatch), FROZEN.model_copy(update={"method": method})
    trained(few, tmp_path / "kept.pt", how)
    assert sum(seen) == 1 + 2 * len(few.samples)  # one to learn the maps' sizes, then each photo and its mirror image
    kept = losses(caplog)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept.pt"]
    caplog.clear()
    monkeypatch.setattr(teaching, "stays_the_same", lambda how: False)
    trained(few, tmp_path / "again.pt", how)
    assert kept == pytest.approx(losses(caplog), rel=5e-3 if method == "plain" else 1e-2)  # kept in half precision
    caplog.clear()
    trained(few, tmp_path / "shared.pt", how, shared=tmp_path / "features")
    assert kept == pytest.approx(losses(caplog), rel=3e-2)  # of photos resized otherwise


def test_photos_that_come_with_their_maps_are_those_that_were_seen(few, tmp_path):
    backbone = Backbone("test_resnet", ["layer3"], output_stride=16, weights="random")
    photos = MaskedPhotos(few.samples, few.samples[0].mask.parent, len(few.classes), 48, 1.0, flip=0)
    frozen = FrozenFeatures(photos, backbone, ["layer3"], tmp_path, pixels=True)
    frozen.compute(0, "")
    shared = KeptPhotos(photos, KeptFeatures(tmp_path / "features", backbone), pixels=True)
    for data in (frozen, shared):  # the latter's maps are of photos resized otherwise
        turned = set()
        for _ in range(8):
            maps, photo, mask, _ = data[2][1]
            wanted = backbone(photo[None])["layer3"][0]
            assert (maps - wanted).norm() < 0.2 * (maps - wanted.flip(-1)).norm()
            turned.add((photo.float().mean((0, 1)).argmax().item(), tuple(mask[24].tolist())))
        assert len(turned) == 2  # as it is, and its mirror image
    frozen.close()


def test_without_room_on_the_disk_a_frozen_backbone_sees_photos_every_epoch(few, tmp_path, monkeypatch):
    monkeypatch.setattr("tag2mask.training.datasets.disk_usage", lambda folder: SimpleNamespace(free=10_000))
    full = trained(few, tmp_path / "full.pt", FROZEN)
    monkeypatch.setattr(teaching, "stays_the_same", lambda how: False)
    assert_same(trained(few, tmp_path / "again.pt", FROZEN), full)


def test_frozen_modules_do_not_change(data, tmp_path):
    torch.manual_seed(3)
    before = SegmentationNetwork("test_resnet", data.classes, weights="random").backbone.model
    how = HOW.model_copy(update={"epochs": 1, "train_from": "C41"})
    after = trained(data, tmp_path / "checkpoint.pt", how).backbone.model
    assert torch.equal(before.layer3[0].conv1.weight, after.layer3[0].conv1.weight)
    assert torch.equal(before.layer1[0].conv1.weight, after.layer1[0].conv1.weight)
    assert not torch.equal(before.layer4[0].conv1.weight, after.layer4[0].conv1.weight)


@pytest.mark.parametrize("how", [HOW.model_copy(update={"epochs": 1}), FROZEN])
def test_an_unreadable_photo_is_reported_and_skipped(shapes, tmp_path, caplog, how):
    data = load(shapes)
    broken = data.samples[5].image
    broken.write_bytes(broken.read_bytes()[:700])
    segmenter = trained(data, tmp_path / "checkpoint.pt", how)
    said = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(said) == 1  # not once an epoch
    assert str(broken) in said[0]
    assert all(torch.isfinite(tensor).all() for tensor in segmenter.state_dict().values())


@pytest.mark.parametrize("train", ["segmenter", "classifier"])
def test_strict_ends_with_the_photo_that_cannot_be_read_any_more(shapes, tmp_path, train):
    data = load(shapes)
    broken = data.samples[5].image
    broken.write_bytes(broken.read_bytes()[:700])
    checkpoint = tmp_path / "checkpoint.pt"
    how = {
        "segmenter": (trained, HOW.model_copy(update={"epochs": 1})),
        "classifier": (trained_classifier, ClassifierConfig(train="all", size=48, epochs=1)),
    }
    learn, settings = how[train]
    with pytest.raises(DataError, match="the photo cannot be read") as error:
        learn(data, checkpoint, settings, strict=True)
    assert str(broken) in str(error.value)
    assert not checkpoint.exists()


def test_a_mask_of_another_size_is_reported_and_skipped(shapes, tmp_path, caplog):
    data = load(shapes)
    write_mask(data.samples[2].mask, np.zeros((10, 20), np.uint8))
    trained(data, tmp_path / "checkpoint.pt", HOW.model_copy(update={"epochs": 1}))
    said = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(said) == 1
    assert "p02.png: the mask is 20 x 10" in said[0]


@pytest.mark.parametrize("crop", [0.3, 1.0])
def test_photo_and_mask_are_augmented_alike(data, crop):
    """The objects are saturated on grey, so that colour tells where the mask must be."""
    torch.manual_seed(0)
    photos = MaskedPhotos(data.samples, data.samples[0].mask.parent, len(data.classes), 64, crop)
    for index in range(len(photos)):
        photo, mask, _ = photos[index][1]
        assert photo.shape == (3, 64, 64)
        assert mask.shape == (64, 64)
        assert set(mask.unique().tolist()) <= {0, *data.samples[index].labels}
        red, _, blue = photo.float()
        coloured = (red - blue).abs() > 90
        assert ((mask > 0) == coloured).float().mean() > 0.95


def test_tags_teach_what_masks_do_not(data, few, tmp_path):
    """The masks name the first class everywhere; the photos' tags tell the classes apart all the same."""
    for sample in few.samples:
        write_mask(tmp_path / f"masks/{sample.name}.png", np.ones(data.truth(sample).shape, np.uint8))
    how = HOW.model_copy(update={"epochs": 25, "learning_rate": 3e-3, "crop": 1.0, "tag_weight": 1.0})
    segmenter = trained(few, tmp_path / "checkpoint.pt", how, masks=tmp_path / "masks")
    present = targets_of((sample.labels for sample in few.samples), len(few.classes)).bool()
    images = torch.stack([as_tensor(square(read_photo(sample.image), 48)) for sample in few.samples])
    with torch.inference_mode():
        _, tags = segmenter.decode_with_tags(segmenter.backbone(images))
    assert tags[present].mean() > tags[~present].mean() + 2


def test_uncertain_pixels_teach_nothing(data, few, tmp_path):
    """Masks that are all 255 leave every parameter as it was."""
    for sample in few.samples:
        size = data.truth(sample).shape
        write_mask(tmp_path / f"masks/{sample.name}.png", np.full(size, 255, np.uint8))
    how = HOW.model_copy(update={"epochs": 1})
    torch.manual_seed(3)
    before = SegmentationNetwork("test_resnet", data.classes, weights="random")
    after = trained(few, tmp_path / "checkpoint.pt", how, masks=tmp_path / "masks")
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new), name


class Numbers(Dataset):
    """Batches that can be told apart."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index, (torch.full((1,), float(index)), torch.zeros(1))


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("poly", (1 - 5 / 6) ** 0.9)])
def test_every_item_is_seen_once_an_epoch_at_the_rate_of_the_schedule(tmp_path, schedule, last):
    model = nn.Linear(1, 1)
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.02}]
    optimiser = torch.optim.AdamW(groups)
    seen, rates = [], []

    def loss(trained, images, targets):
        seen.append(images.flatten().tolist())
        rates.append([group["lr"] for group in optimiser.param_groups])
        return functional.mse_loss(trained(images), targets)

    fit(
        model, Numbers(5), loss, optimiser, epochs=2, batch_size=2, schedule=schedule, seed=0, workers=0,
        checkpoint=tmp_path / "checkpoint.pt", label="numbers",
    )  # fmt: skip
    assert [len(batch) for batch in seen] == [2, 2, 1] * 2
    epochs = [[item for batch in batches for item in batch] for batches in (seen[:3], seen[3:])]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 2
    assert epochs[0] != epochs[1]
    assert rates[0] == pytest.approx([0.1, 0.02])
    assert rates[-1] == pytest.approx([0.1 * last, 0.02 * last])


def in_float16(monkeypatch, scale):
    """Train in float16 from a scale on that overflows: steps are left out until it has been halved often enough."""
    monkeypatch.setattr(loop, "half_type", lambda where: torch.float16)
    monkeypatch.setattr(loop, "half_precision", lambda where: torch.autocast("cpu", torch.float16))
    monkeypatch.setattr(loop, "GradScaler", partial(torch.amp.GradScaler, init_scale=scale))


def test_float16_is_scaled_and_a_killed_training_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    in_float16(monkeypatch, 2.0**40)

    def weights(checkpoint):
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        fit(
            model, Numbers(5), lambda model, images, targets: functional.mse_loss(model(images), targets),
            torch.optim.AdamW(model.parameters(), lr=0.01), epochs=20, batch_size=2, schedule="constant", seed=0,
            workers=0, checkpoint=checkpoint, label="numbers",
        )  # fmt: skip
        return model

    whole = weights(tmp_path / "unbroken.pt")
    with monkeypatch.context() as patch:
        kill_after(patch, 15)
        with pytest.raises(Killed):
            weights(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert 0 < state["scaler"]["scale"] < 2.0**30  # so many steps were left out, the rest were done
    assert state["optimiser"]["state"]
    assert_same(weights(tmp_path / "checkpoint.pt"), whole)
    (tmp_path / "checkpoint.pt").unlink()
    torch.save(state | {"scaler": {}}, tmp_path / "checkpoint.pt")
    assert not torch.equal(weights(tmp_path / "checkpoint.pt").weight, whole.weight)


@pytest.mark.parametrize("halves", [False, True])
def test_a_checkpoint_goes_on_in_another_precision(few, tmp_path, monkeypatch, halves):
    how = ClassifierConfig(train="all", size=32, epochs=2, batch_size=4)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        if halves:
            in_float16(patch, 1.0)
        with pytest.raises(Killed):
            trained_classifier(few, tmp_path / "checkpoint.pt", how)
    if not halves:
        in_float16(monkeypatch, 1.0)
    tensors = trained_classifier(few, tmp_path / "checkpoint.pt", how).state_dict().values()
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


@pytest.fixture
def _no_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_no_accelerator")
@pytest.mark.parametrize("theirs_first", [True, False])
def test_a_users_own_accelerator_and_ours_do_not_meet(few, tmp_path, theirs_first):
    how = ClassifierConfig(train="all", size=32, epochs=1, batch_size=8)
    wanted = trained_classifier(few, tmp_path / "alone.pt", how)
    assert not AcceleratorState._shared_state
    if theirs_first:
        Accelerator(mixed_precision="bf16")
        assert_same(trained_classifier(few, tmp_path / "beside.pt", how), wanted)
    assert Accelerator(mixed_precision="bf16").mixed_precision == "bf16"
