"""A real JupyterLab, or Voila, and a real browser: for the tests and the pictures of the README."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

TOKEN = "rlm-browser"
SECONDS_TO_START = 90
ALL_HAVE_RUN = """() => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(one => one.textContent);
    return prompts.length > 0 && prompts.every(text => /\\[\\d+\\]/.test(text));
}"""
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def find_chromium() -> str | None:
    """
    Find a browser.

    Returns
    -------
    str or None
        Its program, on the PATH.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """
    Start a browser.

    Yields
    ------
    playwright.sync_api.Browser
        Chromium, without a window.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def serve(folder: Path, notebook: str | None = None) -> Iterator[str]:
    """
    Start JupyterLab on a folder, or Voila on a notebook of it, on a free port of localhost, with a token.

    Parameters
    ----------
    folder
        Where the notebooks are.
    notebook
        Its name, for Voila.

    Yields
    ------
    str
        The address to open: of the folder's notebooks without their name, or of the app.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    if notebook is None:
        command = ["jupyterlab", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}", "--allow-root"]
        command += [f"--LabApp.{kind}_dir={folder}/.{kind}" for kind in ("user_settings", "workspaces")]
        command += [f"--IdentityProvider.token={TOKEN}"]
        address = f"{url}/lab/tree/{{}}?token={TOKEN}"
    else:
        command = ["voila", notebook, "--Voila.ip=127.0.0.1", f"--token={TOKEN}"]
        address = f"{url}/?token={TOKEN}"
    command += ["--no-browser", f"--port={port}"]
    settings = folder / ".user_settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", *command], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        _await(f"{url}/api", server, folder / "server.log")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _await(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(
        f"expected a server at {address}, found none; it printed:\n{log.read_text(errors='replace')[-3000:]}"
    )


def run_all(page: Page) -> None:
    """
    Run all cells of the notebook that is open in JupyterLab.

    Parameters
    ----------
    page
        Of the browser.
    """
    page.wait_for_selector(".jp-NotebookPanel-toolbar", timeout=60_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
    end = time.monotonic() + 240
    while time.monotonic() < end:  # what is asked of a kernel before it has quite started is lost, all or a part of it
        try:
            accept = page.locator(".jp-Dialog button.jp-mod-accept")
            if accept.count():  # it may ask which kernel to take
                accept.first.click(timeout=6_000)
            page.get_by_role("menuitem", name="Run", exact=True).click(timeout=6_000)
            page.get_by_text("Run All Cells", exact=True).click(timeout=6_000)
            page.wait_for_function(ALL_HAVE_RUN, timeout=45_000)
            return
        except TimeoutError:
            page.keyboard.press("Escape")
    raise RuntimeError("expected the cells of the notebook to run, found none that did")
