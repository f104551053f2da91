"""Finds what is wrong with the images of a data set, and moves files out of the data set and back.

There is one row for each problem: a copy, a doubtful label, a file that cannot be read, or an odd image. Each row has a
suggestion.
"""

from featx.clean.find import find_problems
from featx.clean.labels import LEAST_AGREEMENT, Doubt, find_doubts, share_agreed
from featx.clean.problems import COLUMNS, KINDS, LOOK, REMOVE, Problem, Problems
from featx.clean.removal import Moved, check_removable, folder_for_removed, remove_files, restore_files
