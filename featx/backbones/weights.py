"""Where a backbone's weights come from, and which they are.

Finding and checking a file needs neither Keras nor TensorFlow; only a download does.
"""

import contextlib
import hashlib
import logging
import os
import re
import socket
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from featx.backbones.network_file import is_network_file
from featx.backbones.table import BACKBONES, OfficialFile, find_backbone
from featx.dataset import digest_files
from featx.errors import WeightsError
from featx.storage import StoragePath, expanded, nearest_folder
from featx.store import DAMAGE_ERRORS, as_text, check_own_file, open_hdf5
from featx.system import did_you_mean, import_keras, size
from featx.text import printable

log = logging.getLogger("featx")

#: The layers that hold the weights of the classifier, as Keras names them.
_CLASSIFIERS = re.compile(r"predictions|conv_preds|logits|convnext_\w+_head_dense")

#: What `--weights` may be, besides `random:SEED` and a file.
_WORDS = ("imagenet", "random", "imagenet-or-random")

#: Words for random weights. The seed is part of the recipe.
_RANDOM = re.compile(r"random(?::(\d{1,20}))?", re.ASCII)

#: The arrays in a file of weights may take so much: three times those of the largest network that Keras has.
MAX_WEIGHTS_BYTES = 4 << 30

#: A server that says nothing for so long is not there.
DOWNLOAD_TIMEOUT_S = 30.0


def count_classes(path: Path) -> int | None:
    """Return how many classes the classifier in a file of Keras weights has; None if the file holds no classifier.

    The file is in the layout of Keras's official ones (HDF5, a group for each layer), or was written by Keras 3's
    `model.save_weights("….weights.h5")`. In the former the classifier is the last layer, whatever it is called:
    Keras loads it by its place, and some of the official files are older than its present name.

    Raises:
        WeightsError: the system cannot read it.
    """
    try:
        check_own_file(path, MAX_WEIGHTS_BYTES)
        with open_hdf5(path) as file:
            last = list(_official_layer(file) if "layers" not in file else _keras_3_layer(file))
            shapes = [array.shape for array in last]
    except DAMAGE_ERRORS as error:
        if isinstance(error, OSError) and error.errno:  # else it is HDF5 that does not know the file
            reason = os.strerror(error.errno)
            raise WeightsError(f"The weights file {printable(path)} cannot be read: {reason}.") from error
        return None
    if len(shapes) != 2 or len(shapes[1]) != 1 or shapes[0][-1:] != shapes[1]:
        return None
    # A dense layer; or that of MobileNet, a convolution of one pixel.
    is_classifier = len(shapes[0]) == 2 or (len(shapes[0]) == 4 and shapes[0][:2] == (1, 1))
    return int(shapes[1][0]) if is_classifier else None


def _official_layer(file: Any) -> Iterator[Any]:
    """Yield the arrays of the last layer that has any."""
    layers = file.get("model_weights", file)
    for layer in reversed([as_text(name) for name in layers.attrs["layer_names"]]):
        names = [as_text(name) for name in layers[layer].attrs["weight_names"]]
        if names:
            yield from (layers[layer][name] for name in names)
            return


def _keras_3_layer(file: Any) -> Iterator[Any]:
    """Yield the arrays of the classifier; Keras 3 keeps a layer's name as an attribute of its arrays."""
    for layer in file["layers"].values():
        arrays = layer["vars"]
        if len(arrays) and _CLASSIFIERS.fullmatch(as_text(arrays.attrs.get("name", ""))):
            yield from (arrays[number] for number in ("0", "1"))


@dataclass(frozen=True)
class Weights:
    """Weights that were found.

    Attributes:
        digest: SHA-256 of the file in hexadecimal, or `"random-SEED"`.
        path: the file; None for random weights.
    """

    digest: str
    path: Path | None


@dataclass(frozen=True)
class _Wanted:
    """Which weights are looked for: of which backbone, and whether those of the whole classifier."""

    backbone: str
    whole: bool

    @property
    def official(self) -> OfficialFile:
        entry = find_backbone(self.backbone)
        return entry.whole if self.whole else entry.notop

    @property
    def official_path(self) -> Path:
        """Where Keras keeps its file: in its own cache folder, as Keras finds it."""
        return Path(os.environ.get("KERAS_HOME") or expanded("~/.keras")) / "models" / self.official.name

    @property
    def pattern(self) -> str:
        """What files of one's own are called."""
        return f"{self.backbone}*.h5" if self.whole else f"{self.backbone}*_notop.h5"


