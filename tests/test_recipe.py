import hashlib
from dataclasses import fields, replace

import pytest

from featx.errors import FeatxError
from featx.images.augmentation import Augmentation
from featx.recipe import Recipe, as_image_size

RECIPE = Recipe(backbone="vgg16", weights="ab" * 32, layer="block5_pool", image_size=(150, 120), preprocessing="caffe")

OTHER = {
    "backbone": "resnet50",
    "weights": "cd" * 32,
    "layer": "block4_pool",
    "image_size": (120, 150),
    "preprocessing": "tf",
    "resize": "bicubic",
    "precision": "bfloat16",
    "dtype": "float32",
    "pixels_version": 1,
    "calibration": "ef" * 32,
    "pooling": "avg",
    "augmentation": Augmentation(flip=True),
}


def test_every_field_changes_the_key():
    assert set(OTHER) == {field.name for field in fields(Recipe)}
    keys = {replace(RECIPE, **{name: value}).key for name, value in OTHER.items()}
    assert len(keys | {RECIPE.key}) == len(OTHER) + 1


def test_key_is_the_digest_of_canonical_json():
    text = (
        '{"backbone":"vgg16","dtype":"float16","image_size":[150,120],"layer":"block5_pool","pixels_version":3,'
        f'"precision":"float32","preprocessing":"caffe","resize":"bilinear","weights":"{"ab" * 32}"}}'
    )
    assert RECIPE.to_json() == text
    assert RECIPE.key == hashlib.sha256(text.encode()).hexdigest()
    assert RECIPE.slug == f"vgg16-block5_pool-150x120-{RECIPE.key[:8]}"


def test_json_round_trip():
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"image_size": 3}', "null", '{"image_size": [1, 2], "colour": "red"}']
)
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(FeatxError, match="no featx recipe"):
        Recipe.from_json(text)


@pytest.mark.parametrize("text", ["", "0", "-3", "12.5", "5000", "64x", "x64", "64x64x3", "٣٢", "sixty"])
def test_what_is_no_image_size_is_refused(text):
    with pytest.raises(FeatxError, match="HEIGHTxWIDTH"):
        as_image_size(text)
