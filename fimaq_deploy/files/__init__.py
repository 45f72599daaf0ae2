"""Whole files, whole folders and locks: the one way in which this package writes."""

from fimaq_deploy.files.lock import locked
from fimaq_deploy.files.whole import disk_is_full, reserve, write_whole, written_whole

__all__ = ["disk_is_full", "locked", "reserve", "write_whole", "written_whole"]
