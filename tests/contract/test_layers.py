"""Imports go one way, and the numerical core runs where MONAI Label and SimpleITK are not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "lib" / "msklabel"
# A module may import from its own layer and from those below it.
LAYERS = [
    {"errors", "durable", "memory", "__init__"},
    {"system", "sections"},
    {"imaging", "options", "kept_sessions"},
    {"pipeline", "networks", "store"},
    {"catalogue"},
    {"predict", "learn", "choose", "measure"},
    {"jobs"},
    {"work"},
    {"app", "serve", "cli", "demo", "__main__"},
]
MONAI_LABEL_IN = {
    "app.py",
    "kept_sessions.py",
    "work.py",
    "predict/task.py",
    "learn/task.py",
    "choose/task.py",
    "store/datastore.py",
}
CORE = [
    "msklabel.catalogue",
    "msklabel.choose.scores",
    "msklabel.choose.summarise",
    "msklabel.imaging",
    "msklabel.learn.evaluate",
    "msklabel.learn.trainer",
    "msklabel.learn.versions",
    "msklabel.measure.evaluate",
    "msklabel.measure.evaluate_folder",
    "msklabel.measure.quantify",
    "msklabel.measure.summary",
    "msklabel.predict.classical",
    "msklabel.predict.engine",
    "msklabel.predict.served",
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(module: Path) -> set[str]:
    """Full names of what a module imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def layer_of(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def part_of(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(module: Path) -> None:
    own = layer_of(part_of(module))
    for name in imports_of(module):
        if name.startswith("msklabel.") and name.split(".")[1] in set().union(*LAYERS):
            assert layer_of(name.split(".")[1]) <= own, f"{module.name} imports {name} from a layer above"


def test_predict_and_learn_do_not_import_each_other() -> None:
    predict = [m for m in MODULES if part_of(m) == "predict"]
    assert not [m.name for m in predict if any(name.startswith("msklabel.learn") for name in imports_of(m))]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_monai_label_and_simpleitk_stay_at_the_edge(module: Path) -> None:
    where = module.relative_to(PACKAGE)
    roots = {name.split(".")[0] for name in imports_of(module)}
    assert "monailabel" not in roots or str(where) in MONAI_LABEL_IN or where.parts[0] == "serve"
    assert "SimpleITK" not in roots or where.parts[0] == "imaging"
    assert "itk" not in roots or where.parts[0] == "imaging"


def test_the_numerical_core_imports_without_monai_label_and_simpleitk() -> None:
    code = (
        "import sys\n"
        "for name in ('monailabel', 'SimpleITK', 'itk', 'fastapi', 'sqlalchemy', 'pydicom'):\n"
        "    sys.modules[name] = None\n"
        f"for name in {CORE!r}:\n"
        "    __import__(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
