"""The page of a comparison: one HTML file that needs nothing else, neither a network nor another file.

`content` is what it says, `page` puts it together with the template beside it.
"""

from featx.report.html.page import page_html
