"""A trained run, or a pretrained classifier as it is, as a thing to use: images in, classes out.

Features that were computed before come from the store.
"""

from featx.predict.classifier import Classifier, DirectClassifier, ImageClassifier, Predictions
