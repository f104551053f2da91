"""Classifies images with a trained run, or with a pretrained classifier: images in, classes out.

Known features come from the store.
"""

from featx.predict.classifier import Classifier, DirectClassifier, ImageClassifier, Prediction, Predictions
