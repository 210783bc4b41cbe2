"""A method to compare is the published one, whatever recipe it is run on."""

from __future__ import annotations

import pytest

from tag2mask.config import load_recipe
from tag2mask.methods import method_settings
from tag2mask.names import recipe_names

CAM = {
    "proxy": {"conflict": "strongest", "sharpness": 10, "cam_thresholds": (0.2, 0.2)},
    "segmenter": {"method": "plain"},
}
SEEDS = {"proxy": {**CAM["proxy"], "crf": "none", "cam_thresholds": (0.05, 0.2)}}
PUBLISHED = {
    "cam": CAM,
    "gradcam": {**CAM, "patterns": {"layers": ["last"]}},
    "ddt": {"proxy": {"conflict": "ignore", "sharpness": 3}, "segmenter": {"method": "plain"}},
    "sec": {**SEEDS, "segmenter": {"method": "sec", "crop": 1, "retrain": 0}},
    "dsrg": {**SEEDS, "segmenter": {"method": "dsrg", "crop": 1, "retrain": 1}},
    "emadapt": {"proxy": {**CAM["proxy"], "crf": "none"}, "segmenter": {"method": "em", "crop": 1, "retrain": 0}},
    "aepsl": {**CAM, "segmenter": {"method": "plain", "tag_weight": 1}},
    **dict.fromkeys(("affinitynet", "dcsm", "ficklenet", "mcof", "mdc", "multicues", "regioncam", "seenet"), CAM),
}
WITHOUT_OURS = {
    "proxy": {
        "threshold": 0,
        "peak_share": 0,
        "share_per_skew": 0,
        "cam_weight": 0,
        "activation_weight": 0,
        "affinity": None,
    },
    "patterns": {"contrast": 0, "whitening": 0, "layer_weights": [], "views": []},
    "segmenter": {"tag_weight": 0},
    "inference": {"background_weight": 1},
}
STRANGE = {
    "proxy.threshold": 1, "proxy.peak_share": 0.5, "proxy.share_per_skew": 0.1,
    "proxy.cam_weight": 2, "proxy.activation_weight": 0.3,
    "proxy.cam_thresholds": [0.5, 0.6], "proxy.conflict": "ignore", "proxy.sharpness": 30, "proxy.crf": "all",
    "patterns.layers": ["C42", "C41"], "patterns.layer_weights": [3, 1], "patterns.contrast": 0.9,
    "patterns.whitening": 2, "patterns.views": [{"size": 656}],
    "segmenter.tag_weight": 2, "segmenter.method": "plain", "segmenter.crop": 0.3, "segmenter.retrain": 3,
    "inference.background_weight": 0.1,
}  # fmt: skip
"""All that a published method must not take over, and what it needs otherwise."""


@pytest.mark.parametrize("name", [*recipe_names(), "strange"])
@pytest.mark.parametrize("method", PUBLISHED)
def test_on_every_recipe(method, name):
    before = load_recipe(*(("fast", STRANGE) if name == "strange" else (name,)))
    own = {**STRANGE, **method_settings(method)} if name == "strange" else method_settings(method)
    values, expected = load_recipe(before.name, own).model_dump(), before.model_dump()
    for key, wanted in WITHOUT_OURS.items():
        wanted = {**wanted, **PUBLISHED[method].get(key, {})}
        assert {parameter: values[key][parameter] for parameter in wanted} == wanted
        expected[key].update(wanted)
    expected["proxy"]["method"] = method
    expected["auto"] = [key for key in before.auto if key not in own]  # what a method sets is not left to the data
    assert values == expected  # all else is the recipe's
