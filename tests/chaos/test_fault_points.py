"""The fault points are functions of featx that are there: one that has moved is named before the long tests run."""

import ast
from pathlib import Path

import pytest

from tests.chaos import fault_points
from tests.chaos.fault_points import COMPACTION, EXTRACTION, owner_of

TARGETS = [
    *(point.target for point in (*EXTRACTION, *COMPACTION)),
    *(value for name, value in vars(fault_points).items() if name.endswith("_BYTES") and isinstance(value, str)),
]


@pytest.mark.parametrize("target", dict.fromkeys(TARGETS))
def test_a_target_is_there(target):
    owner, name = owner_of(target)
    assert hasattr(owner, name)


@pytest.mark.parametrize("target", ["featx.gone:scan", "featx.recipe:gone", "featx.recipe:Recipe.gone", "os:gone"])
def test_a_target_that_is_gone_is_named(target):
    with pytest.raises(LookupError, match=f"There is no {target} any more"):
        owner_of(target)


def test_targets_stand_in_one_table():
    for path in Path(__file__).parent.glob("*.py"):
        if path.name not in {"fault_points.py", Path(__file__).name}:
            texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            assert not [text for text in texts if isinstance(text, str) and text.startswith("featx.") and ":" in text]
