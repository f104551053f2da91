"""The page of a comparison in a real browser: Debian's Chromium, headless, driven by Playwright."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from markupsafe import escape

from featx.compare.compare import compare_approaches
from featx.compare.result import Comparison
from featx.dataset.sample import write_sample
from featx.errors import printable
from featx.heads.training_loop import Training
from featx.report.html.page import page_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Chromium's own errands, which have nothing to do with a page.
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
MAX_BYTES = 3_000_000
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
HOSTILE = ("</script><img src=x onerror=alert(1)>", "a\"b'c&d\n\x1b[31m\u202e", "🐈 猫" * 20)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def digits(tmp_path_factory, new_cache) -> tuple[Comparison, Path]:
    """A comparison on the built-in sample: ten classes, five approaches' worth of pictures."""
    folder = tmp_path_factory.mktemp("digits")
    data = write_sample(folder / "sample")
    comparison = compare_approaches(
        data,
        baselines=["report-cnn"],
        cache_dir=new_cache(folder / "cache"),
        training=Training(epochs=2),
        weights="random",
        image_size=(32, 32),
        layer="block2_pool",  # the rest of the network would take long for 1,797 images, and the page is the same
        pooling="avg",
    )
    return comparison, data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, new_cache) -> tuple[Comparison, Path]:
    """A comparison on classes and files whose names want to be more than names."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("hostile")
    names = tuple(name.replace("/", "∕") for name in HOSTILE)
    data = write_photos(folder / "data", n_train=8, n_test=4, classes=("one", "two", "three"))
    for split in ("train", "test"):
        for plain, name in zip(("one", "two", "three"), names, strict=True):
            (data / split / plain).rename(data / split / name)
    for number, path in enumerate(sorted((data / "test").rglob("*.jpg"))):
        path.rename(path.with_name(f"<b onclick='alert({number})'>\n&\u2028.jpg"[: 40 + number] + f"{number}.jpg"))
    (data / "train" / names[0] / "<script>bad.jpg").write_bytes(b"no image")
    comparison = compare_approaches(
        data, cache_dir=new_cache(folder / "cache"), training=Training(epochs=2), weights="random", image_size=(32, 32)
    )
    return comparison, data


@pytest.fixture(scope="module")
def html_of():
    """Return a function that renders a comparison's page, each one once."""
    pages = {}

    def render(comparison, data_dir):
        key = id(comparison), data_dir
        if key not in pages:
            pages[key] = comparison, page_html(comparison, data_dir)  # with it: while it is here, the id is its own
        return pages[key][1]

    return render


@pytest.fixture
def opened(browser, tmp_path, html_of):
    """Return a function that opens a comparison's page from disk; afterwards, nothing must have gone wrong in it."""
    contexts, complaints = [], []

    def open_page(comparison, data_dir, viewport=DESKTOP, scheme="light"):
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(html_of(comparison, data_dir), encoding="utf-8")
        context = browser.new_context(viewport=viewport, color_scheme=scheme, has_touch=viewport is PHONE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: _note_request(request.url, path, complaints))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _note_request(url, path, complaints):
    if not url.startswith("data:") and url != path.as_uri():
        complaints.append(f"asks for {url}")


def test_the_page_is_small_and_whole_in_one_file(digits, html_of):
    html = html_of(*digits)
    assert len(html.encode()) < MAX_BYTES
    assert not re.search(r'(?:src|href)="(?!data:image/|#)', html)
    assert html.count("data:image/webp") > 1000


def test_the_verdict_is_the_title_of_the_page(digits, opened):
    page = opened(*digits)
    assert re.search(r"\d\d\.\d\s% \(95\s% interval", page.locator("h1").inner_text())
    assert page.locator(".warning").first.inner_text().startswith("Warning: vgg16 has random weights")


def test_the_table_can_be_sorted_both_ways_by_any_column(digits, opened):
    page = opened(*digits)
    table = page.locator("#approaches")
    for column in range(table.locator("thead button").count()):
        values = []
        for _ in range(2):
            table.locator("thead button").nth(column).click()
            cells = table.locator(f"tbody tr > :nth-child({column + 1})")
            values.append([cell.get_attribute("data-value") for cell in cells.all()])
        key = str if column == 0 else float
        assert values[0] == sorted(values[0], key=key)
        assert sorted(values[1], key=key, reverse=True) == sorted(values[0], key=key, reverse=True)
        assert [key(value) for value in values[1]] == sorted(map(key, values[0]), reverse=True)
        assert table.locator("[aria-sort=descending]").count() == 1


def test_cells_of_the_confusion_matrix_open_their_images(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)
    page.select_option("#which-matrix", label="report-cnn")
    assert page.locator(".matrix:visible").count() == 1
    [seen] = [images for images in comparison.error_analysis.approaches if images.name == "report-cnn"]
    cell = next(cell for cell in seen.cells if cell.label != cell.predicted)
    page.locator(".matrix:visible").get_by_label(f"of {cell.label} taken for {cell.predicted}").click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("li .path").all_inner_texts() == list(cell.paths)
    assert dialog.locator("img").count() == len(cell.paths)
    assert all(image.evaluate("i => i.complete && i.naturalWidth === 48") for image in dialog.locator("img").all())
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_the_map_shows_what_is_under_the_pointer_and_the_arrow_keys(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)
    canvas, tip = page.locator("#map-canvas"), page.locator("#map-tip")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    point = comparison.error_analysis.map[0]
    x, y = 14 + point.x * (box["width"] - 28), 14 + (1 - point.y) * (box["height"] - 28)
    page.mouse.move(box["x"] + x, box["y"] + y)
    assert tip.is_visible()
    assert tip.locator("img").evaluate("i => i.naturalWidth") == 48
    page.mouse.move(box["x"] + box["width"] + 5, box["y"] - 5)
    assert not tip.is_visible()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#map-said").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert re.search(r"test/\d/\d+\.png", first)
    assert page.locator("#map-said").inner_text() != first


