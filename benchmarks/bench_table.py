"""The figures of a benchmark as a table of at most 100 columns."""

from collections.abc import Sequence

from limits import limit_of
from turns import Figures

#: Other processes that take more of the processors spoil the figures.
QUIET_SHARE = 0.05

HEADER = (
    ("contender", ""),
    ("images/s", ""),
    ("ratio", "(min–max)"),
    ("whole", "call"),
    ("CPU", "time"),
    ("network", "alone"),
    ("share", "of that"),
    ("matrix", "limit"),
    ("peak", "memory"),
    ("cosine", ""),
)


def head_text(figures: Figures) -> str:
    """Return on what is measured, and what the columns are."""
    hardware, plan = figures["machine"]["hardware"], figures["plan"]
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_bytes'] / 2**30:.0f} GiB; "
        f"{'random' if plan['weights'] == 'random' else 'pretrained'} weights; {plan['repeats']} rounds, medians.\n"
        "images/s: from JPEG files to features, after the start of the network. Ratio: to the first line,\n"
        "round by round. Whole call: the same, with the start that each call of featx has. CPU time: the\n"
        "first line's processor time to this one's, after the start. Network alone: images/s from memory,\n"
        "and the share of that which is left from files. Matrix limit: the network's share of the fastest\n"
        "matrix product in that precision. Cosine: how alike the features of the same pixels are."
    )


def case_text(case: Figures) -> str:
    """Return the table of one backbone at one image size."""
    contenders = case["contenders"]
    size, flops = case["image_size"], next(iter(contenders.values()))["flops_per_image"]
    precisions = [name for name in case["limits"][0]["flop_per_s"] if "," not in name]
    limits = {name: limit_of(case["limits"], name) for name in precisions}
    lines = [
        f"\n{case['backbone']} at {size}×{size}, {case['n_images']:,} images, {flops / 1e9:.2f} GFLOP an image",
        f"matrix products, GFLOP/s: {', '.join(f'{name} {limit / 1e9:,.0f}' for name, limit in limits.items())}",
    ]
    rows = [tuple(cells) for cells in zip(*HEADER, strict=True)]
    rows += [_row(name, figures) for name, figures in contenders.items()]
    others = max(figures["end_to_end"]["others_share"] for figures in contenders.values())
    if others > QUIET_SHARE:
        lines.append(f"NOT QUIET: other processes took up to {others:.0%} of the processors in a turn. Measure again.")
    return "\n".join([*lines, *_aligned(rows), *_phases(contenders)])


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    whole, alone = figures["end_to_end"], figures["alone"]
    ratio = whole["ratio"]
    return (
        name,
        f"{whole['images_per_s']['median']:.1f}",
        f"{_times(ratio['median'])} ({_times(ratio['min'])}–{_times(ratio['max'])})",
        _times(whole["whole_call_ratio"]["median"]),
        _times(whole["processor_time_ratio"]["median"]),
        f"{alone['images_per_s']['median']:.1f}",
        f"{alone['end_to_end_share']['median']:.0%}",
        f"{alone['share_of_limit']['median']:.0%}",
        f"{whole['peak_memory_bytes'] / 2**30:.1f} GiB",
        "–" if figures["facts"].get("own_weights") else f"{figures['agreement']['median_cosine']:.4f}",
    )


def _times(ratio: float) -> str:
    """Return a ratio with three digits.

    >>> _times(1.2345), _times(12.345)
    ('1.23', '12.3')
    """
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _phases(contenders: dict[str, Figures]) -> list[str]:
    """Return what each contender that says so has waited for in its last turn."""
    lines = []
    for name, figures in contenders.items():
        phases = figures["turns"]["end_to_end"][-1].get("phases")
        if phases:
            waits = ", ".join(
                f"{phase} {phases[f'{phase}_s']:.2f} s" for phase in ("start", "decode", "forward", "write")
            )
            lines.append(f"{name} waited: {waits}")
    return lines
