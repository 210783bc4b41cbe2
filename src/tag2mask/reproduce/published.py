"""What the paper reports, to be cited beside measured figures: mIoU and IoU in percent. Nothing else reads this.

Source: W. Luo, M. Yang, "Learning Saliency-Free Model with Generic Features for Weakly-Supervised Semantic
Segmentation", AAAI 2020, Tables 1 to 3 and Fig. 3. Rows of other methods are cited from the paper's own tables.
"""

from __future__ import annotations

SOURCE = "W. Luo, M. Yang, AAAI 2020"

VOC_SET = "ResNet-101, 10,582 photos of trainaug, the 1,449 of val"
COCO_SET = "ResNet-101, 112,000 to 118,000 photos of COCO's train, the 5,000 of val"

VOC_PHOTOS = ((10_582, 10_582), (1_449, 1_449))
COCO_PHOTOS = ((112_000, 118_287), (4_952, 5_000))
"""Least and most photos to train on and to score on; COCO's with photos that have no object or without."""

TABLE1: dict[str, tuple[float, ...]] = {
    "C43": (
        74.9, 33.9, 25.0, 37.9, 29.4, 47.3, 68.9, 59.9, 58.1, 23.0, 50.3,
        34.0, 54.1, 47.5, 56.7, 48.8, 41.3, 48.3, 27.9, 51.5, 48.0, 46.0,
    ),
    "C42": (
        80.8, 43.0, 31.0, 49.0, 32.7, 57.0, 74.0, 67.3, 64.2, 25.0, 57.4,
        32.5, 60.7, 61.4, 66.3, 55.2, 44.7, 57.9, 30.5, 56.0, 52.7, 52.4,
    ),
    "C41": (
        86.1, 53.7, 33.8, 66.1, 40.2, 64.2, 82.2, 73.4, 82.4, 24.6, 71.1,
        30.6, 77.3, 72.8, 72.1, 66.9, 45.3, 70.3, 32.5, 67.4, 53.1, 60.3,
    ),
    "C41 + retrain": (
        88.6, 64.1, 35.4, 78.8, 50.8, 61.0, 85.8, 77.7, 84.6, 26.7, 75.2,
        40.8, 79.1, 77.4, 76.0, 70.4, 48.3, 69.2, 39.0, 69.9, 58.3, 64.5,
    ),
}  # fmt: skip
"""VOC val by row: background, the 20 classes in VOC's order, mIoU."""

TABLE2: tuple[tuple[str, str, str, float, float | None], ...] = (
    ("ScribbleSup", "scribbles", "10k", 63.1, None),
    ("BoxSup", "boxes", "10k", 62.0, 64.2),
    ("Box-driven", "boxes", "10k", 66.8, None),
    ("STC", "tags, saliency", "10k + sal", 49.8, 51.2),
    ("AE-PSL", "tags, saliency", "10k + sal", 55.0, 55.7),
    ("MCOF", "tags, saliency", "10k + sal", 56.2, 57.6),
    ("DCSP", "tags, saliency", "10k + sal", 58.6, 59.2),
    ("WebS-i2", "tags, web photos", "19k", 53.4, 55.3),
    ("Hong et al.", "tags, web videos", "10k + video", 58.1, 58.7),
    ("EM-Adapt", "tags", "10k", 38.2, 39.6),
    ("DCSM", "tags", "10k", 44.1, 45.1),
    ("SEC", "tags", "10k", 50.7, 51.7),
    ("Multi-Cues", "tags", "10k", 52.8, 53.7),
    ("DSRG", "tags, saliency", "10k", 59.0, 60.4),
    ("AffinityNet", "tags", "10k", 58.4, 60.5),
    ("SeeNet", "tags", "10k", 61.1, 60.7),
    ("MDC", "tags, saliency", "10k", 60.4, 60.8),
    ("FickleNet", "tags, saliency", "10k", 61.2, 61.9),
    ("the paper, VGG16", "tags", "10k", 61.2, None),
    ("the paper, ResNet-101", "tags", "10k", 64.5, 64.6),
)
"""Method, supervision, train set, VOC val, VOC test, in the paper's order."""

TABLE2_SALIENCY = (
    "DSRG, MDC and FickleNet: the paper's text says that they take background from a saliency detector; its column "
    "Train Set does not."
)

TABLE2_OWN = {"vgg16": 61.2, "resnet101": 64.5}
"""VOC val by the segmenter's network."""

TABLE3_METHODS = ("SEC", "DSRG", "paper")

Three = tuple[float | None, float | None, float | None]

TABLE3_MEAN: Three = (22.4, 26.0, 29.9)
"""COCO val, mIoU over 81 classes, by `TABLE3_METHODS`."""

