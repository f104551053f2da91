"""The recipe: everything that decides what a feature's numbers are.

Two extractions with equal recipes give the same features for the same image, so they share one store; whatever changes
a number changes the recipe's key and, with it, the store.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, get_type_hints

from featx.errors import FeatxError
from featx.images import ASPECT_RATIOS, VIEWS_VERSION, Augmentation
from featx.system import brief, shown

#: Raised by one whenever decoding or resizing changes a pixel, so that old features are not mixed with new ones.
PIXELS_VERSION = 3

#: Storage dtypes, the default first.
DTYPES = ("float16", "float32")

#: Arithmetic of the forward pass.
PRECISIONS = ("float32", "bfloat16", "int8")

#: The name of the backbone in the recipe of decoded images, which no network has seen.
_PIXELS = "pixels"

#: How images that an int8 network does not fit are found, and computed: in float32. In older stores, images that are
#: clipped in several tensors were not found. Their networks are used, but made no more.
FALLBACK, OLD_FALLBACK = "float32-v2", "float32"

#: What may be done with a layer's output of `(height, width, channels)`: the mean, or the largest, of each channel.
POOLINGS = ("avg", "max")

#: Orders of the axes of a network's input: colours first, or last.
LAYOUTS = ("nchw", "nhwc")

#: Characters that each part of a store's name has at most.
_MAX_NAME = 60

#: Resampling filters, as Pillow names them.
_RESIZES = ("bilinear",)

#: Pixels that a side of an image may have after resizing.
MAX_SIDE = 4096


class UnknownRecipeError(FeatxError):
    """A recipe says something that this featx does not compute, and maybe another featx does.

    Attributes:
        member: of the recipe, fit for a message.
    """

    member = ""

    @classmethod
    def of(cls, name: str, value: object, known: str) -> Self:
        """Return the error that says which member of the recipe it is, its value, and what this featx knows instead."""
        error = cls(
            f"This featx cannot compute features with {brief(name)} {brief(repr(value))}: it knows {known}. Use the "
            f"featx that wrote this recipe, or extract and train again with this one."
        )
        error.member = brief(name)
        return error


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides a feature's numbers. Immutable; equal recipes have equal keys.

    Attributes:
        backbone: name in `featx.backbones.table.BACKBONES`, e.g. `"vgg16"`; or that of a network file, without its
            folder, e.g. `"dinov2.onnx"`.
        weights: SHA-256 of the weights file, or of the network file, in hexadecimal; or `"random-SEED"` for seeded
            random weights.
        layer: name of the layer whose output is stored.
        image_size: `(height, width)` in pixels that images are resized to.
        preprocessing: what is done to pixels before the network; see `featx.backbones.table.Backbone`, and for a
            network file `featx.backbones.preprocessing`.
        resize: the resampling filter, as Pillow names it.
        precision: arithmetic of the forward pass: `"float32"`, `"bfloat16"` or `"int8"`.
        dtype: `"float16"` or `"float32"`, the dtype features are stored in.
        pixels_version: see `PIXELS_VERSION`.
        calibration: for int8, SHA-256 in hexadecimal that stands for the images which set the ranges of the integers,
            see `featx.engines.networks`; else None.
        fallback: for int8, how images that the int8 network does not fit are found, and computed: `FALLBACK` or
            `OLD_FALLBACK`. None for other precisions, and in int8 stores of older versions, which clipped such images.
        pooling: `"avg"` or `"max"` if the layer's output is pooled to `(channels,)`; else None.
        layout: `"nchw"` or `"nhwc"` of a network file whose input leaves that open; else None.
        aspect_ratio: what keeps that of an image: `"crop"` or `"pad"`, see `featx.images.framing.frame_in`; None if the
            image is stretched.
        augmentation: how views are made; None in the recipe of the images themselves, which all settings share.

    Raises:
        TypeError: one of them has the wrong type.
    """

    backbone: str
    weights: str
    layer: str
    image_size: tuple[int, int]
    preprocessing: str
    resize: str = "bilinear"
    precision: str = "float32"
    dtype: str = DTYPES[0]
    pixels_version: int = PIXELS_VERSION
    calibration: str | None = None
    fallback: str | None = None
    pooling: str | None = None
    layout: str | None = None
    aspect_ratio: str | None = None
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        _check_types(self)

    def __repr__(self) -> str:
        return f"<Recipe {self.slug}: {self.precision}, stored as {self.dtype}>"

    def to_json(self) -> str:
        """Return the recipe as canonical JSON: sorted keys, no white space, ASCII only; what is None is left out."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the recipe that `to_json` wrote; `check_implemented` says whether this featx can compute it.

        Raises:
            UnknownRecipeError: it has a member that this featx does not know.
            FeatxError: `text` is no recipe.
        """
        try:
            members: dict[str, Any] = json.loads(text, object_pairs_hook=_each_once)
            height, width = members["image_size"]
            views = members.get("augmentation")
            augmentation = None if views is None else Augmentation.from_dict(_known(views, Augmentation))
            _check_complete(members, cls)
            recipe = cls(**{**_known(members, cls), "image_size": (height, width), "augmentation": augmentation})
            _check_members(members, cls)
            _check_members(views or {}, Augmentation, of="augmentation.")
        except UnknownRecipeError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, FeatxError) as error:
            raise FeatxError(f"This is not a featx recipe ({error}). Received: {text[:80]!r}") from None
        return recipe

    def check_implemented(self) -> None:
        """Raise UnknownRecipeError unless this featx gives each member the meaning that the recipe gives it.

        Features are stored under their recipe: what cannot be computed as it says must not be computed at all. The
        backbone, its layers and its preprocessing are for `featx.backbones.check_recipe`.
        """
        known: dict[str, tuple[object, ...]] = {
            "pixels_version": (PIXELS_VERSION,),
            "resize": _RESIZES,
            "precision": PRECISIONS,
            "dtype": DTYPES,
            "pooling": (None, *POOLINGS),
            "layout": (None, *LAYOUTS),
            "aspect_ratio": (None, *ASPECT_RATIOS),
        }
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise UnknownRecipeError.of(name, value, ", ".join(str(one) for one in values if one is not None))
        if self.fallback not in ((None, FALLBACK, OLD_FALLBACK) if self.precision == "int8" else (None,)):
            known_fallbacks = f"{FALLBACK} or {OLD_FALLBACK} for int8, and none for other precisions"
            raise UnknownRecipeError.of("fallback", self.fallback, known_fallbacks)
        if self.augmentation and self.augmentation.version != VIEWS_VERSION:
            raise UnknownRecipeError.of("augmentation.version", self.augmentation.version, str(VIEWS_VERSION))
        if not all(1 <= side <= MAX_SIDE for side in self.image_size):
            raise UnknownRecipeError.of("image_size", list(self.image_size), f"sides from 1 to {MAX_SIDE} pixels")
        if not re.fullmatch(r"[0-9a-f]{64}|random-\d{1,20}", self.weights, re.ASCII):
            raise UnknownRecipeError.of("weights", self.weights, "a SHA-256 in lower-case hexadecimal, or random-SEED")
        is_calibrated = bool(re.fullmatch(r"[0-9a-f]{64}", self.calibration or ""))
        if is_calibrated != (self.precision == "int8") or (self.calibration and not is_calibrated):
            raise UnknownRecipeError.of(
                "calibration", self.calibration, "a SHA-256 for int8, and none for other precisions"
            )

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal (64 digits)."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()

    @property
    def slug(self) -> str:
        """The name of the recipe's folder in the cache, e.g. `vgg16-block5_pool-150x150-1f3a9c02`."""
        height, width = self.image_size
        named = [self.backbone, self.layer, self.pooling, f"{height}x{width}", self.aspect_ratio]
        named.append("views" if self.augmentation else None)
        parts = (re.sub(r"[^A-Za-z0-9_.]+", "_", name)[:_MAX_NAME].lstrip("._") for name in named if name)
        return "-".join([*parts, self.key[:8]])

    @classmethod
    def of_pixels(cls, image_size: tuple[int, int], aspect_ratio: str | None) -> Self:
        """Return what decides the pixels of images that were decoded and resized, `(height, width, 3)` uint8.

        featx keeps them in a store of this recipe, as `featx.store.kept_pixels` says; no network computes it.
        """
        return cls(
            backbone=_PIXELS,
            weights="none",
            layer="rgb",
            image_size=image_size,
            preprocessing="none",
            precision="none",
            dtype="uint8",
            aspect_ratio=aspect_ratio,
        )

    @property
    def is_of_pixels(self) -> bool:
        """Whether this is the recipe of decoded images, not of features."""
        return self.backbone == _PIXELS

    @property
    def of_images(self) -> Self:
        """The recipe of the images themselves, where this is that of their views."""
        return replace(self, augmentation=None)

    @property
    def in_float32(self) -> Self:
        """The recipe of the same features, computed in float32."""
        return replace(self, precision="float32", calibration=None, fallback=None)

    @property
    def has_random_weights(self) -> bool:
        """Whether the backbone was never trained: whatever is made with it must say so."""
        return self.weights.startswith("random-")


