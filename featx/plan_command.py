"""`featx plan`: what an extraction will cost."""

from typing import TYPE_CHECKING, Any

import click

from featx import options as opt
from featx.output import say
from featx.places import Place

if TYPE_CHECKING:
    from featx.dataset import ImageFolders


@click.command()
@opt.DATA
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.VIEWS
@opt.DEADLINE
@opt.OUTPUT
def plan(data: "ImageFolders", cache_dir: Place, quiet: bool, as_json: bool, **options: Any) -> None:
    """Say what an extraction will cost: time, disk and memory, for each engine and precision, from a timed sample.

    Takes the options of featx extract. Without --engine or --precision, all of them are tried, one after the other.

    \b
    Example:
      featx plan data/ --backbone vgg16 --image-size 150
      featx plan data/ --backbone resnet50 --views 4 --deadline 8h
    """
    from featx.plan_text import plan_json, plan_text
    from featx.planning import plan_extraction

    planned = plan_extraction(data, cache_dir=cache_dir, show=not quiet, **options)
    say(lambda: plan_text(planned), lambda: plan_json(planned), quiet=quiet, as_json=as_json)
