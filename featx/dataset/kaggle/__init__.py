"""Images from Kaggle: downloaded, unpacked safely, put in place when all is there.

Nothing is fetched twice, and what a zip file may write is bounded.
"""

from featx.dataset.kaggle.download import parse_slug
from featx.dataset.kaggle.fetch import Fetched, fetch_data