def _each_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object. Of a name that occurs twice, other readers may take the other value."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"{name} occurs twice")
        members[name] = value
    return members


def _known(members: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Return those of the members that the dataclass `kind` has."""
    return {field.name: members[field.name] for field in fields(kind) if field.name in members}


def _check_complete(members: dict[str, Any], kind: type[Any]) -> None:
    """Raise ValueError if a member is missing that `to_json` always writes: a default would be a guess."""
    if missing := [field.name for field in fields(kind) if field.default is not None and field.name not in members]:
        raise ValueError(f"it lacks {missing[0]}")


def _check_members(members: dict[str, Any], kind: type[Any], *, of: str = "") -> None:
    """Raise UnknownRecipeError if there is a member that the dataclass `kind` does not have."""
    for name in sorted(members.keys() - {field.name for field in fields(kind)}):
        raise UnknownRecipeError.of(f"{of}{name}", members[name], "no such member")


def _check_types(recipe: Recipe) -> None:
    """Raise TypeError if a member of `recipe` is not of the type that it is declared with."""
    for name, kind in get_type_hints(Recipe).items():
        value = getattr(recipe, name)
        if name == "image_size":
            fits = isinstance(value, tuple) and [type(side) for side in value] == [int, int]
        else:
            fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits:
            raise TypeError(f"{name} has the wrong type: {shown(value)}")


def as_image_size(given: object) -> tuple[int, int]:
    """Return `(height, width)` from one number of pixels for both, from the two, or from text.

    >>> as_image_size(64), as_image_size((120, 160)), as_image_size("224"), as_image_size("120x160")
    ((64, 64), (120, 160), (224, 224), (120, 160))

    Raises:
        FeatxError: it is none of these, or a side is not between 1 and 4096 pixels.
    """
    sides = given if isinstance(given, tuple | list) else (given,)
    if isinstance(given, tuple | list) and len(sides) != 2:
        raise FeatxError(f"An image size must be one number of pixels, or (height, width). Received: {shown(given)}")
    text = "x".join(map(str, sides))
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower(), re.ASCII)
    if match:
        height = int(match[1])
        width = int(match[2] or match[1])
        if 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE:
            return height, width
    raise FeatxError(
        f"An image size must be a number of pixels, or HEIGHTxWIDTH, each from 1 to {MAX_SIDE}, such as 224 or "
        f"120x160. Received: {text!r}"
    )
