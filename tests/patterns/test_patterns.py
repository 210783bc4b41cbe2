"""Moments, eigenpairs, signs, scores, and class patterns as a whole."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.data import ImageSet, Sample, load, photo_size
from tag2mask.errors import DataError, RecipeError, WeightsError
from tag2mask.metrics import confusion_matrix, mean_iou
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier, train_head
from tag2mask.networks.weights import load_tensors, save_tensors
from tag2mask.patterns import moments
from tag2mask.patterns.collect import choose_subsets
from tag2mask.patterns.eigen import find_pattern, leading_eigenpairs, leading_generalised, score
from tag2mask.patterns.estimator import ClassPatterns, discover
from tag2mask.patterns.moments import Moments
from tag2mask.patterns.orientation import evidence_maps, log_odds, trust_in_classifier

REAL = Path(__file__).parents[3] / "shared/data/voc2012"


def made_descriptors(count, channels, mean=0.0, seed=0):
    """Return correlated float32 descriptors of unit deviation and evidence of zero sum."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=random) / channels**0.5
    descriptors = torch.randn(count, channels, generator=random) @ mixing + mean
    evidence = torch.randn(3, count, generator=random)
    return descriptors, evidence - evidence.mean(1, keepdim=True)


def assert_close(mine, wanted, rtol=1e-5):
    """Compare with a tolerance relative to the largest value, as off-diagonal values can be near zero."""
    mine, wanted = np.asarray(mine), np.asarray(wanted)
    np.testing.assert_allclose(mine, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 119), max_size=6, unique=True),
    st.sampled_from([0.0, 1.0, 1e4, -1e4]),
    st.randoms(use_true_random=False),
)
def test_moments_of_shards_are_those_of_all(cuts, mean, random):
    descriptors, evidence = made_descriptors(120, 8, mean, seed=len(cuts))
    edges = [0, *sorted(cuts), 120]
    shards = [
        Moments.of(descriptors[start:end], evidence[:, start:end] - evidence[:, start:end].mean(1, keepdim=True))
        for start, end in pairwise(edges)
    ]
    random.shuffle(shards)
    merged = reduce(Moments.merge, shards)
    exact = descriptors.double().numpy()
    assert merged.count == 120
    assert_close(merged.mean, exact.mean(0), 1e-9)
    assert_close(merged.scatter / 120, np.cov(exact.T, bias=True))


def test_moments_of_many_positions_with_a_large_mean():
    descriptors, evidence = made_descriptors(20_000, 16, 1e4)
    parts = [
        Moments.of(descriptors[start : start + 700], evidence[:, start : start + 700])
        for start in range(0, 20_000, 700)
    ]
    merged = reduce(Moments.merge, parts)
    exact = descriptors.double().numpy()
    assert_close(merged.mean, exact.mean(0), 1e-9)
    assert_close(merged.scatter / merged.count, np.cov(exact.T, bias=True))


def test_merging_leaves_the_parts_as_they_were():
    first, second = (Moments.of(*made_descriptors(30, 4, seed=seed)) for seed in (1, 2))
    kept = first.mean.clone(), first.scatter.clone(), second.mean.clone(), second.scatter.clone()
    first.merge(second)
    for before, after in zip(kept, (first.mean, first.scatter, second.mean, second.scatter), strict=True):
        assert torch.equal(before, after)


def test_updating_in_place_is_merging():
    parts = [Moments.of(*made_descriptors(count, 300, 10.0, seed=count)) for count in (40, 1500, 7)]
    merged, total = reduce(Moments.merge, parts), parts[0].copy()
    for part in parts[1:]:
        total.update(part)
    assert total.count == merged.count == 1547
    for name in ("mean", "scatter", "cross", "energy"):
        assert torch.equal(getattr(total, name), getattr(merged, name))
    assert_close(total.scatter, total.scatter.T, 1e-12)
    exact = torch.cat([made_descriptors(count, 300, 10.0, seed=count)[0] for count in (40, 1500, 7)]).double().numpy()
    assert_close(total.scatter / 1547, np.cov(exact.T, bias=True))


