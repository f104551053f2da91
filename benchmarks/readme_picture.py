"""Makes `docs/comparison.png`, the picture at the top of the README, from the page of a comparison.

    .venv/bin/python benchmarks/readme_picture.py reports/first

It is the page as anybody sees it, from its title to the end of its first chart.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1300


def main(report_dir: Path) -> None:
    """Write the picture of the page in `report_dir` into docs/."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=1.5)
        page.goto((report_dir / "index.html").resolve().as_uri())
        box = page.locator("#results figure").first.bounding_box()
        assert box
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 4}
        page.screenshot(path=Path(__file__).parents[1] / "docs" / "comparison.png", clip=clip, full_page=True)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report_dir", type=Path, help="what featx compare has written")
    main(parser.parse_args().report_dir)
