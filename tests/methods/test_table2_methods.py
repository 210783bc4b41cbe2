"""The methods of the paper's Table 2 on cases made by hand."""

from __future__ import annotations

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tag2mask.config import load_recipe
from tag2mask.data import load, read_mask
from tag2mask.errors import WeightsError
from tag2mask.methods import load_method, mcof
from tag2mask.methods.aepsl import erase, rounds
from tag2mask.methods.affinitynet import sure_labels, with_background
from tag2mask.methods.base import Network
from tag2mask.methods.cam import normalised_cam
from tag2mask.methods.dcsm import candidates, differences, guided
from tag2mask.methods.ficklenet import Fickle, chosen
from tag2mask.methods.mcof import labelled, over_regions, region_loss, superpixels
from tag2mask.methods.mdc import DilatedBlocks, fused
from tag2mask.methods.seenet import SelfErasing, attention, ternary
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.runs.estimate import load_network
from tag2mask.runs.folder import resume_run
from tag2mask.runs.learnt import learnt_checkpoints
from tag2mask.training.affinity import AffinityHead, affinity, affinity_loss, neighbours, walk
from tag2mask.training.expectation import em_loss, expected
from tag2mask.training.heads import Lesson, prior, tag_loss

NETWORK = ("--set", "backbone.name=resnet10t", "--set", "segmenter.epochs=3")
LEARNING = ("aepsl", "affinitynet", "ficklenet", "mcof", "mdc", "seenet")


def ones_at(size, *places):
    maps = torch.zeros(size)
    for row, column in places:
        maps[row, column] = 1
    return maps


def test_mdc_finds_as_far_around_as_its_dilation():
    blocks = DilatedBlocks(1, 1, width=1, rates=(1, 3)).eval()
    nn.init.ones_(blocks.narrow[1][0].weight)
    for block in blocks.blocks:
        for conv in (block[0][0], block[1]):
            nn.init.ones_(conv.weight)
        nn.init.zeros_(block[1].bias)
    maps = blocks(ones_at((9, 9), (4, 4))[None, None])
    near, far = ({tuple(place) for place in (one[0, 0] > 0).nonzero().tolist()} for one in maps)
    assert near == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}
    assert far == {(row, column) for row in (1, 4, 7) for column in (1, 4, 7)}
    torch.testing.assert_close(fused(maps), maps[0] + maps[1])
    assert fused(torch.stack([maps[0], maps[1], 3 * maps[1]])).equal(maps[0] + 2 * maps[1])


