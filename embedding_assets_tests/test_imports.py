"""Which way imports point, and that loading the package stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import embedding_assets

PACKAGE = Path(embedding_assets.__file__).parent
NAME = "embedding_assets"

LAYERS = [
    {"errors", "keys", "settings"},
    {"encoders", "analysis", "ingest", "store"},
    {"demo"},
    {"pipeline", "search"},
    {"defs", "api", "web", "cli", "definitions", "deploy"},
]
"""From the bottom up: a module imports its own layer and those below."""

WITH_DAGSTER = {"defs", "definitions", "cli", "deploy"}
HEAVY = {"torch", "torchvision", "open_clip", "transformers", "dagster"}


def layer_of(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts != ("__init__.py",))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, at_load_only: bool = False) -> set[str]:
    """Dotted names that a file imports; `at_load_only` leaves out what functions and type checkers import."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if at_load_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if at_load_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_part_of_the_package_has_its_place() -> None:
    assert {part_of(path) for path in modules()} <= set().union(*LAYERS)


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_imports_point_down(path: Path) -> None:
    own = layer_of(part_of(path))
    for name in imports(path):
        if name.startswith(f"{NAME}.") and (part := name.split(".")[1]) != "__version__":
            assert layer_of(part) <= own, f"{ids(path)} imports {name}, which lies above it"


@pytest.mark.parametrize("path", [p for p in modules() if part_of(p) not in WITH_DAGSTER], ids=ids)
def test_domain_code_never_imports_dagster(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0].startswith("dagster")]


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_nothing_loads_torch_when_it_is_imported(path: Path) -> None:
    if path.name == "train.py":
        pytest.skip("a script that trains, run by itself")
    assert not [
        name for name in imports(path, at_load_only=True) if name.split(".")[0] in HEAVY - {"dagster"}
    ]


def loaded_by(statement: str, tmp_path: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has after a statement."""
    script = f"{statement}\nimport sys\nprint(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import embedding_assets",
        "import embedding_assets.settings, embedding_assets.store.database, embedding_assets.pipeline.batch",
        "import embedding_assets.store.vectors, embedding_assets.ingest.records",
        "from embedding_assets.api.app import create_app\n"
        "from embedding_assets.settings import load_settings\n"
        "create_app(load_settings())",
    ],
)
def test_domain_modules_load_neither_torch_nor_dagster(statement: str, tmp_path: Path) -> None:
    assert loaded_by(statement, tmp_path) & HEAVY == set()


def test_importing_the_package_alone_loads_nothing_but_itself(tmp_path: Path) -> None:
    extra = loaded_by("import embedding_assets", tmp_path) - loaded_by("pass", tmp_path)
    assert extra <= {"embedding_assets"}
