"""The draw page in a browser: Chromium without a window, driven as a person would."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator

import pytest

import kernels
import models
from twinkernels.draw import SHIPPED, Reader, server

from .test_draw import DIGITS

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is driven by playwright, of the group dev")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    """Playwright's own Chromium, or one that is installed."""
    arguments = ["--disable-background-networking", "--disable-quic"]  # it asks nobody but the page's server
    if getattr(os, "geteuid", lambda: 1)() == 0:
        arguments.append("--no-sandbox")  # which Chromium demands of root
    sync_api.expect.set_options(timeout=30_000)  # a busy machine may need more than the usual 5 s
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with sync_api.sync_playwright() as playwright:
        for path in (None, *filter(None, map(shutil.which, names))):
            try:
                started = playwright.chromium.launch(executable_path=path, args=arguments)
            except sync_api.Error:
                continue
            yield started
            started.close()
            return
        pytest.skip("no Chromium starts here; `playwright install chromium` fetches one")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server in a thread of its own."""
    before = kernels.get_threads()
    kernels.set_threads(1)
    reader = Reader(models.load(SHIPPED))
    with server.listen(0) as listener:
        serving = server.build(reader, listener, server.describe(SHIPPED, reader))
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        serving.should_exit = True
        thread.join(30)
    kernels.set_threads(before)


@pytest.fixture
def complaints() -> list[str]:
    """The page's errors; one that is left after the test fails it."""
    return []


@pytest.fixture
def page(browser: sync_api.Browser, address: str, complaints: list[str]) -> Iterator[sync_api.Page]:
    """The page, opened."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, has_touch=True)
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(address)
    sync_api.expect(opened.locator("#name")).to_have_text("cnn-bn")
    yield opened
    context.close()
    assert complaints == []


def drag(page: sync_api.Page, digit: int, steps: int = 5) -> None:
    box = page.locator("#paper").bounding_box()
    assert box is not None
    for stroke in DIGITS[digit]:
        points = [[float(c) / 100 for c in point.split(",")] for point in stroke.split()]
        for at, (x, y) in enumerate(points):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=steps)
            if at == 0:
                page.mouse.down()
        page.mouse.up()


def expect_digit(page: sync_api.Page, digit: int) -> None:
    sync_api.expect(page.locator("#digit")).to_have_text(str(digit))
    sync_api.expect(page.locator("#bars .best")).to_contain_text(str(digit))
    sync_api.expect(page.locator("#spoken")).to_contain_text(f"Read as {digit}, ")


def inked(page: sync_api.Page, selector: str) -> int:
    """Pixels of a canvas that are not clear."""
    return page.locator(selector).evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 == 3 && v).length"
    )


@pytest.mark.parametrize("digit", [1, 0])
def test_a_digit_drawn_with_the_mouse_is_read(page: sync_api.Page, digit: int) -> None:
    drag(page, digit)
    expect_digit(page, digit)
    assert inked(page, "#framed") > 20
    assert inked(page, "#maps canvas >> nth=4") > 0
    assert page.locator("#maps canvas").count() == 16
    for backend in kernels.names():
        sync_api.expect(page.locator(f'#times [data-name="{backend}"] .value')).to_contain_text("s")


def test_probabilities_move_while_the_stroke_grows(page: sync_api.Page) -> None:
    box = page.locator("#paper").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.28 * box["width"], box["y"] + 0.18 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.18 * box["height"], steps=5)
    sync_api.expect(page.locator("#bars .best .value")).to_contain_text("%")
    page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.85 * box["height"], steps=5)
    sync_api.expect(page.locator("#digit")).to_have_text("7")
    page.mouse.up()
    expect_digit(page, 7)


def test_undo_takes_a_stroke_and_clear_all(page: sync_api.Page) -> None:
    drag(page, 1)
    expect_digit(page, 1)
    before = inked(page, "#paper")
    drag(page, 8)
    sync_api.expect(page.locator("#digit")).not_to_have_text("1")
    page.get_by_role("button", name="Undo").click()
    expect_digit(page, 1)
    assert inked(page, "#paper") == before
    page.get_by_role("button", name="Clear").click()
    sync_api.expect(page.locator("#digit")).to_have_text("")
    sync_api.expect(page.locator("#bars .best")).to_have_count(0)
    assert inked(page, "#paper") == inked(page, "#framed") == 0
    sync_api.expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_the_keyboard_draws_too(page: sync_api.Page) -> None:
    page.keyboard.press("Tab")
    sync_api.expect(page.locator("#paper")).to_be_focused()
    for key in ["ArrowUp"] * 4 + [" "] + ["ArrowDown"] * 24 + [" "]:
        page.keyboard.press(key)
    expect_digit(page, 1)
    page.keyboard.press("z")
    sync_api.expect(page.locator("#digit")).to_have_text("")
    page.keyboard.press("Tab")  # nothing is left to undo or clear, so neither button takes the focus
    sync_api.expect(page.locator("#paper")).not_to_be_focused()


def test_a_finger_draws_too(page: sync_api.Page) -> None:
    box = page.locator("#paper").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    sync_api.expect(page.locator("#bars .best")).to_have_count(1)
    assert inked(page, "#paper") > 100


def test_it_fits_a_telephone_in_the_dark(page: sync_api.Page) -> None:
    colour = "document => getComputedStyle(document.querySelector('#paper')).color"
    light = page.evaluate_handle("document").evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate_handle("document").evaluate(colour) != light
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    drag(page, 0)
    expect_digit(page, 0)


def test_it_says_what_is_wrong_and_recovers(page: sync_api.Page, complaints: list[str]) -> None:
    trouble = page.locator("#trouble")
    page.route("**/read", lambda route: route.fulfill(status=400, json={"error": "out of ink"}))
    drag(page, 1)
    sync_api.expect(trouble).to_have_text("out of ink")
    page.unroute("**/read")
    page.route("**/read", lambda route: route.abort())
    drag(page, 1)
    sync_api.expect(trouble).to_contain_text("The server is gone")
    page.unroute("**/read")
    drag(page, 1)
    expect_digit(page, 1)
    sync_api.expect(trouble).to_have_text("")
    assert all("Failed to load resource" in complaint for complaint in complaints)
    complaints.clear()