def test_moments_without_a_part_are_those_of_the_rest():
    part, rest = (Moments.of(*made_descriptors(count, 20, 30.0, seed=count)).copy() for count in (90, 40))
    found = part.merge(rest).without(part)
    assert found.count == 40
    assert_close(found.mean, rest.mean, 1e-9)
    assert_close(found.scatter, rest.scatter, 1e-9)
    assert not rest.without(rest).count


def test_the_moments_of_several_classes_share_all_but_the_evidence():
    descriptors, first = made_descriptors(50, 6)
    second = made_descriptors(50, 6, seed=1)[1]
    for mine, evidence in zip(
        Moments.of(descriptors, torch.cat([first, second])).per_class(2), (first, second), strict=True
    ):
        wanted = Moments.of(descriptors, evidence)
        assert_close(mine.cross, wanted.cross)
        assert torch.equal(mine.energy, wanted.energy)
        assert torch.equal(mine.scatter, wanted.scatter)


def test_cross_and_energy_of_evidence_by_hand():
    descriptors, evidence = made_descriptors(50, 5, 1e3)
    moments = Moments.of(descriptors, evidence)
    exact = descriptors.double().numpy()
    # The evidence sums to zero up to rounding, so the mean is taken out of the sum here too.
    assert_close(moments.cross, evidence.double().numpy() @ (exact - exact.mean(0)), 1e-5)
    assert_close(moments.energy, evidence.double().square().sum(1), 1e-6)


@pytest.mark.parametrize(("size", "count"), [(5, 3), (64, 10), (65, 64), (100, 99), (100, 5), (300, 50)])
def test_leading_eigenpairs_are_numpys(size, count):
    covariance = np.cov(made_descriptors(4 * size, size)[0].double().numpy().T)
    values, vectors = leading_eigenpairs(covariance, count)
    wanted_values, wanted = np.linalg.eigh(covariance)
    np.testing.assert_allclose(values, wanted_values[::-1][:count], rtol=1e-8, atol=1e-12)
    assert values.shape == (count,)
    assert abs(vectors[:, 0] @ wanted[:, -1]) > 0.99999
    assert abs(vectors[:, 1] @ wanted[:, -2]) > 0.99999


@pytest.mark.parametrize("size", [40, 100])
def test_a_leading_eigenvector_orthogonal_to_the_solvers_start(size):
    planted = np.zeros(size)
    planted[:2] = 0.5**0.5, -(0.5**0.5)
    values, vectors = leading_eigenpairs(np.eye(size) + 10 * np.outer(planted, planted), 3)
    assert values[0] == pytest.approx(11)
    assert abs(vectors[:, 0] @ planted) > 0.99999


@pytest.mark.parametrize("size", [40, 200])
def test_fewer_positions_than_components(size):
    few = made_descriptors(10, size)[0].double().numpy()
    values, vectors = leading_eigenpairs(np.cov(few.T), 30)
    assert values[:9].min() > 1e-6
    np.testing.assert_allclose(values[9:], 0, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 0]), 1)


@pytest.mark.parametrize("size", [40, 200])
def test_features_that_never_vary(size):
    values, _ = leading_eigenpairs(np.zeros((size, size)), 3)
    np.testing.assert_array_equal(values, 0)


def planted_moments(direction, *signs, images=6, positions=64):
    """Return moments of images whose objects lie along ``direction``, and evidence of these signs for the objects."""
    random = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(images):
        inside = (torch.rand(positions, generator=random) < 0.3).float()
        noise = torch.randn(positions, len(direction), generator=random)
        descriptors = 5 + 4 * inside[:, None] * direction + 0.5 * noise
        said = torch.stack(
            [sign * inside + 0.3 * abs(sign) * torch.randn(positions, generator=random) for sign in signs]
        )
        parts.append(Moments.of(descriptors, said - said.mean(1, keepdim=True)))
    return reduce(Moments.merge, parts)


