"""The page of a comparison in a real browser: Debian's Chromium, headless, driven by Playwright."""

import json
import os
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from markupsafe import escape

from featx.compare.claims import with_claims
from featx.compare.compare import compare_approaches
from featx.compare.result import Comparison
from featx.dataset.sample import write_sample
from featx.heads.training_loop import Training
from featx.report.folder import write_report
from featx.report.html.page import page_html
from featx.report.html.pictures import Thumbnails
from featx.text import printable
from featx.train.metrics import wilson_interval
from tests.conftest import SMALL
from tests.report.test_text import approach as an_approach
from tests.report.test_text import comparison as of_approaches

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
        **SMALL,
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
    comparison = compare_approaches(data, cache_dir=new_cache(folder / "cache"), training=Training(epochs=2), **SMALL)
    return comparison, data


@pytest.fixture(scope="module")
def html_of():
    """Return a function that renders a comparison's page, each one once."""
    pages = {}

    def render(comparison, data_dir, *, claims=False):
        key = id(comparison), data_dir, claims
        if key not in pages:  # with the comparison: while it is here, the id is its own
            pages[key] = comparison, page_html(with_claims(comparison, always=claims), data_dir)
        return pages[key][1]

    return render


@pytest.fixture
def opened(browser, tmp_path, html_of):
    """Return a function that opens a comparison's page from disk; afterwards, nothing must have gone wrong in it."""
    contexts, complaints = [], []

    def open_page(comparison, data_dir, viewport=DESKTOP, scheme="light", *, claims=False):
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(html_of(comparison, data_dir, claims=claims), encoding="utf-8")
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
    assert not re.search(r'src="(?!data:image/)', html)
    assert html.count("data:image/webp") > 1000


def test_the_page_shows_calibration_and_what_the_surest_answers_are_worth(digits, html_of):
    comparison, _ = digits
    of = {images.name: images for images in comparison.error_analysis.approaches}
    assert of["vgg16 + logreg"].reliability_before
    assert of["vgg16 + dense"].reliability_before
    assert not of["report-cnn"].reliability_before
    assert all(len(images.risk_coverage) == 100 for images in of.values())
    assert "Mistakes among the surest answers" in html_of(*digits)


def test_every_link_leads_to_a_section_or_to_an_image(digits, html_of):
    _, data = digits
    html = html_of(*digits)
    links = re.findall(r'href="([^"]*)"', html)
    assert all(f'id="{link[1:]}"' in html for link in links if link.startswith("#"))
    files = [Path(unquote(urlsplit(link).path)) for link in links if not link.startswith("#")]
    assert len(files) > 50
    assert all(path.is_file() and path.is_relative_to(data.resolve()) for path in files)


def test_links_hold_when_a_folder_with_images_and_report_is_moved(tmp_path):
    from tests.conftest import write_photos

    data = write_photos(tmp_path / "here" / "my data", n_train=4, n_test=2)
    report = tmp_path / "here" / "reports" / "first"
    links = Thumbnails(data, report)
    first = next(iter((data / "test" / "sea").iterdir()))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / "reports" / "first"
    target = moved / unquote(links.link(f"test/sea/{first.name}"))
    assert Path(os.path.normpath(target)).is_file()


def test_the_result_is_the_title_and_three_lines_give_the_details(digits, opened):
    page = opened(*digits)
    heading = page.locator("h1").inner_text()
    assert len(heading.split()) <= 15
    assert re.search(r"\d\s%", heading)
    assert page.locator(".details").count() == 3
    assert re.search(r"\d\s% of [\d,]+ test images right \(95\s% interval", page.locator(".details").first.inner_text())
    assert "vgg16 has random weights" in page.locator(".warning").first.inner_text()


@pytest.mark.parametrize("name", ["quality", "cost"])
def test_a_table_can_be_sorted_both_ways_by_any_column(digits, opened, name):
    page = opened(*digits)
    table = page.locator(f"#{name}")
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
    page.locator(".matrix:visible").get_by_label(f"of {cell.label} predicted as {cell.predicted}").first.click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("li .path").all_inner_texts() == list(cell.paths)
    assert dialog.locator("img").count() == len(cell.paths)
    links = [link.get_attribute("href") for link in dialog.locator("a").all()]
    assert [Path(unquote(urlsplit(link).path)) for link in links] == [(data / path).resolve() for path in cell.paths]
    assert all(image.evaluate("i => i.complete && i.naturalWidth === 64") for image in dialog.locator("img").all())
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_the_map_shows_what_is_under_the_pointer_and_the_arrow_keys(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)
    plot, tip = page.locator("#map-plot"), page.locator("#map-tip")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    point = comparison.error_analysis.map[0]
    x, y = 14 + point.x * (box["width"] - 28), 14 + (1 - point.y) * (box["height"] - 28)
    page.mouse.move(box["x"] + x, box["y"] + y)
    assert tip.is_visible()
    assert tip.locator("img").evaluate("i => i.naturalWidth") == 64
    page.mouse.move(box["x"] + box["width"] + 5, box["y"] - 5)
    assert not tip.is_visible()
    plot.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#map-said").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert re.search(r"test/\d/\d+\.png", first)
    assert page.locator("#map-said").inner_text() != first
    page.keyboard.press("Enter")
    assert page.locator("dialog img").count() == 1


