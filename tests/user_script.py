"""What a user may write, for a type checker: it is never run.

A line with ``type: ignore`` is wrong on purpose; mypy says so where the mistake is not found.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_type

import tag2mask as t2m

data = t2m.load("photos/", labels=Path("tags.csv"))
assert_type(data, t2m.ImageSet)
sample = t2m.Sample("a", Path("a.jpg"), (1,))
mine = t2m.ImageSet(("cat", "dog"), (sample,))
assert_type(mine.images_per_class(), dict[str, int])

recipe = t2m.load_recipe("fast", {"segmenter.epochs": 3})
assert_type(recipe, t2m.Recipe)
assert_type(recipe.segmenter.epochs, int)

result = t2m.run(data, out="runs/mine", recipe=recipe, eval_data=mine, settings=["workers=0"], keep=True)
assert_type(result, t2m.Result)
assert_type(result.out, Path)
assert_type(result.scores.prediction.miou, float | None)
assert_type(result.scores.proxy.iou["dog"], float | None)
assert_type(result.scores.classifier.map, float | None)
assert_type(result.scores.seconds["segment"], float)
assert_type(t2m.evaluate("runs/mine").prediction.images, int)
assert_type(t2m.evaluate("masks", "truth", classes="classes.txt").miou, float | None)

model = t2m.load_segmenter("runs/mine", device="cpu")
assert_type(model, t2m.Segmenter)
assert_type(model.classes, tuple[str, ...])
assert_type(model.to("cuda"), t2m.Segmenter)
pixels = np.zeros((40, 60, 3), np.uint8)
assert_type(model.predict("photo.jpg"), NDArray[np.uint8])
assert_type(model.predict(Image.open("photo.jpg")), NDArray[np.uint8])
assert_type(model.predict(pixels), NDArray[np.uint8])
assert_type(model.predict(["a.jpg", Path("b.jpg"), pixels]), list[NDArray[np.uint8]])
assert_type(model.predict_proba("photo.jpg"), NDArray[np.float32])
assert_type(t2m.Segmenter.from_pretrained("folder"), t2m.Segmenter)
model.save_pretrained("folder")
assert_type(t2m.predict_photos("runs/mine", "photos", "masks"), tuple[int, int])
assert_type(t2m.export("onnx", "runs/mine", "a.onnx"), Path)

patterns = t2m.ClassPatterns("resnet18", layer="C41", device="cuda").fit(data)
assert_type(patterns, t2m.ClassPatterns)
for photo, mask in patterns.transform(data):
    assert_type(photo, t2m.Sample)
    print(mask.shape)
refined = t2m.dense_crf(pixels, np.full((2, 40, 60), 0.5, np.float32))
assert_type(refined, NDArray[np.float32])

try:
    t2m.load("phtoos/")
except t2m.UserError as error:
    print(error, t2m.__version__)

print(t2m.runn)  # type: ignore[attr-defined]
t2m.run(data)  # type: ignore[call-arg]
t2m.run(data, "out", epochs=3)  # type: ignore[call-arg]
t2m.run(data, "out", eval_data="val")  # type: ignore[arg-type]
print(result.scores["prediction"])  # type: ignore[index]
print(result.scores.predictions)  # type: ignore[attr-defined]
model.predict(3)  # type: ignore[call-overload]
model.classes = ("cat",)  # type: ignore[misc]
t2m.ClassPatterns(layers="C41")  # type: ignore[call-arg]
print(patterns.clases_)  # type: ignore[attr-defined]