@pytest.mark.parametrize("channels", [16, 100])
@pytest.mark.parametrize("planted", [1.0, -1.0])
def test_the_sign_is_right_either_way_round(channels, planted):
    direction = torch.nn.functional.normalize(torch.randn(channels, generator=torch.Generator().manual_seed(1)), dim=0)
    pattern = find_pattern(planted_moments(planted * direction, 1.0, 1.0, 1.0), 3)
    assert pattern.direction @ (planted * direction) > 0.95
    assert pattern.evidence.min() > 0.5
    assert pattern.confidence > 0.95


@pytest.mark.parametrize("planted", [1.0, -1.0])
def test_evidence_turned_round_turns_the_pattern(planted):
    direction = torch.nn.functional.normalize(torch.ones(16), dim=0)
    pattern = find_pattern(planted_moments(planted * direction, -1.0, 0.0, 1.0), 3)
    assert pattern.direction @ (planted * direction) < -0.95
    assert pattern.evidence[0] > 0.5
    assert pattern.evidence[2] < -0.5  # the centre prior disagrees


@pytest.mark.parametrize("norm", [1.0, -1.0])
def test_a_classifier_that_knows_nothing_leaves_the_sign_to_the_rest(norm):
    direction = torch.nn.functional.normalize(torch.ones(16), dim=0)
    pattern = find_pattern(planted_moments(direction, -norm, norm, 0.0), 3, trust=0.0)
    assert pattern.evidence[0] == 0
    assert pattern.evidence[1] > 0.5
    assert pattern.direction @ direction * norm > 0.95


def test_the_confidence_by_hand():
    assert float(log_odds(torch.tensor([0.5, -0.25, 1.0]))) == pytest.approx(3 / 2 - 3 / 4 + 2.3)
    pattern = find_pattern(planted_moments(torch.eye(16)[0], 1.0, -0.5, 1.0), 3)
    assert pattern.confidence == pytest.approx(1 / (1 + math.exp(-float(log_odds(pattern.evidence)))), abs=1e-6)


@pytest.mark.parametrize(("present", "absent", "trust"), [(150, 0, 0), (9, 3, 0.5), (3, 900, 0.5), (60, 57, 0.95)])
def test_a_classifier_is_trusted_by_the_photos_with_and_without(present, absent, trust):
    assert trust_in_classifier(present, absent) == trust


def test_without_any_evidence_the_confidence_is_half():
    pattern = find_pattern(planted_moments(torch.eye(16)[0], 0.0, 0.0, 0.0), 3)
    assert pattern.evidence.tolist() == [0, 0, 0]
    assert pattern.confidence == 0.5
    assert torch.isfinite(pattern.direction).all()


def test_the_evidence_is_the_correlation_of_scores_and_evidence():
    random = torch.Generator().manual_seed(3)
    shards = []
    for _ in range(4):
        descriptors = torch.randn(40, 6, generator=random) * torch.arange(1, 7) + 3
        evidence = 0.2 * descriptors[:, :3].T + torch.randn(3, 40, generator=random)
        shards.append((descriptors, evidence - evidence.mean(1, keepdim=True)))
    pattern = find_pattern(reduce(Moments.merge, (Moments.of(*shard) for shard in shards)), 3)
    descriptors = torch.cat([shard[0] for shard in shards]).numpy()
    evidence = torch.cat([shard[1] for shard in shards], 1).numpy()
    scores = (descriptors - descriptors.mean(0)) @ pattern.direction.numpy()
    for mine, said in zip(pattern.evidence, evidence, strict=True):
        assert float(mine) == pytest.approx(np.corrcoef(scores, said)[0, 1], abs=1e-5)