def test_the_map_can_be_filtered_and_coloured(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)

    def marks():
        return page.evaluate(
            "[...document.querySelectorAll('#map-plot path')].map(m => m.getAttribute('class') + m.getAttribute('d'))"
        )

    points = comparison.error_analysis.map
    assert len(marks()) == len(points)
    assert len(set(marks())) == len(comparison.class_names) == 10  # more than there are colours
    page.select_option("#map-colour", "right")
    assert page.locator("#map-legend span").all_inner_texts() == ["right", "wrong"]
    assert len(set(marks())) == 2
    page.select_option("#map-filter", "3")
    assert len(marks()) == sum(point.label == comparison.class_names[3] for point in points)
    page.select_option("#map-filter", "wrong")
    assert len(marks()) == sum(point.label != point.predicted for point in points)


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
    assert len(re.findall(r'data-number="\d+" aria-label="\d', html)) == len(cells)
    for number, (approach, cell) in enumerate(cells):
        assert found["cells"][number] == {"approach": approach} | json.loads(json.dumps(asdict(cell)))
        said = f"of {escape(printable(cell.label))} predicted as {escape(printable(cell.predicted))}"
        assert re.search(f'data-number="{number}" aria-label="\\d+ images {re.escape(said)}"', html)
    assert all(printable(name) == shown != name for name, shown in found["shown"].items())


def test_the_page_prints(digits, opened, tmp_path):
    page = opened(*digits)
    pdf = page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    n_pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= n_pages <= 40


def test_print_is_light_wide_and_undistorted_whatever_the_screen_is(digits, opened):
    page = opened(*digits, PHONE, "dark")
    page.emulate_media(media="print")
    style = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    assert page.evaluate(style, "--card") == "#ffffff"
    assert page.evaluate(style, "--s0") == "#0072b2"
    assert page.locator(".narrow:visible").count() == 0
    boxes = [mark.bounding_box() for mark in page.locator("#map-plot path.k0").all()[:20]]
    assert all(box["width"] == pytest.approx(box["height"], rel=0.02) for box in boxes)
    assert page.locator(".matrix").first.evaluate("m => getComputedStyle(m).breakInside") == "avoid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_drawn_stands_out_from_its_background(digits, opened, scheme):
    page = opened(*digits, DESKTOP, scheme)
    style = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    drawn = [f"--s{number}" for number in range(8)] + ["--pale", "--dim", "--ink", "--warning"]
    colours = [page.evaluate(style, name) for name in drawn]
    assert len(set(colours[:8])) == 8
    for background in ("--page", "--card"):
        assert min(_contrast(colour, page.evaluate(style, background)) for colour in colours) >= 3


