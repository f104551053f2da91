"""What others claim about the approaches on photographs of cats and dogs, beside what was measured here."""

import logging
from dataclasses import replace

from featx.compare.result import Claim, Comparison

log = logging.getLogger("featx")

REPORT, BLOG, BOOK = "the report of 2020", "the Keras blog, 2016", "Deep Learning with Python, 2017"

#: The claims of the report that featx began with; of F. Chollet, "Building powerful image classification models using
#: very little data", The Keras Blog, 2016; and of F. Chollet, "Deep Learning with Python", Manning, 2017, section 5.3.
#: The small network of the blog has the layers of the report's.
CLAIMS = (
    Claim("vgg16 + dense", REPORT, 8000, 2000, (0.96, 0.96), time="11 min = 10 + 1"),
    Claim("vgg16 + dense", BLOG, 2000, 800, (0.90, 0.91)),
    Claim("vgg16 + tuned", BLOG, 2000, 800, (0.94, 0.94)),
    Claim("vgg16 + tuned", BOOK, 2000, 1000, (0.97, 0.97)),
    Claim("report-cnn", REPORT, 8000, 2000, (0.32, 0.32), time="6.4 h", losses="0.0546 training, 3.2969 validation"),
    Claim("report-cnn", BLOG, 2000, 800, (0.79, 0.81)),
)

_CLASSES = ({"cat", "dog"}, {"cats", "dogs"})


def with_claims(comparison: Comparison, *, always: bool = False) -> Comparison:
    """Return the comparison with the claims about its approaches, each with what was measured.

    They are about cats and dogs, and about certain numbers of training and test images. A comparison of other classes
    or numbers gets none, except with `always`.
    """
    numbers = comparison.n_train + comparison.n_validation, comparison.n_test
    is_of_claims = {name.lower() for name in comparison.class_names} in _CLASSES and numbers in {
        (claim.n_train, claim.n_test) for claim in CLAIMS
    }
    if comparison.is_multilabel and always:
        log.warning("The claims of others are about images with one class each: they are not shown.")
    if not (always or is_of_claims) or comparison.is_multilabel:
        return comparison
    measured = {approach.name: approach for approach in comparison.approaches}
    found = (
        replace(
            claim,
            measured_accuracy=measured[claim.approach].accuracy,
            measured_interval=measured[claim.approach].accuracy_interval,
        )
        for claim in CLAIMS
        if claim.approach in measured
    )
    return replace(comparison, claims=tuple(found))
