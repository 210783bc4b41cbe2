"""Families of timm's networks: what C41, C42 and C43 are in each, seen by running it; what cannot be a backbone."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tag2mask.errors import WeightsError
from tag2mask.networks import backbones
from tag2mask.networks.backbones import LAST, Backbone, pyramid_layers
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.families import Family, families, family_of

# Network, finest stride of 16 and 32, the modules that are C41, C42 and C43, channels of C41 and of what is pooled.
NETWORKS = [
    ("resnet18", 16, "layer4.0 layer4.1 layer4.1", 512, 512),
    ("resnet50", 16, "layer4.0 layer4.1 layer4.2", 2048, 2048),
    ("resnext50_32x4d", 16, "layer4.0 layer4.1 layer4.2", 2048, 2048),
    ("seresnet18", 16, "layer4.0 layer4.1 layer4.1", 512, 512),
    ("ecaresnet26t", 16, "layer4.0 layer4.1 layer4.1", 2048, 2048),
    ("legacy_seresnet18", 32, "layer4.0 layer4.1 layer4.1", 512, 512),
    ("resnest14d", 16, "layer4.0 layer4.0 layer4.0", 2048, 2048),
    ("res2net50_14w_8s", 16, "layer4.0 layer4.1 layer4.2", 2048, 2048),
    ("skresnet18", 16, "layer4.0 layer4.1 layer4.1", 512, 512),
    ("resnetv2_18", 16, "stages.3.blocks.0 stages.3 last", 512, 512),
    ("regnetx_002", 16, "s4.b1 s4.b2 s4.b7", 368, 368),
    ("regnety_002", 16, "s4.b1 s4.b2 s4.b7", 368, 368),
    ("gernet_s", 16, "stages.3.0 stages.4 last", 560, 1920),
    ("repvgg_a0", 16, "stages.3.0 stages.3.0 stages.3.0", 1280, 1280),
    ("mobileone_s0", 16, "stages.3.1 stages.3.1 stages.3.1", 1024, 1024),
    ("efficientnet_b0", 16, "blocks.5.0 blocks.6 last", 192, 1280),
    ("tf_efficientnet_lite0", 16, "blocks.5.0 blocks.6 last", 192, 1280),
    ("tf_efficientnetv2_b0", 16, "blocks.5.0 blocks.5 last", 192, 1280),
    ("efficientnet_es", 16, "blocks.5.0 blocks.5 last", 192, 1280),
    ("mobilenetv2_035", 16, "blocks.5.0 blocks.6 last", 56, 1280),
    ("mnasnet_small", 16, "blocks.5.0 blocks.6 last", 88, 1280),
    ("tinynet_e", 16, "blocks.5.0 blocks.6 last", 96, 1280),
    ("mobilenetv3_small_050", 32, "blocks.4.0 blocks.4.1 blocks.5.0", 48, 288),
    ("mobilenetv4_conv_small_035", 32, "blocks.3.0 blocks.3.1 blocks.4.0", 48, 336),
    ("lcnet_035", 32, "blocks.5.0 blocks.5.1 blocks.5.1", 176, 176),
    ("ghostnet_050", 32, "blocks.7.0 blocks.7 last", 80, 480),
    ("repghostnet_050", 32, "blocks.7.0 blocks.7 last", 80, 480),
    ("rexnet_100", 16, "features.11 features.15 last", 140, 1280),
    ("convnext_atto", 16, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.1", 320, 320),
    ("convnextv2_atto", 16, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.1", 320, 320),
    ("inception_next_atto", 16, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.1", 320, 320),
    ("test_mambaout", 32, "stages.3.blocks.0 stages.3.blocks.0 stages.3.blocks.0", 64, 64),
    ("edgenext_xx_small", 32, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.1", 168, 168),
    ("fastvit_t8", 32, "stages.3.blocks.0 stages.3 last", 384, 768),
    ("repvit_m1", 32, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.1", 384, 384),
    ("starnet_s050", 32, "stages.3.0 stages.3 last", 128, 128),
    ("fasternet_t0", 32, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.1", 320, 320),
    ("poolformerv2_s12", 32, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.1", 512, 512),
    ("swiftformer_xs", 32, "stages.3.blocks.0 stages.3 last", 220, 220),
    ("efficientvit_b0", 32, "stages.3.blocks.0 stages.3.blocks.1 stages.3.blocks.2", 128, 128),
    ("pvt_v2_b0", 32, "stages.3 stages.3 stages.3", 256, 256),
    ("tiny_vit_5m_224", 32, "stages.3 stages.3 stages.3", 320, 320),
    ("mobilevit_xxs", 16, "stages.4.0 stages.4 last", 80, 320),
    ("densenet121", 32, "features.transition3 features.denseblock4 last", 512, 1024),
    ("dpn48b", 32, "features.conv5_1 features.conv5_3 last", 704, 832),
    ("ese_vovnet19b_slim_dw", 32, "stages.3.blocks.0 stages.3.blocks.0 stages.3.blocks.0", 512, 512),
    ("hgnetv2_b0", 32, "stages.3.blocks.0 stages.3.blocks.0 stages.3.blocks.0", 1024, 1024),
    ("test_nfnet", 16, "stages.3.0 stages.3 last", 128, 192),
    ("cspdarknet53", 16, "stages.4 stages.4 stages.4", 1024, 1024),
    ("cs3darknet_focus_s", 16, "stages.3 stages.3 stages.3", 512, 512),
    ("darknet17", 16, "stages.4.blocks.0 stages.4.blocks.0 stages.4.blocks.0", 1024, 1024),
    ("legacy_xception", 32, "conv3 conv4 last", 1536, 2048),
    ("vgg11", 16, "features.17 features.19 features.19", 512, 512),
    ("swin_tiny_patch4_window7_224", 32, "layers.3.blocks.0 layers.3 last", 768, 768),
]

# All layers are alike: there is no C41, but each block is a layer. Network, side of a patch, channels.
TRANSFORMERS = [
    ("vit_tiny_patch16_224", 16, 192),
    ("deit_tiny_patch16_224", 16, 192),
    ("vit_small_patch14_dinov2", 14, 384),
    ("vit_tiny_patch16_dinov3_qkvb", 16, 192),
    ("eva02_tiny_patch14_224", 14, 192),
    ("xcit_nano_12_p16_224", 16, 128),
]

NO_BACKBONES = [
    ("levit_128s", "photos of every size"),
    ("efficientformer_l1", "photos of every size"),
    ("efficientformerv2_s0", "photos of every size"),
    ("pit_ti_224", "photos of every size"),
    ("test_coatnet", "photos of every size"),
    ("hrnet_w18_small", "photos of every size"),
    ("dla46x_c", "photos of every size"),
    ("tresnet_m", "photos of every size"),
    ("inception_v3", "photos of every size"),
    ("crossvit_tiny_240", "last of crossvit_tiny_240 gives no feature map"),
    ("twins_svt_small", "last of twins_svt_small gives no feature map"),
]


def made(name, layers, **options):
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    return Backbone(name, layers, weights="random", **options)


@pytest.mark.parametrize(("name", "stride", "modules", "width", "pooled"), NETWORKS, ids=[row[0] for row in NETWORKS])
def test_layers_of_the_last_stage(name, stride, modules, width, pooled):
    backbone = made(name, ["C41", "C42", "C43"], output_stride=stride)
    assert backbone.layers == modules.split()
    with torch.no_grad():
        maps = backbone(torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0)))
    assert {maps_of.shape[0] for maps_of in maps.values()} == {2}
    assert {maps_of.shape[2:] for maps_of in maps.values()} == {(64 // stride, 96 // stride)}
    assert (maps[backbone.layers[0]].shape[1], maps[LAST].shape[1]) == (width, pooled)
    assert backbone.channels == {layer: maps_of.shape[1] for layer, maps_of in maps.items()}
    if not name.startswith("vgg"):  # there a pool of stride 1 follows
        assert torch.equal(maps[backbone.layers[2]], maps[LAST])
    if stride == 32 and name != "swin_tiny_patch4_window7_224":
        with pytest.raises(WeightsError, match="output stride of 16; use 32"):
            made(name, [LAST], output_stride=16)


@pytest.mark.parametrize(("name", "patch", "width"), TRANSFORMERS, ids=[row[0] for row in TRANSFORMERS])
def test_a_transformer_has_blocks_and_no_last_stage(name, patch, width):
    backbone = made(name, ["blocks.3", LAST])
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert {maps_of.shape[1:] for maps_of in maps.values()} == {(width, -(-64 // patch), -(-96 // patch))}
    with pytest.raises(WeightsError, match=f"{name} has no layer C41: name a module of it, such as"):
        made(name, ["C41"])
    assert pyramid_layers(name) == [f"blocks.{len(backbone.model.blocks) // 2}", LAST]


@pytest.mark.parametrize(("name", "reason"), NO_BACKBONES, ids=[row[0] for row in NO_BACKBONES])
def test_what_cannot_be_a_backbone_says_so_in_one_line(name, reason):
    with pytest.raises(WeightsError, match=reason) as error:
        made(name, [LAST], output_stride=32)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_that_gives_no_map_is_no_layer():
    for layer in ("global_pool", "fc"):  # not called, and called with no map
        with pytest.raises(WeightsError, match=f"{layer} of resnet10t gives no feature map"):
            made("resnet10t", [layer])


def test_a_network_that_leaves_out_the_stride_is_found_out(monkeypatch):
    """Photos would be seen at half the positions that were asked for."""
    monkeypatch.setattr(Family, "options", lambda self, output_stride: {})
    with pytest.raises(WeightsError, match="cannot have an output stride of 16; use 32"):
        made("resnet10t", [LAST], output_stride=16)


def test_a_network_that_brings_photos_to_one_size_is_found_out(monkeypatch):
    """Its map would be stretched over a photo of another shape."""
    monkeypatch.setattr(Family, "maps", lambda self, model, images, layers, seen: {LAST: torch.zeros(1, 8, 16, 16)})
    with pytest.raises(WeightsError, match="resnet10t brings all photos to one size"):
        made("resnet10t", [LAST])


def test_every_network_is_of_one_family():
    modules = [module for family in families().values() for module in family.modules]
    assert len(modules) == len(set(modules))
    assert "base" not in families()
    assert type(family_of("densenet121")) is Family
    assert family_of("tf_efficientnet_lite0.in1k") is families()["efficientnet"]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ["layer2", "C41", "layer4"]),
        ("tf_efficientnet_lite0", ["blocks.2", "C41", "blocks.6"]),
        ("mobilenetv3_small_050", ["blocks.1", "C41", "blocks.5"]),
        ("cs3darknet_focus_s", ["stages.1", "stages.3"]),
    ],
)
def test_layers_of_a_light_segmenter(name, layers):
    assert pyramid_layers(name) == layers


def test_a_network_is_described_once():
    backbones._described.cache_clear()
    for _ in range(2):
        backbones.pyramid_layers("resnet18")
    assert backbones._described.cache_info().misses == 1


def test_deeplab_changes_networks_for_its_segmenters_alone():
    """The features of patterns and classifiers stay those that timm's dilation gives."""
    plain, changed = (
        SegmentationNetwork("resnet18", ["a"], head=head, output_stride=8, weights="random").backbone.model
        for head in ("light", "largefov")
    )
    assert [model.layer4[0].conv1.dilation[0] for model in (plain, changed)] == [2, 4]
    assert [model.layer4[0].conv2.dilation[0] for model in (plain, changed)] == [4, 4]
    pools = [layer for layer in Backbone("vgg11", weights="random").model.features if isinstance(layer, nn.MaxPool2d)]
    assert [pool.kernel_size for pool in pools] == [2, 2, 2, 2, 3]
