"""From a network's classes to those of a data set: what maps say, and what is wrong with them."""

import json

import numpy as np
import pytest

from featx.backbones.class_map import ClassMap, NetworkClass, make_class_map, read_class_list
from featx.errors import FeatxError

CLASS_LIST = (
    NetworkClass("tabby, tabby cat", "n02123045"),
    NetworkClass("crane", "n02012849"),
    NetworkClass("crane", "n03126707"),
    NetworkClass("Persian cat", "n02123394"),
    NetworkClass("beagle", None),
)


# Words


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("281-285", (281, 282, 283, 284, 285)),
        ("32,30, 31", (30, 31, 32)),
        ("5-6,290", (5, 6, 290)),
        (" 7 - 8 ", (7, 8)),
        ("0,999", (0, 999)),
    ],
)
def test_numbers_and_ranges_are_understood(text, indices):
    found = make_class_map([f"cats={text}", "dogs=1"], 1000)
    assert found == ClassMap(("cats", "dogs"), (indices, (1,)))


@pytest.mark.parametrize("text", ["n02123045", "N02123045", "tabby, tabby cat", "TABBY, Tabby Cat", "0"])
def test_with_a_class_list_a_class_has_an_id_and_a_name(text):
    found = make_class_map([f"cats={text}", "dogs=beagle"], 5, class_list=CLASS_LIST)
    assert found.indices == ((0,), (4,))


def test_ids_and_numbers_mix():
    found = make_class_map(["cats=n02123394,0", "dogs=4"], 5, class_list=CLASS_LIST)
    assert found.indices == ((0, 3), (4,))


def test_classes_are_sorted_or_those_of_the_data_set_in_its_order():
    words = ["dogs=1", "cats=2", "birds=3"]
    assert make_class_map(words, 5).class_names == ("birds", "cats", "dogs")
    given = make_class_map(words, 5, class_names=["dogs", "birds", "cats"])
    assert given == ClassMap(("dogs", "birds", "cats"), ((1,), (3,), (2,)))


def test_a_file_holds_texts_numbers_and_lists_of_both(tmp_path):
    path = tmp_path / "a=b.json"
    content = {"cats": ["0", "Persian cat"], "dogs": "4", "birds": [1, 2]}
    path.write_text(json.dumps(content), encoding="utf-8")
    found = make_class_map([str(path)], 5, class_list=CLASS_LIST)
    assert found == ClassMap(("birds", "cats", "dogs"), ((1, 2), (0, 3), (4,)))


def test_a_file_may_begin_with_a_byte_order_mark_and_its_names_are_taken_exactly(tmp_path):
    path = tmp_path / "map.json"
    path.write_bytes(b'\xef\xbb\xbf{" cats": "1", "dogs ": "2"}')
    assert make_class_map([str(path)], 3) == ClassMap((" cats", "dogs "), ((1,), (2,)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cats=281-285", "dogs=1000"], r"numbered from 0 to 999. Received: 1000 for dogs"),
        (["cats=0-999999999", "dogs=1"], r"numbered from 0 to 999"),
        (["cats=5-3", "dogs=1"], r"begins with the smaller number. Received: 5-3"),
        (["cats=5\n-\n3", "dogs=1"], r"begins with the smaller number. Received: 5\\n-\\n3"),
        (["cats=", "dogs=1"], r"cats has no network classes"),
        (["cats=1,,2", "dogs=3"], r"Network classes are numbers and ranges.* Received: 1,,2 for cats"),
        (["cats=-3", "dogs=1"], r"Network classes are numbers"),
        (["cats=٣", "dogs=1"], r"Network classes are numbers"),
        (["cats=tabby", "dogs=1"], r"--class-list"),
        (["cats=1", "cats=2", "dogs=3"], r"cats is mapped twice"),
        (["cats=1-4", "dogs=4"], r"network class 4 may occur only once. Received: in cats and dogs"),
        (["cats=1-4,2", "dogs=5"], r"network class 2 may occur only once. Received: in cats$"),
        (["cats=1"], r"Map at least two classes. Received: cats only"),
        (["=1-4"], r"A map is CLASS=NUMBERS"),
        (["nothing"], r"map of classes nothing cannot be read: No such file"),
    ],
)
def test_words_that_mean_nothing_are_an_error(words, message):
    with pytest.raises(FeatxError, match=message):
        make_class_map(words, 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tabby", "no network class with this name"),
        ("n99999999", "no network class with this name or WordNet id"),
        ("crane", "Several network classes have this name: 1, 2"),
    ],
)
def test_names_that_are_not_one_class_are_an_error(text, message):
    with pytest.raises(FeatxError, match=message):
        make_class_map([f"cats={text}", "dogs=4"], 5, class_list=CLASS_LIST)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a valid JSON file"),
        (b'{"cats": "1", "cats": "2"}', "cats occurs twice"),
        (b"\xff\xfe", "not a valid JSON file"),
        (b"[" * 100_000, "not a valid JSON file"),
        (b"[]", r'contains no \{"CLASS"'),
        (b"{}", r'contains no \{"CLASS"'),
        (b'{" ": "1", "dogs": 2}', "a class has an empty name"),
        (b'{"cats": [], "dogs": 1}', "cats has neither numbers nor texts"),
        (b'{"cats": true, "dogs": 1}', "cats has neither numbers nor texts"),
        (b'{"cats": {"1": 2}, "dogs": 1}', "cats has neither numbers nor texts"),
        (b'{"cats": 1.5, "dogs": 1}', "cats has neither numbers nor texts"),
        (b'{"cats": -1, "dogs": 1}', "Network classes are numbers"),
    ],
)
def test_damaged_file_is_an_error(tmp_path, content, message):
    path = tmp_path / "map.json"
    path.write_bytes(content)
    with pytest.raises(FeatxError, match=message):
        make_class_map([str(path)], 1000)


