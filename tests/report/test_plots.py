"""Names of classes in pictures, whatever letters they have and whatever fonts there are."""

import io
import logging
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from featx.report.folder import draw, results_page
from featx.report.html.page import page_html
from featx.report.plots import page
from featx.report.plots.diagnostics import confusion_chart
from featx.report.plots.page import page_style, png, texts_of
from featx.report.preview import draw_preview
from tests.report.test_text import approach, comparison

CHINESE, HINDI, ARABIC, THAI, KOREAN = "猫", "हिन्दी कुत्ता", "قطة", "แมวไทย", "강아지"
MIXED = (CHINESE, "cats", HINDI, ARABIC, THAI, KOREAN)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A machine with no fonts but matplotlib's own, and a function that installs another one with some letters."""
    files = []
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(map(str, files)))

    def forget():
        page._font.cache_clear()
        page._families.cache_clear()

    def install_font(family, text, *, has_rules=True):
        files.append(write_font(tmp_path / f"{family}.ttf", family, text, has_rules=has_rules))
        forget()

    forget()
    yield install_font
    forget()


def write_font(path, family, text, *, has_rules):
    """Write a font whose letters are black squares."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    names = {ord(letter): f"u{ord(letter):05x}" for letter in sorted(set(text) - {" "})}
    glyphs = [".notdef", *names.values()]
    pen = TTGlyphPen(None)
    for move, point in zip((pen.moveTo, *[pen.lineTo] * 3), ((0, 0), (0, 800), (900, 800), (900, 0)), strict=True):
        move(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys(glyphs, square))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    if has_rules:
        one = glyphs[1]
        builder.addOpenTypeFeatures(f"feature ccmp {{ sub {one} by {one}; }} ccmp;")
    builder.save(path)
    return path


def of_classes(names, **more):
    return comparison(approach("vgg16 + logreg", 850, n_classes=len(names)), class_names=names, **more)


def test_without_a_font_a_picture_numbers_the_classes(install):
    assert page.class_labels(MIXED) == ["1", "2: cats", "3", "4: \u2068قطة\u2069", "5", "6"]
    assert page.class_labels(["cats", "été", "кот", "γάτα"]) == ["cats", "été", "кот", "γάτα"]


@pytest.mark.usefixtures("without_rendering")
def test_the_report_says_what_the_numbers_mean(install):
    c = of_classes(MIXED)
    [figure_note] = [text.get_text() for text in confusion_chart(c, c.best).texts if "Numbers" in text.get_text()]
    assert "see results.md" in figure_note
    lines = results_page(c, has_curves=False).splitlines()
    assert [line for line in lines if line.startswith("| ") and line.endswith((" 1 |", " 3 |"))] == [
        "| 猫 | 1 |",
        "| हिन्दी कुत्ता | 3 |",
    ]
    assert "1 <bdi>猫</bdi>; 2 <bdi>cats</bdi>; 3 <bdi>हिन्दी कुत्ता</bdi>" in page_html(c)


@pytest.mark.usefixtures("without_rendering")
def test_where_nothing_is_numbered_nothing_is_said_of_numbers(install):
    c = of_classes(("cats", "dogs"))
    assert "numbers for the classes" not in results_page(c, has_curves=False)
    assert "Class numbers" not in page_html(c)
    assert not any("Numbers" in text.get_text() for text in confusion_chart(c, c.best).texts)


def test_a_font_that_is_there_is_used(install, caplog):
    install("Ztest Sans", CHINESE + HINDI + THAI + KOREAN)
    assert page.class_labels(MIXED) == [CHINESE, "cats", HINDI, "\u2068قطة\u2069", THAI, KOREAN]
    assert page.fonts_for(MIXED) == ["DejaVu Sans", "Ztest Sans"]
    pictures = draw(of_classes(MIXED, dataset=CHINESE, warnings=(f"{HINDI}: 3",)))  # a letter that is missing warns
    assert "confusion-vgg16-logreg.png" in pictures
    assert not caplog.records  # the font has no bold letters: matplotlib would log that
    with page_style([CHINESE]):
        figure = Figure(figsize=(2, 2), dpi=100)
        figure.text(0.1, 0.1, CHINESE, fontsize=72)
        pixels = _pixels(png(figure))
    assert 0.08 < (pixels < 128).mean() < 0.25  # the square of the font, where a box for a missing letter is hollow


def _pixels(picture):
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("L"))


def test_each_script_gets_a_font_that_has_all_letters_of_a_word(install):
    install("Zeta Sans", CHINESE + HINDI[:2])
    install("Zhindi", HINDI)
    assert page.fonts_for([CHINESE, HINDI]) == ["DejaVu Sans", "Zeta Sans", "Zhindi"]
    assert not page.are_numbered([CHINESE, f"{CHINESE} {HINDI}"])
    assert page.are_numbered([CHINESE + HINDI])


def test_marks_without_rules_to_place_them_are_not_drawn(install):
    install("Ztest Sans", HINDI + CHINESE, has_rules=False)
    assert page.class_labels([CHINESE, HINDI]) == ["1: 猫", "2"]


@pytest.mark.parametrize("family", ["Last Resort", "LastResort", "Adobe Blank", "Noto Color Emoji"])
def test_fonts_without_shapes_of_their_own_are_not_used(install, family):
    install(family, CHINESE)
    assert page.class_labels([CHINESE, "cats"]) == ["1", "2: cats"]


def test_what_is_no_font_is_passed_over(install, tmp_path, monkeypatch):
    (tmp_path / "no.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "no.ttf"), str(tmp_path / "gone.ttf")])
    assert page.class_labels([CHINESE]) == ["1"]


def test_names_that_look_alike_are_numbered(install):
    a, b = "a" * 30 + "1" + "a" * 30, "a" * 30 + "2" + "a" * 30
    assert page.class_labels([a, b]) == ["1: aaaaaaaaa…aaaa", "2: aaaaaaaaa…aaaa"]
    for pair in (("cafe\u0301", "café"), ("cats", "cats "), ("می\u200cخواهم", "میخواهم"), ("a b", "a\u00a0b")):
        assert page.are_numbered(pair), pair


def test_names_are_drawn_as_they_are_written(install):
    names = ["$x$", "a_$b", "\\frac{", "%d {0}", "می\u200cخواهم", "e\u0301", "cat\n\x1b", "caf\udce9", "\u202eabc"]
    shown = ["$x$", "a_$b", "\\frac{", "%d {0}", "\u2068می\u200cخواهم\u2069", "é", "cat\\n\\x1b", "caf\\udce9"]
    c = of_classes(names)
    with page_style(texts_of(c)):
        figure = confusion_chart(c, c.best)
        png(figure)
        ticks = figure.axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == [*shown, "\\u202eabc"]
    assert not any(tick.get_parse_math() for tick in ticks)


@pytest.mark.parametrize("n_classes", [2, 12, 40, 70])
def test_any_name_can_be_drawn_with_and_without_fonts(install, n_classes):
    odd = [*MIXED, "👩‍🌾 ❤️", "\U0010fffd", "\u0301", "a" + "\u0e31" * 60, "𓀀", "\u3000", "ﷺ" * 30, "\ufeff", " "]
    names = [*odd, *(f"{n} {THAI * 9}" for n in range(70))][:n_classes]
    c = of_classes(names, dataset=KOREAN, warnings=(f"{names[0]}, {names[1]}: \U0010fffd " * 9,))
    for text in ("", CHINESE + THAI + "\u0e31a"):  # a mark is drawn from the font of the letter that it is on
        if text:
            install("Ztest Sans", text)
        with page_style(texts_of(c)):
            png(confusion_chart(c, c.best))  # a letter that is missing warns


def test_a_name_from_right_to_left_keeps_the_numbers_beside_it_in_order(install):
    with page_style([ARABIC]):
        plain, isolated = (_pixels(_picture(f"{name} (3 of 5)")) for name in (ARABIC, page.short(ARABIC)))
        end = _pixels(_picture(" (3 of 5)", right=True))
    assert np.array_equal(_ink(isolated)[:, -30:], _ink(end)[:, -30:])
    assert not np.array_equal(_ink(plain)[:, -30:], _ink(end)[:, -30:])
    assert page.short(f"{ARABIC} {ARABIC}") == f"\u2068{ARABIC}\u00a0{ARABIC}\u2069"


def test_arabic_letters_are_joined():
    with page_style([ARABIC]):
        assert _ink(_pixels(_picture(ARABIC))).shape[1] < _ink(_pixels(_picture("\u200c".join(ARABIC)))).shape[1]


def _picture(text, *, right=False):
    figure = Figure(figsize=(4, 1), dpi=100)
    figure.text(0.9 if right else 0.1, 0.5, text, ha="right" if right else "left", fontsize=20)
    return png(figure)


def _ink(pixels):
    columns = np.flatnonzero((pixels < 128).any(axis=0))
    return pixels[:, columns[0] : columns[-1] + 1] < 128


def test_titles_and_warnings_use_the_numbers_too(install):
    made, correct = approach("vgg16 + logreg", 940)
    made = replace(made, confusion=((480, 20), (40, 460)))
    names = (CHINESE, f"{CHINESE}犬")
    c = comparison((made, correct), class_names=names, warnings=(f"{names[1]} and {CHINESE}.",), dataset=CHINESE)
    texts = [text.get_text().replace("\n", " ") for text in confusion_chart(c, c.best).texts]
    assert texts[0] == "vgg16 + logreg: most often mistook class 2 for class 1 (40 of 500)"
    assert texts[1] == "⚠ class 2 and class 1."
    assert texts[2].startswith("1,000 test images")


def test_wide_letters_stay_inside_the_picture(install):
    names = ("非常に長い名前のクラスその一番目のもの", "非常に長い名前のクラスその二番目の犬")
    install("Ztest Sans", "".join(names))
    c = of_classes(names, dataset=names[0], warnings=(" ".join(names * 5),))
    with page_style(texts_of(c)):
        figure = confusion_chart(c, c.best)
        figure.draw_without_rendering()
        assert max(text.get_window_extent().x1 for text in figure.texts) <= figure.bbox.x1


def test_a_preview_says_what_its_numbers_mean(install, tmp_path, caplog):
    for name in (CHINESE, "cats"):
        for n in range(4):
            path = tmp_path / "data" / name / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([n, len(name)]).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    with caplog.at_level(logging.WARNING, "featx"):
        draw_preview(tmp_path / "data", tmp_path, cache_dir=tmp_path / "cache", image_size=(40, 40))
    assert caplog.messages[-1] == "The picture shows numbers for the classes: 1 is cats, 2 is 猫."
