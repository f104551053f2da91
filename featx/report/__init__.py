"""Shows a comparison to people: as tables, sentences, a page and pictures.

`write_report` writes all of them into one folder.
"""

from featx.report.explained import MAX_EXPLAINED, explain_to, write_explanations
from featx.report.folder import PAGE_NAME, fill_report, make_report, write_report
from featx.report.html.contact_sheet import contact_sheet
from featx.report.preview import draw_preview
from featx.report.problem_report import KEPT_NAME, report_problems
from featx.report.problem_text import counts_table, data_text
from featx.report.text import curve_verdict, few_images_note, table, verdict
