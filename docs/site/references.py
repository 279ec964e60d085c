"""The pages of the site that are made from the code: settings, commands, the Python and HTTP interfaces, the glossary.

Each function returns one page in Markdown, and reads what it tells from where the product itself reads it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from html import escape
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import esci_tournament
from esci_tournament.deployments.cli import EPILOG, build_parser
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import DECISIVE
from esci_tournament.tasks.report import glossary

# Options whose names are not those of the settings that they set
OTHER_NAMES = {("serve", "port"): "scorer_port"}
# What a plug-in derives from, is called with or returns: docs/extending.md
PLUG_INS = {
    "Families of candidates": ("esci_tournament.tasks.families.protocol", ("Candidate", "FitData")),
    "Relations": ("esci_tournament.tasks.data.relations", ("RelationType",)),
}

_ABOUT_SETTINGS = """\
Every setting can be set in two places, and some by an option of a command as well. What is found first counts:

1. the option, where one is named below; in Python, the keyword argument `et.run(..., seed=1)`
2. the variable `TOURNAMENT_<NAME>`, such as `TOURNAMENT_SEED=1`; lists and tables are JSON:
   `TOURNAMENT_REVIEWERS='["ana", "ben"]'`
3. `tournament.toml` in the current folder: `seed = 1`, `reviewers = ["ana", "ben"]`
4. for `mlflow_uri`, the variable `MLFLOW_TRACKING_URI`
5. the default

`tournament doctor --all` shows what is in force. Where a setting is part of the [policy](../review.md#the-policy) of a
home, it may ask for more than the policy does, never for less.

**Changes results** names the stages whose stored results depend on the setting: with another value they are computed
again, and a tournament is another one. All other settings change no result: they say where things are, how fast they
go, or who is asked.
"""


def settings_page() -> str:
    """Return the reference of all settings, in the groups of the class that holds them."""
    options, stages = options_of_settings(), stages_of_settings()
    lines = ["# Settings", "", *_ABOUT_SETTINGS.splitlines()]
    for group, names in setting_groups():
        lines += ["", f"## {group}", ""]
        for name in names:
            field = Settings.model_fields[name]
            facts = [f"*{type_in_words(field)}*"]
            facts += [f"default: {_default(field.default)}"] if field.default not in (None, (), {}) else []
            facts += [f"option: {', '.join(options[name])}"] if name in options else []
            facts += [f"changes results: {', '.join(stages[name])}"] if stages[name] else []
            lines += [f"#### `{name}` {{ #{name} }}", "", f"{_sentence(field.description or '')}.", ""]
            lines += ["<small>" + " · ".join(facts) + "</small>", ""]
    return "\n".join(lines) + "\n"


def setting_groups() -> list[tuple[str, list[str]]]:
    """Return the headings that stand as comments in the class of settings, each with the settings below it."""
    groups: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(Settings).splitlines():
        if heading := re.match(r"    # (.+)", line):
            groups.append((heading[1].partition(";")[0], []))
        elif (field := re.match(r"    (\w+): ", line)) and field[1] in Settings.model_fields:
            groups[-1][1].append(field[1])
    return groups


def options_of_settings() -> dict[str, list[str]]:
    """Return setting -> the options that set it, such as "`run --seed`"; those with a default of their own do not."""
    found: dict[str, list[str]] = {}
    for words, parser in commands():
        for action in parser._actions:
            name = OTHER_NAMES.get((words[0] if words else "", action.dest), action.dest)
            own = action.default not in (None, argparse.SUPPRESS)
            if name in Settings.model_fields and action.option_strings and not own and not action.required:
                found.setdefault(name, []).append(f"`{' '.join([*words, action.option_strings[-1]])}`")
    found["home"] = ["`--home` of every command"]
    return found


def stages_of_settings() -> dict[str, list[str]]:
    """Return setting -> the stages whose stored results are under it."""
    from esci_tournament.tasks.data import split
    from esci_tournament.tasks.data.bounds import Bounds
    from esci_tournament.tasks.data.logs import LogLimits
    from esci_tournament.tasks.ensemble import challenge, equipment, trial

    stages = {
        "load": _read_by(LogLimits.of),
        "validate": _read_by(Bounds.of),
        "split": split.SETTINGS,
        "build": challenge.SETTINGS,
        "judge": trial.SETTINGS,
        "make ready": equipment.SETTINGS,
        "tournament": DECISIVE,
    }
    return {name: [stage for stage in stages if name in stages[stage]] for name in Settings.model_fields}


def _read_by(function: Any) -> set[str]:
    """Return the settings that a function reads."""
    reader = _Reader()
    function(reader)
    return reader.names


class _Reader:
    """Settings with their defaults, which note what is read of them."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return Settings.model_fields[name].get_default(call_default_factory=True)


def type_in_words(field: Any) -> str:
    """Return the type of a setting with its bounds, as people say it."""
    words = _words(field.annotation)
    bounds = [
        f"{sign} {value:,}" if isinstance(value, int) and value >= 10_000 else f"{sign} {value}"
        for constraint in field.metadata
        for name, sign in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if (value := getattr(constraint, name, None)) is not None
    ]
    return ", ".join([words, *bounds])


def _words(annotation: Any) -> str:
    origin, of = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(of[0])
    if origin is Literal:
        return ", ".join(f'"{one}"' for one in of)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(one) for one in of if one is not type(None))
    if origin is tuple:
        return "list of names" if _words(of[0]) == "text" else f"list: {_words(of[0])}"
    if origin is dict:
        return f"table of name = {_words(of[1])}"
    names = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "Path": "path"}
    return names.get(
        annotation.__name__, {"SecretStr": "secret text", "datetime": "moment"}.get(annotation.__name__, "")
    )


