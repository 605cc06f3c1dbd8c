"""A study as one page that needs nothing else."""

from ofbnas.study.report.contents import contents, stamp, study_of
from ofbnas.study.report.page import page, write_page
from ofbnas.study.report.serve import Server

__all__ = ["Server", "contents", "page", "stamp", "study_of", "write_page"]
