"""Reading constants out of an OpenVINO intermediate representation without OpenVINO.

An IR is an XML file that describes a graph and a flat binary file with the constants. Only two things are
needed of it here: a constant by its name, and the way from a constant to its neighbours, because the
exporter kept the names of most parameters but gave numbers to those it had folded.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import DamagedModelError


@dataclass(frozen=True)
class _Node:
    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int


class IrGraph:
    """The constants and edges of one IR.

    Args:
        xml: Content of the .xml file.
        binary: Content of the .bin file that belongs to it.
        where: The file, for messages.

    Raises:
        DamagedModelError: If the XML does not parse or the binary is shorter than the XML says.
    """

    def __init__(self, xml: bytes, binary: bytes, where: str) -> None:
        self._where = where
        try:
            root = ElementTree.fromstring(xml)  # noqa: S314 - its hash was checked
        except ElementTree.ParseError as error:
            raise self._damaged(f"the graph can't be read: {error}") from error
        self._nodes: dict[str, _Node] = {}
        self._id_by_name: dict[str, str] = {}
        for layer in root.iterfind("./layers/layer"):
            data = layer.find("data")
            attributes = data.attrib if data is not None else {}
            shape = tuple(int(part) for part in attributes.get("shape", "").split(",") if part.strip())
            node = _Node(
                name=layer.attrib["name"],
                kind=layer.attrib["type"],
                shape=shape,
                offset=int(attributes.get("offset", "0")),
                size=int(attributes.get("size", "0")),
            )
            self._nodes[layer.attrib["id"]] = node
            self._id_by_name.setdefault(node.name, layer.attrib["id"])
        self._inputs: dict[str, list[str]] = {}
        self._outputs: dict[str, list[str]] = {}
        for edge in root.iterfind("./edges/edge"):
            source, target = edge.attrib["from-layer"], edge.attrib["to-layer"]
            self._inputs.setdefault(target, []).append(source)
            self._outputs.setdefault(source, []).append(target)
        self._binary = memoryview(binary)

    def _damaged(self, what: str) -> DamagedModelError:
        return DamagedModelError(what, where=self._where, fix="run: anonymix models pull mobilestylegan")

    def __contains__(self, name: str) -> bool:
        return name in self._id_by_name

    def find(self, name: str) -> str:
        """Return the id of the node called `name`."""
        try:
            return self._id_by_name[name]
        except KeyError:
            raise self._damaged(f"the graph has no node {name!r}") from None

    def consumer(self, node: str, kind: str) -> str:
        """Return the one node of type `kind` that takes `node` as an input."""
        found = [target for target in self._outputs.get(node, []) if self._nodes[target].kind == kind]
        return self._only(found, node, f"consumers of type {kind}")

    def chain(self, kind: str) -> list[str]:
        """Return all nodes of one type in the order in which data flows."""
        order = [node for node, entry in self._nodes.items() if entry.kind == kind]
        return sorted(order, key=lambda node: len(self._upstream(node)))

    def _upstream(self, node: str) -> set[str]:
        seen: set[str] = set()
        waiting = [node]
        while waiting:
            for source in self._inputs.get(waiting.pop(), []):
                if source not in seen:
                    seen.add(source)
                    waiting.append(source)
        return seen

    def constant_inputs(self, node: str) -> list[str]:
        """Return all constants among the inputs of a node."""
        return [source for source in self._inputs[node] if self._nodes[source].kind == "Const"]

    def constant_input(self, node: str) -> str:
        """Return the one constant among the inputs of a node."""
        return self.input_of_kind(node, "Const")

    def computed_input(self, node: str) -> str:
        """Return the one input of a node that is not a constant."""
        found = [source for source in self._inputs[node] if self._nodes[source].kind != "Const"]
        return self._only(found, node, "computed inputs")

    def input_of_kind(self, node: str, kind: str) -> str:
        """Return the one input of a node that has the type `kind`."""
        found = [source for source in self._inputs[node] if self._nodes[source].kind == kind]
        return self._only(found, node, f"inputs of type {kind}")

    def _only(self, found: list[str], node: str, what: str) -> str:
        if len(found) != 1:
            raise self._damaged(f"{self._nodes[node].name!r} has {len(found)} {what}, not one")
        return found[0]

    def value(self, node: str) -> npt.NDArray[np.float32]:
        """Return a copy of a constant's values, float32."""
        entry = self._nodes[node]
        if entry.kind != "Const" or entry.offset + entry.size > len(self._binary):
            raise self._damaged(f"{entry.name!r} is no constant of this file")
        raw = self._binary[entry.offset : entry.offset + entry.size].tobytes()
        return np.frombuffer(raw, dtype="<f4").reshape(entry.shape).astype(np.float32)

    def named(self, name: str) -> npt.NDArray[np.float32]:
        """Return the values of the constant called `name`, float32."""
        return self.value(self.find(name))
