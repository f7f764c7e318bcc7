"""The core is deterministic: it imports nothing that differs between two runs and iterates over no set."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import omnimind.cluster

PACKAGE = Path(next(iter(omnimind.cluster.__path__))).parent
SHELLS = {
    "healing/integration.py",  # joins the loop with a controller and an agent
    "healing/loop.py",  # calls monitors and remediations for the core
    "homeostasis/controller.py",  # gives the ladder a clock, a loop and a reader
    "homeostasis/reader.py",
}
"""Modules of the core packages that are shells around the cores in them, by name, each with its reason."""
MODULES = sorted(
    path
    for core in ("cluster", "healing", "homeostasis")
    for path in (PACKAGE / core).rglob("*.py")
    if path.relative_to(PACKAGE).as_posix() not in SHELLS
)

IMPURE = frozenset(
    "asyncio concurrent ctypes glob io locale logging multiprocessing os pathlib platform psutil "
    "queue random ray secrets select selectors shutil signal socket sqlite3 subprocess sys tempfile "
    "threading time uuid weakref".split()
)
IMPURE_CALLS = frozenset({"open", "input", "print", "id", "hash", "exec", "eval", "__import__"})
SET_TYPES = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})
# What a set may be given to without its order becoming visible.
ORDERLESS = frozenset({"sorted", "len", "any", "all", "set", "frozenset", "bool"})
# Methods that hand out a set when called on one.
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)


def impure_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module="random", names=[ast.alias(name="Random")]):
                continue  # the type of the injected source; see impure_calls
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                continue
        yield from (
            f"line {node.lineno}: imports {name}" for name in modules if name.partition(".")[0] in IMPURE
        )


def impure_calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield f"line {node.lineno}: calls {name}()"
            case ast.Call(func=ast.Attribute(attr="now" | "utcnow" | "today" as name)):
                yield f"line {node.lineno}: asks the clock by {name}()"
            case ast.Call(func=ast.Name(id="Random"), args=[], keywords=[]):
                yield f"line {node.lineno}: Random() without a seed"
            case _:
                pass


class SetIterations(ast.NodeVisitor):
    """Finds where the order of a set would become visible.

    A name or attribute counts as a set when it is annotated as one, or bound to one, anywhere in the module:
    too wide rather than too narrow, and a clash of names is cured by the better name.
    """

    def __init__(self, tree: ast.AST) -> None:
        self.found: list[str] = []
        self.names: set[str] = set()
        while True:  # a set may be bound to a name that is bound to another
            before = len(self.names)
            for node in ast.walk(tree):
                self.learn(node)
            if len(self.names) == before:
                break
        self.visit(tree)

    def learn(self, node: ast.AST) -> None:
        match node:
            case ast.AnnAssign(target=target, annotation=annotation) if is_set_type(annotation):
                self.names.add(name_of(target))
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if is_set_type(annotation):
                self.names.add(name)
            case ast.FunctionDef(name=name, returns=ast.expr() as annotation) if is_set_type(annotation):
                self.names.add(f"{name}()")
            case ast.Assign(targets=[target], value=value) if self.is_set(value):
                self.names.add(name_of(target))
            case ast.NamedExpr(target=target, value=value) if self.is_set(value):
                self.names.add(name_of(target))
        self.names.discard("")

    def is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Name(id=name)) if name in SET_TYPES:
                return True
            case ast.Call(func=ast.Attribute(attr=method, value=value)) if method in SET_METHODS | {"copy"}:
                return self.is_set(value)
            case ast.Call(func=ast.Name() | ast.Attribute() as function):
                return f"{name_of(function)}()" in self.names
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, SET_OPERATORS):
                return self.is_set(left) or self.is_set(right)
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body) or self.is_set(orelse)
            case ast.BoolOp(values=values):
                return any(self.is_set(value) for value in values)
            case ast.Name() | ast.Attribute():
                return name_of(node) in self.names
            case _:
                return False

    def check(self, iterated: ast.expr, how: str) -> None:
        if self.is_set(iterated):
            self.found.append(f"line {iterated.lineno}: {how} the set `{ast.unparse(iterated)}`")

    def visit_For(self, node: ast.For) -> None:
        self.check(node.iter, "loops over")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        match node:
            case ast.Call(func=ast.Name(id=name), args=args) if name in ORDERLESS:
                for argument in args:  # `sorted(x for x in a_set)` shows no order either
                    if isinstance(argument, ast.GeneratorExp | ast.ListComp | ast.SetComp):
                        self.visit_orderless(argument)
                    else:
                        self.visit(argument)
                for keyword in node.keywords:
                    self.visit(keyword)
                return
            case ast.Call(func=ast.Name(id=name), args=args):
                takes = {
                    "list",
                    "tuple",
                    "iter",
                    "enumerate",
                    "zip",
                    "map",
                    "filter",
                    "min",
                    "max",
                    "sum",
                    "dict",
                    "reversed",
                }
                if name in takes:
                    for argument in args:
                        self.check(argument, f"{name}() of")
            case ast.Call(func=ast.Attribute(attr="pop", value=value), args=[]):
                self.check(value, "pops from")
            case ast.Call(
                func=ast.Attribute(attr="extend" | "join" | "fromkeys" | "from_iterable", value=_), args=args
            ):
                for argument in args:
                    self.check(argument, "lines up")
            case _:
                pass
        self.generic_visit(node)

    def visit_orderless(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp) -> None:
        self.visit(node.elt)
        for generator in node.generators:
            for condition in generator.ifs:
                self.visit(condition)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.visit_orderless(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.check(node.iter, "loops over")
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self.check(node.value, "unpacks")
        self.generic_visit(node)


def name_of(node: ast.expr) -> str:
    """Return the last part of a dotted name: `self._due` and `other._due` are the same attribute."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def is_set_type(annotation: ast.expr) -> bool:
    match annotation:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in SET_TYPES
        case ast.Subscript(value=value):
            return is_set_type(value)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return is_set_type(left) or is_set_type(right)
        case _:
            return False


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_module_is_pure(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [*impure_imports(tree), *impure_calls(tree), *SetIterations(tree).found] == []


@pytest.mark.parametrize(
    "source",
    [
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "[x for x in frozenset(y)]",
        "{x: 1 for x in {1, 2}}",
        "a: set[str] = f()\nfor x in a: pass",
        "def f(a: frozenset[str] | None): return list(a or ())",
        "class C:\n    due: set[str]\n    def f(self): return [x for x in self.due]",
        "self.due = set()\nmin(self.due)",
        "a = {1}\nb = a | other\n(*b,)",
        "a = {1}\na.pop()",
        "def f() -> set[str]: ...\nfor x in f(): pass",
        "a: set[str] = g()\n','.join(a)",
        "a: set[str] = g()\nsum(x for x in a)",
        "for x in a.keys() & {1}: pass",
    ],
)
def test_shown_order_of_a_set_is_found(source: str) -> None:
    assert len(SetIterations(ast.parse(source)).found) == 1


@pytest.mark.parametrize(
    "source",
    [
        "for x in sorted({1, 2}): pass",
        "a: set[str] = f()\nlen(a); 'x' in a; a.add('y'); a.discard('y')",
        "a: set[str] = f()\nsorted(x for x in a if x)",
        "a: set[str] = f()\nany(x == 1 for x in a)",
        "a: set[str] = f()\nb = {x for x in a}",
        "for x in {1: 2}: pass",
        "a: dict[str, None] = {}\nfor x in a: pass",
        "a: dict[str, set[str]] = {}\nfor x in a: pass",
    ],
)
def test_hidden_order_of_a_set_is_allowed(source: str) -> None:
    assert SetIterations(ast.parse(source)).found == []


@pytest.mark.parametrize("source", ["Random()", "datetime.now(UTC)", "open('x')", "id(x)", "{hash(x): 1}"])
def test_impure_call_is_found(source: str) -> None:
    assert len(list(impure_calls(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source", ["import time", "import os.path", "from random import choice", "import ray.util as r"]
)
def test_impure_import_is_found(source: str) -> None:
    assert len(list(impure_imports(ast.parse(source)))) == 1