def check_weights(weights: str, backbone: str) -> None:
    """Raise WeightsError if `weights` is neither a word that `find_weights` knows nor a file that is there.

    So does a folder for ImageNet's weights that is not there. A network file has its weights in it: it must be there.
    """
    if is_network_file(backbone):
        _check_network_file(expanded(backbone), weights)
        return
    if weights == "imagenet":
        _weights_folder()
    if weights in _WORDS or _RANDOM.fullmatch(weights) or _is_file(expanded(weights)):
        return
    if weights.startswith("random:"):
        raise WeightsError(
            f"The seed of random weights is a whole number of 20 digits at most, like random:7. Received: "
            f"{printable(weights[:80])}"
        )
    raise WeightsError(
        f"There is no weights file {printable(weights)}. Give --weights a file, or imagenet."
        f"{did_you_mean(weights, _WORDS)}"
    )


def _check_network_file(path: Path, weights: str) -> None:
    if weights not in {"imagenet", "imagenet-or-random"}:
        raise WeightsError(
            f"{printable(path)} contains its weights: leave --weights out. Received: {printable(weights)}"
        )
    if not _is_file(path):
        names = [file.name for file in path.parent.glob("*") if is_network_file(file.name)]
        raise WeightsError(f"There is no network file {printable(path)}.{did_you_mean(path.name, names)}")


def has_weights_here(backbone: str) -> bool:
    """Return whether ImageNet's weights of a backbone are in `FEATX_WEIGHTS_DIR` or where Keras keeps them.

    Raises:
        WeightsError: `FEATX_WEIGHTS_DIR` names no folder.
    """
    _weights_folder()
    try:
        return _local_path(_Wanted(backbone, whole=False)) is not None
    except WeightsError:  # there are several; one must be chosen
        return True


def find_weights(backbone: str, weights: str, cache_dir: StoragePath, *, whole: bool = False) -> Weights:
    """Return the weights that `weights` names.

    Args:
        backbone: name in `featx.backbones.table.BACKBONES`, or the path of a network file, which has its weights in it.
        weights: `"imagenet"`: a file in the folder `FEATX_WEIGHTS_DIR`, else Keras's own, downloaded if need be;
            `"random"` or `"random:SEED"`: seeded random weights, for tests; `"imagenet-or-random"`: for
            demonstrations, ImageNet weights or, where none can be had, random ones with a warning; else the path of
            a file in the layout of Keras's official ones.
        cache_dir: remembers digests of files.
        whole: whether the weights of the whole classifier are wanted, instead of those without it.

    Raises:
        WeightsError: there are none, or the file is not what its name says.
    """
    check_weights(weights, backbone)
    if is_network_file(backbone):
        return _digested(expanded(backbone), cache_dir)
    find_backbone(backbone)
    wanted = _Wanted(backbone, whole)
    if match := _RANDOM.fullmatch(weights):
        return Weights(f"random-{int(match[1] or 0)}", None)
    if weights == "imagenet-or-random":
        try:
            return _weights_in_file(wanted, _imagenet_path(wanted), cache_dir)
        except WeightsError as error:
            log.warning("%s Continuing with random weights: the figures say nothing about transfer learning.", error)
            return find_weights(backbone, "random", cache_dir)
    path = _imagenet_path(wanted) if weights == "imagenet" else expanded(weights)
    return _weights_in_file(wanted, path, cache_dir)


