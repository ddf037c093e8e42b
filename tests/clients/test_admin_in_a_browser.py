"""The administration and API pages in a real browser, without the internet."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Response, sync_playwright

from tests.services.nginx import make_tls_proxy
from tests.services.stack import Stack
from tests.services.tools import require_tool
from tests.tenants import LAYER, Tenants

pytestmark = pytest.mark.clients

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, PHONE, HEIGHT = 1400, 400, 900  # pixels


@pytest.fixture
def page() -> Iterator[Page]:
    """A page that fails the test on any script error, failed request or violation of the security policy."""
    program = require_tool("chromium")
    troubles: list[str] = []

    def watch(response: Response) -> None:
        if response.status >= 400:
            troubles.append(f"{response.status} {response.url}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        opened = browser.new_page(viewport={"width": WIDE, "height": HEIGHT}, ignore_https_errors=True)
        opened.on("response", watch)
        opened.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        yield opened
        browser.close()
    assert troubles == []


def widths_that_do_not_fit(page: Page) -> list[int]:
    """The widths of a window at which the page has a horizontal scroll bar."""
    found = []
    for width in (PHONE, WIDE):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        if int(page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(width)
    return found


def follow(page: Page, selector: str) -> None:
    """Click a link or a button, and wait until the next page is complete."""
    with page.expect_navigation():
        page.click(selector)


def sign_in(page: Page, stack: Stack, control_url: str | None = None) -> str:
    """Sign in at the address of the control plane; return the URL of the administration."""
    base = f"{control_url or stack.credentials.control_url}/admin/"
    page.goto(base.removesuffix("admin/"))
    page.fill("#id_username", stack.credentials.admin_username)
    page.fill("#id_password", stack.credentials.admin_password)
    follow(page, "input[type=submit]")
    assert page.url == base
    assert "Stowage" in page.inner_text("#header")
    return base


@pytest.mark.slow
def test_every_page_fits_a_screen_and_a_phone(page: Page, stack: Stack, tenants: Tenants) -> None:
    # given an image, whose digests are long, and every page that the first page links
    name = tenants.image_with_policies(is_public=False, visibility="inherit").split("/")[0]
    base = sign_in(page, stack)
    hrefs = page.eval_on_selector_all("#content-main th a", "links => links.map(link => link.href)")
    assert f"{base}catalog/image/" in hrefs

    # then each of them and the page of its first row fit
    for href in hrefs:
        page.goto(href + (f"?q={name}" if href.endswith("catalog/image/") else ""))
        assert page.locator("#content h1").count() == 1, href
        assert not widths_that_do_not_fit(page), href
        first = page.locator("#result_list tbody th a")
        if first.count():
            with page.expect_navigation():
                first.first.click()
            assert not widths_that_do_not_fit(page), page.url


def test_the_pages_about_the_disk_and_about_retention_fit(page: Page, stack: Stack, tenants: Tenants) -> None:
    name = tenants.image_with_policies(is_public=False, visibility="inherit").split("/")[0]
    base = sign_in(page, stack)
    page.goto(f"{base}gc/gcrun/disk/")
    assert not widths_that_do_not_fit(page)
    page.goto(f"{base}namespaces/retention/?q={name}")
    follow(page, "#result_list tbody th a")
    page.fill("#id_rules", '[{"images": "*", "tags": "*"}]')
    page.uncheck("#id_enabled")
    follow(page, "input[name=_continue]")
    follow(page, "text=what these rules remove now")
    page.wait_for_selector("#result_list tbody tr")
    assert not widths_that_do_not_fit(page)


def test_an_action_makes_a_namespace_public_and_a_form_an_image_private(
    page: Page, stack: Stack, tenants: Tenants
) -> None:
    # given a private image
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    name = repository.split("/")[0]
    base = sign_in(page, stack)

    # when its namespace is made public by the action of the list
    page.goto(f"{base}namespaces/namespace/?q={name}")
    page.check(".action-select")
    page.select_option("select[name=action]", "make_public")
    follow(page, "button[name=index]")
    assert f"Now public: {name}" in (page.text_content(".messagelist") or "")

    # then an anonymous client can pull
    assert tenants.anonymous.on(repository, "GET", f"blobs/{tenants.layer_digest}").content == LAYER

    # and the form of the image makes it private again
    page.goto(f"{base}catalog/image/?q={name}")
    follow(page, "#result_list tbody th a")
    page.select_option("#id_visibility", "private")
    follow(page, "input[name=_save]")
    assert tenants.anonymous.on(repository, "GET", "manifests/latest").status_code == 401


def test_the_secret_of_a_new_key_is_on_the_page_and_in_no_cookie(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    # given a user with the first key
    base = sign_in(page, stack)
    page.goto(f"{base}identity/apikey/?q={stack.credentials.access_key}")
    kind, holder = (page.get_attribute(".field-holder a", "href") or "").split("/")[3:5]

    # when another key is created
    page.goto(f"{base}identity/apikey/add/?{kind}={holder}&default_project={stack.credentials.project_id}")
    follow(page, "input[name=_save]")
    page.screenshot(path=tmp_path / "secret.png")
    secret = page.inner_text("#secret-key")

    # then it works, and is not stored in the browser
    namespaces = f"{stack.credentials.control_url}/registry/v1/regions/fr-par/namespaces"
    assert httpx.get(namespaces, headers={"X-Auth-Token": secret}).status_code == 200
    assert "messages" not in {cookie["name"] for cookie in page.context.cookies()}
    follow(page, "text=Go on to the API key")
    page.wait_for_selector("#id_description")
    assert secret not in page.content()


def test_the_api_pages_need_no_internet(page: Page, stack: Stack, tmp_path: Path) -> None:
    page.goto(f"{stack.credentials.control_url}/api/docs/")
    page.wait_for_selector(".opblock")
    page.screenshot(path=tmp_path / "docs.png")
    assert page.locator(".opblock").count() >= 12


def test_the_page_of_an_image_has_the_pull_command_and_its_history(
    page: Page, stack: Stack, tenants: Tenants
) -> None:
    # given an image, found by its name
    repository = tenants.image_with_policies(is_public=False, visibility="private")
    base = sign_in(page, stack)
    page.goto(f"{base}catalog/image/?q={repository}")
    follow(page, "#result_list tbody th a")

    # then its page has the command
    assert f"docker pull {tenants.owner.host}/{repository}" in page.inner_text("#content")

    # and its history is that of the audit log
    follow(page, "a.historylink")
    assert "image.visibility" in page.inner_text("#result_list")
    follow(page, "#result_list tbody th a")
    assert repository in page.inner_text("#content")


@pytest.mark.slow
@pytest.mark.parametrize("explicit_scheme", [True, False])
def test_an_administrator_signs_in_through_a_proxy_with_tls_and_directly_at_the_same_time(
    page: Page, make_stack: Callable[..., Stack], tmp_path: Path, explicit_scheme: bool
) -> None:
    # given a product behind nginx, which terminates TLS and forwards Host, scheme and address
    proxy = make_tls_proxy(tmp_path / "proxy")
    environment = dict(proxy.environment)
    if not explicit_scheme:
        del environment["REGISTRY_PUBLIC_SCHEME"]
    product = make_stack(**environment).start()
    with proxy.forwarding(control=product.control_address, data=product.data_address):
        # when an administrator signs in through the proxy, then the pages work
        base = sign_in(page, product, proxy.control_url)
        page.goto(f"{base}identity/organization/add/")
        page.fill("#id_name", "through the proxy")
        follow(page, "input[name=_save]")
        assert "was added successfully" in page.inner_text(".messagelist")

        # and the cookies are not sent over plain http
        session = [cookie for cookie in page.context.cookies() if "session" in cookie.get("name", "")]
        assert [cookie.get("secure") for cookie in session] == [True]

        # and a sign-in without the proxy works too
        page.context.clear_cookies()
        sign_in(page, product)
        session = [cookie for cookie in page.context.cookies() if "session" in cookie.get("name", "")]
        assert [cookie.get("secure") for cookie in session] == [False]
