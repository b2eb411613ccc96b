"""The layers of settings: TOML file, environment and flags, each value as the table's type.

The table itself is given: whatever struct it is, from a field follow its three spellings.
"""

import argparse
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from .addresses import SettingsError

ENVIRONMENT_PREFIX = "QUORATE_"
CONFIG_VARIABLE = "QUORATE_CONFIG"
HIDDEN = "(hidden)"

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple[str, ...]: "addresses like 127.0.0.1:7001",
}


class Layers:
    """Reads what is set, for a table of settings."""

    def __init__(self, table: type[msgspec.Struct]) -> None:
        self._fields = {info.name: info for info in msgspec.structs.fields(table)}

    def merged(self, argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
        """What is set in any layer; later ones win. Raises SettingsError."""
        flags = vars(self._parser().parse_args(list(argv)))
        config = flags.pop("config", None) or environ.get(CONFIG_VARIABLE)
        values = self.of_toml(Path(config)) if config else {}
        values |= self._of_environment(environ)
        return values | {k: self._convert(k, text, flag_of(k)) for k, text in flags.items()}

    def of_toml(self, path: Path) -> dict[str, Any]:
        """Raises SettingsError."""
        values = {}
        for key, value in _document(path).items():
            if key not in self._fields:
                known = list(self._fields)
                hint = _did_you_mean(key, known) or ": see config/dev.toml for all keys"
                raise SettingsError(f"{path}: unknown key {key!r}{hint}")
            try:
                values[key] = self._convert(key, value, "TOML")
            except SettingsError as error:
                raise SettingsError(f"{path}: {error}") from None
        return values

    def _of_environment(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Variables of the table; others may be a client's, unless one is nearly one of ours."""
        variables = {variable_of(key): key for key in self._fields}
        values = {}
        for variable, text in environ.items():
            if key := variables.get(variable):
                values[key] = self._convert(key, text, variable)
            elif variable.startswith(ENVIRONMENT_PREFIX) and variable != CONFIG_VARIABLE:
                hint = _did_you_mean(variable, list(variables), cutoff=0.88)
                if hint:
                    raise SettingsError(f"unknown variable {variable}{hint}")
        return values

    def _convert(self, key: str, value: object, source: str) -> object:
        """One value of one layer to the type in the table; texts from flags and variables too."""
        info = self._fields[key]
        base = _base(info.type)
        from_text = isinstance(value, str) and source != "TOML"
        if base == tuple[str, ...] and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif base is Path and isinstance(value, str) and value:
            return Path(value).expanduser()
        elif isinstance(value, str) and key == "log_level":
            value = value.lower()
        try:
            return msgspec.convert(value, info.type, strict=not from_text or base == str | None)
        except msgspec.ValidationError:
            shown = HIDDEN if is_secret(info) else repr(value)
            origin = f"{key} = {shown}" if source == "TOML" else f"{key} = {shown} ({source})"
            default = info.default
            example = f", for example {default}" if isinstance(default, int | float | Path) else ""
            raise SettingsError(
                f"{origin} is refused: write {_expected(info.type)}{example}"
            ) from None

    def _parser(self) -> argparse.ArgumentParser:
        parser = _Parser(
            prog="node.py",
            description="Runs one node. Every flag has an environment variable (QUORATE_HTTP for"
            " --http) and a TOML key (http); flags win over variables, variables over the file.",
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        parser.known = [flag_of(key) for key in self._fields]
        parser.add_argument("--config", metavar="FILE", help="TOML file with any of these settings")
        for key, info in self._fields.items():
            base, *metas = _base(info.type), *get_args(info.type)[1:]
            text = next(meta.description for meta in metas if getattr(meta, "description", None))
            if info.default not in ("", (), None) and base is not bool:
                text += f" ({info.default})"
            flag = flag_of(key)
            if base is bool:
                parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
            else:
                parser.add_argument(flag, metavar=_metavar(base), help=text.replace("%", "%%"))
        return parser


class _Parser(argparse.ArgumentParser):
    """Speaks through SettingsError, so that one place prints and one place exits."""

    known: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        for word in message.split():
            if word.startswith("--") and "unrecognized" in message:
                flag = word.partition("=")[0]
                hint = _did_you_mean(flag, self.known)
                raise SettingsError(f"unknown flag {flag}{hint or ': see --help'}")
        raise SettingsError(f"{message}: see --help")


def flag_of(key: str) -> str:
    return "--" + key.replace("_", "-")


def variable_of(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper()


def is_secret(info: FieldInfo) -> bool:
    """Whether the table says that nobody may see the value."""
    metas = get_args(info.type)[1:]
    return any(isinstance(meta, Meta) and (meta.extra or {}).get("secret") for meta in metas)


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"config = {str(path)!r} cannot be read ({error.strerror}): check the path"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config = {str(path)!r} is not valid TOML: {error}") from None


def _base(annotation: Any) -> Any:
    """The type of a field; an optional path is read like any path."""
    base = get_args(annotation)[0]
    return Path if base == Path | None else base


def _did_you_mean(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return f": did you mean {close[0]}?" if close else ""


def _expected(annotation: Any) -> str:
    """The type of a field in words, from the table."""
    args = get_args(annotation)
    base, metas = _base(annotation), [meta for meta in args[1:] if isinstance(meta, Meta)]
    if choices := [choice for choice in get_args(base) if isinstance(choice, str)]:
        return "one of " + ", ".join(choices)
    if get_args(base) and isinstance(get_args(base)[0], Meta):
        metas += get_args(base)
    low = next((meta.ge for meta in metas if meta.ge is not None), None)
    high = next((meta.le for meta in metas if meta.le is not None), None)
    words = _WORDS.get(base, "text")
    if low is not None:
        words += f" from {low}" + (f" to {high:.10g}" if high is not None else " up")
    return words


def _metavar(base: Any) -> str:
    """What stands behind a flag in the help."""
    return {int: "N", float: "SECONDS", Path: "PATH"}.get(base, "TEXT")
