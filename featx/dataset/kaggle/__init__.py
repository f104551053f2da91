"""Downloads images from Kaggle, unpacks them safely, and moves them into place when they are complete.

Nothing is downloaded twice. A zip file cannot write outside its folder, nor more bytes than it announces.
"""

from featx.dataset.kaggle.demo import Demo, demo_data
from featx.dataset.kaggle.download import parse_slug
from featx.dataset.kaggle.fetch import Fetched, fetch_data
