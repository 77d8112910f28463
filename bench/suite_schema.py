"""A JSON schema of suites, so that editors complete and check them: with every registered name and its arguments."""

from collections.abc import Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from bench.contracts import REGISTRIES, Adapter, Attack, Certificate, Dataset, Plugin
from bench.errors import PluginError
from bench.suite_base import Part
from bench.suite_parts import KINDS, CrafterSpec, Suite
from bench.suite_yaml import FRACTION

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12). It knows the plugins that are registered when it is called.

    Raises PluginError for a plugin whose fields have no schema.
    """
    schema = Suite.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    parts: list[tuple[str, type[Part]]] = [*KINDS.items(), ("attack", CrafterSpec)]
    for kind, part in parts:
        spec = definitions[part.__name__]
        names = REGISTRIES[f"{kind}s"].names()
        spec["properties"][kind] = {"enum": names, "description": spec["properties"][kind].get("description", "")}
        if rules := [_rule(kind, name, definitions) for name in names]:
            spec["allOf"] = rules
    model = definitions["ModelSpec"]
    model["oneOf"] = [{"required": [origin]} for origin in ("adapter", "recipe", "registered")]
    model["properties"]["recipe"] = _recipe(model)
    by_name = {"enum": REGISTRIES["probes"].names()}
    probes = definitions["Evaluations"]["properties"]["probes"]
    probes["items"] = {"anyOf": [by_name, probes["items"]]}
    _allow_fractions(schema)
    return {"$schema": DIALECT, "title": "Gauntlet suite"} | schema


def _recipe(model: Mapping[str, Any]) -> dict[str, Any]:
    """`recipe:` as a rule for each adapter that trains: its arguments, beside the family's name."""
    adapters = REGISTRIES["adapters"]
    rules = []
    for rule in model["allOf"]:
        name = rule["if"]["properties"]["adapter"]["const"]
        if adapters.get(name).training is not Adapter.training:
            args = rule["then"]["properties"]["args"]
            closed = {**args, "properties": {**args["properties"], "family": {}}}
            rules.append({"if": {"properties": {"family": {"const": name}}, "required": ["family"]}, "then": closed})
    families = [rule["if"]["properties"]["family"]["const"] for rule in rules]
    description = model["properties"]["recipe"].get("description", "")
    named = {"family": {"enum": families}}
    made = {"type": "object", "description": description, "properties": named, "required": ["family"]}
    return {**made, "allOf": rules} if rules else made


def arguments_schema(kind: str, name: str) -> dict[str, Any]:
    """The schema of one plugin's `args:`, by itself. kind: `adapter`, `attack`, ... Raises PluginError as above."""
    schema = _arguments(kind, name, "#/$defs/{model}")
    _allow_fractions(schema)
    return {"$schema": DIALECT} | schema


def _arguments(kind: str, name: str, template: str) -> dict[str, Any]:
    """What its fields may be, without those that stand beside `args:`. template: of references to `$defs`."""
    cls: type[Plugin] = REGISTRIES[f"{kind}s"].get(name)
    try:
        args = cls.model_json_schema(ref_template=template)
    except PydanticInvalidForJsonSchema as error:
        message = f"{kind} '{name}': a field has a type that YAML cannot hold: {error.message}"
        raise PluginError(message, "give the field a type of JSON values") from error
    own = "norm" if issubclass(cls, Attack | Certificate) else "split" if issubclass(cls, Dataset) else ""
    args.get("properties", {}).pop(own, None)
    required = [key for key in args.pop("required", []) if key != own]
    return args | {"required": required, "description": cls.summary()}


def _rule(kind: str, name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """If the plugin is this one, then its arguments are those of its class."""
    cls: type[Plugin] = REGISTRIES[f"{kind}s"].get(name)
    prefix = f"{kind}__{name}__"
    args = _arguments(kind, name, f"#/$defs/{prefix}{{model}}")
    for inner, definition in args.pop("$defs", {}).items():
        definitions[f"{prefix}{inner}"] = definition
    beside: dict[str, Any] = {}
    if issubclass(cls, Attack | Certificate):
        beside = {"norm": {"enum": [str(norm) for norm in cls.norms]}}
    elif issubclass(cls, Dataset) and cls.splits:
        beside = {"split": {"enum": list(cls.splits)}}
    needed = (["args"] if args["required"] else []) + (
        ["epsilons"] if issubclass(cls, Attack | Certificate) and not getattr(cls, "minimal", False) else []
    )
    then: dict[str, Any] = {"properties": {"args": args} | beside, "required": needed}
    return {"if": {"properties": {kind: {"const": name}}, "required": [kind]}, "then": then}


def _allow_fractions(node: Any) -> None:
    """`8/255` is text to an editor's YAML: wherever a number may stand, let that text stand too."""
    if isinstance(node, Mapping):
        if node.get("type") == "number" and isinstance(node, dict):
            node |= {"type": ["number", "string"], "pattern": f"^{FRACTION.pattern}$"}
        for child in node.values():
            _allow_fractions(child)
    elif isinstance(node, list):
        for child in node:
            _allow_fractions(child)
