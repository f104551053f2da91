"""What an ONNX file says of itself: its nodes in order, and whether all of its weights are in it.

OpenVINO reads the network. It does not give the names of the file's nodes, and it would read weights from other files,
which the digest of this one does not cover: both are found here.

An ONNX file is one message of Protocol Buffers (https://protobuf.dev/programming-guides/encoding); the numbers of its
fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Messages inside of messages: real networks have a handful of levels.
_MAX_DEPTH = 40

#: Which fields of a message hold messages that may hold tensors, and of what kind these are.
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}

#: Fields of a tensor that say where its numbers are, if they are in another file.
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14

_FIXED_BYTES = {1: 8, 5: 4}

#: Operators that need more than one input, and how many: without them, OpenVINO crashes instead of raising an error.
_LEAST_INPUTS = {
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "Gather"), 2),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Less", "Greater"), 2),
    **dict.fromkeys(("PRelu", "Expand", "Tile", "LayerNormalization", "DequantizeLinear", "QuantizeLinear"), 2),
    **dict.fromkeys(("Where", "InstanceNormalization", "LSTM", "GRU", "RNN", "Range", "OneHot"), 3),
    "BatchNormalization": 5,
}


@dataclass(frozen=True)
class OnnxNode:
    """One operator of an ONNX file.

    Attributes:
        name: may be empty.
        kind: the operator, such as `"Conv"`; with its domain in front if that is not ONNX's own.
        inputs: names of the tensors that it takes; empty for one that is left out.
        outputs: names of the tensors that it gives.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says of itself.

    Attributes:
        nodes: in the order of the file, each after those whose outputs it takes.
        constants: names of the tensors that the file holds.
        inputs: names of what the network takes; those that are constants, too, are left out.
        outputs: names of what it gives.
        has_external_data: whether some of its weights are in other files.
    """

    nodes: tuple[OnnxNode, ...]
    constants: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    has_external_data: bool


def parse_onnx(content: bytes) -> OnnxFile:
    """Return what an ONNX file with this content says of itself.

    Raises:
        ValueError: it is none; the message is the end of a sentence.
    """
    graphs = [value for number, value in _fields(memoryview(content)) if number == 7 and isinstance(value, memoryview)]
    if not graphs:
        raise ValueError("it has no graph")
    fields = [(number, value) for graph in graphs for number, value in _fields(graph) if isinstance(value, memoryview)]
    nodes = tuple(_node(value) for number, value in fields if number == 1)
    sparse = [part for number, value in fields if number == 15 for inner, part in _fields(value) if inner == 1]
    tensors = [value for number, value in fields if number == 5]
    constants = frozenset(_text(value, 8) for value in (*tensors, *sparse) if isinstance(value, memoryview))
    inputs = tuple(_text(value, 1) for number, value in fields if number == 11)
    _check_order(nodes, {*inputs, *constants})
    return OnnxFile(
        nodes,
        constants,
        inputs=tuple(name for name in inputs if name not in constants),
        outputs=tuple(_text(value, 1) for number, value in fields if number == 12),
        has_external_data=_has_external_data(memoryview(content), "model", 0),
    )


def _check_order(nodes: Iterable[OnnxNode], given: Iterable[str]) -> None:
    """Raise ValueError unless each node has its inputs before it: OpenVINO never ends in circles."""
    known = set(given)
    for node in nodes:
        name, least = (node.outputs or (node.name,))[0], _LEAST_INPUTS.get(node.kind, 0)
        if not all(node.inputs[:least]) or len(node.inputs) < least:
            raise ValueError(f"its node {name} has too few inputs")
        if unknown := [one for one in node.inputs if one and one not in known]:
            raise ValueError(f"its node {name} takes {unknown[0]}, which no node before it gives")
        known.update(node.outputs)


def _node(message: memoryview) -> OnnxNode:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    for number, value in _fields(message):
        if number in texts and isinstance(value, memoryview):
            texts[number].append(str(value, "utf-8"))
    name, kind, domain = ("".join(texts[number][-1:]) for number in (3, 4, 7))
    own = domain in {"", "ai.onnx"}
    return OnnxNode(name, kind if own else f"{domain}.{kind}", tuple(texts[1]), tuple(texts[2]))


def _text(message: memoryview, wanted: int) -> str:
    """Return the text in a field of a message; empty if it has none."""
    texts = [value for number, value in _fields(message) if number == wanted and isinstance(value, memoryview)]
    return str(texts[-1], "utf-8") if texts else ""


def _has_external_data(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if kind == "tensor":
        return any(
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0) for number, value in _fields(message)
        )
    inside = _INSIDE[kind]
    return any(
        _has_external_data(value, inside[number], depth + 1)
        for number, value in _fields(message)
        if number in inside and isinstance(value, memoryview)
    )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number of each field of a message, and its value: a whole number, or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise ValueError("it is not in the format of ONNX")
        if length > len(message) - at:
            raise ValueError("it is cut off, or not in the format of ONNX")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the whole number that begins at a place, seven bits in a byte, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("it is not in the format of ONNX")
