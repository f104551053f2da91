"""What the student's report of 2020, which featx began with, claimed of the approaches that featx still knows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A line of that report, as it stood there."""

    accuracy: str
    time: str
    losses: str


CLAIMS = {
    "report-cnn": Claim("32 %", "6.4 h", "0.0546 training, 3.2969 validation"),
    "vgg16 + dense": Claim("96 %", "11 min = 10 + 1", "not given"),
}

WHY_THEY_DIFFER = (
    "Its accuracies and losses are of the training, called results; here everything is measured on test images.",
    "It mixed figures of first and of last epochs; here the epoch with the lowest validation loss is kept, and counts.",
    "Its hours come from steps_per_epoch given in images instead of batches: an epoch went over the data dozens of "
    "times. Here an epoch is one pass.",
    "Other images, at another size, on another machine: only the order of approaches could be compared at all.",
)