TABLE3: dict[str, Three] = {
    "background": (74.3, 80.6, 73.9), "person": (None, None, None), "bicycle": (24.2, 30.4, 45.0),
    "car": (15.9, 22.1, 31.5), "motorcycle": (52.1, 54.2, 59.1), "airplane": (36.6, 45.2, 26.9),
    "bus": (37.7, 38.7, 52.4), "train": (30.1, 33.2, 42.4), "truck": (24.1, 25.9, 36.9), "boat": (17.3, 20.6, 23.5),
    "traffic light": (16.7, 16.1, 13.3), "fire hydrant": (55.9, 60.4, 45.1), "stop sign": (48.4, 51.0, 43.4),
    "parking meter": (25.2, 26.3, 33.5), "bench": (16.4, 22.3, 26.3), "bird": (34.7, 41.5, 29.9),
    "cat": (57.2, 62.2, 62.1), "dog": (45.2, 55.6, 57.5), "horse": (34.4, 42.3, 40.7), "sheep": (40.3, 47.1, 54.0),
    "cow": (41.4, 49.3, 47.2), "elephant": (62.9, 67.1, 64.3), "bear": (59.1, 62.6, 58.9),
    "zebra": (59.8, 63.2, 60.7), "giraffe": (48.8, 54.3, 45.1), "backpack": (0.3, 0.2, 0.0),
    "umbrella": (26.0, 35.3, 46.1), "handbag": (0.5, 0.7, 0.0), "tie": (6.5, 7.0, 15.5),
    "suitcase": (16.7, 23.4, 43.6), "frisbee": (12.3, 13.0, 23.2), "skis": (1.6, 1.5, 6.5),
    "snowboard": (None, None, None), "sports ball": (7.9, 9.8, 0.6), "kite": (9.1, 17.4, 14.0),
    "baseball bat": (1.0, 4.8, 0.0), "baseball glove": (0.6, 1.2, 0.0), "skateboard": (7.1, 14.4, 7.6),
    "surfboard": (7.7, 13.5, 17.6), "tennis racket": (9.1, 6.8, 38.1), "bottle": (13.2, 22.3, 28.4),
    "wine glass": (22.3, 24.0, 27.2), "cup": (17.9, 20.4, 21.7), "fork": (1.8, 0.0, 0.0), "knife": (1.4, 5.0, 0.9),
    "spoon": (0.6, 0.5, 0.0), "bowl": (12.5, 18.8, 7.6), "banana": (43.6, 46.4, 52.0), "apple": (23.6, 24.3, 28.8),
    "sandwich": (22.8, 24.5, 37.4), "orange": (44.3, 41.2, 52.0), "broccoli": (36.8, 35.7, 33.7),
    "carrot": (6.7, 15.3, 29.0), "hot dog": (31.2, 24.9, 38.8), "pizza": (50.9, 56.2, 69.8),
    "donut": (32.8, 34.2, 50.8), "cake": (12.0, 6.9, 37.3), "chair": (7.8, 9.7, 10.7), "couch": (5.6, 17.7, 9.4),
    "potted plant": (6.2, 14.3, 21.8), "bed": (23.4, 32.4, 34.6), "dining table": (0.0, 3.8, 1.1),
    "toilet": (38.5, 43.6, 43.8), "tv": (19.2, 25.3, 11.5), "laptop": (20.1, 21.1, 37.0), "mouse": (3.5, 0.9, 0.0),
    "remote": (17.5, 20.6, 37.2), "keyboard": (12.5, 12.3, 19.0), "cell phone": (32.1, 33.0, 38.1),
    "microwave": (8.2, 11.2, 43.4), "oven": (13.7, 12.4, 29.2), "toaster": (0.0, 0.0, 0.0),
    "sink": (10.8, 17.8, 28.5), "refrigerator": (4.0, 15.5, 23.8), "book": (0.4, 12.3, 26.3),
    "clock": (17.8, 20.7, 13.4), "vase": (18.4, 23.9, 27.1), "scissors": (16.5, 17.3, 37.0),
    "teddy bear": (47.0, 46.3, 58.9), "hair drier": (0.0, 0.0, 0.0), "toothbrush": (2.8, 2.0, 11.1),
}  # fmt: skip
"""COCO val, IoU by class and `TABLE3_METHODS`; None where our copy of the paper is illegible."""

ACCURACY = 80.4
"""Classification accuracy on COCO in percent; the paper does not define it."""

FIGURE3 = "dog: first component over 10%, second under 4%"

COCO_GROUPS: dict[str, tuple[str, ...]] = {
    "person": ("person",),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    "outdoor": ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "accessory": ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    "sports": (
        "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
        "surfboard", "tennis racket",
    ),
    "kitchen": ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    "food": (
        "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
    ),
    "furniture": ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    "electronic": ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    "appliance": ("microwave", "oven", "toaster", "sink", "refrigerator"),
    "indoor": ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
}  # fmt: skip
"""COCO's supercategories, in COCO's order."""
