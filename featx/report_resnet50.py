"""The report's second experiment: a frozen ResNet50 under a softmax layer, trained on augmented images with adam.

The report ran the network again in every epoch. Here its features of the images and of a few views of each are made
once, and an epoch takes one of each image: the experiment is the same, and the network's part is paid once.
"""

from dataclasses import replace

from featx.augmentation import REPORT, Views
from featx.resolve import RecipeOptions

NAME = "report-resnet50"

BACKBONE = "resnet50"

#: The head, see `featx.heads`.
HEAD = "softmax"

#: Views of each training image, unless the user wants another number.
N_VIEWS = 4


def recipe_options(options: RecipeOptions) -> RecipeOptions:
    """Return what the experiment's features are, and of `options` what it leaves open: weights, precision, dtype."""
    return {**options, "backbone": BACKBONE, "image_size": (256, 256), "pooling": "avg", "layer": None}


def report_views(views: Views | None) -> Views:
    """Return the views the experiment is trained on: the report's augmentation, as many as `views` if given."""
    return replace(views, augmentation=REPORT, of_test=False) if views else Views(N_VIEWS)
