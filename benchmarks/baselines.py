"""What people would write otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
from flops import flops_per_image
from turns import Figures, Task, measuring

from featx.backbones.build import build_model
from featx.backbones.table import find_backbone
from featx.extract.options import resolve_recipe
from featx.system.late_imports import import_keras

#: The fastest of them is used.
BATCH_SIZES = (16, 32, 64)
#: Images that each batch size is tried on, so many times.
TUNING_IMAGES, TUNING_ROUNDS = 64, 2


class PlainKeras:
    """Keras as its guides have it: a `tf.data` pipeline over the folder, and `model.predict`.

    The network is compiled and has run before the time is taken, and its features stay in memory.
    """

    def __init__(self, task: Task) -> None:
        keras = import_keras()
        import tensorflow as tf

        if task.precision == "bfloat16":
            keras.config.set_dtype_policy("mixed_bfloat16")
        self._task = task
        self._keras, self._tf = keras, tf
        # Keras calls the modules as featx calls the backbones: vgg16, resnet50.
        self._preprocess = getattr(keras.applications, task.backbone).preprocess_input
        self._network = keras_network(keras, task)
        self._batch_size, tuning = self._fastest_batch_size()
        self._run(2, self._batch_size)
        self._run_alone()
        self.facts: Figures = {
            "batch_size": self._batch_size,
            "tuning_images_per_s": tuning,
            "flops_per_image": flops_per_image(self._network),
        }

    def turn(self, what: str) -> Figures:
        """Do the whole of it, or let the network alone run; or write its features of the pixels in memory."""
        if what == "features":
            np.save(self._task.features_path, self._run_alone()[1].astype(np.float32))
            return {}
        if what == "alone":
            return self._run_alone()[0]
        with measuring() as figures:
            features = self._run(-1, self._batch_size)
        return {**figures, "n_images": len(features)}

    def _run(self, n_batches: int, batch_size: int) -> np.ndarray:
        """Return the features of the first batches of the folder; of all if `n_batches` is -1."""
        autotune = self._tf.data.AUTOTUNE
        dataset = self._keras.utils.image_dataset_from_directory(
            self._task.data_dir,
            labels=None,
            image_size=(self._task.image_size, self._task.image_size),
            batch_size=batch_size,
            shuffle=False,
            interpolation="bilinear",
            verbose=False,
        )
        dataset = dataset.map(self._preprocess, num_parallel_calls=autotune).take(n_batches).prefetch(autotune)
        features: np.ndarray = self._network.predict(dataset, verbose=0)
        return features

    def _run_alone(self) -> tuple[Figures, np.ndarray]:
        pixels = self._preprocess(np.load(self._task.pixels_path).astype(np.float32))
        with measuring() as figures:
            features = self._network.predict(pixels, batch_size=self._batch_size, verbose=0)
        return {**figures, "n_images": len(features)}, features

    def _fastest_batch_size(self) -> tuple[int, dict[int, float]]:
        """Return the best of `BATCH_SIZES`, and the most images a second that each of them reached."""
        best = dict.fromkeys(BATCH_SIZES, 0.0)
        for batch_size in BATCH_SIZES:
            self._run(1, batch_size)  # the first batch traces the network
        for number in range(TUNING_ROUNDS):
            for batch_size in BATCH_SIZES if number % 2 == 0 else BATCH_SIZES[::-1]:
                with measuring() as figures:
                    features = self._run(TUNING_IMAGES // batch_size, batch_size)
                best[batch_size] = max(best[batch_size], len(features) / figures["elapsed_s"])
        return max(best, key=best.__getitem__), best


def keras_network(keras: Any, task: Task) -> Any:
    """Return the Keras application, compiled, with the weights that featx uses."""
    size = (task.image_size, task.image_size)
    application = getattr(keras.applications, find_backbone(task.backbone).application)
    network = application(include_top=False, weights=None, input_shape=(*size, 3))
    recipe, weights = resolve_recipe(Path(task.work_dir), backbone=task.backbone, image_size=size, weights=task.weights)
    if weights.path:
        network.load_weights(weights.path)
    else:
        network.set_weights(build_model(recipe, None).get_weights())
    network.compile()
    return network
