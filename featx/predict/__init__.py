"""Classifies images with a trained run, or with a pretrained classifier: images in, classes out.

Known features come from the store.
"""

from featx.predict.classifier import Classifier, ImageClassifier
from featx.predict.direct import DirectClassifier
from featx.predict.explanations import Explanation, Explanations
from featx.predict.predictions import Prediction, Predictions
