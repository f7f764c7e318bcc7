"""`analyse_file`: the task handler of the main job, one Python file in, its measures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnimind.registry import task
from omnimind.survey.measure import FunctionMeasure, TreeMeasure, count_lines, measure_tree
from omnimind.survey.source import Parsed, local_path, parse, read

VERSION = 1
"""Of the result; part of each task's key, so that a survey never mixes the results of two versions."""

TIMEOUT = 120.0
"""Seconds for one file. The largest files take two; one that a compiler cannot finish fails alone."""

COMPLEXITY_STEPS = (1, 2, 3, 4, 6, 11, 16, 21, 31, 51)
"""Where the classes of the complexity histogram begin: 1, 2, 3, 4-5, 6-10, …, 31-50, 51 and more."""

MOST_COMPLEX = 5
MOST_LISTED = 10


@task(retries=0, timeout=TIMEOUT)
def analyse_file(path: str, root: str) -> dict[str, Any]:
    """Measure one Python file below the folder `root`; the same bytes give the same result anywhere.

    `path` is absolute, or a `file://` URI for a name that is not Unicode. The result has only JSON values:

    - `path`, `package` (see `package_of`), `bytes`, `lines` = `code` + `comments` + `blank`;
    - `functions` (with methods, nested and `async` ones, without lambdas) and `classes`;
    - `complexity`: McCabe's cyclomatic number per function, that is 1 + its decisions: `if`, `elif`, a
      conditional expression, a loop, an `except`, each `for` and `if` of a comprehension, each further
      operand of `and`/`or`, and a `case` that can fail to match. `else`, `finally`, `with` and `assert` add
      none. A nested function counts by itself, a lambda with the function around it. Here are `total`, `max`,
      `histogram` (functions per class of `COMPLEXITY_STEPS`) and `most`, the five most complex functions;
    - `public` and `undocumented`: how many public names there are, how many lack a docstring, and the first
      ten of these;
    - `warnings`: how many the compiler gave, and the first ten.

    The file is compiled, never executed. One that cannot be read, decoded or compiled raises one of
    `source.UNREADABLE` with the reason in its message.
    """
    parsed = parse(read(path), path)
    package, module_is_public = package_of(path, root)
    measure = measure_tree(parsed.tree, module_is_public=module_is_public)
    counts = count_lines(parsed.text, measure.long_strings)
    return {
        "path": path,
        "package": package,
        "bytes": parsed.size,
        "lines": counts.lines,
        "code": counts.code,
        "comments": counts.comments,
        "blank": counts.blank,
        "functions": len(measure.functions),
        "classes": measure.classes,
        "complexity": _complexity(measure.functions),
        **_documentation(measure),
        **_warnings(parsed),
    }


def package_of(path: str, root: str) -> tuple[str, bool]:
    """Return the package that the file counts for, and whether its module is public.

    The package is the first part of the path below `root`, without `.py`; the files right in a `root` that is
    a package itself belong to that one.
    """
    folder = Path(local_path(root))
    parts = Path(local_path(path)).relative_to(folder).parts
    first = parts[0].removesuffix(".py")
    if len(parts) == 1 and (folder / "__init__.py").exists():
        first = folder.name
    module = parts[-1].removesuffix(".py")
    is_public = not any(_is_private(part) for part in (*parts[:-1], module))
    return first.encode(errors="backslashreplace").decode(), is_public


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _complexity(functions: list[FunctionMeasure]) -> dict[str, Any]:
    histogram = [0] * len(COMPLEXITY_STEPS)
    for function in functions:
        histogram[sum(1 for step in COMPLEXITY_STEPS if step <= function.complexity) - 1] += 1
    most = sorted(functions)[:MOST_COMPLEX]
    return {
        "total": sum(function.complexity for function in functions),
        "max": most[0].complexity if most else 0,
        "histogram": histogram,
        "most": [{"name": f.name, "line": f.line, "complexity": f.complexity} for f in most],
    }


def _documentation(measure: TreeMeasure) -> dict[str, Any]:
    names = sorted(measure.undocumented)
    listed = [{"line": line, "name": name} for line, name in names[:MOST_LISTED]]
    return {"public": measure.public, "undocumented": len(names), "undocumented_names": listed}


def _warnings(parsed: Parsed) -> dict[str, Any]:
    listed = [
        {"line": w.line, "category": w.category, "message": w.message} for w in parsed.warnings[:MOST_LISTED]
    ]
    return {"warnings": len(parsed.warnings), "warnings_listed": listed}