@pytest.mark.parametrize(("contrast", "leads"), [(0.0, 0), (0.8, 1)])
def test_contrast_puts_what_varies_everywhere_behind_what_varies_with_the_class(contrast, leads):
    """The background varies with deviation 3 along the first axis, the class with 2 along the second."""
    random = torch.Generator().manual_seed(0)
    both, background = (torch.randn(2000, 8, generator=random) * 0.1 for _ in range(2))
    spread = torch.randn(3, 2000, generator=random)
    both[:, 0] += 3 * spread[0]
    background[:, 0] += 3 * spread[1]
    both[:, 1] += 2 * spread[2]
    nothing = torch.zeros(3, 2000)
    pattern = find_pattern(Moments.of(both, nothing), 2, Moments.of(background, nothing), contrast=contrast)
    assert abs(float(pattern.direction[leads])) > 0.99
    assert float(pattern.spectrum[0]) == pytest.approx(float((both @ pattern.direction).var(correction=0)), rel=1e-4)


@pytest.mark.parametrize("whitening", [0.0, 1.0])
def test_whitening_finds_what_is_faint_and_only_there(whitening):
    """All photos vary with deviation 3 along the first axis; those of the class with 0.8 along the second too."""
    random = torch.Generator().manual_seed(0)
    both, background = (torch.randn(2000, 40, generator=random) * 0.1 for _ in range(2))
    spread = torch.randn(3, 2000, generator=random)
    both[:, 0] += 3 * spread[0]
    background[:, 0] += 3 * spread[1]
    both[:, 1] += 0.8 * spread[2]
    evidence = torch.stack([0.1 * spread[0] - spread[2], 0 * spread[0], 0 * spread[0]])
    pattern = find_pattern(
        Moments.of(both, evidence - evidence.mean(1, keepdim=True)), 2,
        Moments.of(background, torch.zeros(3, 2000)), whitening=whitening,
    )  # fmt: skip
    assert abs(float(pattern.direction[1 if whitening else 0])) > 0.95
    assert float(pattern.direction.norm()) == pytest.approx(1, abs=1e-6)
    assert float(pattern.spectrum[0]) == pytest.approx(float((both @ pattern.direction).var(correction=0)), rel=1e-4)


def test_leading_generalised_eigenvectors_against_the_inverse():
    random = np.random.default_rng(0)
    one, other = (matrix @ matrix.T for matrix in random.normal(size=(2, 6, 9)))
    found = leading_generalised(one, other, 2)
    values, vectors = np.linalg.eig(np.linalg.inv(other) @ one)
    for place, index in enumerate(np.argsort(values.real)[::-1][:2]):
        assert abs(vectors[:, index].real @ found[:, place]) == pytest.approx(1, abs=1e-6)


def test_spectrum_and_variance_of_a_pattern():
    descriptors, evidence = made_descriptors(200, 12)
    pattern = find_pattern(Moments.of(descriptors, evidence), 4)
    values = np.linalg.eigvalsh(np.cov(descriptors.double().numpy().T, bias=True))[::-1]
    np.testing.assert_allclose(pattern.spectrum, values[:4], rtol=1e-5)
    assert pattern.variance == pytest.approx(values.sum(), rel=1e-5)
    assert float(pattern.direction.norm()) == pytest.approx(1, abs=1e-6)


def test_scores_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]]])  # 1 x 2 x 1 x 2
    mean, direction = torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.tensor([[0.6, 0.8], [0.0, -1.0]])
    # (1-1) 0.6 + (3-1) 0.8 = 1.6; (2-1) 0.6 + (5-1) 0.8 = 3.8; -(3-2) = -1; -(5-2) = -3
    np.testing.assert_allclose(score(features, mean, direction), [[[[1.6, 3.8]], [[-1.0, -3.0]]]], rtol=1e-6)


