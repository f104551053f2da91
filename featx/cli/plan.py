"""What `featx plan` says: a few lines and one table for people, and the same as JSON."""

import math
import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options as opt
from featx.extract.planning import MARGIN, NOT_TRIED, Estimate, Plan, Work
from featx.storage import StoragePath
from featx.system import duration, size, text_table
from featx.text import Shown, shown_text

if TYPE_CHECKING:
    from featx.dataset import ImageFolders

#: Unreadable images that the terminal names.
UNREADABLE_SHOWN = 5


@click.command()
@opt.DATA
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.VIEWS
@opt.TUNE
@opt.DEADLINE
@opt.OUTPUT
def plan(data: "ImageFolders", cache_dir: StoragePath, output: opt.Output, **options: Any) -> None:
    """Estimate what an extraction will cost: time, disk and memory.

    It takes the options of featx extract, and times it on a sample. It first times what featx extract would use, then
    as many other engines and precisions as half a minute allows.

    \b
    Example:
      featx plan data/ --backbone vgg16 --image-size 150
      featx plan data/ --backbone resnet50 --views 4 --deadline 8h
      featx plan data/ --backbone vgg16 --image-size 150 --tune block5
    """
    from featx.extract.planning import plan_extraction

    planned = plan_extraction(data, cache_dir=cache_dir, show=output.show, **options)
    output.say(planned, plan_text, plan_json)


def plan_text(plan: Plan) -> Shown:
    """Return a plan for a terminal."""
    width = min(100, shutil.get_terminal_size((80, 24)).columns)
    above, below = (
        [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)]
        for lines in (_data_lines(plan), [*_table_notes(plan), *_features_lines(plan)])
    )
    return shown_text([*above, "", _table(plan), "", *below])


def _data_lines(plan: Plan) -> list[str]:
    height, width = plan.image_size
    lines = [
        f"{plan.n_images:,} images ({'about ' if plan.n_unread else ''}{plan.n_train:,} training), "
        f"{size(plan.size_bytes)}; {plan.backbone} at {height}×{width}."
    ]
    if plan.views:
        of = "image" if plan.views.of_test else "training image"
        lines.append(f"{plan.views.n:,} views of each {of}: {plan.views.augmentation}.")
    by_precision = {one.precision: one.images.n_cached for one in plan.estimates}  # engines share a store
    cached = [f"{n:,} in {precision}" for precision, n in by_precision.items() if n]
    lines.append(f"Already in the store: {', '.join(cached) or 'none'}. The plan counts only what is missing.")
    if plan.n_unread:
        lines.append(
            f"{plan.n_unread:,} images were only counted, because reading them all would take too long: the plan "
            f"assumes that each is readable and new."
        )
    lines += [f"Cannot be read: {path} ({reason})" for path, reason in plan.unreadable[:UNREADABLE_SHOWN]]
    if len(plan.unreadable) > UNREADABLE_SHOWN:
        lines.append(f"… and {len(plan.unreadable) - UNREADABLE_SHOWN:,} more.")
    return lines


def _table(plan: Plan) -> Shown:
    rows = [_cells(plan, one) for one in plan.estimates if not one.reason]
    return text_table(list(rows[0]), [list(row.values()) for row in rows])


def _cells(plan: Plan, one: Estimate) -> dict[str, str]:
    """Return the cells of a row by their headings."""
    mark = "*" if one.is_chosen else " "
    cells = {"Engine": f"{mark} {one.name}{' (GPU)' if one.on_gpu else ''}", "Images/s": _rate(one.images)}
    if plan.views:
        cells["Views/s"] = _rate(one.views)
    cells |= {"Start": _time(one.start_s), "Time": _time(one.time_s), "Disk": size(one.disk.size_bytes)}
    cells["Memory"] = size(one.peak_memory_bytes) if one.peak_memory_bytes else "–"
    if plan.deadline_s:
        cells["Machines"] = "–" if one.n_machines is None else f"{one.n_machines:,}"
    return cells


def _rate(work: Work | None) -> str:
    if not work or not work.pace:
        return "–"
    rate = 1 / work.pace.row_s
    return f"{rate:,.0f}" if rate >= 99.5 else f"{rate:.1f}"


def _time(seconds: float) -> str:
    return duration(seconds) if seconds else "–"


def _table_notes(plan: Plan) -> list[str]:
    failed = [one for one in plan.estimates if one.reason and one.reason != NOT_TRIED]
    lines = [f"{one.name} cannot run here: {one.reason}" for one in failed]
    if names := [one.name for one in plan.estimates if one.reason == NOT_TRIED]:
        advice = "To try one, name it with --engine and --precision."
        lines.append(f"Not tried, to keep the plan short: {', '.join(names)}. {advice}")
    lines.append(f"* marks what featx extract uses with the same options; --precision fast is {plan.fast} here.")
    measured = [one for one in plan.estimates if any(work.pace for work in one.works)]
    if not measured:
        return [*lines, "Nothing to compute, so nothing was measured."]
    spread = max(max(one.time_high_s / one.time_s - 1, MARGIN) for one in measured)
    lines.append(
        f"Timed on {plan.n_sample:,} images, in {duration(plan.elapsed_s)}: ±{100 * spread:.0f} % while the machine is "
        f"as busy as now. A cold disk or a slow network takes longer."
    )
    others = max(one.others_share for one in measured)
    if others > 0.05:
        lines.append(f"Other programs took up to {100 * others:.0f} % of the processors; without them, it is faster.")
    if kept := [f"{one.precision} {duration(one.convert_s)}" for one in measured if one.convert_s and one.is_converted]:
        lines.append(f"Converted and kept in the cache: {', '.join(kept)}.")
    lines += [
        f"The time of {one.name} includes {duration(one.convert_s)} to convert its network, which is needed only once."
        for one in measured
        if not one.is_converted
    ]
    if plan.deadline_s:
        cannot = any(one.n_machines is None for one in measured)
        lines.append(
            f"Machines: how many like this one finish within {duration(plan.deadline_s)}, at the slow end of the range"
            f"; {'–: the start alone takes longer' if cannot else 'each needs its own start'}."
        )
    return lines


def _features_lines(plan: Plan) -> list[str]:
    if plan.image_bytes is None or plan.training_bytes is None:
        return []
    segments = [one.disk.n_segments for one in plan.estimates if one.disk.n_segments]
    n_segments = "–".join(f"{n:,}" for n in dict.fromkeys((min(segments), max(segments))))
    unit = "segment" if max(segments) == 1 else "segments"
    pixel_bytes = math.prod(plan.image_size) * 3
    return [
        f"Features of {plan.layer} {plan.feature_shape} {plan.dtype}, {size(plan.image_bytes)} an image, in "
        f"{n_segments} {unit}. Stage two holds several copies of all "
        f"features in memory: {size(plan.training_bytes)} each.",
        f"With --keep-pixels: {size(pixel_bytes)} more for each image, {size(plan.n_images * pixel_bytes)} in all.",
    ]


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON knows it; times are in seconds."""
    return {
        **asdict(plan),
        "data_dir": str(plan.data_dir),
        "unreadable": [{"path": path, "reason": reason} for path, reason in plan.unreadable],
        "feature_shape": plan.feature_shape,
        "image_bytes": plan.image_bytes,
        "training_bytes": plan.training_bytes,
        "estimates": [_estimate_json(one) for one in plan.estimates],
    }


def _estimate_json(one: Estimate) -> dict[str, Any]:
    totals = asdict(one.disk) | {name: getattr(one, name) for name in ("time_s", "time_low_s", "time_high_s")}
    return asdict(one) | ({} if one.reason else totals)