def test_the_map_can_be_filtered_and_coloured(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)

    def pixels():
        return page.evaluate("document.getElementById('map-canvas').toDataURL()")

    seen = {pixels()}
    page.select_option("#map-colour", "right")
    assert page.locator("#map-legend span").all_inner_texts() == ["right", "wrong (squares)"]
    seen.add(pixels())
    for choice in ("3", "wrong"):
        page.select_option("#map-filter", choice)
        seen.add(pixels())
    assert len(seen) == 4


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["digits", "hostile"])
def test_there_is_no_accessibility_violation(request, opened, viewport, scheme, name):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(*request.getfixturevalue(name), viewport, scheme)
    for details in page.locator("details").all():
        details.evaluate("d => d.open = true")
    violations = Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"][:120] for node in v["nodes"][:3]]) for v in violations] == []


@pytest.mark.parametrize("name", ["digits", "hostile"])
def test_a_phone_shows_the_page_without_scrolling_sideways(request, opened, name):
    page = opened(*request.getfixturevalue(name), PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.fixture(scope="module")
def slow_digits(digits) -> tuple[Comparison, Path]:
    """The same, with times that take much room in a table."""
    comparison, data = digits
    slow = tuple(replace(one, representations_s=489.0, top_s=129.0) for one in comparison.approaches)
    return replace(comparison, approaches=slow), data


@pytest.mark.parametrize("width", [1280, 1200, 1100])
def test_a_desktop_shows_whole_tables(slow_digits, opened, width):
    page = opened(*slow_digits, {"width": width, "height": 900})
    hidden = "[...document.querySelectorAll('.scroll')].map(part => part.scrollWidth - part.clientWidth)"
    assert max(page.evaluate(hidden)) == 0


def test_hostile_names_stay_names(hostile, opened):
    comparison, data = hostile
    page = opened(comparison, data)  # which checks that nothing was run or asked for
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("b[onclick]").count() == 0
    assert page.locator("script").count() == 2
    shown = page.locator(".matrix").first.locator("th[scope=row]").all_inner_texts()
    assert sorted(shown) == sorted(printable(path.name) for path in (data / "test").iterdir())
    page.locator(".cell").first.click()
    assert page.locator("dialog li").count() > 0
    assert "\x1b" not in page.content()
    assert "\u202e" not in page.content()
    assert "<script>bad.jpg" in page.locator("#skipped").inner_text()


def test_the_pages_data_has_names_exactly(hostile, html_of):
    comparison, data = hostile
    html = html_of(comparison, data)
    found = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert found["classes"] == list(comparison.class_names)
    cells = [(seen.name, cell) for seen in comparison.error_analysis.approaches for cell in seen.cells]
    assert len(re.findall(r'data-number="\d+"', html)) == len(cells)
    for number, (approach, cell) in enumerate(cells):
        assert found["cells"][number] == {"approach": approach} | json.loads(json.dumps(asdict(cell)))
        said = f"of {escape(printable(cell.label))} taken for {escape(printable(cell.predicted))}"
        assert re.search(f'data-number="{number}" aria-label="\\d+ images {re.escape(said)}"', html)
    assert all(printable(name) == shown != name for name, shown in found["shown"].items())


def test_the_page_prints(digits, opened, tmp_path):
    page = opened(*digits)
    pdf = page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    n_pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= n_pages <= 40


def test_without_images_or_error_analysis_there_is_still_a_page(digits, opened):
    comparison, _ = digits
    page = opened(replace(comparison, error_analysis=None), None)
    assert page.locator("#map").count() == 0
    page = opened(comparison, None)
    assert page.locator("img").count() == 0
    assert page.locator("#mistakes .no-picture").count() > 0


def test_what_the_report_of_2020_claimed_stands_beside_what_was_measured(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)
    [claimed] = [row for row in page.locator(".claims tbody tr").all_inner_texts() if row.startswith("report-cnn")]
    [approach] = [approach for approach in comparison.approaches if approach.name == "report-cnn"]
    assert "32 %" in claimed
    assert "6.4 h" in claimed
    assert "3.2969" in claimed
    assert f"{100 * approach.metrics.accuracy:.1f} %" in claimed


def test_results_json_has_the_numbers_of_the_page(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)
    results = json.loads(comparison.to_json())
    for number, approach in enumerate(sorted(results["approaches"], key=lambda a: -a["metrics"]["accuracy"])):
        row = page.locator("#approaches tbody tr").nth(number)
        assert row.locator("td").first.get_attribute("data-value") == str(approach["metrics"]["accuracy"])
    assert page.evaluate("JSON.parse(document.getElementById('data').textContent).points.length") == len(
        results["examination"]["map"]
    )
