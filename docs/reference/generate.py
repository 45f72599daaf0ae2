"""The reference pages, made from the code, so that they cannot say anything else than it does.

    python docs/reference/generate.py            write the pages of PAGES beside this file
    python docs/reference/generate.py --check    exit code 1 and the names of those that are stale

Commands come from their signatures, recipes and reports from their JSON Schema, functions from the source text: none of
it depends on the versions of typer, pydantic or Python.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
import yaml

import fimaq_deploy
from fimaq_deploy.cli import app
from fimaq_deploy.recipe import PRESETS, Recipe
from fimaq_deploy.report.comparison.records import Comparison
from fimaq_deploy.report.schema import Report
from fimaq_deploy.report.sweep_page.records import Sweep
from fimaq_deploy.target import TARGETS, Kernel, Target
from fimaq_deploy.target.kernels import PRODUCTS, Product, Shapes, in_words, layout_in_words
from fimaq_deploy.target.numbers import NUMBERS, ROUNDING, FloatFormat, NumberFormat

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/reference/generate.py; `make reference` writes it anew. -->\n"


def main(arguments: list[str]) -> int:
    stale = [name for name, make in PAGES.items() if text(make) != _read(HERE / name)]
    if "--check" in arguments:
        print("\n".join(f"{name} is stale: make reference" for name in stale) or "the reference is up to date")
        return bool(stale)
    for name in stale:
        (HERE / name).write_text(text(PAGES[name]), encoding="utf-8")
        print(f"wrote {HERE / name}")
    return 0


def text(make: Callable[[], Iterator[str]]) -> str:
    """One page."""
    return NOTE + "\n".join(make()).rstrip() + "\n"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _table(*header: str) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join('---' for _ in header)} |"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# ---- commands


def cli() -> Iterator[str]:
    yield "# Commands\n"
    yield "Every command prints its options with `--help`. Exit codes: 0, all is well; 1, a gate was missed or a"
    yield "judgement is bad; 2, the input is wrong, said in one line. A traceback is our bug.\n"
    for command in app.registered_commands:
        assert command.callback is not None
        yield from _command(command.name or command.callback.__name__, command.callback)


def _command(name: str, callback: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(callback, include_extras=True)
    parameters = inspect.signature(callback).parameters.values()
    options = [(one, *found) for one in parameters if not (found := _option(hints[one.name]))[1].hidden]
    words = [_word(*option) for option in options if isinstance(option[2], typer.models.ArgumentInfo)]
    yield f"## {name}\n"
    yield f"{inspect.getdoc(callback)}\n"
    yield f"    fimaq-deploy {' '.join([name, *words, *['[OPTIONS]'][: len(options) > len(words)]])}\n"
    if not options:
        return
    yield from _table("", "default", "meaning")
    for parameter, kind, info in options:
        yield _row(_spelling(parameter, kind, info), _default(parameter), info.help or "")
    yield ""


def _option(hint: Any) -> tuple[Any, Any]:
    """The type of a parameter and what typer was told about it."""
    if get_origin(hint) is Union:  # what Python 3.10 makes of a default of None
        hint = get_args(hint)[0]
    assert get_origin(hint) is Annotated, hint
    kind, info = get_args(hint)[:2]
    return kind, info


def _word(parameter: inspect.Parameter, kind: Any, info: Any) -> str:
    several = get_origin(kind) is list and not (info.metavar or "").endswith("...")
    word = (info.metavar or parameter.name.upper()) + ("..." if several else "")
    return word if parameter.default is inspect.Parameter.empty else f"[{word}]"


def _spelling(parameter: inspect.Parameter, kind: Any, info: Any) -> str:
    if isinstance(info, typer.models.ArgumentInfo):
        return f"`{_word(parameter, kind, info)}`"
    # Inside Annotated the first spelling stands where typer otherwise has the default.
    given = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str) and name[0] == "-"]
    name = ", ".join(given) or f"--{parameter.name.replace('_', '-')}"
    return f"`{' '.join(filter(None, [name, info.metavar or _value(kind)]))}`"


def _value(kind: Any) -> str:
    inner = [one for one in get_args(kind) if one is not NoneType] or [kind]
    words = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}
    return words.get(inner[0], "TEXT") if get_origin(inner[0]) is None else "TEXT"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    return "" if parameter.default is None or parameter.default is False else f"`{parameter.default}`"


# ---- documents: recipes and reports


def recipe() -> Iterator[str]:
    yield "# Recipe fields\n"
    yield "A recipe is a preset, a YAML file, or either with single fields replaced, as in"
    yield "`--set reconstruction.iterations=500`. Unknown fields are errors. The resolved recipe of a build is its"
    yield "`recipe.yaml`. [What the presets reach](../how-to/recipes.md).\n"
    yield "## Presets\n"
    yield from _table("preset", "fields that it sets")
    for path in sorted(PRESETS.glob("*.yaml")):
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        yield _row(f"`{path.stem}`", ", ".join(f"`{name}: {value}`" for name, value in _flat(fields)))
    yield ""
    yield from _document(Recipe.model_json_schema(), "Fields")


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def report() -> Iterator[str]:
    yield "# Documents: report, comparison, sweep\n"
    yield "What `report.json`, `compare --json` and `sweep.json` hold. Fields are only ever added; a change of meaning"
    yield "gets a new number in `schema`, and older reports stay readable. Shares are in percent, latencies in"
    yield "milliseconds for a whole batch, sizes in bytes. A value that was not measured is null. The JSON Schema of"
    yield "the first is `fimaq_deploy/report/report.schema.json`.\n"
    for title, model in (("report.json", Report), ("compare --json", Comparison), ("sweep.json", Sweep)):
        yield from _document(model.model_json_schema(by_alias=True), title)


def _document(schema: Mapping[str, Any], title: str) -> Iterator[str]:
    parts = schema.get("$defs", {})
    yield f"## {title}\n"
    yield from _record(schema, parts)
    for name, part in parts.items():
        yield f"### {name}\n"
        yield from _record(part, parts)


def _record(part: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[str]:
    if part.get("description"):
        yield f"{_one_line(part['description'])}\n"
    if "properties" not in part:
        yield f"{_type(part)}\n"
        return
    yield from _table("field", "type", "default", "meaning")
    for name, field in part["properties"].items():
        default = "required" if name in part.get("required", ()) else _json_default(field, parts)
        yield _row(f"`{name}`", _type(field), default, _one_line(field.get("description", "")))
    yield ""


def _json_default(field: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    value = field.get("default")
    if isinstance(value, dict) and "$ref" in field:  # only what differs from the part's own defaults
        own = parts[_referred(field)]["properties"]
        value = {name: inner for name, inner in value.items() if inner != own[name].get("default")}
        return ", ".join(f"`{name}: {inner}`" for name, inner in value.items())
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _referred(field: Mapping[str, Any]) -> str:
    return field["$ref"].rpartition("/")[2]


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return f"[{_referred(field)}](#{_referred(field).lower()})"
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return _array(field)
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"names to {_type(field['additionalProperties'])}"
    return f"{_plain(field)}{_bounds(field)}"


def _array(field: Mapping[str, Any]) -> str:
    if "prefixItems" in field:
        return f"({', '.join(_type(one) for one in field['prefixItems'])})"
    return f"list of {_type(field.get('items', {}))}"


def _plain(field: Mapping[str, Any]) -> str:
    return {"null": "none", "string": "text", "boolean": "true or false"}.get(
        field.get("type", "any"), field.get("type", "any")
    )


def _bounds(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {field[name]:g}" for name, sign in signs.items() if name in field]
    return f" {', '.join(found)}" if found else ""


def _one_line(words: str) -> str:
    return " ".join(words.split())


# ---- targets


def targets() -> Iterator[str]:
    yield "# What targets execute\n"
    yield "Which products each target computes, in which formats: the entries of its `fimaq_deploy.target.Target`, of"
    yield "which plans, lint and refusals are made. Whatever is not here stays in the target's floats. Floats of 8 and"
    yield "4 bits were compiled with TensorRT-RTX alone; `tensorrt` has the same rules, and no test runs it.\n"
    yield from _table("target", "format", "operator", "weights", "activations", "where")
    for target in TARGETS.values():
        for kernel in target.kernels:
            for cells in _executed(kernel, target):
                yield _row(f"`{target.name}`", *cells)
        yield _row(f"`{target.name}`", NUMBERS[target.high_precision].title, "everything else", "", "", "")
    yield "\n## Formats\n"
    yield f"Rounding is {ROUNDING}. Zero points are 0 but where a row above says otherwise.\n"
    yield from _table("format", "weights", "activations", "scales")
    for product in PRODUCTS.values():
        yield _row(product.title, product.weights.title, _activations(product), _scales(product))
    yield "\n## Numbers\n"
    yield from _table("numbers", "bits", "values", "beyond them", "in ONNX", "since opset")
    for numbers in NUMBERS.values():
        beyond = "the nearest end" if numbers.saturates else "infinity"
        yield _row(numbers.title, str(numbers.bits), _values(numbers), beyond, numbers.onnx, str(numbers.opset))
    yield ""


def _executed(kernel: Kernel, target: Target) -> Iterator[tuple[str, str, str, str, str]]:
    """Format, operator, granularity of weights and of activations, and limits."""
    title = kernel.product.title
    weights, activations = layout_in_words(kernel.weights), layout_in_words(kernel.activations - {"floats"})
    if kernel.format == "int" and kernel.operator == "layer":
        activations += ", 8 bits symmetric" if kernel.zero_points == "none" else ", 8 bits with a zero point or none"
    if "floats" in kernel.activations:
        floats = NUMBERS[target.high_precision].title
        activations = f"{activations}; or {floats}" if activations else floats
    where = "; ".join(_limits(kernel))
    yield title, _operator(kernel), weights, activations, where
    for name, widened in kernel.packed:
        how = "when the file is loaded" if widened == "folded" else "in every run"
        yield (
            f"{NUMBERS[name].title} stored, {title} multiplied",
            _operator(kernel),
            weights,
            activations,
            f"widened {how}",
        )


def _operator(kernel: Kernel) -> str:
    if kernel.operator == "attention":
        return "attention"
    return "stored weights" if kernel.convolution else "stored weights, no convolution"


def _limits(kernel: Kernel) -> Iterator[str]:
    if not kernel.native:
        yield "dequantized, multiplied in floats"
    if kernel.since is not None:
        yield f"compute capability {in_words(kernel.since)} or newer"
    if kernel.least_size > 1:
        yield f"at least {kernel.least_size} inputs and outputs"
    if kernel.other_layouts:
        yield "other layouts compile too"
    if kernel.operator == "attention":
        yield _shapes(kernel.shapes) + ("" if kernel.faster else "; left in floats, which are as fast")


def _shapes(limits: Shapes) -> str:
    heads, tokens = "heads of any size", []
    if limits.head_sizes is not None:
        *most, last = map(str, sorted(limits.head_sizes))
        heads = f"heads of {', '.join(most)} or {last}"
    if limits.least_tokens > 1:
        tokens.append(f"at least {limits.least_tokens} tokens")
    if limits.most_tokens is not None:
        tokens.append(f"at most {limits.most_tokens} tokens")
    return ", ".join([heads, *tokens])


def _activations(product: Product) -> str:
    return product.activations.title if product.activations else "FP16, BF16 or FP32"


def _scales(product: Product) -> str:
    if product.scales is None:
        return "of the type of the floats around it"
    made = ", those of activations made while the model runs" if product.dynamic else ""
    return f"{product.scales.title} for each block, times one FP32 for the tensor{made}"


def _values(numbers: NumberFormat) -> str:
    if not isinstance(numbers, FloatFormat):
        return f"{numbers.low} to {numbers.high}"
    if numbers.bits <= 4:
        return "±" + ", ".join(f"{value:g}" for value in numbers.values)
    return f"±{numbers.largest:.6g}, {numbers.mantissa} bits behind the point"


# ---- Python


def api() -> Iterator[str]:
    yield "# Python\n"
    yield "What `import fimaq_deploy as fd` offers. Everything else may change from one version to the next"
    yield "([stability](../stability.md)).\n"
    for name in sorted(set(fimaq_deploy.__all__) - {"__version__"}, key=str.lower):
        yield from _public(name, _definition(name))


def _definition(name: str) -> ast.stmt:
    """Where a public name is made."""
    spec = find_spec(f"fimaq_deploy.{fimaq_deploy._HOMES[name]}")
    assert spec is not None and spec.origin is not None
    return next(node for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body if name in _names(node))


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _public(name: str, node: ast.stmt) -> Iterator[str]:
    yield f"## {name}\n"
    if isinstance(node, ast.FunctionDef):
        yield from _function(node)
    elif isinstance(node, ast.ClassDef):
        yield from _class(node)
    else:
        yield from _code(ast.unparse(node).split(" = ")[0])


def _class(node: ast.ClassDef) -> Iterator[str]:
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and not _names(one)[0].startswith("_")]
    yield from _code("\n".join([f"class {node.name}", *(f"    {ast.unparse(one)}" for one in fields)]))
    yield from _docstring(node)
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            yield f"### {node.name}.{method.name}\n"
            yield from _function(method)


def _function(node: ast.FunctionDef) -> Iterator[str]:
    decorators = [f"@{ast.unparse(one)}" for one in node.decorator_list]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    parameters = _parameters(node.args)
    line = f"{node.name}({', '.join(parameters)}){returns}"
    if len(line) > 100:
        line = "\n".join([f"{node.name}(", *(f"    {one}," for one in parameters), f"){returns}"])
    yield from _code("\n".join([*decorators, line]))
    yield from _docstring(node)


def _parameters(given: ast.arguments) -> list[str]:
    defaults = [*[None] * (len(given.args) - len(given.defaults)), *given.defaults]
    found = [_parameter(one, default) for one, default in zip(given.args, defaults, strict=True)]
    found += [f"*{ast.unparse(given.vararg)}"] if given.vararg else ["*"] if given.kwonlyargs else []
    found += [_parameter(one, default) for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return found + ([f"**{ast.unparse(given.kwarg)}"] if given.kwarg else [])


def _parameter(one: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(one) + (f" = {ast.unparse(default)}" if default else "")


def _code(code: str) -> Iterator[str]:
    yield f"```py\n{code}\n```\n"


def _docstring(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    for line in (ast.get_docstring(node) or "").splitlines():
        if re.fullmatch(r"(Raises|Returns|Yields):", line):
            yield f"**{line[:-1]}**\n"
        else:
            yield re.sub(r"^(?:    )?([a-z_0-9]+|[A-Z]\w*(?:Error|Exit|Warning)): ", r"- `\1`: ", line)
    yield ""


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "cli.md": cli,
    "recipe.md": recipe,
    "report.md": report,
    "targets.md": targets,
    "api.md": api,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
