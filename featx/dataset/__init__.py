"""A data set: its images with their labels, digests and splits, and batches of their pixels.

This room decides which folders are splits and classes, and which files are images, and tells the user.
"""

from featx.dataset.digests import digest_files, forget_digests
from featx.dataset.folders import DATA_NAMES, DATABASE_NAME, files_of
from featx.dataset.image_dataset import (
    Data,
    ImageDataset,
    ImageFolders,
    Images,
    images_of,
    label_texts,
    sample_mask,
    validation_mask,
    views_of,
)
from featx.dataset.labelled import UNLABELLED, Labels
from featx.dataset.loader import (
    Batch,
    ManyImages,
    Unreadable,
    as_source,
    digest_sources,
    images_in,
    images_of_sources,
    no_pixels,
    read_batches,
    source_path,
)
from featx.dataset.multilabel import label_shortage
from featx.dataset.path_table import PathTable
from featx.dataset.sample import chosen_data, has_data, is_sample
from featx.dataset.scanning import list_images, scan, scan_listed
from featx.dataset.skipped import DimImage, DimImages, SkippedImage, SkippedImages, dim_sentence, read_skipped
from featx.dataset.split_record import RECORD_NAME, check_record, quarantine_record
from featx.dataset.statcache import StatCache, check_database, quarantine_database
from featx.dataset.stratification import iterative_parts
