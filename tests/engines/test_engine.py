"""What the table of engines says of each decides which one runs, with which batches, and whether Keras has to start."""

from itertools import product

import pytest

from featx.engines import engine as engines
from featx.engines.engine import (
    CPU_BATCH_SIZE,
    ENGINE_CHOICES,
    ENGINES,
    GPU_BATCH_SIZE,
    EngineOptions,
    choose_engine,
    default_batch_size,
    needs_keras,
)
from featx.engines.networks import network_path
from featx.errors import FeatxError
from featx.recipe import PRECISIONS, Recipe


def recipe_in(precision: str) -> Recipe:
    calibration = "0" * 64 if precision == "int8" else None
    return Recipe(
        backbone="vgg16",
        weights="random-0",
        layer="block1_pool",
        image_size=(32, 32),
        preprocessing="caffe",
        precision=precision,
        calibration=calibration,
    )


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that makes this a machine with a GPU, which Keras can use or not."""

    def set_gpu(*, is_usable: bool) -> None:
        monkeypatch.setattr(engines, "cuda_capability", lambda: (9, 0))
        monkeypatch.setattr(engines, "keras_sees_gpu", lambda: is_usable)

    monkeypatch.setattr(engines, "cuda_capability", lambda: None)
    engines._say_no_bfloat16.cache_clear()
    yield set_gpu
    engines._say_no_bfloat16.cache_clear()


@pytest.mark.parametrize(("name", "precision"), list(product(ENGINES, PRECISIONS)))
def test_an_engine_runs_the_precisions_of_its_entry_and_refuses_others_with_advice(gpu, name, precision):
    options = EngineOptions(engine=name)
    if precision in ENGINES[name].precisions:
        assert choose_engine(options, recipe_in(precision)) == name
    else:
        with pytest.raises(
            FeatxError,
            match=rf"{name} engine does not support {precision}; choose --engine (\w+)\.",
        ) as caught:
            choose_engine(options, recipe_in(precision))
        advised = str(caught.value).split("--engine ")[1].removesuffix(".")
        assert choose_engine(EngineOptions(engine=advised), recipe_in(precision)) == advised


def test_auto_takes_a_gpu_that_can_be_used_and_says_so_of_one_that_cannot(gpu, caplog):
    assert choose_engine(EngineOptions(), recipe_in("float32")) == "openvino"
    gpu(is_usable=True)
    assert choose_engine(EngineOptions(), recipe_in("float32")) == "keras"
    assert choose_engine(EngineOptions(), recipe_in("int8")) == "openvino"
    assert not caplog.records
    gpu(is_usable=False)
    assert choose_engine(EngineOptions(), recipe_in("float32")) == "openvino"
    assert "cannot use it: continuing with openvino on the CPU" in caplog.text


def test_batches_are_large_for_an_engine_that_may_use_the_gpu_only(gpu):
    assert {default_batch_size(EngineOptions(engine=name)) for name in ENGINE_CHOICES} == {CPU_BATCH_SIZE}
    gpu(is_usable=True)
    sizes = {name: default_batch_size(EngineOptions(engine=name)) for name in ENGINE_CHOICES}
    assert sizes == {
        "auto": GPU_BATCH_SIZE,
        "keras": GPU_BATCH_SIZE,
        "ncnn": CPU_BATCH_SIZE,
        "openvino": CPU_BATCH_SIZE,
    }
    assert default_batch_size(EngineOptions(engine="keras", batch_size=7)) == 7


def test_keras_starts_to_run_a_network_or_to_convert_one_that_is_not_kept(gpu, tmp_path):
    for name, entry in ENGINES.items():
        options = EngineOptions(engine=name)
        assert needs_keras(recipe_in("float32"), tmp_path, options)
        path = network_path(recipe_in("float32"), tmp_path)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert needs_keras(recipe_in("float32"), tmp_path, options) is not entry.converts
        path.unlink()
