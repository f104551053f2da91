"""The page of a comparison: one HTML file that needs nothing else, neither a network nor another file."""

from featx.page.page import page_html

__all__ = ["page_html"]
