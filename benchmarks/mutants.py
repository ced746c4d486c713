"""Do the tests notice? A random sample of mutants of a module, each tried against the tests that are named.

`python benchmarks/mutants.py foundir_hf/training/equilibrium.py --tests tests/training/test_equilibrium.py --count 20 --seed 0`

mutmut runs the whole suite first and cosmic-ray a fresh interpreter for every mutant, with five seconds of imports each; here a mutant is a
fork of one process that has imported the libraries and nothing of ours. A mutant changes one operator, comparison, number, truth value,
condition or call, or leaves a statement out; messages, annotations and docstrings are left alone. Killed: a test fails or takes too long.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.machinery
import importlib.util
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Nodes that can be changed, and how."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        unseen: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            unseen += [node.returns, *(argument.annotation for argument in ast.walk(node.args) if isinstance(argument, ast.arg))]
        elif isinstance(node, ast.AnnAssign):
            unseen.append(node.annotation)
        elif isinstance(node, ast.Raise | ast.JoinedStr):
            unseen.append(node)
        for part in unseen:
            skipped |= {id(child) for child in ast.walk(part)} if part is not None else set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED:
            yield node, "operator"
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
            yield node, "comparison"
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield node, "value"
        elif isinstance(node, ast.If | ast.IfExp):
            yield node, "condition"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield node, "call"
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield node, "statement"


def change(node: ast.AST, kind: str) -> None:
    """Changes a node in place."""
    match node, kind:
        case ((ast.BinOp() | ast.BoolOp() | ast.AugAssign()), _):
            node.op = SWAPPED[type(node.op)]()  # pyright: ignore[reportAttributeAccessIssue]
        case ast.Compare(), _:
            node.ops[0] = SWAPPED[type(node.ops[0])]()
        case ast.Constant(value=bool() as value), _:
            node.value = not value
        case ast.Constant(value=int() | float() as value), _:
            node.value = value + 1
        case ((ast.If() | ast.IfExp()), _):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Call(func=ast.Name() as function), "call":
            function.id = CALLS[function.id]
        case ast.Expr(), _:
            node.value = ast.Constant(None)


def mutants(source: str, count: int, seed: int) -> list[tuple[str, str]]:
    """`(what was changed, the changed source)`, at random places."""
    whole = ast.parse(source)
    number = sum(1 for _ in places(whole))
    made = []
    for index in sorted(random.Random(seed).sample(range(number), min(count, number))):
        tree = copy.deepcopy(whole)
        node, kind = list(places(tree))[index]
        line = node.lineno  # pyright: ignore[reportAttributeAccessIssue]
        before = ast.unparse(node).splitlines()[0]
        change(node, kind)
        after = ast.unparse(node).splitlines()[0]
        made.append((f"{line}: {before[:70]} -> {after[:70]}", ast.unparse(ast.fix_missing_locations(tree))))
    return made


class Mutated(importlib.machinery.SourceFileLoader):
    """Loads one file from other source than its own."""

    def __init__(self, name: str, path: str, source: str):
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str):
        return compile(self.source, self.path, "exec")


class Finder:
    """Finds that one module."""

    def __init__(self, name: str, path: Path, source: str):
        self.name, self.path, self.source = name, str(path), source

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=Mutated(name, self.path, self.source))


def survives(name: str, path: Path, source: str, tests: list[str], seconds: int, imported: Path | None = None) -> bool:
    """Whether all tests pass, in a fork, which tells what it imported in a file."""
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        sys.meta_path.insert(0, Finder(name, path, source))  # pyright: ignore[reportArgumentType]
        import pytest

        code = 1
        with contextlib.suppress(BaseException):
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
            if imported is not None:
                imported.write_text("\n".join(sys.modules))
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    return status == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("module", type=Path, help="file of the package")
    parser.add_argument("--tests", nargs="+", required=True, help="files or names of tests")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=120, help="of processor time for a mutant (default: 120)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT)]
    path = arguments.module.resolve()
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    trial = lambda source: survives(name, path, source, arguments.tests, arguments.seconds)  # noqa: E731
    source = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        if not survives(name, path, ast.unparse(ast.parse(source)), arguments.tests, arguments.seconds, Path(folder) / "imported"):
            sys.exit("the tests fail without a mutant")
        for module in (Path(folder) / "imported").read_text().splitlines():
            with contextlib.suppress(Exception):  # what a library cannot import by itself
                top = importlib.util.find_spec(module.split(".")[0])
                if top is not None and "site-packages" in str(top.origin):
                    importlib.import_module(module)
    sample = mutants(source, arguments.count, arguments.seed)
    killed = 0
    for what, changed in sample:
        survived = trial(changed)
        killed += not survived
        print("survived" if survived else "killed  ", f"{path.name}:{what}", flush=True)
    print(f"{path.name}: {killed} of {len(sample)} killed")


if __name__ == "__main__":
    main()
