"""CAM, Grad-CAM and DDT: by hand, against each other, and against a plain decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tag2mask.data import load
from tag2mask.data.loading import photo_batches
from tag2mask.methods.cam import normalised_cam
from tag2mask.methods.ddt import ddt_scores, discover_ddt, largest_component
from tag2mask.methods.gradcam import grad_cam, grad_cam_scores
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.patterns.estimator import ClassPatterns
from tag2mask.proxy import assign

LABELS = [(2,), (1, 3), (), (1, 2, 3)]


@pytest.fixture(scope="module")
def data(shapes_folder):
    return load(shapes_folder)


def a_classifier(layer, classes=("a", "b", "c"), name="test_resnet"):
    torch.manual_seed(0)
    return Classifier(Backbone(name, [layer], weights="random"), classes).eval()


def photos(count=4):
    return torch.randint(0, 256, (count, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_cam_as_shares_of_the_maximum():
    maps = torch.tensor([[[[-1.0, 2.0], [4.0, 0.0]], [[-1.0, -2.0], [-4.0, -1.0]]]])
    assert normalised_cam(maps)[0, 0].tolist() == [[0, 0.5], [1, 0]]
    assert not normalised_cam(maps)[0, 1].any()
    torch.testing.assert_close(normalised_cam(1e-12 * maps), normalised_cam(maps))


def test_grad_cam_by_hand():
    r"""With $y_c = \sum_k w_{ck} \sum_u f_k(u)^2$ the weights are $2 w_{ck}$ times the mean of $f_k$."""
    maps = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = torch.randn(2, 3)
    logits = torch.einsum("nkhw,ck->nc", maps**2, weight)
    found = grad_cam(logits, maps, [(1, 2), (2,)])
    alpha = 2 * weight[None] * maps.detach().mean((2, 3))[:, None]
    wanted = torch.einsum("nck,nkhw->nchw", alpha, maps.detach()).clamp_min(0)
    wanted[1, 0] = 0
    torch.testing.assert_close(found, wanted)


def test_grad_cam_at_the_pooled_map_is_cam():
    classifier = a_classifier(LAST)
    images = photos()
    cam = normalised_cam(classifier.activation(classifier(images).features[LAST])).detach()
    found = grad_cam_scores(classifier, images, [(1, 2, 3)] * 4)
    torch.testing.assert_close(found, cam, rtol=1e-4, atol=1e-5)
    seen = classifier(images.float().requires_grad_())
    activation = classifier.activation(seen.features[LAST]).detach()
    raw = grad_cam(seen.logits, seen.features[LAST], [(1, 2, 3)] * 4)
    torch.testing.assert_close(raw, activation.clamp_min(0) / activation[0, 0].numel(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", ["layer2.0", "layer3.0"])
def test_grad_cam_of_any_layer_is_the_gradients_of_a_copy_of_the_network(layer):
    """The rest of the network is run again from that layer's output, image by image."""
    classifier, images = a_classifier(layer), photos()
    classifier.requires_grad_(False)
    found = grad_cam_scores(classifier, images, LABELS)
    model = classifier.backbone.model
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    first = int(layer[5])
    for row, labels in enumerate(LABELS):
        with torch.no_grad():
            start = classifier(images[row : row + 1]).features[layer]
        for label in (1, 2, 3):
            maps = start.clone().requires_grad_()
            rest = maps
            for stage in stages[first:]:
                rest = stage(rest)
            classifier.head(rest.mean((2, 3)))[0, label - 1].backward()
            raw = (maps.grad.mean((2, 3))[:, :, None, None] * start).sum(1).clamp_min(0)
            wanted = raw / raw.max().clamp_min(1e-30) if label in labels else torch.zeros_like(raw)
            torch.testing.assert_close(found[row, label - 1], wanted[0], rtol=1e-3, atol=1e-4)


