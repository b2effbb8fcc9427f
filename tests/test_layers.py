"""Imports point one way; siblings do not import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "python" / "chemomech"
LAYERS = [
    {"arrays", "units", "progress", "errors", "sparse", "tasks", "_core", "__init__"},
    {"observe", "mechanics"},
    {"phasefield"},
    {"learn"},
    {"parallel", "io", "report"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def room_of(module):
    """observe for chemomech.observe.maps; __init__ for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported_rooms(path):
    here = ["chemomech", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = here[: len(here) - node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            # `from chemomech import io` names the room in the list, not in the module.
            modules = [f"{base}.{alias.name}" for alias in node.names] if base == "chemomech" else [base]
        else:
            continue
        for module in modules:
            if module.split(".")[0] == "chemomech":
                room = room_of(module)
                yield node.lineno, room if room in LEVEL else "__init__"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert room in LEVEL, f"{path}: the room {room} has no layer; give it one here"
    for line, other in imported_rooms(path):
        same_layer = LEVEL[other] == LEVEL[room] > 0 and other != room
        assert LEVEL[other] <= LEVEL[room], f"{path}:{line}: {room} imports {other}, which stands above it"
        assert not same_layer, f"{path}:{line}: {room} imports its sibling {other}"
