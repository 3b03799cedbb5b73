"""The shape of the code, held by a test: who imports whom, what is pure, how big things get."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgconv

PACKAGE = Path(imgconv.__file__).parent

# Lower layers first; a module imports from its own layer (where that is one module or
# says so) and from layers above it in this list, never the other way.
LAYERS = [
    {"version", "errors", "loading", "units", "names", "urls", "identity", "progress"},
    {"kernels", "pages", "upload_report", "measurement"},
    {"readahead"},
    {"ranges", "options", "workers", "body", "report"},
    {"found", "stretch", "segments", "objectstore"},
    {"native"},
    {"deflating"},
    {"layout", "codecs"},
    {"ondisk", "upload"},
    {"formats", "sources", "sinks", "stores"},
    {"inspection", "diskmap"},
    {"guest"},
    {"batches", "tally", "render", "outputs"},
    {"comparison", "conversion", "estimate", "checks"},
    {"encode", "deliver", "digest"},
    {"lanes"},
    {"pipeline"},
    {"planning"},
    {"objects"},
    {"opening", "verification"},
    {"targets"},
    {"fleet"},
    {"api", "distribution", "fanout", "questions", "uploads", "testing"},
    {"exporting"},
    {"terminal"},
    {"arguments"},
    {"commands"},
    {"cli"},
    {"__main__", "__init__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

PURE = (
    "formats",
    "ondisk",
    "layout",
    "segments",
    "ranges",
    "identity",
    "units",
    "names",
    "urls",
)
IMPURE_IMPORTS = {"os", "io", "socket", "threading", "time", "random", "secrets", "logging"}
IMPURE_IMPORTS |= {"subprocess", "tempfile", "datetime", "pathlib", "sys"}

FRONT_DOORS = {"convert", "distribute", "export", "fan_out"}
MAX_FILE, MAX_FUNCTION, MAX_SINK = 400, 60, 170
# numbers from the aesthetics of the field: half below 15, nine in ten below 36
MEDIAN_FUNCTION, NINTH_FUNCTION = 15, 35


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts), ast.parse(path.read_text())


MODULES = dict(modules())


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(tree: ast.AST) -> set[str]:
    """Names of imported modules of this package, without the package's name."""
    inside = {name.removeprefix("imgconv.") for name in imports(tree) if name != "imgconv"}
    return {name for name in inside if name in MODULES or f"{name}.__init__" in MODULES}


def layer(module: str) -> int:
    return LEVEL[module.partition(".")[0]]


def lengths(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    top = module.partition(".")[0]
    for other in own_imports(MODULES[module]):
        same_folder = other.partition(".")[0] == top
        assert same_folder or layer(other) < layer(module), f"{module} imports {other}"


PLUG_INS = ("formats", "sources", "sinks", "stores")


@pytest.mark.parametrize("folder", PLUG_INS)
def test_plug_ins_of_one_kind_know_nothing_of_the_others(folder: str) -> None:
    others = {*PLUG_INS} - {folder}
    for module, tree in MODULES.items():
        if module.startswith(f"{folder}."):
            assert not {o for o in own_imports(tree) if o.partition(".")[0] in others}


def test_one_format_never_imports_another() -> None:
    shared = {"formats.base", "formats.body", "formats.tables"}
    for module, tree in MODULES.items():
        if module.startswith("formats.") and module not in shared | {"formats.__init__"}:
            family = module.partition("_")[0]
            for other in own_imports(tree) - shared:
                assert not other.startswith("formats.") or other.startswith(family)


def test_a_check_needs_no_writer_and_no_other_formats_check() -> None:
    shared = {"checks.__init__", "checks.report", "checks.findings", "checks.inspection"}
    shared |= {"checks.placement", "checks.streams"}
    for module, tree in MODULES.items():
        if module.startswith("checks."):
            found = own_imports(tree)
            assert not {o for o in found if o.startswith(("formats", "sinks", "stores"))}
            family = module.partition("_")[0]
            for other in found - shared - {"checks"}:
                assert not other.startswith("checks.") or other.startswith(family), module


@pytest.mark.parametrize("module", [m for m in MODULES if m.partition(".")[0] in PURE])
def test_pure_modules_have_no_clock_chance_or_files(module: str) -> None:
    found = {name.partition(".")[0] for name in imports(MODULES[module])}
    assert not found & IMPURE_IMPORTS


def test_threads_live_in_one_module() -> None:
    users = {m for m, tree in MODULES.items() if "threading" in imports(tree)}
    assert users == {"workers"}


def test_few_modules_know_the_compiled_one() -> None:
    users = {m for m, tree in MODULES.items() if "imgconv._native" in imports(tree)}
    assert users == {"kernels", "native", "readahead"}


def test_only_the_terminal_and_the_command_line_print() -> None:
    for module, tree in MODULES.items():
        calls = {
            n.func.id
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert "print" not in calls or module in ("terminal", "cli")


def test_no_option_dictionaries() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert node.args.kwarg is None, f"{module}.{node.name} takes **kwargs"


def test_no_probing_with_hasattr_and_no_late_type_imports() -> None:
    """Imports under TYPE_CHECKING only where they keep start-up light."""
    light = {"__init__", "api", "questions", "opening", "arguments", "terminal", "verification"}
    light |= {"guest", "report", "targets"}
    for module, tree in MODULES.items():
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        assert "hasattr" not in names
        light_too = module.startswith("commands.")  # loaded before anything else
        assert "TYPE_CHECKING" not in names or module in light or light_too


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_small(module: str) -> None:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    limit = MAX_SINK if module.startswith("sinks.") else MAX_FILE
    assert len(path.read_text().splitlines()) <= limit


def test_functions_stay_small() -> None:
    found = sorted(n for tree in MODULES.values() for _, n in lengths(tree))
    longer = {name for t in MODULES.values() for name, n in lengths(t) if n > MAX_FUNCTION}
    assert longer <= FRONT_DOORS, "only they may be longer, for their documentation"
    assert found[len(found) // 2] < MEDIAN_FUNCTION
    assert found[len(found) * 9 // 10] <= NINTH_FUNCTION


def test_every_layer_names_a_module() -> None:
    tops = {module.partition(".")[0] for module in MODULES}
    assert tops == set(LEVEL)