def find_weights_again(
    backbone: str,
    digest: str,
    candidates: Sequence[Path | None],
    cache_dir: StoragePath,
    *,
    download: bool = True,
    whole: bool = False,
) -> Weights:
    """Return the weights with this `digest`, from the first place that has them.

    Args:
        backbone: name in `featx.backbones.table.BACKBONES`, or that of a network file.
        digest: SHA-256 of the file in hexadecimal, or `"random-SEED"`.
        candidates: files to try first; None and what is not there is passed over. After them, `FEATX_WEIGHTS_DIR`
            and Keras's own folder are looked into.
        cache_dir: remembers digests of files.
        download: whether to have Keras download its official file, if a candidate bears that name.
        whole: whether the weights are those of the whole classifier.

    Raises:
        WeightsError: they are nowhere; the message says where they were looked for.
    """
    named = [path for path in candidates if path]
    if is_network_file(backbone):
        folder = _weights_folder()
        return _with_digest(backbone, digest, [*named, *([folder / backbone] if folder else [])], cache_dir)
    find_backbone(backbone)
    wanted = _Wanted(backbone, whole)
    if digest.startswith("random-"):
        return Weights(digest, None)
    looked: list[str] = []
    for path in _local_paths(wanted, named):
        weights = _weights_in_file(wanted, path, cache_dir)
        if weights.digest == digest:
            return weights
        looked.append(f"{printable(path)} has others")
    was_official = any(path.name == wanted.official.name for path in named)
    if download and was_official and not wanted.official_path.exists():
        _download(wanted, "the places named")
        return find_weights_again(backbone, digest, (), cache_dir, whole=whole)
    looked += [f"{printable(path)} is not there" for path in named if not _is_file(path)]
    where = f" ({'; '.join(looked)})" if looked else ""
    raise WeightsError(
        f"The weights of {backbone} with the SHA-256 {digest[:16]}… were not found{where}. Name their file with "
        f"--weights PATH, or set FEATX_WEIGHTS_DIR to its folder."
    )


def _with_digest(name: str, digest: str, paths: Sequence[Path], cache_dir: StoragePath) -> Weights:
    """Return the network file with this `digest`, the first of `paths` that has it."""
    looked: list[str] = []
    for path in dict.fromkeys(paths):
        if not _is_file(path):
            looked.append(f"{printable(path)} is not there")
            continue
        weights = _digested(path, cache_dir)
        if weights.digest == digest:
            return weights
        looked.append(f"{printable(path)} is another one")
    where = f" ({'; '.join(looked)})" if looked else ""
    raise WeightsError(
        f"The network file {printable(name)} with the SHA-256 {digest[:16]}… was not found{where}. Name it with "
        f"--weights PATH, or set FEATX_WEIGHTS_DIR to its folder."
    )


def _local_paths(wanted: _Wanted, named: Sequence[Path]) -> Iterator[Path]:
    """Yield those of the `named` files that are there, and the one that is found without being named."""
    yield from (path for path in named if _is_file(path))
    if found := _local_path(wanted):
        yield found


def _is_file(path: Path) -> bool:
    """Return whether there is a regular file; a name that no file can have is none."""
    return os.path.isfile(path)  # noqa: PTH113 - which raises nothing


def _weights_in_file(wanted: _Wanted, path: Path, cache_dir: StoragePath) -> Weights:
    # A file whose digest is remembered has been checked, and has not changed since: it is not read again.
    return _digested(path, cache_dir, before_reading=partial(_check_official, wanted.official, path))


def _digested(path: Path, cache_dir: StoragePath, before_reading: Callable[[], object] = lambda: None) -> Weights:
    digests, problems = digest_files([path.absolute()], cache_dir, before_reading=before_reading)
    if problems:
        raise WeightsError(f"The weights file {printable(path)} cannot be read: {problems[0]}.")
    log.debug("Weights: %s, SHA-256 %s.", printable(path), bytes(digests[0]).hex())
    return Weights(bytes(digests[0]).hex(), path)


def _check_official(official: OfficialFile, path: Path) -> None:
    """Raise if a file that bears an official name is not the official file; leave it where it is."""
    if path.name != official.name or official.checksum is None:
        return
    kind = "sha256" if len(official.checksum) == 64 else "md5"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise WeightsError(f"The weights file {printable(path)} cannot be read: {error.strerror}.") from error
    if found != official.checksum:
        raise WeightsError(
            f"{printable(path)} has the name of Keras's official weights but is not that file: {kind.upper()} "
            f"expected {official.checksum}, got {found}. The download may be incomplete: move the file away, and featx "
            f"downloads it again. If the weights are your own, rename it. The file was neither used nor changed."
        )


