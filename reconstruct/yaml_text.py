"""YAML from untrusted files: plain values only, mistakes named by line, bounded work.

PyYAML builds nothing but plain values here. What it does not check by itself: that aliases stay
few (ten lines of them can stand for a billion values), that a key stands once, and that what looks
like a date or a number is one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml

MAX_VALUES = 100_000
"""Values of a text, each counted as often as aliases repeat it."""
MAX_DEPTH = 50


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises yaml.YAMLError, with the line, for what is not valid, holds a key twice or a value that
    cannot be built, is nested too deeply, or repeats too much.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)
        return loader.construct_document(node)
    except RecursionError as error:  # in the parser itself, which goes down before it can count
        raise yaml.YAMLError("nested too deeply") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[yaml.Node, int], depth: int) -> int:
    """How many values a node stands for, aliases followed; raises YAMLError beyond the limits."""
    if node in known:
        return known[node]
    if depth > MAX_DEPTH:  # an alias that holds itself ends here too
        raise yaml.constructor.ConstructorError(None, None, "nested too deeply", node.start_mark)
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            children = child if isinstance(child, tuple) else (child,)
            total += sum(_count(item, known, depth + 1) for item in children)
    if total > MAX_VALUES:
        message = f"more than {MAX_VALUES} values, aliases followed"
        raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
    known[node] = total
    return total


class _Loader(yaml.SafeLoader):
    """A section that stands twice is an error, instead of the last one winning."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            what = f"{str(node.value)[:80]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                message = f"the key {key[:80]!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_mapping(node, deep)
