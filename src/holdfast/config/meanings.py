"""What each setting means, as its docstring in the source says.

pydantic would read the sources of all models for that at every start (`use_attribute_docstrings`), which took longer
than to build them; only schemas and docs want to know.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise

from pydantic import BaseModel


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings of a model's fields by name, inherited ones included."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found.update(_docstrings(base))
    return found


def _docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    (definition,) = (
        node for node in ast.parse(textwrap.dedent(inspect.getsource(model))).body if isinstance(node, ast.ClassDef)
    )
    for field, after in pairwise(definition.body):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
            case _:
                pass
