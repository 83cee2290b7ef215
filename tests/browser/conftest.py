"""The Chromium that all these tests share. It reaches nothing but this machine."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="session")
def chromium():
    (Path(__file__).parent / "shots").mkdir(exist_ok=True)
    nowhere = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-proxy-server"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=nowhere)
        yield browser
        browser.close()