def _imagenet_path(wanted: _Wanted) -> Path:
    if path := _local_path(wanted):
        return path
    folder = os.environ.get("FEATX_WEIGHTS_DIR")
    looked = f"the folder {printable(folder)} (FEATX_WEIGHTS_DIR)" if folder else "FEATX_WEIGHTS_DIR (not set)"
    _download(wanted, looked)
    return wanted.official_path


def _local_path(wanted: _Wanted) -> Path | None:
    """Return the file in `FEATX_WEIGHTS_DIR`, else what Keras has downloaded; None if there is neither."""
    folder = _weights_folder()
    path = _path_in_folder(wanted, folder) if folder else None
    official = wanted.official_path
    return path or (official if official.is_file() else None)


def _weights_folder() -> Path | None:
    """Return the folder that `FEATX_WEIGHTS_DIR` names; None if it is not set."""
    named = os.environ.get("FEATX_WEIGHTS_DIR")
    if not named:
        return None
    folder = expanded(named)
    if not folder.is_dir():
        raise WeightsError(f"FEATX_WEIGHTS_DIR names no folder. Received: {printable(named)}.{nearest_folder(folder)}")
    return folder


def _path_in_folder(wanted: _Wanted, folder: Path) -> Path | None:
    """Return the file that is wanted in `folder`: the official one, else the only one called as one's own are."""
    official = folder / wanted.official.name
    if official.exists():
        return official
    # The pattern of whole classifiers fits the files without one, too.
    paths = [
        path
        for path in sorted(folder.glob(wanted.pattern))
        if not (wanted.whole and re.search("no[_-]?top", path.name)) and not _is_of_another(path.name, wanted.backbone)
    ]
    if len(paths) > 1:
        raise WeightsError(
            f"FEATX_WEIGHTS_DIR has several files for {wanted.backbone}: "
            f"{', '.join(printable(path.name) for path in paths)}. Choose one with --weights PATH."
        )
    return paths[0] if paths else None


def _is_of_another(name: str, backbone: str) -> bool:
    """Return whether a file whose name begins with `backbone` is named after another one, as resnet50v2 is."""
    others = {other: entry for other, entry in BACKBONES.items() if other != backbone}
    is_longer = any(name.startswith(other) for other in others if other.startswith(backbone))
    return is_longer or any(name in {entry.notop.name, entry.whole.name} for entry in others.values())


def _download(wanted: _Wanted, looked: str) -> None:
    """Have Keras download and check the official file; it gets its name only once all of it is there."""
    keras = import_keras()
    official, place = wanted.official, wanted.official_path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="featx-download-", dir=place.parent) as folder,
            _network_timeout(),
            _keras_progress(),
        ):
            much = _announced_size(official.url)
            log.info("Downloading the ImageNet weights of %s%s to %s", wanted.backbone, much, printable(place))
            path = keras.utils.get_file(
                official.name, origin=official.url, cache_dir=folder, file_hash=official.checksum
            )
            Path(path).replace(place)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        reason = textwrap.shorten(str(error), 300, placeholder=" …")
        raise WeightsError(
            f"Could not find or download the ImageNet weights of {wanted.backbone}. Looked for "
            f"{wanted.pattern} in {looked} and for {printable(place)}, then tried to download them ({reason}). "
            f"Connect to the network once, put {official.name} into a folder and set FEATX_WEIGHTS_DIR to it, "
            f"or name a file with --weights PATH."
        ) from error


def _announced_size(url: str) -> str:
    """Return how large the file at `url` is, in brackets; empty if the server does not say, or cannot be asked."""
    import urllib.request  # it loads slowly, and is needed once

    with contextlib.suppress(OSError, TypeError, ValueError):
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - Keras's own address
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return f" ({size(int(answer.headers['Content-Length']))})"
    return ""


@contextlib.contextmanager
def _keras_progress() -> Iterator[None]:
    """Send Keras's progress bar, which it prints to stdout, where somebody sees it, or else nowhere."""
    with contextlib.ExitStack() as stack:
        out = sys.stderr if sys.stderr.isatty() else stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(out))
        yield


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
