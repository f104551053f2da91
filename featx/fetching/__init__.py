"""Images from Kaggle: downloaded, unpacked safely, put in place when all is there."""

from featx.fetching.fetch import fetch_data
from featx.fetching.fetched import Fetched

__all__ = ["Fetched", "fetch_data"]
