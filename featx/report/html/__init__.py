"""The page of a comparison: one HTML file that needs nothing else, neither a network nor another file.

`page` fills the template beside it.
"""
