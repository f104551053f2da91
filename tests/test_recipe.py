import hashlib
from dataclasses import fields, replace

import pytest

from featx.errors import FeatxError
from featx.extract.options import resolve_recipe
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


@pytest.mark.parametrize(
    ("options", "slug"),
    [
        ({"image_size": (32, 32)}, "vgg16-block5_pool-32x32-7971cbd7"),
        ({"image_size": (64, 64), "layer": "block4_pool"}, "vgg16-block4_pool-64x64-6b1d2883"),
        ({"backbone": "resnet50", "pooling": "avg"}, "resnet50-conv5_block3_out-avg-224x224-9d27a901"),
        ({"backbone": "resnet50", "layer": "predictions"}, "resnet50-predictions-224x224-e2c2ae4a"),
        (
            {"backbone": "mobilenetv2", "image_size": (96, 128), "precision": "bfloat16"},
            "mobilenetv2-out_relu-96x128-cb5d1efc",
        ),
        (
            {"backbone": "efficientnetb0", "weights": "random:7", "dtype": "float32"},
            "efficientnetb0-top_activation-224x224-8a6366f5",
        ),
    ],
)
def test_a_cache_that_an_earlier_featx_made_is_found(tmp_path, options, slug):
    """The names of stores that people have: with another one, all of their features would be computed again."""
    recipe, _ = resolve_recipe(tmp_path, **{"weights": "random", "precision": "float32", **options})
    assert recipe.slug == slug


def test_recipes_of_views_and_of_integers_are_found_too(tmp_path):
    recipe, _ = resolve_recipe(tmp_path, weights="random", precision="float32")
    views = replace(recipe, augmentation=Augmentation(flip=True, rotation=20.0))
    assert views.slug == "vgg16-block5_pool-224x224-views-b8682a2d"
    assert replace(recipe, precision="int8", calibration="cd" * 32).slug == "vgg16-block5_pool-224x224-976ee693"


def test_json_round_trip():
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"image_size": 3}', "null", '{"image_size": [1, 2], "colour": "red"}']
)
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(FeatxError, match="not a featx recipe"):
        Recipe.from_json(text)


@pytest.mark.parametrize("text", ["", "0", "-3", "12.5", "5000", "64x", "x64", "64x64x3", "٣٢", "sixty"])
def test_what_is_no_image_size_is_refused(text):
    with pytest.raises(FeatxError, match="HEIGHTxWIDTH"):
        as_image_size(text)
