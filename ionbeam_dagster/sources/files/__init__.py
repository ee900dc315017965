"""The source `files`: folders of CSV, Parquet and CF netCDF files.

Belongs here: its configuration (config.py), its readers (readers.py and one module a format), what becomes of rows
(rows.py), what is known of files (index.py), the rows of a window (window_rows.py), and the source itself (source.py).
Does not belong here: sources that ask a server.
"""

from ionbeam_dagster.sources.files.config import FilesConfig
from ionbeam_dagster.sources.files.source import Files

__all__ = ["Files", "FilesConfig"]
