"""Which module may import which, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reconstruct
from reconstruct import errors

PACKAGE = Path(reconstruct.__file__).parent

LEVELS = [
    {
        "types",
        "errors",
        "executor",
        "files",
        "geometry",
        "lazy",
        "memory",
        "orientation",
        "point_similarity",
        "progress",
        "shipped",
        "similarity",
        "parallel",
        "stopping",
        "yaml_text",
    },
    {"atomic", "fingerprints", "ownership", "stamps", "workspace"}
    | {"cluster", "config", "images", "torch_device"},
    {"storage", "colmap", "refinement"},
    {"features", "evaluation", "datasets", "export"},
    {"matching", "retrieval"},
    {"stages"},
    {"localization", "benchmark", "report", "training", "indoor"},
    {"api", "pipeline", "cross_matching", "extending", "joining"},
    {"comparison"},
    {"command"},
    {"__main__", "preload"},
]
"""A module may import from its own level and from those before it."""

LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere, but for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = [
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for child in ast.walk(statement)
    ]
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(PACKAGE)) for p in MODULES])
def test_imports_run_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "pycolmap":
            assert own == "colmap", "pycolmap has one door: reconstruct/colmap/"
        if parts[0] == "reconstruct" and own != "__init__":
            assert parts[1] in LEVEL, f"{parts[1]} has no level: where does it belong?"
            assert LEVEL[parts[1]] <= LEVEL[own], f"{own} imports {name}"


def undocumented(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring; nested functions are private."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(PACKAGE)) for p in MODULES])
def test_all_that_is_public_has_a_docstring(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(module)
    assert list(undocumented(module, "")) == []


def test_the_package_alone_is_light() -> None:
    code = (
        "import sys, reconstruct, reconstruct.__main__; "
        "print(sorted({'torch', 'pycolmap', 'cv2'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_public_names_resolve() -> None:
    assert len(reconstruct.__all__) >= 7
    for name in reconstruct.__all__:
        assert getattr(reconstruct, name).__doc__
        assert name in dir(reconstruct)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        reconstruct.nothing  # noqa: B018


def test_the_old_name_of_an_error_still_works_for_one_release() -> None:
    with pytest.warns(DeprecationWarning, match="EstimationError"):
        old = errors.ReconstructionError
    assert old is errors.EstimationError
    with pytest.raises(AttributeError, match="no attribute 'NoSuchError'"):
        errors.NoSuchError  # noqa: B018
