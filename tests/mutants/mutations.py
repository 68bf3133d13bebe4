"""Small changes of Python code, each of which a mistake could have made."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin", "argmin": "argmax"}


@dataclass(frozen=True)
class Mutation:
    """One change of a module: characters of its source are replaced."""

    start: int
    end: int
    replacement: str
    line: int
    """Line number of the change, from 1."""
    description: str

    def apply(self, source: str) -> str:
        """The changed source."""
        return source[: self.start] + self.replacement + source[self.end :]


def find_mutations(source: str) -> list[Mutation]:
    """All changes of a module, in the order of the source; a few are not valid Python.

    Docstrings, annotations, imports, decorators, the texts of messages and the values of module constants (mostly
    tuning) are not changed.
    """
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found), key=lambda mutation: (mutation.start, mutation.end, mutation.replacement))


def is_valid(source: str) -> bool:
    """Whether a source is valid Python."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self.found: list[Mutation] = []

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Positions of a node in the source; `ast` counts columns in bytes of UTF-8."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        start = self._lines[line - 1]
        text = self._source[start : self._lines[line]]
        return start + len(text.encode()[:column].decode())

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self._source[start:end]

    def _replace(self, node: ast.expr | ast.stmt, replacement: str) -> None:
        start, end = self._span(node)
        before = " ".join(self._source[start:end].split())
        self.found.append(Mutation(start, end, replacement, node.lineno, f"{before} → {replacement or '(nothing)'}"))

    # Texts of messages, types and defaults of parameters are not behaviour that one test decides.
    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    def visit_Raise(self, node: ast.Raise) -> None: ...

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_Assign(self, node: ast.Assign) -> None:
        is_constant = all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets)
        if not is_constant:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            symbol, other = _COMPARISONS[type(node.ops[0])]
            left, right = self._operands(node, node.left, node.comparators[0], symbol)
            self._replace(node, f"{left} {other} {right}")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _OPERATORS:
            symbol, other = _OPERATORS[type(node.op)]
            left, right = self._operands(node, node.left, node.right, symbol)
            self._replace(node, f"{left} {other} {right}")
            if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
                self._replace(node, f"({left})")
        self.generic_visit(node)

    def _operands(self, node: ast.expr, left: ast.expr, right: ast.expr, symbol: str) -> tuple[str, str]:
        """Texts on both sides of an operator; the spans of `left` and `right` do not include their parentheses."""
        start, end = self._span(node)
        _, left_end = self._span(left)
        operator = self._source.index(symbol, left_end)
        assert operator < self._span(right)[0]
        return self._source[start:operator].strip(), self._source[operator + len(symbol) : end].strip()

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for dropped in node.values:
            rest = [f"({self._text(value)})" for value in node.values if value is not dropped]
            word = " and " if isinstance(node.op, ast.And) else " or "
            self._replace(node, f"({word.join(rest)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self._replace(node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self._replace(node, repr(node.value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _FUNCTIONS:
            _, end = self._span(node.func)
            self.found.append(
                Mutation(end - len(name), end, _FUNCTIONS[name], node.lineno, f"{name} → {_FUNCTIONS[name]}")
            )
        for keyword in node.keywords:
            self._drop_argument(node, keyword)
        self.generic_visit(node)

    def _drop_argument(self, call: ast.Call, keyword: ast.keyword) -> None:
        if keyword.arg is None:
            return
        start = self._at(keyword.lineno, keyword.col_offset)
        _, end = self._span(keyword.value)
        rest = self._source[end:]
        end += len(rest) - len(rest.lstrip(", \n"))
        what = " ".join(self._source[start:end].split()).rstrip(",")
        self.found.append(Mutation(start, end, "", keyword.lineno, f"argument {what} dropped"))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        index = node.slice
        if isinstance(index, ast.Constant) and isinstance(index.value, int):
            self._replace(index, str(1 - index.value if index.value in (0, 1) else index.value - 1))
            self.visit(node.value)
        else:
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._replace(node.test, f"not ({self._text(node.test)})")
        self._replace(node.test, "False")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._replace(node.test, f"not ({self._text(node.test)})")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        is_docstring = isinstance(node.value, ast.Constant)
        if is_docstring:
            return
        self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace(node, "pass")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self._replace(condition, "True")
        for child in self._children(node):
            self.visit(child)

    @staticmethod
    def _children(node: ast.comprehension) -> Iterator[ast.expr]:
        yield node.iter
        yield from node.ifs
