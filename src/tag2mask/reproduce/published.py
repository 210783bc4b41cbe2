"""What the paper reports, to be cited beside measured figures: mIoU and IoU in percent. Nothing else reads this.

Source: W. Luo, M. Yang, "Learning Saliency-Free Model with Generic Features for Weakly-Supervised Semantic
Segmentation", AAAI 2020, Tables 1 to 3 and Fig. 3. Rows of other methods are cited from the paper's own tables.
"""

from __future__ import annotations

SOURCE = "W. Luo, M. Yang, AAAI 2020"

VOC_SET = "ResNet-101, 10,582 photos of trainaug, the 1,449 of val"
COCO_SET = "112,000 to 118,000 photos of COCO's train, the 5,000 of val"

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

TABLE2: tuple[tuple[str, str, float, float | None], ...] = (
    ("EM-Adapt", "tags", 38.2, 39.6),
    ("DCSM", "tags", 44.1, 45.1),
    ("SEC", "tags", 50.7, 51.7),
    ("Multi-Cues", "tags", 52.8, 53.7),
    ("DSRG", "tags", 59.0, 60.4),
    ("AffinityNet", "tags", 58.4, 60.5),
    ("SeeNet", "tags", 61.1, 60.7),
    ("MDC", "tags", 60.4, 60.8),
    ("FickleNet", "tags", 61.2, 61.9),
    ("STC", "tags, saliency", 49.8, 51.2),
    ("AE-PSL", "tags, saliency", 55.0, 55.7),
    ("MCOF", "tags, saliency", 56.2, 57.6),
    ("DCSP", "tags, saliency", 58.6, 59.2),
    ("WebS-i2", "tags, web data", 53.4, 55.3),
    ("Hong et al.", "tags, web data", 58.1, 58.7),
    ("the paper, VGG16", "tags", 61.2, None),
    ("the paper, ResNet-101", "tags", 64.5, 64.6),
)
"""Method, supervision, VOC val, VOC test, grouped as the paper groups them."""

TABLE2_OWN = {"vgg16": 61.2, "resnet101": 64.5}
"""VOC val by the segmenter's network."""

TABLE3 = {"SEC": 22.4, "DSRG": 26.0, "paper": 29.9}
"""COCO val, mIoU over 81 classes."""

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
