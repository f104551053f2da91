"""Which images are alike: the most similar ones of a data set, and a map of it.

Every image is compared, so none is missed.
"""

from featx.similar.feature_map import feature_map
from featx.similar.similar import MAX_K, SimilarImages, find_similar
