"""What is done to pixels before the network of a file: the words for it, and the numbers that they stand for."""

import re
from dataclasses import dataclass
from functools import partial

from featx.errors import BackboneError
from featx.system import brief, did_you_mean


@dataclass(frozen=True)
class Pixels:
    """What a network gets for a pixel: `(value − mean) / std` for each channel.

    Attributes:
        mean: for red, green and blue, of values from 0 to 255.
        std: the same.
        is_bgr: whether the channels are then put in the order blue, green, red.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_bgr: bool = False

    def __str__(self) -> str:
        """Return it as it is typed: `mean=127,std=128`."""
        return ",".join(f"{name}={_listed(values)}" for name, values in (("mean", self.mean), ("std", self.std)))


def _scaled(factor: float, *values: float) -> tuple[float, ...]:
    """Return values times a factor, without the noise of binary fractions: 0.485 · 255 is 123.675."""
    return tuple(round(factor * value, 9) for value in values)


_of_unit = partial(_scaled, 255.0)

#: The words, and who wants what they stand for. The word is part of recipes; "torch" is Keras's for "imagenet".
PREPROCESSINGS: dict[str, tuple[Pixels, str]] = {
    "imagenet": (
        Pixels(_of_unit(0.485, 0.456, 0.406), _of_unit(0.229, 0.224, 0.225)),
        "torchvision, most of timm, DINOv2, ConvNeXt: ImageNet's mean and standard deviation",
    ),
    "clip": (
        Pixels(_of_unit(0.48145466, 0.4578275, 0.40821073), _of_unit(0.26862954, 0.26130258, 0.27577711)),
        "OpenAI's CLIP and OpenCLIP: CLIP's mean and standard deviation",
    ),
    "tf": (
        Pixels((127.5,) * 3, (127.5,) * 3),
        "SigLIP, Google's ViT, Inception, MobileNet of TensorFlow: pixels from -1 to 1",
    ),
    "caffe": (
        Pixels((123.68, 116.779, 103.939), (1.0,) * 3, is_bgr=True),
        "VGG and ResNet of Keras and Caffe: BGR, mean-centred, not scaled",
    ),
    "none": (Pixels((0.0,) * 3, (1.0,) * 3), "networks that take pixels from 0 to 255"),
}

#: Words of Keras for the same.
_ALIASES = {"torch": "imagenet"}

_NUMBER = r"[+-]?(?:\d{1,6}(?:\.\d{0,12})?|\.\d{1,12})"
_NUMBERS = rf"{_NUMBER}(?:,{_NUMBER},{_NUMBER})?"
_TYPED = re.compile(rf"mean=({_NUMBERS}),std=({_NUMBERS})", re.ASCII)


def as_preprocessing(text: str) -> str:
    """Return a preprocessing as recipes have it: one of `PREPROCESSINGS`, or `mean=…,std=…`.

    >>> as_preprocessing("torch"), as_preprocessing("mean=127.0, std=128"), as_preprocessing("mean=127.5,std=127.5")
    ('imagenet', 'mean=127,std=128', 'tf')

    Raises:
        BackboneError: it is none, or its numbers are of pixels from 0 to 1.
    """
    word = "".join(text.lower().split())
    word = _ALIASES.get(word, word)
    if word in PREPROCESSINGS:
        return word
    pixels = _numbers(word, text)
    words = (known for known, (meant, _) in PREPROCESSINGS.items() if meant == pixels)
    return next(words, str(pixels))


def find_pixels(preprocessing: str) -> Pixels:
    """Return what a preprocessing does.

    Raises:
        BackboneError: as for `as_preprocessing`.
    """
    word = as_preprocessing(preprocessing)
    return PREPROCESSINGS[word][0] if word in PREPROCESSINGS else _numbers(word, word)


def preprocessing_help() -> str:
    """Return the words and the networks that want them, one after the other."""
    words = "; ".join(f"{word} ({who})" for word, (_, who) in PREPROCESSINGS.items())
    return f"{words}; or numbers like mean=127,std=128, for pixels from 0 to 255 (EfficientNet-Lite)"


def _numbers(word: str, text: str) -> Pixels:
    match = _TYPED.fullmatch(word)
    if match is None:
        meant = did_you_mean(word, [*PREPROCESSINGS, *_ALIASES])
        raise BackboneError(
            f"A preprocessing is one of {', '.join(PREPROCESSINGS)}, or mean=…,std=… with one number or three (red, "
            f"green, blue), like mean=127,std=128. Received: {brief(repr(text))}.{meant}"
        )
    mean, std = (_three(part) for part in match.groups())
    if min(std) <= 0:
        raise BackboneError(f"A standard deviation is above 0. Received: {brief(repr(text))}")
    if max(std) < 1 or (max(std) == 1 and max(map(abs, mean)) <= 1):
        of_bytes = Pixels(_of_unit(*mean), _of_unit(*std))
        raise BackboneError(
            f"mean and std are those of pixels from 0 to 255, and these look like those of pixels from 0 to 1: write "
            f"{of_bytes}, or none if the network takes pixels from 0 to 255. Received: {brief(repr(text))}"
        )
    return Pixels(mean, std)


def _three(text: str) -> tuple[float, ...]:
    values = [round(float(part), 9) + 0.0 for part in text.split(",")]  # + 0.0: no -0
    return tuple(values * 3 if len(values) == 1 else values)


def _listed(values: tuple[float, ...]) -> str:
    once = values[:1] if len(set(values)) == 1 else values
    return ",".join(f"{value:.9f}".rstrip("0").rstrip(".") for value in once)
