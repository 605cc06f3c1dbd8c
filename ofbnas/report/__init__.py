"""A study as one page that needs nothing else."""

from ofbnas.report.contents import contents, stamp, study_of
from ofbnas.report.page import page, write_page
from ofbnas.report.serve import Server

__all__ = ["Server", "contents", "page", "stamp", "study_of", "write_page"]