def _default(value: Any) -> str:
    if isinstance(value, bool | list | tuple):
        return f"`{json.dumps(value)}`"
    return f"`{value:_}`" if isinstance(value, int) and value >= 10_000 else f"`{value}`"


def commands(parser: argparse.ArgumentParser | None = None, words: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield (words, parser) of the program and of each command and its parts, in the order of the help."""
    parser = parser or build_parser()
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                yield from commands(part, (*words, name))


def commands_page() -> str:
    """Return the reference of the command line: what each command is for, its arguments, its examples."""
    lines = ["# Commands", "", "Every command has `--help`; `--json` writes one document on standard output."]
    lines += ["", *_table_of_commands(), "", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in exit_codes()]
    for words, parser in commands():
        if not words:
            continue
        lines += ["", f"{'#' * (len(words) + 1)} tournament {' '.join(words)}", ""]
        lines += [*_prose(parser.description or _help_of(words)), "", "```text", _usage(parser), "```"]
        shown = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
        own = [action for action in shown if action.dest not in ("help", "json", "debug")]
        if own:
            lines += ["", "| argument | meaning |", "|---|---|"]
            lines += [f"| {_argument(action)} | {_cell(_meaning(action))} |" for action in own]
        lines += ["", *_prose(parser.epilog or "")]
    return "\n".join(lines) + "\n"


def exit_codes() -> list[tuple[str, str]]:
    """Return the exit codes and their meanings, as the program's own help lists them."""
    text = EPILOG.partition("exit codes:\n")[2].partition("\n\n")[0]
    found = []
    for line in text.splitlines():
        cells = re.split(r" {2,}(?=\d)", line.strip())
        for cell in cells:
            code, meaning = re.match(r"((?:\d+(?:, )?)+) (.*)", cell).groups()  # type: ignore[union-attr]
            found.append((code, meaning.strip()))
    return sorted(found, key=lambda pair: int(pair[0].split(",")[0]))


def _table_of_commands() -> list[str]:
    rows = ["| command | what it does |", "|---|---|"]
    for words, _ in commands():
        if len(words) == 1:
            rows.append(f"| [`tournament {words[0]}`](#tournament-{words[0]}) | {_cell(_help_of(words))} |")
    return rows


def _help_of(words: tuple[str, ...]) -> str:
    above = next(parser for one, parser in commands() if one == words[:-1])
    (action,) = (one for one in above._actions if isinstance(one, argparse._SubParsersAction))
    texts = {one.dest: one.help or "" for one in action._choices_actions}
    return _sentence(texts.get(words[-1], ""))


def _usage(parser: argparse.ArgumentParser) -> str:
    usage = parser.format_usage().removeprefix("usage: ")
    for common in ("[-h] ", "[--json] ", "[--debug] ", " [--json]", " [--debug]"):
        usage = usage.replace(common, "")
    usage = re.sub(r"\s+", " ", usage).strip()
    parts = re.findall(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\](?:\.\.\.)?|--\S+ [A-Z]\S*|\S+", usage)
    kept = " ".join(part.replace(" ", "\0") for part in parts)  # what belongs together stays on one line
    return "\n    ".join(textwrap.wrap(kept, 76, break_on_hyphens=False, break_long_words=False)).replace("\0", " ")


def _argument(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else None
    if not action.option_strings:
        return f"<code>{escape(value or action.dest.upper())}</code>"
    if action.choices and not value:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    takes = "" if action.nargs == 0 else f" {value or action.dest.upper()}"
    return f"<code>{escape(', '.join(action.option_strings) + takes).replace('|', '&#124;')}</code>"


def _meaning(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return text + (" (required)" if action.required and action.option_strings else "")


def _prose(text: str) -> list[str]:
    """Return the paragraphs of a help as Markdown: lines that are set in are code."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        told = [line for line in block.splitlines() if not line.startswith("  ")]
        code = [line[2:] for line in block.splitlines() if line.startswith("  ")]
        lines += [
            _sentence(_code_words(line)) if line in ("example:", "examples:") else _code_words(line) for line in told
        ]
        lines.append("")
        if code:
            lines += ["```sh", *(re.sub(r"( {2,})(?=[a-z])", r"\1# ", line) for line in code), "```", ""]
    return lines


def _code_words(line: str) -> str:
    return re.sub(r"(?<![`\w-])(--[a-z][\w-]*)(?!`)", r"`\1`", line.replace("<", "&lt;").replace("[[", r"\[["))


def python_page() -> str:
    """Return the reference of the package's public names, made from their docstrings."""
    heads = {
        "deployments.api": "Tournaments, candidates, the champion",
        "deployments.champion": "The champion as a model",
    }
    heads |= {"registry.specs": "Specs", "registry.versions": "Versions of candidates"}
    heads |= {"tasks.report.summary": "Summary of a result", "registry.errors": "Errors"}
    modules: dict[str, list[str]] = {}
    for name in esci_tournament.__all__:
        if name in esci_tournament._MODULE_OF:
            modules.setdefault(esci_tournament._MODULE_OF[name].removeprefix("esci_tournament."), []).append(name)
    lines = ["# Python API", ""]
    lines += [
        "These are the names of `import esci_tournament as et`: what is public, and changes only with a line in the"
    ]
    lines += [
        "changelog. [From Python](../python.md) shows how they are used. `et.__version__` is the installed version."
    ]
    order = [*heads, *(module for module in modules if module not in heads)]
    for module in (one for one in order if one in modules):
        lines += ["", f"## {heads.get(module, module)}", ""]
        for name in modules[module]:
            lines += [f"::: esci_tournament.{module}.{name}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines) + "\n"


def plug_ins_page() -> str:
    """Return the reference of what plug-ins of other distributions derive from and are called with."""
    lines = ["# Interfaces of plug-ins", ""]
    lines += ["What a plug-in derives from, is given and returns. [Plug-ins](../extending.md) has an example of each."]
    lines += ["A spec derives from [NamedSpec](python-api.md#esci_tournament.registry.specs.NamedSpec)."]
    for heading, (module, names) in PLUG_INS.items():
        lines += ["", f"## {heading}", ""]
        for name in names:
            lines += [f"::: {module}.{name}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines) + "\n"


def http_page() -> str:
    """Return the reference of the scorer's HTTP interface, made from its own OpenAPI document."""
    from esci_tournament.deployments.scorer.app import make_app

    document = make_app(*[cast(Any, None)] * 3).openapi()  # nothing is asked of the routes
    schemas = document["components"]["schemas"]
    lines = ["# HTTP API of the scorer", ""]
    lines += [
        f"{document['info']['summary']} [Serving](../serving.md) explains how it behaves under load and without keys."
    ]
    lines += ["A running scorer has this description under `/docs`, and for tools under `/openapi.json`."]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += ["", f"## {method.upper()} {path}", "", operation.get("description", operation.get("summary", ""))]
            if operation.get("security"):
                lines += ["", "Needs an API key where one was made: `Authorization: Bearer KEY` or `X-API-Key: KEY`."]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if body:
                lines += ["", f"The body is a {_schema_link(body['schema'])}."]
            for example in body.get("examples", {}).values():
                lines += ["", f"{_sentence(example['summary'])}:", "", *_json(example["value"])]
            answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("example")
            if answer:
                lines += ["", "An answer:", "", *_json(answer)]
            lines += ["", "| status | meaning |", "|---|---|"]
            lines += [f"| {status} | {_cell(one['description'])} |" for status, one in operation["responses"].items()]
    for name, schema in sorted(schemas.items()):
        lines += ["", f"## {name}", "", _one_line(schema.get("description", "")), ""]
        if schema.get("properties"):
            lines += ["| field | type | meaning |", "|---|---|---|"]
            for field, of in schema["properties"].items():
                needed = " (required)" if field in schema.get("required", ()) else ""
                lines.append(
                    f"| `{field}` | {_json_type(of)}{needed} | {_cell(_one_line(of.get('description', '')))} |"
                )
        elif "enum" in schema:
            lines.append("One of " + ", ".join(f"`{one}`" for one in schema["enum"]) + ".")
    return "\n".join(lines) + "\n"


def _json_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _schema_link(schema)
    if several := schema.get("anyOf") or schema.get("allOf"):
        return " or ".join(_json_type(one) for one in several)
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    bounds = [
        f"{sign} {schema[key]:,}"
        for key, sign in (
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("maxLength", "at most"),
            ("maxItems", "at most"),
        )
        if key in schema
    ]
    kind = schema.get("type", "anything")
    if kind == "array":
        kind = f"list of {_json_type(schema.get('items', {}))}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_json_type(schema['additionalProperties'])}"
    return ", ".join([kind, *bounds])


def _schema_link(schema: dict[str, Any]) -> str:
    name = schema["$ref"].rsplit("/", 1)[-1]
    return f"[{name}](#{name.lower()})"


def _json(value: Any) -> list[str]:
    return ["```json", *json.dumps(value, indent=2, ensure_ascii=False).splitlines(), "```"]


def glossary_page() -> str:
    """Return the glossary: the words of the product, and the terms that a report explains."""
    lines = ["# Glossary", ""]
    lines += [
        "The terms of the product and of its reports; a report explains those that it uses when you point at them.",
        "",
    ]
    for term, text in sorted({**glossary.WORDS, **glossary.TERMS}.items(), key=lambda item: item[0].casefold()):
        anchor = re.sub(r"\W+", "-", term.casefold()).strip("-")
        lines += [f'<span id="{anchor}">**{term}**</span>', f":   {_code_words(text)}", ""]
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text.replace("\n", " "))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


PAGES = {
    "reference/commands.md": commands_page,
    "reference/settings.md": settings_page,
    "reference/python-api.md": python_page,
    "reference/plug-ins.md": plug_ins_page,
    "reference/http.md": http_page,
    "reference/glossary.md": glossary_page,
}
