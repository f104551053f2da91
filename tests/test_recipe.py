import copy
import hashlib
import json
import re
from dataclasses import fields, replace

import pytest

from featx.backbones.build import check_recipe
from featx.backbones.table import BACKBONES
from featx.errors import BackboneError, FeatxError
from featx.extract.options import resolve_recipe
from featx.images.augmentation import Augmentation
from featx.recipe import Recipe, UnknownRecipeError, as_image_size

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
    "fallback": "float32",
    "layout": "nchw",
    "pooling": "avg",
    "aspect_ratio": "crop",
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


def with_member(name: str, value: object) -> str:
    return json.dumps({**json.loads(RECIPE.to_json()), name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("crop", "center", r"with crop 'center': it knows no such member\. Use the featx that wrote this recipe, or"),
        ("Resize", "bilinear", r"with Resize 'bilinear': it knows no such member"),
        ("\x1b[2J", "x" * 1000, r"with \\x1b\[2J 'xxx"),
    ],
)
def test_a_recipe_with_a_member_that_this_featx_does_not_know_is_refused_by_its_name(name, value, message):
    with pytest.raises(UnknownRecipeError, match=f"^This featx cannot compute features {message}") as raised:
        Recipe.from_json(with_member(name, value))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


def test_so_is_one_whose_views_have_such_a_member():
    views = {"flip": True, "rotation": 20.0, "zoom": 0.2, "shear": 0.3, "version": 1}
    assert Recipe.from_json(with_member("augmentation", views)).augmentation == Augmentation(**views)
    with pytest.raises(UnknownRecipeError, match=r"with augmentation\.crop 0\.1: it knows no such member"):
        Recipe.from_json(with_member("augmentation", {**views, "crop": 0.1}))


def test_a_member_that_is_there_twice_has_no_meaning():
    text = RECIPE.to_json()
    with pytest.raises(FeatxError, match=r"not a featx recipe \(resize occurs twice\)"):
        Recipe.from_json(text.replace('"resize":"bilinear"', '"resize":"lanczos","resize":"bilinear"'))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels_version": 2}, "with pixels_version 2: it knows 3."),
        ({"pixels_version": 4}, "with pixels_version 4: it knows 3."),
        ({"resize": "lanczos"}, "with resize 'lanczos': it knows bilinear."),
        ({"precision": "fp8"}, "with precision 'fp8': it knows float32, bfloat16, int8."),
        ({"dtype": "float64"}, "with dtype 'float64': it knows float16, float32."),
        ({"pooling": "sum"}, "with pooling 'sum': it knows avg, max."),
        ({"aspect_ratio": "fill"}, "with aspect_ratio 'fill': it knows crop, pad."),
        ({"preprocessing": "center"}, "with preprocessing 'center': it knows caffe, tf, torch, none, efficientnet."),
        ({"backbone": "vgg17"}, "with backbone 'vgg17': it knows those that featx backbones lists."),
        ({"weights": "AB" * 32}, "it knows a SHA-256 in lower-case hexadecimal, or random-SEED."),
        ({"weights": "random-x"}, "with weights 'random-x'"),
        ({"weights": f"random-{10**30}"}, "with weights 'random-1000"),
        ({"image_size": (32, 10**10)}, "with image_size [32, 10000000000]: it knows sides from 1 to 4096 pixels."),
        ({"image_size": (-1, 32)}, "with image_size [-1, 32]"),
        ({"calibration": "cd" * 32}, "it knows a SHA-256 for int8, and none for other precisions."),
        ({"precision": "int8"}, "with calibration None"),
        ({"precision": "int8", "calibration": "cd"}, "with calibration 'cd'"),
        ({"augmentation": Augmentation(flip=True, version=2)}, "with augmentation.version 2: it knows 1."),
    ],
    ids=str,
)
def test_what_this_featx_does_not_compute_is_refused_by_its_name(change, message):
    with pytest.raises(UnknownRecipeError, match=re.escape(message)):
        check_recipe(replace(RECIPE, **change))


def test_whatever_the_options_can_ask_for_is_computed(tmp_path):
    """Otherwise the tests above could refuse everything."""
    for options in (
        {},
        {"pooling": "max"},
        {"dtype": "float32"},
        {"resize": "crop"},
        {"resize": "pad"},
        {"layer": "predictions"},
        {"image_size": "4096"},
    ):
        check_recipe(resolve_recipe(tmp_path, weights="random:7", **{"precision": "bfloat16", **options})[0])
    for backbone in BACKBONES:
        check_recipe(resolve_recipe(tmp_path, weights="random", backbone=backbone)[0])
    check_recipe(replace(RECIPE, precision="int8", calibration="cd" * 32, augmentation=Augmentation(flip=True)))


def test_a_backbone_that_does_not_go_with_the_rest_is_refused():
    for change in ({"layer": "block9_pool"}, {"image_size": (8, 8)}, {"layer": "predictions", "image_size": (64, 64)}):
        with pytest.raises(BackboneError):
            check_recipe(replace(RECIPE, **change))


def test_the_error_comes_from_another_process_as_it_is():
    with pytest.raises(UnknownRecipeError) as raised:
        check_recipe(replace(RECIPE, pixels_version=2))
    again = copy.copy(raised.value)  # as pickling does it
    assert (type(again), str(again), again.member) == (UnknownRecipeError, str(raised.value), "pixels_version")


@pytest.mark.parametrize("name", [*json.loads(RECIPE.to_json())])
def test_a_recipe_without_a_member_that_is_always_written_is_none(name):
    """A default in its place would be a guess at what the features are."""
    members = json.loads(RECIPE.to_json())
    del members[name]
    with pytest.raises(FeatxError, match="This is not a featx recipe"):
        Recipe.from_json(json.dumps(members))
