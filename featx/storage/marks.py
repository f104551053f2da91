"""The mark by which featx knows the folders that it has made, and takes nothing in them for a data set."""

from featx.storage.paths import StoragePath

#: Lies in a folder that featx has made. An empty one is of an earlier featx, which also marked what others had made.
OUTPUT_MARK = ".featx-output"

_TEXT = """\
featx made this folder, and leaves it out when it reads images from the folder above.
If there are images of your own in it, remove this file.
"""


def mark_folder(folder: StoragePath) -> None:
    """Write the mark into a folder that featx has made.

    Raises:
        OSError: it cannot be written.
    """
    (folder / OUTPUT_MARK).write_bytes(_TEXT.encode())
