"""Public holidays as explicit dates, from the optional package `holidays`.

Asked once, when a calendar is imported: what is replicated are the dates, so that no node's release
of that package decides when something fires. It takes a while to load: call it off the loop.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from cluster.api.calendar_models import EPOCH_ORDINAL, ImportRequest, Named
from cluster.api.errors import ProblemError


def holidays_of(request: ImportRequest) -> Named:
    """Days since 1970 and their labels. Raises ProblemError that names the field."""
    library = _library()
    years = sorted(set(request.years))
    if request.exchange is not None:
        if request.country is not None or request.subdivision is not None:
            raise _invalid("/exchange", "give either an exchange or a country")
        found = _of_exchange(library, request.exchange, years)
    elif request.country is not None:
        found = _of_country(library, request.country, request.subdivision, years)
    else:
        raise _invalid("/country", "give a country (DE) or an exchange (XNYS)")
    named = {day.toordinal() - EPOCH_ORDINAL: label for day, label in found.items()}
    if not named:
        raise _invalid("/years", "no holidays are known for these years")
    return named


def release() -> str:
    """The version of the package, for the record of where dates came from."""
    return str(_library().__version__)


def _library() -> Any:
    try:
        import holidays
    except ImportError:
        raise ProblemError(
            "import_unavailable",
            "the leader lacks the package holidays: install quorate[calendars] on every node, or "
            "create the calendar from dates",
        ) from None
    return holidays


def _of_country(library: Any, country: str, subdivision: str | None, years: list[int]) -> Any:
    known = library.list_supported_countries()
    if country not in known:
        raise _invalid("/country", _unknown("country", country, known, "an ISO code like DE"))
    parts = known[country]
    if subdivision is not None and subdivision not in parts:
        example = f"{country} has {', '.join(sorted(parts)[:8])}" if parts else "it has none"
        raise _invalid("/subdivision", _unknown("subdivision", subdivision, parts, example))
    return library.country_holidays(country, subdiv=subdivision, years=years)


def _of_exchange(library: Any, exchange: str, years: list[int]) -> Any:
    known = library.list_supported_financial()
    if exchange not in known:
        raise _invalid("/exchange", _unknown("exchange", exchange, known, "a code like XNYS"))
    return library.financial_holidays(exchange, years=years)


def _unknown(what: str, given: str, known: Iterable[str], example: str) -> str:
    close = difflib.get_close_matches(given.upper(), list(known), n=1)
    hint = f"did you mean {close[0]}?" if close else f"write {example}"
    return f"{given!r} is no known {what}: {hint}"


def _invalid(pointer: str, text: str) -> ProblemError:
    return ProblemError("validation", text, pointer=pointer)
