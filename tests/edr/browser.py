"""What a browser shows of a page."""

import shutil
import subprocess
from pathlib import Path

import pytest


def picture(url: str, size: str, folder: Path) -> Path:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    target = folder / "page.png"
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=5000",
    ]
    command += [f"--user-data-dir={folder / 'browser'}", f"--window-size={size}", f"--screenshot={target}", url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target
