"""The shape of the code base: who may import whom, and what may travel to the Hub."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from foundir_hf.cli import main

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "foundir_hf"
HUB_CODE = sorted(PACKAGE.rglob("*_foundir.py"))
COMPONENTS = [path for path in HUB_CODE if path.parent.name == "models"]

# Lower never imports higher. A module belongs to the longest prefix that matches it.
LAYERS = {
    "models": 0,
    "io": 0,
    "pipelines": 0,
    "captioning": 0,
    "configurations": 0,
    "pipelines.pipeline_foundir": 1,
    "data": 1,
    "curation": 1,  # judges photographs by the degradations of `data`, whose loaders obey its verdicts
    "restoration": 2,
    "hub": 2,
    "adapters": 2,
    "diagnosis": 2,
    "interpret": 2,
    "evaluation": 3,
    "training": 3,
    "adapters.adapt": 4,
    "convert": 4,
    "cli": 5,
    "space": 5,  # reads settings and says what was done as the command line does, which starts it
    "": 5,  # foundir_hf/__init__.py
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int:
    return LAYERS[max((p for p in LAYERS if module == p or module.startswith(p + ".") or p == ""), key=len)]


def imports(path: Path) -> list[tuple[int, str]]:
    """Every imported module, absolute or relative with its dots, and its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            # `from . import x` names a sibling; `from .. import __version__` the package itself.
            siblings = [alias.name for alias in node.names if (path.parent / f"{alias.name}.py").is_file()] if dots == "." else []
            names = siblings if siblings and not node.module else [node.module or ""]
            found += [(node.lineno, dots + name) for name in names]
    return found


def internal_imports(path: Path) -> list[str]:
    """The package's own modules that a file imports, as dotted names below `foundir_hf`."""
    own = module_name(path).split(".")
    package = own if path.name == "__init__.py" else own[:-1]
    names = []
    for _, name in imports(path):
        dots = len(name) - len(name.lstrip("."))
        if dots:
            base = package[: len(package) - dots + 1]
            names.append(".".join([*base, name.lstrip(".")]).strip("."))
        elif name.split(".")[0] == "foundir_hf":
            names.append(name.removeprefix("foundir_hf").lstrip("."))
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_no_module_imports_from_a_higher_layer(path):
    own = layer(module_name(path))
    higher = [name for name in internal_imports(path) if layer(name) > own]
    assert not higher, f"layer {own} imports {higher}"


def test_there_are_no_import_cycles():
    graph = {module_name(p): set(internal_imports(p)) for p in PACKAGE.rglob("*.py")}

    def reach(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for name in graph.get(todo.pop(), set()) - seen:
                seen.add(name)
                todo.append(name)
        return seen

    # The root's names are resolved on first use, so importing the root from anywhere would be a cycle in waiting.
    assert [name for name in graph if name and name in reach(name)] == []
    assert [name for name, targets in graph.items() if "" in targets and name and not name.startswith("cli")] == []


@pytest.mark.parametrize("path", HUB_CODE, ids=lambda p: p.name)
def test_hub_code_imports_only_what_a_stranger_has(path):
    allowed = {"__future__", "torch", "diffusers", "transformers", "numpy", "PIL", *sys.stdlib_module_names}
    allowed |= {"huggingface_hub", "safetensors"}  # which diffusers brings
    for line, name in imports(path):
        if name.startswith("."):
            assert path not in COMPONENTS, f"{path.name}:{line}: siblings of a component are never downloaded"
            assert re.fullmatch(r"\.[a-z_]+_foundir", name), f"{path.name}:{line}: {name}"
        else:
            assert name.split(".")[0] in allowed, f"{path.name}:{line}: {name}"


def test_hub_code_has_a_suffix_of_its_own_and_is_complete():
    assert [p.name for p in COMPONENTS] == [
        "cosine_autoencoder_foundir.py",
        "degradation_classifier_foundir.py",
        "lq_encoder_foundir.py",
        "tone_curves_foundir.py",
        "unet_foundir.py",
    ]
    assert {p.name for p in HUB_CODE} - {p.name for p in COMPONENTS} == {
        "attention_foundir.py",
        "color_fix_foundir.py",
        "lora_foundir.py",
        "memory_foundir.py",
        "pipeline_foundir.py",
        "tiling_foundir.py",
    }


def test_the_space_and_the_scripts_use_the_public_names_only():
    public = {
        "foundir_hf",
        "foundir_hf.cli",
        "foundir_hf.space.limits",
        "foundir_hf.space.server",
        "foundir_hf.training.build",
        "foundir_hf.training.config",
    }
    public |= {
        "foundir_hf.training.duration",
        "foundir_hf.training.loop",
        "foundir_hf.training.preemption",
        "foundir_hf.training.classifier",
    }
    for folder in ("space", "training"):  # benchmarks look into what they measure
        for path in (ROOT / folder).rglob("*.py"):
            used = {name for _, name in imports(path) if name.split(".")[0] == "foundir_hf"}
            assert used <= public, f"{path.name}: {used - public}"


def test_what_needs_no_model_does_not_wait_for_torch(photo, checkpoint, tmp_path):
    """torch and diffusers take five seconds to import: not for help, what is done already, or the page; for mistakes see test_batch.py."""
    photo.save(tmp_path / "a.png")
    restore = ["restore", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    assert main(restore) == 0
    code = """
import sys
import foundir_hf
from foundir_hf.cli import main
for arguments in (["restore", "--help"], sys.argv[1:]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code == 0
    assert not {"torch", "diffusers", "transformers"} & sys.modules.keys(), arguments
import foundir_hf.space.page
assert not {"torch", "diffusers", "transformers"} & sys.modules.keys(), "the page"
"""
    done = subprocess.run([sys.executable, "-c", code, *restore], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: foundir restore" in done.stdout
    assert "(restored before)" in done.stdout


def test_every_public_name_resolves_and_a_wrong_one_does_not():
    import foundir_hf

    for name in foundir_hf.__all__:
        assert getattr(foundir_hf, name) is not None
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = foundir_hf.no_such_thing


def test_public_functions_and_classes_have_docstrings():
    missing = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree) and path.stat().st_size:
            missing.append(module_name(path))
        for node in tree.body:
            if getattr(node, "name", "") == "add_parser":  # of every verb, the same
                continue
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                missing.append(f"{module_name(path)}.{node.name}")
    assert not missing


def test_nothing_loads_pickles_or_loosely():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "space").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        if path.name == "convert.py":  # the one reader of other people's pickles, by the restricted unpickler
            text = text.replace('torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)', "")
        assert not re.search(r"torch\.load\(|pickle\.load|weights_only\s*=\s*False|strict\s*=\s*False", text), path.name


def test_pre_commit_has_the_ruff_that_is_installed():
    revisions = re.findall(r"\"ruff==(\S+)\"", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert revisions == re.findall(r"^ruff==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE) != []
