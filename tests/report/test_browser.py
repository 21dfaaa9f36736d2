"""report.html in a real browser: what people click on does what it says.

Needs Chromium and its driver (Debian: chromium, chromium-driver) and selenium; skips where they are
absent. WebGL runs in software.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reconstruct.__main__ import main
from reconstruct.datasets.synthetic import SyntheticDataset

webdriver = pytest.importorskip("selenium.webdriver")
HOSTILE = "<img src=x onerror=alert(1)>.jpg"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1200,900"),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def page(square: SyntheticDataset, chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run over photos one of which has a hostile name."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "photos").mkdir()
    for i, name in enumerate(square.names[:5]):
        shutil.copy(square.images / name, folder / "photos" / (HOSTILE if i == 0 else name))
    arguments = ["--images", str(folder / "photos"), "--output", str(folder / "out"), "-q"]
    assert main(["run", str(chain), *arguments]) == 0
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with the report open; it logs requests and its console."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    opened.get(page.as_uri())
    yield opened
    opened.quit()


@pytest.fixture
def canvas(browser: Any) -> Iterator[Callable[[], np.ndarray[Any, Any]]]:
    """Pixels of the 3D view as they are on the screen."""

    def shot() -> np.ndarray[Any, Any]:
        import io

        browser.execute_script("return new Promise(r => setTimeout(r, 200))")
        data = browser.find_element("id", "canvas").screenshot_as_png
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    browser.execute_script("document.getElementById('viewer').scrollIntoView({block: 'center'})")
    yield shot
    browser.find_element("id", "reset").click()


def drag(browser: Any, dx: int, dy: int) -> None:
    element = browser.find_element("id", "canvas")
    actions = webdriver.ActionChains(browser, duration=20)
    actions.move_to_element(element).click_and_hold().move_by_offset(dx, dy).release().perform()


def test_nothing_leaves_the_page_and_the_console_is_silent(browser: Any) -> None:
    import json

    log = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [
        m["params"]["request"]["url"] for m in log if m["method"] == "Network.requestWillBeSent"
    ]
    away = [url for url in sent if not url.startswith(("file:", "data:", "chrome:", "about:"))]
    assert away == []
    assert browser.get_log("browser") == []
    allowed = browser.execute_script(
        "return fetch('https://example.org').then(() => true, () => false)"
    )
    assert allowed is False, "the page's policy forbids requests"
    browser.get_log("browser")  # the refusal itself


def test_hostile_names_stay_text(browser: Any) -> None:
    cells = browser.find_elements("css selector", "#photo-table td.file")
    assert HOSTILE in [cell.text.splitlines()[0] for cell in cells]
    assert not browser.find_elements("css selector", 'img[src="x"]')


def test_the_viewer_draws_and_turns(
    browser: Any, canvas: Callable[[], np.ndarray[Any, Any]]
) -> None:
    before = canvas()
    drawn = np.abs(before - before[3, 3]).sum(axis=2) > 40
    assert drawn.mean() > 0.002, "points and cameras are drawn"
    drag(browser, 150, 40)
    after = canvas()
    changed = (np.abs(after - before).sum(axis=2) > 40).sum()
    assert changed > 0.5 * drawn.sum(), "turning moves what is drawn"
    drag(browser, 0, 0)
    assert (canvas() == after).all(), "a click on nothing leaves the view as it is"


def test_a_click_on_a_camera_shows_its_photo(browser: Any, canvas: Any) -> None:
    places = browser.execute_script("return window.reportViewer.cameras()")
    element = browser.find_element("id", "canvas")
    x, y = places[1]
    size = element.size
    actions = webdriver.ActionChains(browser, duration=20)
    offset = round(x - size["width"] / 2), round(y - size["height"] / 2)
    actions.move_to_element_with_offset(element, *offset).click().perform()
    name = browser.find_element("id", "card-name").text
    row = browser.find_element("css selector", "tr.marked")
    shown = browser.find_element("id", "card-photo").get_attribute("src")
    assert name
    assert name == row.find_element("css selector", "td.file").text
    assert shown == row.find_element("tag name", "img").get_attribute("src")
    assert "observations" in browser.find_element("id", "card-figures").text


def test_a_click_on_a_row_marks_the_photo_in_the_model(browser: Any, canvas: Any) -> None:
    browser.execute_script("document.getElementById('card-close').click()")
    before = canvas()
    browser.execute_script("document.querySelectorAll('#photo-table tbody tr')[2].click()")
    name = browser.execute_script(
        "return document.querySelector('tr.marked .file').firstChild.textContent"
    )
    assert browser.find_element("id", "card-name").text == name
    assert (canvas() != before).any(), "its frustum changes colour"


def test_the_table_sorts_by_numbers_both_ways(browser: Any) -> None:
    heads = browser.find_elements("css selector", "#photo-table thead th")
    column = [head.text for head in heads].index("observations")

    def values() -> list[int]:
        return [
            int(text.replace(",", ""))
            for text in browser.execute_script(
                "return [...document.querySelector('#photo-table').tBodies[0].rows]"
                f".map(r => r.cells[{column}].textContent).filter(t => t)"
            )
        ]

    button = heads[column].find_element("tag name", "button")
    browser.execute_script("arguments[0].click()", button)
    assert values() == sorted(values())
    browser.execute_script("arguments[0].click()", button)
    assert values() == sorted(values(), reverse=True)
    assert len(set(values())) > 1


@pytest.mark.parametrize(
    "names",
    [
        ["9.jpg", "10.jpg", "2024-05-01 a.jpg", "2024-05-01 b.jpg"],
        ["9.5 mm", "1.2 cm", "0.4 m", "1 m"],
        ["9 s", "59 s", "1 min 2 s", "1 h 0 min"],
    ],
)
def test_names_that_begin_with_numbers_sort_as_names_and_units_count(
    browser: Any, names: list[str]
) -> None:
    fill = (
        "const rows = [...document.querySelector('#photo-table').tBodies[0].rows].slice(0, 4);"
        "rows.forEach((row, i) => { row.cells[1].textContent = arguments[0][i]; });"
        "document.querySelector('#photo-table').tBodies[0].replaceChildren(...rows);"
        "document.querySelectorAll('#photo-table thead th')[1].querySelector('button').click();"
        "return rows[0].parentElement.innerText;"
    )
    browser.refresh()
    shown = browser.execute_script(fill, names[::-1])
    found = [name for line in shown.split("\n") for name in names if name in line.split("\t")]
    browser.refresh()
    assert found == names


@pytest.mark.parametrize("width", [400, 1200, 2000])
def test_the_page_is_no_wider_than_the_screen(browser: Any, width: int) -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    assert browser.execute_script("return window.innerWidth") == width
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) == 0
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_and_light_differ(browser: Any) -> None:
    colors = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        colors.append(
            browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    assert colors[0] == "rgb(255, 255, 255)"
    assert colors[1] != colors[0]
