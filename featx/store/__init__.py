"""The store: features on disk, and nothing else in featx knows how."""

from featx.store.compaction import Compaction, compact
from featx.store.feature_store import FeatureStore
from featx.store.segment_file import FORMAT_VERSION, new_segment_name, row_names
from featx.store.stored_rows import StoredRows, stored_rows
from featx.store.verification import Damage, StoreCheck, StoreListing, check_store, list_store, mend_store

__all__ = [
    "FORMAT_VERSION",
    "Compaction",
    "Damage",
    "FeatureStore",
    "StoreCheck",
    "StoreListing",
    "StoredRows",
    "check_store",
    "compact",
    "list_store",
    "mend_store",
    "new_segment_name",
    "row_names",
    "stored_rows",
]