def test_evidence_maps_are_centred_per_image():
    activation = torch.rand(3, 5, 7) + torch.tensor([0.0, 10.0, -4.0])[:, None, None]
    maps = evidence_maps(activation, 2 * activation)
    assert maps.shape == (3, 3, 5, 7)
    np.testing.assert_allclose(maps.mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(maps[:, 0], activation - activation.mean((1, 2), keepdim=True), atol=1e-5)
    np.testing.assert_allclose(maps[:, 1], 2 * maps[:, 0], atol=1e-5)
    assert (maps[:, 2].flatten(1).argmax(1) == 2 * 7 + 3).all()  # the centre of 5 x 7


def made_set(count=30):
    samples = tuple(
        Sample(f"p{number:02}", Path(f"p{number:02}.jpg"), ((1,), (2,), (1, 2), ())[number % 4])
        for number in range(count)
    )
    return ImageSet(("cat", "dog"), samples)


def test_subsets_hold_all_photos_where_there_are_few():
    data = made_set()
    drawn = choose_subsets(data, 800, 0)
    assert drawn == {sample.name: list(sample.labels) for sample in data.samples if sample.labels}


def test_subsets_are_capped_and_count_a_photo_of_two_classes_twice():
    drawn = choose_subsets(made_set(), 9, 0)
    labels = [label for present in drawn.values() for label in present]
    assert (labels.count(1), labels.count(2)) == (9, 9)
    by_name = {sample.name: sample.labels for sample in made_set().samples}
    assert all(set(present) <= set(by_name[name]) for name, present in drawn.items())
    assert any(len(present) == 2 for present in drawn.values())


def test_subsets_depend_on_seed_and_data_alone():
    data = made_set()
    shuffled = data.with_samples(tuple(reversed(data.samples)))
    assert choose_subsets(data, 5, 3) == choose_subsets(data, 5, 3)
    assert dict(choose_subsets(shuffled, 5, 3)) == dict(choose_subsets(data, 5, 3))
    assert choose_subsets(data, 5, 3) != choose_subsets(data, 5, 4)


def test_for_a_contrast_subsets_tell_the_photos_without_a_class():
    data = made_set()
    drawn = choose_subsets(data, 5, 0, rest=True)
    plain = choose_subsets(data, 5, 0)
    untagged = {sample.name for sample in data.samples if not sample.labels}
    assert len(untagged) > 5 == len(drawn.keys() & untagged)
    assert drawn.keys() - untagged == plain.keys()
    for sample in data.samples:
        if sample.name in drawn:
            assert sorted(map(abs, drawn[sample.name])) == [0, *sample.labels]
            assert [label for label in drawn[sample.name] if label > 0] == plain.get(sample.name, [])


def made_patterns(**changes):
    options = {"weights": "random", "size": 96, "components": 5, "workers": 0}
    return ClassPatterns("resnet18", **{**options, **changes})


@pytest.fixture(scope="module")
def data(shapes_folder):
    return load(shapes_folder)


@pytest.fixture(scope="module")
def classifier(data):
    torch.manual_seed(0)
    made = Classifier(Backbone("resnet18", ["layer4.0", "layer2.1"], weights="random"), data.classes).eval()
    train_head(made, data.samples, size=96, steps=100, workers=0)
    return made


@pytest.fixture(scope="module")
def fitted(data, classifier):
    return made_patterns().fit(data, classifier)


def test_patterns_are_those_of_all_descriptors_at_once(data, classifier, fitted):
    from tag2mask.data.loading import photo_batches

    inside = data.with_samples(tuple(sample for sample in data.samples if 2 in sample.labels))
    with torch.inference_mode():
        maps = torch.cat([classifier(images).features["layer4.0"] for _, images in photo_batches(inside.samples, 96)])
    descriptors = maps.permute(0, 2, 3, 1).reshape(-1, 512).double().numpy()
    assert_close(fitted.means_[1], descriptors.mean(0))
    values, vectors = np.linalg.eigh(np.cov(descriptors.T, bias=True))
    np.testing.assert_allclose(fitted.spectra_[1], values[::-1][:5], rtol=1e-4)
    assert abs(fitted.directions_[1].numpy() @ vectors[:, -1]) > 0.99999
    assert float(fitted.variances_[1]) == pytest.approx(values.sum(), rel=1e-4)


def test_shapes_of_what_is_fitted(fitted):
    assert fitted.classes_ == ("disc", "square")
    assert fitted.means_.shape == fitted.directions_.shape == (2, 512)
    assert fitted.spectra_.shape == (2, 5)
    assert fitted.evidence_.shape == (2, 3)
    assert fitted.confidence_.shape == (2,)
    assert set(fitted.about()) == {"disc", "square"}


def test_scores_are_in_standard_deviations(data, fitted):
    from tag2mask.data.loading import photo_batches

    inside = [sample for sample in data.samples if 1 in sample.labels]
    scores = torch.cat([fitted.score(images)[:, 0] for _, images in photo_batches(inside, 96, workers=0)])
    assert float(scores.mean()) == pytest.approx(0, abs=1e-3)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_masks_hold_only_the_photos_labels_at_its_own_size(data, fitted):
    seen = []
    for sample, mask in fitted.transform(data):
        seen.append(sample)
        assert mask.shape == photo_size(sample.image)
        assert set(np.unique(mask)) <= {0, *sample.labels, 255}
        assert 255 not in mask or len(sample.labels) > 1
    assert seen == list(data.samples)


def test_fit_without_a_classifier_is_deterministic(data):
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(made_patterns(size=64).fit(data))
    assert torch.equal(runs[0].directions_, runs[1].directions_)
    assert (runs[0].evidence_[:, 0] > 0).all()


def test_layers_in_one_pass_are_as_layer_by_layer(data, classifier, fitted):
    both = [made_patterns(layer="C41"), made_patterns(layer="layer2.1")]
    discover(classifier, data, both)
    alone = made_patterns(layer="layer2.1").fit(data, classifier)
    assert torch.equal(both[0].directions_, fitted.directions_)
    assert torch.equal(both[1].directions_, alone.directions_)
    assert both[1].means_.shape == (2, 128)  # at twice the resolution of the class activation
    assert both[1].evidence_[:, 0].min() > 0


def test_descriptors_are_multiplied_once_for_all_classes_of_a_photo(data, classifier, monkeypatch):
    """14 photos in batches of 8, sorted: (1), (1, 2) and (2) need four products for 18 memberships."""
    seen = []
    products = moments._products
    monkeypatch.setattr(moments, "_products", lambda *given: seen.append(len(given[0])) or products(*given))
    discover(classifier, data, [made_patterns()])
    assert sum(seen) == 14 * (6 * 6 + 12 * 12)  # positions of layer4.0 and layer2.1 at 96 pixels
    assert len(seen) == 4 * len(classifier.backbone.layers)


def test_a_class_in_every_photo_is_not_oriented_by_a_classifier_that_saw_nothing_else(data, classifier):
    everywhere = ImageSet(data.classes[:1], tuple(replace(sample, labels=(1,)) for sample in data.samples))
    alone = Classifier(classifier.backbone, data.classes[:1]).eval()
    patterns = ClassPatterns("resnet10t", weights="random", size=64, workers=0).fit(everywhere, alone)
    assert str(float(patterns.evidence_[0, 0])) == "0.0"
    assert patterns.evidence_[0, 1] > 0


@pytest.mark.parametrize("contrast", [0.0, 0.3])
def test_a_pattern_is_turned_round_as_a_person_says(data, classifier, contrast):
    plain = made_patterns(contrast=contrast).fit(data, classifier)
    turned = made_patterns(contrast=contrast, flip=["square"]).fit(data, classifier)
    assert torch.equal(turned.directions_[0], plain.directions_[0])
    assert torch.equal(turned.directions_[1], -plain.directions_[1])
    assert turned.confidence_[1] == 1


def test_turning_an_unknown_class_round_is_an_error(data, classifier):
    with pytest.raises(RecipeError, match=r"patterns\.flip names 'sqare', .* did you mean 'square'"):
        made_patterns(flip=["sqare"]).fit(data, classifier)


def test_what_is_saved_gives_the_same_scores(fitted, tmp_path):
    fitted.save(tmp_path / "patterns.safetensors")
    loaded = ClassPatterns.load(tmp_path / "patterns.safetensors")
    images = torch.randint(0, 256, (2, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.score(images), fitted.score(images))
    assert loaded.classes_ == fitted.classes_
    assert loaded.about() == fitted.about()
    assert [file.name for file in tmp_path.iterdir()] == ["patterns.safetensors"]


def test_patterns_saved_without_a_part_are_refused(fitted, tmp_path):
    file = tmp_path / "patterns.safetensors"
    fitted.save(file)
    tensors, about = load_tensors(file, "class patterns")
    del tensors["patterns.means"]
    save_tensors(file, tensors, "class patterns", about)
    with pytest.raises(WeightsError, match=str(file)):
        ClassPatterns.load(file)


def test_patterns_saved_with_other_parameters_are_refused(fitted, tmp_path):
    file = tmp_path / "patterns.safetensors"
    fitted.save(file)
    tensors, about = load_tensors(file, "class patterns")
    save_tensors(file, tensors, "class patterns", {**about, "colour": "red"})
    with pytest.raises(WeightsError, match=str(file)):
        ClassPatterns.load(file)


def test_an_unreadable_photo_is_left_out_or_ends_it(shapes, classifier, caplog):
    photo = shapes / "photos/p01.jpg"
    whole = photo.read_bytes()
    data = load(shapes)
    photo.write_bytes(whole[: len(whole) // 2])
    skipped = made_patterns()
    discover(classifier, data, [skipped])
    assert "skipped" in caplog.text
    assert "p01.jpg" in caplog.text
    rest = made_patterns()
    discover(classifier, data.with_samples(tuple(s for s in data.samples if s.name != "p01")), [rest])
    assert_close(skipped.means_, rest.means_)
    with pytest.raises(DataError, match=r"p01\.jpg"):
        discover(classifier, data, [made_patterns()], strict=True)


def test_a_class_whose_photos_cannot_be_read(shapes, classifier):
    data = load(shapes)
    for sample in data.samples:
        if 2 in sample.labels:
            sample.image.write_bytes(sample.image.read_bytes()[:400])
    with pytest.raises(DataError, match="no readable photo carries the tag 'square'"):
        discover(classifier, data, [made_patterns()])


def test_photos_of_one_flat_colour(tmp_path, classifier):
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (64, 64), (128, 128, 128)).save(tmp_path / f"{number}.png")
    samples = tuple(Sample(str(number), tmp_path / f"{number}.png", (1 + number % 2,)) for number in range(4))
    patterns = made_patterns().fit(ImageSet(("disc", "square"), samples), classifier)
    assert torch.isfinite(patterns.directions_).all()
    assert torch.isfinite(patterns.evidence_).all()


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real photos (shared/data beside the checkout) are not on this machine"
)
def test_real_photos():
    everything = load(REAL, split="train")
    wanted = ("aeroplane", "bus", "cat")
    indices = {everything.classes.index(name) + 1: place for place, name in enumerate(wanted, 1)}
    chosen = [s for s in everything.samples if len(s.labels) == 1 and s.labels[0] in indices and s.mask]
    samples = []
    for label, place in indices.items():
        few = [sample for sample in chosen if sample.labels == (label,)][:15]
        samples += [Sample(sample.name, sample.image, (place,), sample.mask) for sample in few]
    patterns = ClassPatterns(size=192, workers=0).fit(ImageSet(wanted, tuple(samples)))
    assert (patterns.evidence_[:, 0] > 0.1).all()
    random = np.random.default_rng(0)
    totals = {"patterns": 0, "background": 0, "random": 0}
    for sample, mask in patterns.transform(ImageSet(wanted, tuple(samples))):
        truth = everything.truth(next(s for s in chosen if s.name == sample.name)).copy()
        truth[(truth != 0) & (truth != 255)] = sample.labels[0]
        guess = (random.random(truth.shape) < 0.5).astype(np.uint8) * np.uint8(sample.labels[0])
        for name, shown in (("patterns", mask), ("background", np.zeros_like(truth)), ("random", guess)):
            totals[name] = totals[name] + confusion_matrix(truth, shown, 4)
    scores = {name: 100 * mean_iou(matrix) for name, matrix in totals.items()}
    assert scores["patterns"] > 1.3 * max(scores["background"], scores["random"])
