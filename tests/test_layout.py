"""The layout: a module imports only modules above it, some never lead to torch, files and functions are short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "wavasr"
# A folder is a room: it stands for all modules in it, which are ordered by their own imports.
_README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
ORDER = _README.partition("<!-- import order -->\n```\n")[2].partition("```")[0].split()
MOST_LINES, MOST_FUNCTION_LINES = 450, 60
# Of these rooms and modules nothing leads to torch.
WITHOUT_TORCH = """
    errors files config language audio.reading audio.augment corpora decoding cli evaluation network.files
    network.runtime network.onnx network.inference network.export recognition.workers recognition.transcribe
    recognition.stream recognition.align recognition.formats
""".split()


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def light_modules() -> list[str]:
    """The dotted names of the modules that WITHOUT_TORCH stands for."""
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in modules()]
    names = [name.removesuffix(".__init__") for name in names]
    return [name for name in names if any(f"{name}.".startswith(f"wavasr.{light}.") for light in WITHOUT_TORCH)]


def stage(path: Path) -> str:
    """The entry of ORDER that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The stages that a file imports, anywhere in it but under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import; this package writes absolute ones"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names if name.startswith("wavasr.")]
    return {part[1] for part in parts if part[1] in ORDER}


def walk(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return [found for child in node.orelse for found in walk(child)]
    return [node, *(found for child in ast.iter_child_nodes(node) for found in walk(child))]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_only_from_above(path: Path) -> None:
    own = stage(path)
    assert own in ORDER, f"{own} is new: give it its place in ORDER, and in the layout of the documentation"
    below = {name for name in imported(path) - {own} if ORDER.index(name) > ORDER.index(own)}
    assert not below, f"{own} imports {sorted(below)}, which come after it"


def long_parts(path: Path) -> list[str]:
    """A file of more than MOST_LINES lines, and its functions of more than MOST_FUNCTION_LINES."""
    source = path.read_text(encoding="utf-8")
    long = [path.name] if source.count("\n") > MOST_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            long += [f"{path.name}: {node.name}, {lines} lines"] if lines > MOST_FUNCTION_LINES else []
    return long


def test_files_and_functions_are_short(tmp_path: Path) -> None:
    assert not [part for path in modules() for part in long_parts(path)]
    sample = tmp_path / "sample.py"
    for lines, found in ((60, 0), (61, 1), (451, 2)):
        sample.write_text("def f():\n" + "    x\n" * (lines - 1), encoding="utf-8")
        assert len(long_parts(sample)) == found


def test_the_test_sees_a_wrong_import(tmp_path: Path) -> None:
    unchecked = "if TYPE_CHECKING:\n    import wavasr.network.recognizer\n"
    source = f"from wavasr import cli\n{unchecked}def f():\n    from wavasr.language.text import x\n"
    (tmp_path / "sample.py").write_text(source, encoding="utf-8")
    assert imported(tmp_path / "sample.py") == {"cli", "language"}


def test_light_modules_do_not_import_torch() -> None:
    """In one process of their own: the package, then each light module, with the heavy ones forbidden."""
    program = f"""
import importlib, sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchaudio", "pytorch_lightning", "matplotlib"):
            raise AssertionError(name + " is imported by " + current)
sys.meta_path.insert(0, Forbid())
current = "wavasr"
import wavasr
assert "numpy" not in sys.modules, "import wavasr loads numpy"
for current in {light_modules()!r}:
    importlib.import_module(current)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