def test_seenets_second_branch_sees_no_peak_and_background_turned_round():
    found = attention(torch.tensor([[[[10.0, 5.0, 0.2]], [[0.0, 0.0, 9.0]]]]), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.5, 0.02]]]))
    assert ternary(found).tolist() == [[[[0, 1, -1]]]]
    branches, seen = SelfErasing(1, 1, width=1).eval(), []
    nn.init.ones_(branches.narrow[1][0].weight)
    branches.first = nn.Identity()
    branches.second = nn.Module()
    branches.second.forward = lambda features: seen.append(features) or features.abs()
    branches(torch.tensor([[[[10.0, 5.0, 0.2]]]]), torch.ones(1, 1))
    torch.testing.assert_close(seen[0], torch.tensor([[[[0.0, 5.0, -0.2]]]]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[1], torch.tensor([[[[10.0, 0.0, 0.2]]]]), rtol=1e-4, atol=1e-5)


def test_ficklenet_is_a_convolution_where_nothing_is_left_out(monkeypatch):
    model = Fickle(2, 3, window=3, width=4).eval()
    features = torch.randn(1, 2, 4, 5)
    monkeypatch.setattr("tag2mask.methods.ficklenet.DROPPED", 0.0)
    weights = model.weigh.weight.view(3, 3, 3, 4).permute(0, 3, 1, 2)
    narrow = model.narrow(features)
    wanted = torch.nn.functional.conv2d(narrow, weights, padding=1).sum((2, 3))
    torch.testing.assert_close(model(features).sum((2, 3)), wanted, rtol=1e-4, atol=1e-4)


def test_ficklenet_leaves_nine_tenths_out_but_never_a_centre():
    seen = chosen(400, (5, 6), 3, torch.Generator().manual_seed(0))
    assert seen[:, 4].all()
    assert seen[:, :4].mean() < 0.11
    inside = seen[:, 0].amax(0)
    assert inside.sum() == 4 * 5  # position u counts for the window around u - o only if that is in the map
    again = chosen(400, (5, 6), 3, torch.Generator().manual_seed(0))
    assert seen.equal(again)


def test_seenet_finds_the_same_in_a_photo_and_its_mirror_image():
    def backbone(images):
        return {"deep": images.float(), LAST: images.float()}

    backbone.layers = ["deep"]
    classifier = SimpleNamespace(activation=lambda last: last[:, :1])
    network = Network(classifier, backbone, [], load_recipe("fast"), SelfErasing(3, 1, width=4).eval())
    images = torch.rand(2, 3, 6, 7)
    found, _ = load_method("seenet").see(network, images, [[1], [1]])
    mirrored, _ = load_method("seenet").see(network, images.flip(3), [[1], [1]])
    torch.testing.assert_close(found, mirrored.flip(3))
    first, second, _ = network.learnt(images, torch.ones(2, 1))
    assert (found >= torch.maximum(normalised_cam(first), normalised_cam(second)) - 1e-6).all()


@pytest.mark.parametrize("name", ["affinitynet", "ficklenet", "mcof", "mdc", "seenet"])
def test_heads_learn_the_same_in_16_bits_and_begin_at_the_shares_of_tags(name, monkeypatch, tmp_path):
    method, losses = load_method(name), []
    file = "tag2mask.training.affinity" if name == "affinitynet" else f"tag2mask.methods.{name}"
    monkeypatch.setattr(f"{file}.learn_on_features", lambda module, lesson, loss, *masks: losses.append(loss))
    monkeypatch.setattr(f"tag2mask.methods.{name}.write_labels", lambda *_: None, raising=False)
    recipe = load_recipe("fast", ["backbone.name=resnet10t"])
    layers = method.layers(recipe)
    backbone = SimpleNamespace(layers=layers, channels=dict.fromkeys(layers, 8))
    classifier = SimpleNamespace(backbone=backbone, classes=("a", "b"), head=nn.Linear(1, 1))
    data = SimpleNamespace(samples=[SimpleNamespace(labels=(1,)), SimpleNamespace(labels=())], classes=("a", "b"))
    module = method.build(classifier, recipe).train()
    method.learn(module, Lesson(classifier, data, recipe, tmp_path / "x"))
    begin = {key: value for key, value in module.named_parameters() if key.endswith("bias") and len(value) == 2}
    assert len(begin) == {"affinitynet": 0, "ficklenet": 1, "mcof": 0, "mdc": 4, "seenet": 2}[name]
    for value in begin.values():
        torch.testing.assert_close(value.detach().sigmoid(), torch.tensor([0.5, 0.001]))
    features = {layer: torch.rand(2, 8, 11, 12) for layer in layers}
    masks = [torch.randint(0, 3, (2, 44, 48), dtype=torch.uint8)] if name in ("affinitynet", "mcof") else []
    found, state = [], torch.get_rng_state()
    for in_16_bits in (False, True):
        torch.set_rng_state(state)
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_16_bits):
            loss = losses[0](module, features, *masks, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
        found.append(loss.item())
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_superpixels_end_at_edges():
    image = torch.zeros(3, 80, 96, dtype=torch.uint8)
    image[0, :, 37:] = 200  # an edge that no cell of the grid has
    regions = superpixels(image, across=5)
    assert regions.shape == (40, 48)
    assert regions.unique().tolist() == list(range(25))
    left, right = set(regions[:, :18].unique().tolist()), set(regions[:, 19:].unique().tolist())
    assert not left & right


def test_a_region_is_what_its_positions_have_in_common_and_only_tags_count():
    image = torch.zeros(3, 80, 80, dtype=torch.uint8)
    image[:, 40:] = 200
    regions = superpixels(image)
    maps = torch.randn(3, 20, 20)
    means = over_regions(maps, regions)
    large = torch.nn.functional.interpolate(maps[None], (40, 40), mode="bilinear")[0]
    for number in regions.unique().tolist():
        inside = regions == number
        torch.testing.assert_close(
            means[:, inside], large[:, inside].mean(1, keepdim=True).expand(3, int(inside.sum()))
        )
    logits = torch.zeros(1, 4, 20, 20)
    logits[:, 1, 10:], logits[:, 2], logits[:, 3] = 5, 1, 9  # class 3 is no tag
    found = labelled(lambda seen: seen[0], ["fine"], image, {"fine": logits}, [1, 2])
    assert (found[:19] == 2).all()
    assert (found[21:] == 1).all()


def test_a_region_that_is_not_known_teaches_nothing():
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    masks = torch.tensor([[[1, 255], [255, 0]]], dtype=torch.uint8)
    loss = region_loss(["fine"], lambda seen: seen[0], {"fine": logits}, masks, torch.ones(1, 2))
    assert loss.item() == pytest.approx(math.log(3))
    loss.backward()
    assert (logits.grad[0].abs().sum(0) > 0).tolist() == [[True, False], [False, True]]
    nothing = region_loss(["fine"], lambda seen: seen[0], {"fine": logits}, masks.fill_(255), torch.ones(1, 2))
    assert nothing.item() == 0


def test_mcof_goes_on_in_the_step_where_it_was_killed(run_method, monkeypatch):
    steps = ("--until", "discover", "--set", "segmenter.epochs=2")
    out = run_method("mcof", *steps)
    wanted = (out / "learnt.safetensors").read_bytes()
    (out / "learnt.safetensors").unlink()
    learn, seen = mcof.learn_on_features, []

    def killed(module, lesson, *given):
        seen.append(lesson.checkpoint.name)
        if len(seen) == 3:
            raise RuntimeError("killed")
        learn(module, lesson, *given)

    with monkeypatch.context() as patch:
        patch.setattr(mcof, "learn_on_features", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run_method("mcof", *steps)
    assert seen == [".learnt-0.pt", ".learnt-1.pt", ".learnt-2.pt"]
    assert [file.name for file in learnt_checkpoints(resume_run(out))] == seen[:2]
    run_method("mcof", *steps)
    assert not [*out.glob(".learnt*"), *out.glob("regions")]
    assert (out / "learnt.safetensors").read_bytes() == wanted


def test_tags_begin_at_their_share():
    data = SimpleNamespace(samples=[SimpleNamespace(labels=(1,)), SimpleNamespace(labels=())], classes=("a", "b"))
    start = prior(SimpleNamespace(data=data, classifier=SimpleNamespace(head=nn.Linear(1, 1))))
    torch.testing.assert_close(start.sigmoid(), torch.tensor([0.5, 0.001]))
    loss = tag_loss(torch.zeros(1, 2, 3, 3) + start[:, None, None], torch.tensor([[1.0, 0.0]]))
    assert float(loss) == pytest.approx((math.log(2) - math.log(0.999)) / 2, rel=1e-4)


def test_aepsl_finds_the_weaker_object_once_the_stronger_is_erased():
    images = torch.zeros(1, 3, 8, 8)
    images[:, :, :, :2], images[:, :, :, 6:] = 100, 10
    head = nn.Linear(3, 1, bias=False)
    nn.init.ones_(head.weight)
    seen = [maps[0, 0] for _, maps in rounds(lambda given: {LAST: given}, [head] * 3, images, [[1]], torch.zeros(1))]
    assert [sorted(set(one.max(0).values.nonzero()[:, 0].tolist())) for one in seen] == [[0, 1, 6, 7], [6, 7], []]
    untouched = erase(images, seen[0][None, None], [[]], torch.full((1, 3, 1, 1), 7.0))
    assert untouched.equal(images)
    filled = erase(images, seen[0][None, None], [[1]], torch.full((1, 3, 1, 1), 7.0))
    assert (filled[..., :2] == 7).all()
    assert filled[..., 2:].equal(images[..., 2:])


def test_dcsm_takes_other_classes_from_each():
    maps = torch.zeros(3, 1, 3)
    maps[0, 0, :2], maps[1, 0, 1:], maps[2] = 2, 2, 0.5
    found = differences(maps)
    sure = math.tanh(3)
    torch.testing.assert_close(found[0, 0], torch.tensor([2 * sure, sure, 0.0]))
    torch.testing.assert_close(found[1, 0], torch.tensor([0.0, sure, 2 * sure]))
    assert not (differences(torch.ones(2, 2, 2)) > 0).any()
    assert candidates(torch.arange(9.0)[None], [[2, 1, 3, 4, 5]]) == [[2, 1, 3, 4, 5]]


def test_guided_backpropagation_lets_positive_gradients_pass_alone():
    relu = nn.ReLU(inplace=True)
    with guided(relu):
        start = torch.tensor([1.0, 2.0, -3.0], requires_grad=True)
        (relu(start * 1) * torch.tensor([5.0, -5.0, 5.0])).sum().backward()
    assert start.grad.tolist() == [5, 0, 0]
    assert not relu._forward_hooks


def test_em_adapt_gives_each_tag_its_share_and_other_classes_nothing():
    scores = torch.randn(1, 4, 5, 10)
    scores[:, 0] += 20
    scores[:, 3] += 40
    labels = expected(scores, torch.tensor([[1.0, 1.0, 0.0]]))
    counts = torch.bincount(labels.flatten(), minlength=4).tolist()
    assert counts[3] == 0
    assert counts[0] >= 20
    assert min(counts[1:3]) >= 9  # biases are set in turn
    worst = torch.where(labels == 1, scores[:, 1] - scores[:, 0], torch.inf).min()
    assert ((scores[:, 1] - scores[:, 0])[labels == 0] <= worst + 1).float().mean() > 0.9
    assert not expected(scores, torch.zeros(1, 3)).any()
    kept = torch.zeros(1, 2, 1, 10)
    kept[0, 1, 0, :5] = 9
    kept[0, 0, 0, 5:] = 9
    assert expected(kept, torch.ones(1, 1)).tolist() == [[[1] * 5 + [0] * 5]]
    torch.testing.assert_close(em_loss(kept, torch.ones(1, 1)), torch.tensor(9.0).neg().exp().log1p())


def test_pairs_of_neighbours_are_all_those_within_the_radius():
    places = torch.arange(30).view(5, 6)
    found = [
        pair for a, b in neighbours(places, 3) for pair in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    ]
    wanted = {
        (one, other)
        for one in range(30)
        for other in range(one + 1, 30)
        if (one // 6 - other // 6) ** 2 + (one % 6 - other % 6) ** 2 < 9
    }
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_affinities_are_learnt_from_sure_labels():
    masks = torch.full((1, 6, 6), 255)
    masks[:, :, :3], masks[:, :, 4:] = 0, 1
    apart = torch.zeros(1, 2, 6, 6)
    apart[..., 3:] = 10
    assert float(affinity_loss(apart, masks)) < 1e-3
    assert float(affinity_loss(torch.zeros(1, 2, 6, 6), masks)) == pytest.approx(0.5 * -math.log(1e-5), rel=1e-2)
    assert affinity(torch.zeros(1, 4, 1, 1), torch.full((1, 4, 1, 1), 2.0)).item() == pytest.approx(math.exp(-2))
    head = AffinityHead([3, 2], width=8)
    optimiser = torch.optim.Adam(head.parameters(), 0.02)
    maps = [torch.randn(1, 3, 6, 6) + 3 * (masks != 0)[:, None], torch.randn(1, 2, 3, 3)]
    losses = []
    for _ in range(40):
        losses.append(affinity_loss(head(maps), masks))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2


def test_a_walk_spreads_a_score_within_its_object():
    features = torch.zeros(1, 6, 8)
    features[..., 4:] = 5
    scores = torch.zeros(2, 6, 8)
    scores[0, 3, 1] = 1
    scores[1] = 0.3
    spread = walk(scores, features)
    assert spread[0, :, :4].min() > 0.02
    assert spread[0, :, 4:].max() < 1e-6
    torch.testing.assert_close(spread[1], scores[1])  # rows of T sum to 1
    dense = torch.eye(4)
    for one, other in [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]:
        dense[one, other] = dense[other, one] = math.exp(-abs(one - other)) ** 2
    dense /= dense.sum(1, keepdim=True)
    small = torch.rand(1, 1, 4)
    wanted = torch.linalg.matrix_power(dense, 3) @ small.flatten()
    torch.testing.assert_close(walk(small, torch.arange(4.0).view(1, 1, 4), power=2, steps=3).flatten(), wanted)


def test_labels_are_sure_where_the_map_is_high_or_low():
    maps = torch.tensor([0.0, 0.2, 0.9]).repeat_interleave(8).expand(1, 24, 24)
    assert with_background(maps, 4).argmax(0)[0, ::8].tolist() == [0, 0, 1]
    assert with_background(maps, 24).argmax(0)[0, ::8].tolist() == [0, 1, 1]
    image = torch.zeros(3, 24, 24, dtype=torch.uint8)
    image[:, :, 8:16], image[:, :, 16:] = 120, 250
    found = sure_labels(image, maps, [7])
    assert found[12, [3, 12, 20]].tolist() == [0, 255, 7]


def test_affinitynets_share_is_the_shared_one_where_class_and_background_are_even(monkeypatch):
    monkeypatch.setattr("tag2mask.methods.affinitynet.walk", lambda maps, _: maps)

    def backbone(images):
        return {"fine": images, LAST: images}

    backbone.layers = ["fine"]
    even = 0.12283
    assert (1 - even) ** 16 == pytest.approx(even, abs=2e-4)
    images = torch.tensor([[1.0, even, 0.1, 0.2, 0.0]])[None, None]
    classifier = SimpleNamespace(activation=lambda last: last)
    network = Network(
        classifier, backbone, [], load_recipe("fast", ["proxy.cam_thresholds=[0.3, 0.3]"]), lambda m: m[0]
    )
    (found,) = load_method("affinitynet").see(network, images, [[1]])[0].flatten(1)
    assert found[1].item() == pytest.approx(0.3, abs=1e-3)
    assert (found > 0.3).tolist()[::2] + (found > 0.3).tolist()[3:4] == [True, False, False, True]


@pytest.fixture
def run_method(command, finished_run, shapes_folder, recipe_file, tmp_path):
    def call(method, *arguments):
        out = tmp_path / method
        start = ("run", shapes_folder, "--out", out, "--recipe", recipe_file, "--method", method)
        said = command(*start, "--split", "train", "--eval-split", "val", *NETWORK, *arguments)
        assert said.code == 0, said.err
        return out

    return call


@pytest.mark.parametrize("method", [*LEARNING, "dcsm"])
def test_masks_show_tags_and_background(run_method, shapes_folder, method):
    longer = ("--set", "segmenter.epochs=20") if method == "mcof" else ()
    out = run_method(method, "--set", "patterns.layers=[layer3.0]", "--until", "estimate", *longer)
    assert (out / "learnt.safetensors").exists() == (method in LEARNING)
    assert not [*out.glob("patterns*"), *out.glob("*.part"), *out.glob("sure-labels"), *out.glob("regions")]
    labels = {sample.name: set(sample.labels) for sample in load(shapes_folder).samples}
    seen = {file.stem: set(np.unique(read_mask(file)).tolist()) for file in (out / "proxy").glob("*.png")}
    assert len(seen) == 11
    assert all(values <= {0, *labels[name]} for name, values in seen.items())
    assert sum(len(values) > 1 for values in seen.values()) > 2  # the backbone is random


def test_what_is_learnt_is_read_again_and_masks_do_not_depend_on_the_batch(run_method, shapes_folder):
    out = run_method("ficklenet", "--until", "estimate")
    run, method = resume_run(out), load_method("ficklenet")
    network = load_network(run)
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    labels = [(1,), (1, 2), ()]
    together, _ = method.look(network, images, labels)
    alone = torch.cat([method.look(network, images[i : i + 1], labels[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    assert together[0, 1].max() == 0 == together[2].max()
    assert together[1, 0].max() == 1
    run.recipe = run.recipe.model_copy(update={"proxy": run.recipe.proxy.model_copy(update={"method": "mdc"})})
    with pytest.raises(WeightsError, match="learnt by ficklenet, not mdc; delete it"):
        load_network(run)


def test_an_unreadable_photo_is_said_once_however_often_a_method_looks(command, shapes_folder, recipe_file, tmp_path):
    data, out = shutil.copytree(shapes_folder, tmp_path / "photos"), tmp_path / "out"
    start = ("run", data, "--out", out, "--recipe", recipe_file, "--split", "train", *NETWORK)
    assert command(*start, "--method", "mdc", "--until", "classify").code == 0
    sample = load(data, split="train").samples[3]
    whole = sample.image.read_bytes()
    sample.image.write_bytes(whole[: len(whole) * 2 // 3])  # its size can be read, its pixels cannot
    said = command(*start, "--method", "mdc", "--until", "discover", "--keep")
    assert said.code == 0, said.err
    assert said.err.count(sample.image.name) == 1


def test_em_adapt_learns_from_tags_alone(run_method):
    out = run_method("emadapt", "--set", "segmenter.train_from=last")
    assert {value for file in (out / "proxy").glob("*.png") for value in np.unique(read_mask(file))} == {255}
    found = {value for file in (out / "predictions").glob("*.png") for value in np.unique(read_mask(file)).tolist()}
    assert len(found) > 1
    assert json.loads((out / "metrics.json").read_text())["prediction"]["images"] == 3
    assert "EM-Adapt" in (out / "report/index.html").read_text("utf-8")


def test_methods_that_learn_need_whole_photos(command, shapes_folder, recipe_file, tmp_path):
    start = ("run", shapes_folder, "--out", tmp_path / "out", "--recipe", recipe_file, "--method", "mdc")
    said = command(*start, "--set", "tiles={side: 48, overlap: 8}")
    assert said.code == 2
    assert "mdc learns from whole photos; set tiles=null" in said.err
    assert not (tmp_path / "out").exists()


def test_dcsm_looks_at_stages_of_strides_4_8_and_16():
    layers = load_method("dcsm").layers(load_recipe("balanced"))
    assert layers == ["blocks.1", "blocks.2", "blocks.4"]
    maps = Backbone("tf_efficientnet_lite0", layers, weights="random")(torch.zeros(1, 3, 64, 64))
    assert [64 // maps[layer].shape[3] for layer in layers] == [4, 8, 16]


def test_dcsm_of_a_transformer_is_refused():
    assert "convolutional" in load_method("dcsm").refusal(
        SimpleNamespace(is_transformer=True, name="vit_tiny_patch16_224")
    )
    assert not load_method("dcsm").refusal(Backbone("test_resnet", weights="random"))
