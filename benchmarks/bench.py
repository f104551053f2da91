"""Stage one against what people would write otherwise, on this machine; docs/performance.md says how it is measured.

    python benchmarks/bench.py [DATA] --weights-dir weights/ --json bench.json

Contenders run in processes of their own and take turns. A ratio above 1 is how many times as many images a second.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
from alternatives import alternatives
from bench_table import case_text, head_text
from case import contender_figures
from photos import choose_photos, make_photos
from stages import measure_other_stages
from turns import Contender, Figures, Task, take_turns

from featx.system.machine import cpu_has_bfloat16, hardware, versions

#: Up to this many times as many images as at 224×224 when they are smaller, so that no turn is over in an instant.
MOST_IMAGES_FACTOR = 3


#: Part of the images that the network gets from memory.
ALONE_SHARE = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        backbones: names in `featx.backbones.table.BACKBONES`.
        image_sizes: sides of the square images, in pixels.
        precisions: of featx.
        n_images: of 224×224 pixels; more of smaller ones, see `images_at`.
        repeats: rounds in which each contender has its turn.
        weights: as for `featx.extract_features`.
        keras_bfloat16: whether plain Keras is measured in mixed bfloat16, too.
        alternatives: whether ONNX Runtime and PyTorch are measured, too, as far as they are installed.
        matrix_size: rows and columns of the largest matrices that show what the machine can do.
    """

    backbones: tuple[str, ...]
    image_sizes: tuple[int, ...]
    precisions: tuple[str, ...]
    n_images: int
    repeats: int
    weights: str
    keras_bfloat16: bool
    alternatives: bool
    matrix_size: int

    def images_at(self, image_size: int) -> int:
        """Return how many images of this size are used."""
        return round(self.n_images * max(1, min(MOST_IMAGES_FACTOR, (224 / image_size) ** 2)))


def measure_case(task: Task, plan: Plan) -> Figures:
    """Return the figures of one backbone at one image size, for each contender."""
    preparations = {}
    # bfloat16 runs the network that float32 has.
    for precision in dict.fromkeys("int8" if name == "int8" else "float32" for name in plan.precisions):
        with Contender(replace(task, contender="preparation", precision=precision)) as preparation:
            preparations[precision] = preparation.facts["elapsed_s"]
    with ExitStack() as stack:
        limits = stack.enter_context(Contender(replace(task, contender="matrix-products")))
        contenders = {name: stack.enter_context(Contender(wanted)) for name, wanted in _contenders(task, plan)}
        for number in range(plan.repeats):
            click.echo(f"{task.backbone} at {task.image_size}, round {number + 1} of {plan.repeats} …", err=True)
            take_turns(list(contenders.values()), "end_to_end", number)
            limits.turn("limits")
            take_turns(list(contenders.values()), "alone", number)
        for contender in contenders.values():
            contender.ask("features")
        return {
            "backbone": task.backbone,
            "image_size": task.image_size,
            "n_images": plan.images_at(task.image_size),
            "preparation_s": preparations,
            "limits": limits.turns["limits"],
            "contenders": contender_figures(contenders, limits),
        }


def _contenders(task: Task, plan: Plan) -> Iterator[tuple[str, Task]]:
    """Yield the name and the task of each contender, the one that all are compared with first."""
    yield "Keras float32", replace(task, contender="plain-keras")
    if plan.keras_bfloat16:
        yield "Keras bfloat16", replace(task, contender="plain-keras", precision="bfloat16")
    if plan.alternatives:
        for name, contender, precision in alternatives(task):
            yield name, replace(task, contender=contender, precision=precision)
    for precision in plan.precisions:
        yield f"featx {precision}", replace(task, contender="featx", precision=precision)


def measure(data_dir: Path | None, plan: Plan) -> Iterator[Figures]:
    """Yield the figures of each case, as soon as they are there."""
    with tempfile.TemporaryDirectory(prefix="featx-bench-") as name:
        for image_size in plan.image_sizes:
            photos_dir, n = Path(name, f"photos-{image_size}"), plan.images_at(image_size)
            photos = choose_photos(data_dir, photos_dir, n) if data_dir else make_photos(photos_dir, n)
            for backbone in plan.backbones:
                work_dir = Path(name, f"{backbone}-{image_size}")
                work_dir.mkdir()
                task = Task(
                    contender="",
                    backbone=backbone,
                    image_size=image_size,
                    weights=plan.weights,
                    data_dir=str(photos),
                    work_dir=str(work_dir),
                    n_alone=round(n * ALONE_SHARE),
                    matrix_size=plan.matrix_size,
                )
                yield measure_case(task, plan)


def _weights(weights_dir: Path | None) -> str:
    """Return which weights to use: those of the folder, else random ones, which are as fast."""
    if weights_dir:
        os.environ["FEATX_WEIGHTS_DIR"] = str(weights_dir)
    return "imagenet" if os.environ.get("FEATX_WEIGHTS_DIR") else "random"


def _plan(quick: bool, precisions: Sequence[str], **options: object) -> Plan:
    known = ("float32", "bfloat16", "int8") if cpu_has_bfloat16() else ("float32", "int8")
    plan = Plan(precisions=tuple(precisions) or known, **options)  # type: ignore[arg-type]
    return replace(plan, n_images=12, image_sizes=(32,), repeats=2, matrix_size=128) if quick else plan


def _keep(figures: Figures, path: Path | None) -> None:
    if path:
        figures["machine"]["load_at_end"] = os.getloadavg()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


@click.command()
@click.argument("data", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--backbone", "backbones", multiple=True, default=("vgg16", "resnet50"), show_default=True)
@click.option("--image-size", "image_sizes", multiple=True, type=int, default=(64, 224), show_default=True)
@click.option("--precision", "precisions", multiple=True, help="Of featx; all that this machine has if not given.")
@click.option("--images", "n_images", type=click.IntRange(12), default=150, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--weights-dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--keras-bfloat16", is_flag=True, help="Measure plain Keras in mixed bfloat16, too.")
@click.option("--alternatives", is_flag=True, help="Measure ONNX Runtime and PyTorch, too, if they are installed.")
@click.option("--other-stages/--no-other-stages", default=True, help="Measure stage two and the baselines, too.")
@click.option("--quick", is_flag=True, help="A few tiny images, to see that all of it works.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(
    data: Path | None,
    *,
    weights_dir: Path | None,
    other_stages: bool,
    quick: bool,
    json_path: Path | None,
    **options: object,
) -> None:
    """Measure stage one against plain Keras on the JPEGs in DATA, or on crops of scikit-learn's photographs."""
    plan = _plan(quick, matrix_size=2048, weights=_weights(weights_dir), **options)  # type: ignore[arg-type]
    machine = {"hardware": hardware(), "versions": versions(), "load_at_start": os.getloadavg()}
    figures: Figures = {"machine": machine, "plan": asdict(plan), "cases": []}
    click.echo(head_text(figures))
    for case in measure(data, plan):
        figures["cases"].append(case)
        click.echo(case_text(case))
        _keep(figures, json_path)  # a run that is broken off has been good for something
    if other_stages:
        figures |= measure_other_stages(data, plan.weights, quick=quick)
        _keep(figures, json_path)


if __name__ == "__main__":
    main()
