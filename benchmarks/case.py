"""From the turns of the contenders to figures that can be compared."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from limits import limit_of
from turns import Contender, Figures, Spread


def contender_figures(contenders: Mapping[str, Contender], limits: Contender) -> dict[str, Figures]:
    """Return the figures of each contender by its name; ratios are to the first of them, round by round."""
    first = next(iter(contenders))
    counts = {turn["n_images"] for contender in contenders.values() for turn in contender.turns["end_to_end"]}
    if len(counts) > 1:  # featx computes a copy of an image only once
        raise ValueError(f"The contenders have not computed the same number of images, but {sorted(counts)}.")
    expected = np.load(contenders[first].task.features_path)
    flops = contenders[first].facts["flops_per_image"]
    return {
        name: {
            "facts": contender.facts,
            "flops_per_image": flops,
            "end_to_end": _end_to_end(contender, contenders[first]),
            "alone": _alone(contender, limits, flops),
            "agreement": _agreement(expected, np.load(contender.task.features_path)),
            "turns": contender.turns,
        }
        for name, contender in contenders.items()
    }


def _end_to_end(contender: Contender, first: Contender) -> Figures:
    """Return rates in images a second, ratios, and memory, from files to features.

    `after_start` is without the start of the engine, which is part of each call of featx; plain Keras has been started
    before its time is taken.
    """
    rates, whole_rates = _rates(contender, "after_start_s"), _rates(contender, "elapsed_s")
    return {
        "images_per_s": asdict(Spread.of(rates)),
        "whole_call_images_per_s": asdict(Spread.of(whole_rates)),
        "ratio": asdict(Spread.of_ratios(rates, _rates(first, "after_start_s"))),
        "whole_call_ratio": asdict(Spread.of_ratios(whole_rates, _rates(first, "elapsed_s"))),
        "processor_time_ratio": asdict(Spread.of_ratios(_processor_times(first), _processor_times(contender))),
        "others_share": max(turn["others_share"] for turn in contender.turns["end_to_end"]),
        "peak_memory_bytes": max(turn["peak_memory_bytes"] for turn in contender.turns["end_to_end"]),
    }


def _alone(contender: Contender, limits: Contender, flops: int) -> Figures:
    """Return what the network alone reaches, given images from memory, and the share of it that is left end to end."""
    rates = [turn["n_images"] / turn["elapsed_s"] for turn in contender.turns["alone"]]
    limit = limit_of(limits.turns["limits"], contender.task.precision)
    return {
        "images_per_s": asdict(Spread.of(rates)),
        "gflop_per_s": statistics.median(rates) * flops / 1e9,
        "share_of_limit": asdict(Spread.of([rate * flops / limit for rate in rates])),
        "end_to_end_share": asdict(Spread.of_ratios(_rates(contender, "after_start_s"), rates)),
    }


def _rates(contender: Contender, clock: str) -> list[float]:
    """Return images a second of each turn end to end, by one of its clocks."""
    turns = contender.turns["end_to_end"]
    return [turn["n_images"] / turn.get(clock, turn["elapsed_s"]) for turn in turns]


def _processor_times(contender: Contender) -> list[float]:
    """Return the processor time of each turn end to end, without what starting the engine took in the same round."""
    turns = zip(contender.turns["end_to_end"], contender.turns["alone"], strict=True)
    return [turn["cpu_s"] - alone.get("start", {}).get("cpu_s", 0.0) for turn, alone in turns]


def _agreement(expected: np.ndarray, found: np.ndarray) -> Figures:
    """Return how alike two networks' features of the same images are: 1 is the same direction.

    Raises:
        ValueError: they have different shapes: then nothing here may be compared.
    """
    if expected.shape != found.shape:
        raise ValueError(f"The contenders' features have different shapes: {expected.shape} and {found.shape}.")
    a, b = (features.reshape(len(features), -1).astype(np.float64) for features in (expected, found))
    cosines = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    return {"median_cosine": float(np.median(cosines)), "min_cosine": float(cosines.min())}
