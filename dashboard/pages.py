"""The pages as HTML. Every value is escaped by Jinja and made printable by `wording.printable`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dashboard import curves, views, wording
from dashboard.model import Checked, Security, Snapshot
from dashboard.views import Choice
from mesh.version import VERSION
from telemetry import figures

FOLDER: Final = Path(__file__).parent
STATIC: Final = FOLDER / "static"
# Nothing inline, nothing from elsewhere, in nobody's frame.
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
NAVIGATION: Final = (
    ("overview", "/", "Overview"),
    ("topology", "/topology", "Topology"),
    ("workloads", "/workloads", "Workloads"),
    ("tap", "/tap", "Tap"),
    ("certificates", "/certificates", "Certificates"),
    ("findings", "/findings", "Findings"),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What is around every page. `fronted`: `autotls dashboard` is in between, so that tap and findings work."""

    now: datetime
    fronted: bool = False


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=wording.printable,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = {
        "share": figures.percent,
        "rate": wording.rate,
        "us": figures.duration,
        "left": wording.left,
        "moment": wording.moment,
        "clock": wording.clock,
        "short": wording.shortened,
        "path": _path,
        "sparkline": _sparkline,
        "area": _area,
        "security": Security.of,
    }
    constants: dict[str, Any] = {"navigation": NAVIGATION, "version": VERSION, "spark": (curves.WIDTH, curves.HEIGHT)}
    cast(dict[str, Any], environment.filters).update(filters)
    cast(dict[str, Any], environment.globals).update(constants)
    return environment


# Numbers of our own making need neither escaping nor cutting.
def _sparkline(values: Sequence[float], top: float | None = None) -> Markup:
    return Markup(curves.sparkline(values, top=top))  # noqa: S704


def _area(points: str) -> Markup:
    return Markup(curves.area(points))  # noqa: S704


def _path(text: str) -> str:
    return quote(text, safe="/")


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def overview(snapshot: Snapshot, frame: Frame) -> str:
    return _render(
        "overview.html", page="overview", snapshot=snapshot, frame=frame, plaintext=views.plaintext_edges(snapshot)
    )


def topology(snapshot: Snapshot, frame: Frame, choice: Choice) -> str:
    return _render(
        "topology.html",
        page="topology",
        snapshot=snapshot,
        frame=frame,
        choice=choice,
        picture=views.picture(snapshot, choice),
    )


def workloads(snapshot: Snapshot, frame: Frame, choice: Choice) -> str:
    return _render(
        "workloads.html",
        page="workloads",
        snapshot=snapshot,
        frame=frame,
        choice=choice,
        rows=views.chosen(snapshot, choice),
    )


def workload(snapshot: Snapshot, frame: Frame, key: str) -> str | None:
    """The page of one workload; None when there is none of that key."""
    detail = views.detail(snapshot, key)
    if detail is None:
        return None
    return _render("workload.html", page="workloads", snapshot=snapshot, frame=frame, detail=detail)


def certificates(snapshot: Snapshot, frame: Frame) -> str:
    return _render("certificates.html", page="certificates", snapshot=snapshot, frame=frame)


def tap(snapshot: Snapshot, frame: Frame, query: dict[str, str]) -> str:
    return _render("tap.html", page="tap", snapshot=snapshot, frame=frame, query=query)


def findings(snapshot: Snapshot, frame: Frame) -> str:
    """The page around the findings; the front fills it."""
    return _render("findings.html", page="findings", snapshot=snapshot, frame=frame)


def checked(outcomes: Iterable[Checked], now: datetime) -> str:
    """The findings themselves, without a page around them."""
    listed = tuple(outcomes)
    verdicts = Counter(each.verdict for each in listed)
    counts = {verdict: verdicts[verdict] for verdict in ("fail", "warn", "ok", "skip")}
    return _render("checked.html", sections=views.by_section(listed), counts=counts, now=now)


def problem(title: str, message: str, hint: str, now: datetime) -> str:
    """A page that says what is wrong and looks again by itself."""
    return _render("problem.html", page="", title=title, message=message, hint=hint, frame=Frame(now), snapshot=None)
