"""Measure a syntax tree: functions, classes, cyclomatic complexity, documentation, kinds of lines.

Pure and iterative: a tree may be as deep as the compiler allows, which is deeper than Python's own stack.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass, field

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = _Function | ast.ClassDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)
_WEIGHED = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.BoolOp,
    ast.comprehension,
    ast.match_case,
)
_FORMATTED: tuple[type[ast.AST], ...] = tuple(
    getattr(ast, name) for name in ("JoinedStr", "TemplateStr") if hasattr(ast, name)
)
_NO_BRANCHES = frozenset(
    {"attr", "ctx", "id", "kind", "level", "module", "names", "op", "ops", "type_comment"}
)
_ONE_TRIPLE_QUOTED = re.compile(r"""[A-Za-z]{0,2}("{3}|'{3})""")


@dataclass(frozen=True, slots=True, order=True)
class FunctionMeasure:
    """One function; ordered by what a report shows first: the most complex, then by place."""

    rank: int  # minus the complexity
    line: int
    name: str  # dotted, from the module down: `Class.method`, `outer.inner`

    @property
    def complexity(self) -> int:
        return -self.rank


@dataclass(slots=True)
class TreeMeasure:
    """What a tree holds. `undocumented` are (line, name), in no order; `public` is how many could be."""

    functions: list[FunctionMeasure] = field(default_factory=list)
    classes: int = 0
    public: int = 0
    undocumented: list[tuple[int, str]] = field(default_factory=list)
    long_strings: set[tuple[int, int, int, int]] = field(default_factory=set)


def measure_tree(tree: ast.Module, *, module_is_public: bool) -> TreeMeasure:
    """Measure all scopes of a module. A name is public if no part of its way from the module is `_private`.

    Overloads and property setters share the documentation of their sibling and do not count; neither do names
    inside functions, nor a module without a statement.
    """
    result = TreeMeasure()
    if module_is_public and tree.body:
        _document(result, tree, 1, "(module)")
    waiting: list[tuple[_Scope, str, bool]] = []
    _, inner = _branches(tree.body, result)
    waiting.extend((scope, "", module_is_public) for scope in inner)
    while waiting:
        scope, prefix, outer_is_public = waiting.pop()
        name = prefix + scope.name
        is_public = outer_is_public and not scope.name.startswith("_")
        branches, inner = _branches(scope.body, result)
        if isinstance(scope, ast.ClassDef):
            result.classes += 1
            counted, inner_is_public = is_public, is_public
        else:
            result.functions.append(FunctionMeasure(-1 - branches, scope.lineno, name))
            counted, inner_is_public = is_public and not _shares_documentation(scope), False
        if counted:
            _document(result, scope, scope.lineno, name)
        waiting.extend((child, name + ".", inner_is_public) for child in inner)
    return result


def _document(result: TreeMeasure, node: ast.Module | _Scope, line: int, name: str) -> None:
    result.public += 1
    first = node.body[0]
    match first:
        case ast.Expr(value=ast.Constant(value=str())):
            return
        case _:
            result.undocumented.append((line, name))


def _shares_documentation(function: _Function) -> bool:
    for decorator in function.decorator_list:
        match decorator:
            case ast.Name(id="overload") | ast.Attribute(attr="overload" | "setter" | "deleter"):
                return True
            case _:
                pass
    return False


def _weight(node: ast.AST) -> int:
    """Return how many ways out of `node` there are besides the first: what it adds to McCabe's number."""
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler():
            return 1
        case ast.BoolOp(values=values):
            return len(values) - 1
        case ast.comprehension(ifs=ifs):
            return 1 + len(ifs)
        case ast.match_case(pattern=ast.MatchAs(pattern=None), guard=None):
            return 0
        case ast.match_case():
            return 1
        case _:
            return 0


_FIELDS: dict[type, tuple[str, ...]] = {str: (), bytes: (), int: (), type(None): ()}
"""Per node type the fields below which a branch, a scope or a string may stand; filled as types are met."""


def _fields(kind: type) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(kind, "_fields", ())
    return tuple(name for name in names if name not in _NO_BRANCHES)


def _branches(body: Iterable[ast.AST], result: TreeMeasure) -> tuple[int, list[_Scope]]:
    """Return the weight of one scope's own nodes, and the scopes right inside it.

    Decorators, defaults, annotations and base classes belong to the scope in which they are evaluated.
    """
    todo: list[ast.AST] = list(body)
    total = 0
    inner: list[_Scope] = []
    while todo:
        node = todo.pop()
        kind = type(node)
        if isinstance(node, ast.Constant):
            _note_long_string(node, result)
            continue
        if isinstance(node, _SCOPES):
            inner.append(node)
            todo.extend(node.decorator_list)
            if isinstance(node, ast.ClassDef):
                todo.extend([*node.bases, *node.keywords])
            else:
                todo.append(node.args)
                if node.returns is not None:
                    todo.append(node.returns)
            continue
        if isinstance(node, _WEIGHED):
            total += _weight(node)
        elif isinstance(node, _FORMATTED):
            # Positions inside f-strings are wrong before Python 3.12: only weigh what is in there.
            _note_long_string(node, result)
            total += sum(_weight(part) for part in ast.walk(node))
            continue
        names = _FIELDS.get(kind)
        if names is None:
            names = _FIELDS[kind] = _fields(kind)
        for name in names:
            value = getattr(node, name)
            if isinstance(value, list):
                todo.extend(value)
            else:
                todo.append(value)
    return total, inner


def _note_long_string(node: ast.AST, result: TreeMeasure) -> None:
    start, end = node.lineno, node.end_lineno  # type: ignore[attr-defined]
    if end > start:
        result.long_strings.add((start, node.col_offset, end, node.end_col_offset))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCounts:
    """Each line is of one kind: it carries a token (`code`), only a comment, or nothing."""

    lines: int
    code: int
    comments: int
    blank: int


def count_lines(text: str, long_strings: Iterable[tuple[int, int, int, int]]) -> LineCounts:
    """Count the lines of `text`, whose strings over several lines stand at `long_strings`.

    A blank line or a `#` inside a string is part of the string, hence code.
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    kinds = [_kind(line.strip()) for line in lines]
    for start, column, end, end_column in long_strings:
        if any(kind != "c" for kind in kinds[start:end]):
            _mark_string(lines, kinds, start, column, end, end_column)
    code, comments = kinds.count("c"), kinds.count("#")
    return LineCounts(lines=len(lines), code=code, comments=comments, blank=len(lines) - code - comments)


def _kind(stripped: str) -> str:
    if not stripped:
        return " "
    return "#" if stripped[0] == "#" else "c"


def _mark_string(
    lines: list[str], kinds: list[str], start: int, column: int, end: int, end_column: int
) -> None:
    """Mark the lines of the string at this place (1-based lines, columns in bytes) as code."""
    part = lines[start - 1 : end]
    part[-1] = part[-1].encode()[:end_column].decode()
    part[0] = part[0].encode()[column:].decode()
    literal = "\n".join(part)
    triple = _ONE_TRIPLE_QUOTED.match(literal)
    if triple and literal.endswith(triple[1]) and literal.count(triple[1]) == 2:  # noqa: PLR2004 - one at each end
        kinds[start - 1 : end] = "c" * len(part)
        return
    # Several literals side by side, with comments and blank lines of their own between them.
    void = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(f"({literal})").readline):
        if token.type not in void:
            for row in range(token.start[0], token.end[0] + 1):
                kinds[start - 2 + row] = "c"
