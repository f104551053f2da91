"""The store: features on disk, and kept pixels, found by the content of their images. No other room knows its files.

Segments are immutable, checksummed HDF5 files; `docs/format.md` specifies them.
"""

from featx.store.compaction import Compaction, compact
from featx.store.feature_array import (
    FeatureArray,
    Rows,
    StreamedViews,
    ViewRows,
    all_views,
    below,
    in_order,
    one_view,
    row_bytes,
    stored_rows,
    take,
    take_views,
)
from featx.store.feature_store import FeatureStore
from featx.store.hdf5_file import DAMAGE_ERRORS, as_text, open_hdf5, private_copy, stored_dataset
from featx.store.kept_pixels import KeptPixels, PixelWriter
from featx.store.nearest import nearest_rows, unit_rows
from featx.store.own_data import check_own_data, check_own_file
from featx.store.row_index import segment_paths
from featx.store.segment_file import new_segment_name, row_names
from featx.store.segment_writer import SEGMENT_AGE_S, SEGMENT_BYTES, SegmentWriter
from featx.store.verification import Damage, StoreCheck, StoreListing, check_store, list_store, mend_store