def _contrast(one, other):
    """The contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    channels = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for colour in (one, other)]
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in channels]
    low, high = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in linear)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("viewport", "shown", "hidden"), [(PHONE, "narrow", "wide"), (DESKTOP, "wide", "narrow")])
def test_a_phone_has_charts_of_its_own_that_fit(digits, opened, viewport, shown, hidden):
    page = opened(*digits, viewport)
    assert page.locator(f".{hidden}:visible").count() == 0
    charts = page.locator(f".{shown}:visible svg").all()
    assert len(charts) == 5
    for chart in charts:
        box = chart.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= viewport["width"]
        assert 0.6 < box["width"] / float(chart.get_attribute("viewBox").split()[2]) < 1.8  # text of a legible size


def test_each_class_has_sample_images_precision_and_recall(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)
    assert page.locator(".sample strong").all_inner_texts() == list(comparison.class_names)
    assert page.locator(".sample").first.locator("img").count() >= 4
    counts = np.array(comparison.best.confusion)
    rows = page.locator(".approach").first.locator(".by-class tbody tr")
    assert rows.count() == 10
    for label, row in enumerate(rows.all()):
        right, true, predicted = counts[label, label], counts[label].sum(), counts[:, label].sum()
        shares = [_share(right, predicted), _share(right, true), f"{200 * right / (true + predicted):.0f} %"]
        assert row.locator("td").all_inner_texts() == [str(true), *shares]


def _share(right, n):
    """A share with its 95 % interval, as the page has it."""
    if not n:
        return "–"
    low, high = wilson_interval(int(right), int(n))
    return f"{100 * right / n:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def test_problems_in_the_data_stand_on_the_page(hostile, opened):
    comparison, data = hostile
    rows = dict(
        row.split("\t") for row in opened(comparison, data).locator("#data-set .counts tbody tr").all_inner_texts()
    )
    assert rows["Files that could not be read"] == "1"
    assert rows["Exact copies within a split"] == "0"
    assert rows["Possibly wrong labels"] == str(comparison.error_analysis.n_doubtful)


def test_the_page_does_not_grow_with_the_square_of_the_classes():
    sizes = {}
    for n_classes in (200, 1000):
        made = an_approach("vgg16 + logreg", 3000, n_test=4000, n_classes=n_classes)
        many = of_approaches(made, class_names=[f"class {n}" for n in range(n_classes)])
        html = page_html(many)
        sizes[n_classes] = len(html.encode())
        assert "too large for this page" in html
        assert html.count("<tr>") < 100
        # A line for each name, and for each cell of the matrix that has images: there are two for each class here.
        assert many.to_json().count("\n") < 3 * n_classes + 100
    assert sizes[1000] < sizes[200] + 100_000


def test_without_images_or_error_analysis_there_is_still_a_page(digits, opened):
    comparison, _ = digits
    page = opened(replace(comparison, error_analysis=None), None)
    assert page.locator("#map").count() == 0
    page = opened(comparison, None)
    assert page.locator("img").count() == 0
    assert page.locator("#mistakes .no-picture").count() > 0


@pytest.mark.usefixtures("without_rendering")
def test_what_others_claim_is_shown_for_their_images_only_or_on_request(digits):
    comparison, _ = digits
    assert "6.4 h" not in page_html(with_claims(comparison))
    two = of_approaches(an_approach("report-cnn", 1500, n_test=2000), dataset="pets")
    assert "6.4 h" not in page_html(with_claims(two))
    assert "6.4 h" in page_html(with_claims(replace(two, n_train=7200, n_validation=800)))
    blog = of_approaches(an_approach("vgg16 + dense", 770, n_test=800), dataset="pets")
    page = page_html(with_claims(replace(blog, n_train=1800, n_validation=200)))
    assert "90–91 %" in page
    assert "6.4 h" not in page  # this approach is not there


def test_what_others_claim_stands_beside_what_was_measured(digits, opened):
    comparison, data = digits
    page = opened(comparison, data, claims=True)
    rows = [row for row in page.locator(".claims tbody tr").all_inner_texts() if row.startswith("report-cnn")]
    [approach] = [approach for approach in comparison.approaches if approach.name == "report-cnn"]
    assert all(f"{100 * approach.metrics.accuracy:.1f} %" in row for row in rows)
    [of_report, of_blog] = rows
    for part in ("the report of 2020", "8,000 + 2,000", "32 %", "6.4 h", "3.2969"):
        assert part in of_report
    for part in ("the Keras blog, 2016", "2,000 + 800", "79–81 %", "not given"):
        assert part in of_blog


@pytest.mark.usefixtures("without_rendering")
def test_results_json_has_the_claims_and_what_was_measured(tmp_path):
    made = [an_approach("vgg16 + dense", 960, n_test=1000), an_approach("vgg16 + tuned", 975, n_test=1000)]
    write_report(of_approaches(*made), tmp_path, claims=True)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(c["approach"], c["source"], c["accuracy"], c["measured_accuracy"]) for c in results["claims"]] == [
        ("vgg16 + dense", "the report of 2020", [0.96, 0.96], 0.96),
        ("vgg16 + dense", "the Keras blog, 2016", [0.9, 0.91], 0.96),
        ("vgg16 + tuned", "the Keras blog, 2016", [0.94, 0.94], 0.975),
        ("vgg16 + tuned", "Deep Learning with Python, 2017", [0.97, 0.97], 0.975),
    ]
    low, high = results["claims"][0]["measured_interval"]
    assert low < 0.96 < high
    assert Comparison.from_json((tmp_path / "results.json").read_text(encoding="utf-8")).claims


@pytest.mark.usefixtures("without_rendering")
def test_a_page_of_several_seeds_says_what_is_of_the_first_alone():
    c = of_approaches(*(an_approach(name, 850) for name in ("a + dense", "cnn")))
    assert "first seed" not in page_html(c)
    repeated = tuple(replace(one, repeats=(0.85, 0.86)) for one in c.approaches)
    html = page_html(replace(c, approaches=repeated))
    assert html.count("These results are for the first seed.") == 2  # curves and confusion matrices


def test_results_json_has_the_numbers_of_the_page(digits, opened):
    comparison, data = digits
    page = opened(comparison, data)
    results = json.loads(comparison.to_json())
    for number, approach in enumerate(sorted(results["approaches"], key=lambda a: -a["metrics"]["accuracy"])):
        row = page.locator("#quality tbody tr").nth(number)
        assert row.locator("td").first.get_attribute("data-value") == str(approach["metrics"]["accuracy"])
    assert page.evaluate("JSON.parse(document.getElementById('data').textContent).points.length") == len(
        results["examination"]["map"]
    )


def test_a_desktop_shows_all_of_what_others_claim(opened):
    made = [an_approach(name, 1500, n_test=2000) for name in ("vgg16 + dense", "vgg16 + tuned", "report-cnn")]
    page = opened(of_approaches(*made), None, {"width": 1280, "height": 900}, claims=True)
    assert page.locator(".claims tbody tr").count() == 6
    assert page.locator(".claims .scroll").evaluate("part => part.scrollWidth - part.clientWidth") == 0
