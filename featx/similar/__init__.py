"""Finds the images of a data set that are most similar to a photograph. Every image is compared, so none is missed."""

from featx.similar.similar import SimilarImages, find_similar