def test_grad_cam_of_a_transformer_at_its_last_layer():
    classifier = a_classifier(LAST, name="vit_tiny_patch16_224")
    images = photos(2)
    cam = normalised_cam(classifier.activation(classifier(images).features[LAST])).detach()
    torch.testing.assert_close(grad_cam_scores(classifier, images, [(1, 2, 3)] * 2), cam, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def ddt(data):
    classifier = a_classifier("layer3.0", data.classes)
    patterns = ClassPatterns("test_resnet", "layer3.0", size=64, workers=0)
    discover_ddt(classifier, data, [patterns])
    return patterns


def descriptors(patterns, samples):
    """Return every photo's feature map and class activations."""
    for _, images in photo_batches(samples, patterns.size, workers=0):
        with torch.no_grad():
            features = patterns.classifier_(images).features
        yield features["layer3.0"], patterns.classifier_.activation(features[LAST]).detach()


def test_ddt_is_the_first_component_of_all_descriptors_of_all_photos(data, ddt):
    every = torch.cat([maps for maps, _ in descriptors(ddt, data.samples)])
    flat = every.permute(0, 2, 3, 1).reshape(-1, every.shape[1]).double().numpy()
    plain = PCA(1, svd_solver="full").fit(flat)
    for row in range(2):
        np.testing.assert_allclose(ddt.means_[row], plain.mean_, atol=1e-4)
        assert abs(float(ddt.directions_[row].double().numpy() @ plain.components_[0])) == pytest.approx(1, abs=1e-4)
        assert float(ddt.spectra_[row, 0]) == pytest.approx(plain.explained_variance_[0], rel=1e-2)
    assert ddt.classes_ == data.classes


def test_ddts_sign_goes_with_the_activations_of_the_photos_own_classes(data, ddt):
    together, scores = [], []
    for start, (maps, activation) in zip(range(0, 14, 8), descriptors(ddt, data.samples), strict=True):
        projection = torch.einsum("ndhw,d->nhw", maps - ddt.means_[0][:, None, None], ddt.directions_[0])
        for row, sample in enumerate(data.samples[start : start + 8]):
            own = activation[row, [label - 1 for label in sample.labels]].sum(0)
            own = torch.nn.functional.interpolate(own[None, None], maps.shape[2:], mode="bilinear", align_corners=False)
            together.append((own - own.mean()).flatten())
            scores.append(projection[row].flatten())
    correlation = np.corrcoef(torch.cat(together), torch.cat(scores))[0, 1]
    assert correlation > 0
    assert float(ddt.evidence_[0, 0]) == pytest.approx(correlation, abs=0.02)


def test_ddt_has_one_score_for_all_classes_and_cam_breaks_ties(data, ddt):
    _, images = next(photo_batches(data.samples[-4:], 64, workers=0))
    scores = ddt_scores(ddt, ddt.classifier_(images).features).detach()
    plain = ddt.score(images)
    assert torch.equal(plain[:, 0], plain[:, 1])
    assert ((scores - plain) >= 0).all()
    assert (scores - plain).max() <= 1.01e-3
    cam = normalised_cam(torch.cat([activation for _, activation in descriptors(ddt, data.samples[-4:])]))
    cam = torch.nn.functional.interpolate(cam, scores.shape[2:], mode="bilinear", align_corners=False)
    for row in range(4):
        unsure = assign(scores[row].numpy(), [1, 2])
        assert set(np.unique(unsure)) <= {0, 255}
        certain = assign(scores[row].numpy(), [1, 2], conflict="strongest")
        decided = (unsure == 255) & ((cam[row, 0] - cam[row, 1]).abs().numpy() > 0.01)
        np.testing.assert_array_equal(certain[decided], 1 + cam[row].argmax(0).numpy()[decided])


def test_the_largest_region_is_kept():
    mask = np.array([[1, 0, 0, 2, 2], [0, 1, 0, 0, 2], [0, 0, 255, 0, 0], [3, 0, 0, 0, 0]], np.uint8)
    kept = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 255, 0, 0], [0, 0, 0, 0, 0]], np.uint8)
    np.testing.assert_array_equal(largest_component(mask[:, :3]), kept[:, :3])
    assert (largest_component(np.zeros((3, 4), np.uint8)) == 0).all()
    mask[2, 2] = 0
    np.testing.assert_array_equal(largest_component(mask), np.where(mask == 2, 2, 0))