def test_map_must_have_the_classes_of_the_data_set():
    with pytest.raises(FeatxError, match=r"has the classes cats, dogs. Received a map of birds"):
        make_class_map(["cats=1", "dogs=2", "birds=3"], 1000, class_names=["cats", "dogs"])
    with pytest.raises(FeatxError, match=r"The class dogs has no network classes: add --map dogs=NUMBERS"):
        make_class_map(["cats=1"], 1000, class_names=["cats", "dogs"])


# Without words


@pytest.mark.parametrize("class_names", [None, ["cats", "dogs"], ["Cat", "DOG"]])
def test_cats_and_dogs_of_imagenet_are_built_in(class_names):
    found = make_class_map([], 1000, class_names=class_names)
    assert found.class_names == tuple(class_names or ["cats", "dogs"])
    assert [(indices[0], indices[-1], len(indices)) for indices in found.indices] == [(281, 285, 5), (151, 268, 118)]
    assert str(found).endswith("=151-268")


def test_nothing_else_is_built_in():
    with pytest.raises(FeatxError, match=r"202 classes of its own, not the 1000 of ImageNet.*--map"):
        make_class_map([], 202)
    with pytest.raises(FeatxError, match=r"for birds"):
        make_class_map([], 1000, class_names=["birds", "cats"])


def test_a_class_list_alone_means_every_network_class():
    found = make_class_map([], 5, class_list=CLASS_LIST)
    assert found.class_names == ("tabby, tabby cat", "crane (1)", "crane (2)", "Persian cat", "beagle")
    X = np.array([[0.1, 0.2, 0.3, 0.15, 0.25]])
    np.testing.assert_allclose(found.probabilities(X), X)


# Class lists


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (["tabby", "crane"], (None, None)),
        ([["n1", "tabby"], ["n2", "crane"]], ("n1", "n2")),
        ([{"wordnet_id": "n1", "name": "tabby"}, {"wnid": "n2", "name": "crane"}], ("n1", "n2")),
        ([{"id": "n1", "name": "tabby"}, {"name": "crane"}], ("n1", None)),
        ({"1": ["n2", "crane"], "0": ["n1", "tabby"]}, ("n1", "n2")),
    ],
)
def test_class_lists_in_use_are_read(tmp_path, content, ids):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_class_list(path) == (NetworkClass("tabby", ids[0]), NetworkClass("crane", ids[1]))


def test_the_class_list_of_real_weights_is_read(shared):
    classes = read_class_list(shared / "weights" / "classes.json")
    assert len(classes) == 202
    assert classes[31] == NetworkClass("Persian cat", "n02123394")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not a valid JSON file"),
        ("[]", "contains no list"),
        ("{}", "contains no list"),
        ('"tabby"', "contains no list"),
        ('["tabby", 3]', "number 1 is neither"),
        ('["tabby", " "]', "number 1 is neither"),
        ('[["n1", "tabby", "cat"]]', "number 0 is neither"),
        ('[{"wnid": 3, "name": "tabby"}]', "number 0 is neither"),
        ('{"0": ["n1", "tabby"], "2": ["n2", "crane"]}', "number 1 is neither"),
    ],
)
def test_what_is_no_class_list_is_an_error(tmp_path, content, message):
    path = tmp_path / "classes.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FeatxError, match=message):
        read_class_list(path)


def test_class_list_of_another_network_is_an_error():
    with pytest.raises(FeatxError, match=r"has 1000 classes, and the class list another number. Received: 5"):
        make_class_map([], 1000, class_list=CLASS_LIST)


# Probabilities


def test_probabilities_are_sums_made_to_sum_to_one():
    rng = np.random.default_rng(0)
    X = rng.dirichlet(np.full(50, 0.05), 40).astype(np.float32)
    found = make_class_map(["a=3-9,20", "b=0,49", "c=30"], 50).probabilities(X)
    a, b, c = X[:, [*range(3, 10), 20]].sum(1), X[:, [0, 49]].sum(1), X[:, 30]
    expected = np.stack([a, b, c], axis=1) / (a + b + c)[:, np.newaxis]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)


def test_where_nothing_mapped_is_likely_at_all_classes_share():
    X = np.array([[0, 0, 1.0], [1e-45, 0, 1.0]], np.float32)
    found = make_class_map(["a=0", "b=1"], 3).probabilities(X)
    np.testing.assert_allclose(found, [[0.5, 0.5], [1, 0]])
    assert make_class_map(["a=0", "b=1"], 3).probabilities(np.empty((0, 3), np.float32)).shape == (0, 2)
