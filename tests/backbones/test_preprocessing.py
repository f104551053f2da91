import re

import numpy as np
import pytest

from featx.backbones import PREPROCESSINGS, as_preprocessing, find_pixels
from featx.errors import BackboneError


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        *((word, word) for word in PREPROCESSINGS),
        ("torch", "imagenet"),
        ("ImageNet", "imagenet"),
        ("mean=127,std=128", "mean=127,std=128"),
        ("mean=127.0, std=128.00", "mean=127,std=128"),
        ("mean=127,127,127,std=128", "mean=127,std=128"),
        ("mean=123.675,116.28,103.53,std=58.395,57.12,57.375", "imagenet"),
        ("mean=127.5,std=127.5", "tf"),
        ("mean=0,std=1", None),
        ("mean=-0,std=255", "mean=0,std=255"),
        ("mean=10.25,20.5,30,std=.5,2,3", "mean=10.25,20.5,30,std=0.5,2,3"),
    ],
)
def test_a_preprocessing_has_one_form_in_recipes(typed, canonical):
    if canonical is None:
        with pytest.raises(BackboneError, match="none if the network takes pixels from 0 to 255"):
            as_preprocessing(typed)
        return
    assert as_preprocessing(typed) == canonical
    assert as_preprocessing(canonical) == canonical
    if canonical not in {"none", "caffe"}:  # which numbers alone do not tell
        assert as_preprocessing(str(find_pixels(canonical))) == canonical


def test_numbers_for_pixels_from_0_to_1_are_answered_with_the_right_ones():
    typed = "mean=0.485,0.456,0.406,std=0.229,0.224,0.225"
    with pytest.raises(BackboneError) as refused:
        as_preprocessing(typed)
    advised = re.search(r"write (mean=[\d.,]+,std=[\d.,]*\d)", str(refused.value))[1]
    assert as_preprocessing(advised) == "imagenet"
    with pytest.raises(BackboneError, match=r"mean=127\.5,std=127\.5"):
        as_preprocessing("mean=0.5,std=0.5")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("imagnet", "Did you mean imagenet"),
        ("mean=1", "mean=…,std=…"),
        ("mean=1,2,std=3", "one number or three"),
        ("mean=1,std=0", "above 0"),
        ("mean=1,std=-3", "above 0"),
        ("mean=nan,std=3", "one of"),
        ("mean=1,std=inf", "one of"),
        ("mean=1e99,std=3", "one of"),
        ("", "one of"),
        ("mean=" + "9" * 10_000 + ",std=1", "one of"),
    ],
)
def test_what_is_no_preprocessing_is_refused(typed, said):
    with pytest.raises(BackboneError, match=said):
        as_preprocessing(typed)


@pytest.mark.parametrize("word", ["caffe", "tf", "imagenet"])
def test_the_words_mean_what_keras_means_by_them(word):
    from featx.system.late_imports import import_keras

    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.float32)
    pixels = find_pixels(word)
    ours = (rgb - np.float32(pixels.mean)) / np.float32(pixels.std)
    mode = {"imagenet": "torch"}.get(word, word)
    theirs = import_keras().applications.imagenet_utils.preprocess_input(
        rgb.copy(), data_format="channels_last", mode=mode
    )
    np.testing.assert_allclose(
        ours[..., ::-1] if pixels.is_bgr else ours, theirs, atol=1e-4 if word == "caffe" else 1e-6
    )
