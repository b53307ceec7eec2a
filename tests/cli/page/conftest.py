"""Pages in a real browser: headless Chromium, driven by its own driver; skipped where either is absent."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
)
PATIENCE = 20.0  # seconds that a busy machine may take


@dataclass
class Browser:
    """A window with one page."""

    driver: Any

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(page.resolve().as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: object) -> Any:
        """What the script gives, as soon as it is true."""
        begun = time.monotonic()
        while not (found := self.run(script, *arguments)):
            if time.monotonic() - begun > PATIENCE:
                raise AssertionError(f"never true: {script}; console: {self.complaints()}")
            time.sleep(0.05)
        return found

    def show(self, plot: str) -> None:
        """Scrolls there, and waits until the plot stands."""
        self.run("document.getElementById(arguments[0]).scrollIntoView({block: 'start'})", plot)
        self.wait("return document.getElementById(arguments[0]).dataset.ready", plot)

    def set(self, plot: str, control: str, value: object) -> None:
        """Moves a control as a reader would."""
        self.run(
            "const it = document.querySelector(`#${arguments[0]} [data-control='${arguments[1]}']`);"
            "it.value = arguments[2]; it.dispatchEvent(new Event('input')); it.dispatchEvent(new Event('change'));",
            plot,
            control,
            str(value),
        )

    def state(self, plot: str) -> str:
        return str(self.run("return document.querySelector(`#${arguments[0]} output`).textContent", plot))

    def column(self, plot: str, source: str, name: str) -> list[Any]:
        """A column of one of the plot's sources, as it stands now."""
        return list(
            self.run(
                "const views = [...Bokeh.index].filter(v => document.getElementById(arguments[0])"
                ".contains(v.el.parentElement));"
                "return [...views[0].model.document.get_model_by_name(arguments[1]).data[arguments[2]]]",
                plot,
                source,
                name,
            )
        )

    def point(self, plot: str, x: float, y: float) -> tuple[float, float]:
        """Where in the window a place of the plot's first figure is."""
        at = self.run(
            "const figure = document.getElementById(arguments[0]);"
            "const view = [...Bokeh.index].find(v => figure.contains(v.el.parentElement));"
            "const box = view.el.getBoundingClientRect(), f = view.frame;"
            "return [box.x + f.x_scale.compute(arguments[1]), box.y + f.y_scale.compute(arguments[2])]",
            plot,
            x,
            y,
        )
        return float(at[0]), float(at[1])

    def mouse(self, x: float, y: float, *, click: bool = False) -> None:
        def send(kind: str, **more: object) -> None:
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

        send("mouseMoved")
        if click:
            send("mousePressed", button="left", clickCount=1)
            send("mouseReleased", button="left", clickCount=1)

    def tooltip(self) -> str:
        """The text of the tool tip that is shown, wherever in shadow trees it stands."""
        return str(
            self.run(
                "const found = []; const look = (root) => root.querySelectorAll('*').forEach((e) => {"
                "if (e.matches('.bk-Tooltip') && getComputedStyle(e).display !== 'none')"
                " found.push((e.shadowRoot ?? e).textContent); if (e.shadowRoot) look(e.shadowRoot); });"
                "look(document); return found.join(' ')"
            )
        )

    def complaints(self) -> list[str]:
        """Warnings and errors of the console, and whatever was asked of a network, since the last time."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]
        sent = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
        return said + [url for url in asked if not url.startswith(("file:", "data:"))]


@pytest.fixture(scope="session")
def _window() -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no chromium with its driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture
def browser(_window: Browser) -> Browser:
    _window.complaints()
    return _window
