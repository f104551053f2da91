"""Finds what is wrong with the images of a data set, and moves files that should go out of it, and back.

One row for each problem: copies, doubtful labels, files that cannot be read, and odd images, each with a suggestion.
"""

from featx.clean.find import find_problems
from featx.clean.labels import Doubt, find_doubts
from featx.clean.problems import COLUMNS, KINDS, LOOK, REMOVE, Problem, Problems
from featx.clean.removal import LOG_NAME, Moved, check_removable, remove_files, restore_files
