"""Which URLs notices take, and that nothing secret of one is ever told."""

from __future__ import annotations

import ast
import inspect
import io
import logging
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from apprise.manager_plugins import NotificationManager

from offsite.errors import BadParameter
from offsite.events import Severity
from offsite.management.notices import parameters, urls
from offsite.management.notices.urls import SCHEMES, NoticeNotSent, Service, check_url, shown_url

SECRET = "s3cr3tS3cr3t"
TAKEN = {
    f"json://anna:{SECRET}@hooks.example/x/{SECRET}?+X-Key={SECRET}": "json://hooks.example/…",
    f"jsons://hooks.example:8443/{SECRET}": "jsons://hooks.example:8443/…",
    f"xmls://anna:{SECRET}@hooks.example": "xmls://hooks.example/…",
    f"form://[2001:db8::1]:80/{SECRET}": "form://2001:db8::1:80/…",
    f"mailtos://anna:{SECRET}@mail.example?to=otto@example.org": "mailtos://mail.example/…",
    f"discord://1234567890/{SECRET}": "discord://…",
    f"https://discord.com/api/webhooks/1234567890/{SECRET}": "https://discord.com/…",
    f"ntfy://{SECRET}": "ntfy://…",
    f"tgram://123456789:{SECRET}/1234": "tgram://…",
    f"slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazk{SECRET}/#general": "slack://…",
    f"workflows://host.example:443/{SECRET}/{SECRET}": "workflows://…",
    f"gotifys://push.example/{SECRET}": "gotifys://push.example/…",
}


@pytest.mark.parametrize(("url", "shown"), TAKEN.items(), ids=list(TAKEN.values()))
def test_urls_of_mail_hooks_and_chats_are_taken_and_shown_without_secrets(url: str, shown: str) -> None:
    check_url(url)
    assert shown_url(url) == shown
    assert SECRET not in shown_url(url)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "1 to 4096 bytes"),
        ("json://h/" + "x" * 5000, "1 to 4096 bytes"),
        ("json://h/" + "ä" * 3000, "1 to 4096 bytes"),
        (f"json://{SECRET} json://b", "without spaces"),
        (f"json://h/\n{SECRET}", "unprintable characters"),
        (SECRET, "does not begin with a supported scheme"),
        (f"nope://{SECRET}", "does not begin with a supported scheme"),
        (f"https://example.org/{SECRET}", "invalid https:// URL"),
        (f"https://api.day.app/{SECRET}", "invalid https:// URL"),
        (f"https://media.guilded.gg/webhooks/1234567890/{SECRET}", "invalid https:// URL"),  # apprise knows it
        (f"discord://{SECRET}", "invalid discord:// URL"),
        (f"json://:{SECRET}@", "invalid json:// URL"),
        (f"slack://{SECRET}", "invalid slack:// URL"),
    ],
)
def test_other_urls_are_refused_without_being_repeated(url: str, rule: str) -> None:
    with pytest.raises(BadParameter, match=rule) as refusal:
        check_url(url)
    assert SECRET not in str(refusal.value)


def test_the_longest_url_is_taken() -> None:
    check_url("json://h/".ljust(urls.URL_BYTES_MAX, "x"))


@pytest.mark.parametrize("url", ["syslog://", "dbus://", "gnome://", "macosx://", "windows://", "blink1://", "glib://"])
def test_what_acts_on_the_machine_itself_is_refused(url: str) -> None:
    with pytest.raises(BadParameter, match="does not begin with a supported scheme"):
        check_url(url)


EACH_SERVICE = (
    "apprise://host.example/token1234",
    "apprises://host.example/token1234",
    "discord://1234567890/abcdefghij1234",
    "form://h.example/x",
    "forms://h.example/x",
    "gchat://workspace/key/token",
    "gotify://push.example/token",
    "gotifys://push.example/token",
    "ilert://il1api00000000000000",
    "incidentio://abcdef/token1234",
    "jira://a1b2c3d4-0000-1111-2222-333344445555",
    "json://h/x",
    "jsons://h/x",
    "mailgun://anna@mail.example/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbb-cccccccc",
    "mailto://a:b@mail.example",
    "mailtos://a:b@mail.example",
    "matrix://u:p@h.example/#room",
    "matrixs://u:p@h.example/#room",
    "mmost://h.example/3ccdd113474722377935511fc85d3dd4",
    "mmosts://h.example/3ccdd113474722377935511fc85d3dd4",
    "nctalk://u:p@h.example/room",
    "nctalks://u:p@h.example/room",
    "ntfy://topic",
    "ntfys://h.example/topic",
    "opsgenie://a1b2c3d4-0000-1111-2222-333344445555",
    "pagerduty://integrationkey@apikey",
    "pbul://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "pover://uuuuuuuuuuuuuuuuuuuuuuuuuuuuuu@tttttttttttttttttttttttttttttt",
    "rocket://u:p@h.example/#room",
    "rockets://u:p@h.example/#room",
    "rsyslog://h.example",
    "sendgrid://aaaaaaaaaaaaaaaa:anna@mail.example",
    "signal://h.example:8080/+15551234567",
    "signals://h.example:8080/+15551234567",
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
    "splunk://routing@apikey",
    "victorops://routing@apikey",
    "squadcast://apikey1234567890abcdef@us",
    "synology://h.example/token",
    "synologys://h.example/token",
    "tgram://123456789:abcdefg_hijklmnop/1234",
    "twilio://ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@15551234567",
    "webex://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "wxteams://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "workflow://host.example:443/workflowid/signature",
    "workflows://host.example:443/workflowid/signature",
    "xml://h/x",
    "xmls://h/x",
    "zulip://botname@org/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)
"""The shortest URL of every service that is taken. No secrets: made up."""

READING_OR_FETCHING = ("template", "attach", "pgp", "pgppub", "pgpprv", "wkd", "config", "include", "import")
LOOKING_OTHERWISE = (
    "overflow",
    "format",
    "emojis",
    "rto",
    "cto",
    "retry",
    "wait",
    "optional",
    "store",
    "tz",
    "redirect",
)


def test_there_is_a_url_for_every_service() -> None:
    assert {url.partition("://")[0] for url in EACH_SERVICE} == SCHEMES - {"https"}


@pytest.mark.parametrize("url", EACH_SERVICE)
def test_every_service_is_taken_and_only_with_the_parameters_on_its_list(url: str) -> None:
    """By apprise's own parse of the URL, which takes `;` between parameters, and names of any case and encoding."""
    scheme = url.partition("://")[0]
    words, prefixes = parameters._ALLOWED[parameters._service(scheme)]
    service = Service(url)
    assert service._service.redirects is False
    known = set(service._service.template_args)
    refused = {*READING_OR_FETCHING, *LOOKING_OTHERWISE, *known} - {*words.split(), "verify"}
    for name in refused:
        for written in (
            f"?{name}=/etc/shadow",
            f"?verify=yes;{name}=http://inside/",
            f"?%{ord(name[0]):x}{name[1:].upper()}=",
        ):
            with pytest.raises(BadParameter, match="does not accept") as refusal:
                check_url(url + written)
            assert "/etc/shadow" not in str(refusal.value)
    for prefix in {"+", "-", ":"} - set(prefixes):
        with pytest.raises(BadParameter, match="does not accept"):
            check_url(f"{url}?{prefix}template=/etc/shadow")
    check_url(f"{url}?verify=no")


@pytest.mark.parametrize("url", ["json://h/?method=PO%0aST", "json://h/?+X-K=a%0d%0aHost:%20x", "json://h/?:%1b=1"])
def test_parameters_with_characters_that_cannot_be_printed_are_refused(url: str) -> None:
    with pytest.raises(BadParameter, match="unprintable characters"):
        check_url(url)


def test_web_hooks_as_services_give_them_out_are_looked_at_as_well() -> None:
    hook = "https://discord.com/api/webhooks/1234567890/abcdefghij1234"
    check_url(hook)
    for written in ("?template=/etc/shadow", "?wait=true;template=/etc/shadow", "?tts=no;template=/etc/shadow"):
        with pytest.raises(BadParameter, match="which discord:// does not accept"):
            check_url(hook + written)


def test_a_url_in_the_file_of_notices_is_looked_at_again() -> None:
    """An older version took it, or it was put there by hand."""
    with pytest.raises(BadParameter, match="'template'"):
        Service("mailto://anna:secret@mail.example?to=otto@example.org;template=/etc/shadow")


def test_nothing_is_kept_on_disk_and_no_plugins_are_loaded_from_it() -> None:
    service = Service("json://h/")._service
    assert service.store.mode.value == "memory"
    assert service.asset.plugin_paths == []
    assert service.asset.http_redirects is False
    assert service.asset.storage_path in (None, "")


def test_a_matrix_server_is_not_asked_where_to_send_instead() -> None:
    """That is as good as a redirect."""
    for url in ("matrix://u:p@h.example/#room", "matrixs://u:p@h.example/#room"):
        assert Service(url)._service.discovery is False  # type: ignore[attr-defined]


def test_a_redirect_is_not_followed() -> None:
    """The other end could have this system fetch any address otherwise."""
    asked: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", "/inside")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(NoticeNotSent):
            Service(f"json://127.0.0.1:{server.server_port}/hook").send("title", "body", Severity.ERROR)
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
    assert asked == ["/hook"]


def _plugins() -> dict[type, set[str]]:
    """The plugins of apprise that a scheme of ours leads to."""
    manager = NotificationManager()  # type: ignore[no-untyped-call]
    manager.load_modules()  # type: ignore[no-untyped-call]
    found: dict[type, set[str]] = {}
    for scheme in SCHEMES - {"https"}:
        found.setdefault(manager[scheme], set()).add(scheme)
    return found


def test_no_plugin_that_is_taken_runs_programs_or_speaks_to_the_desktop() -> None:
    """Fails when a newer apprise does so: then look at what it does, and at SCHEMES."""
    local = {"subprocess", "dbus", "gi", "syslog", "ctypes", "blink1", "win32api", "multiprocessing", "importlib"}
    plugins = _plugins()
    assert len(plugins) > 30
    manager = NotificationManager()  # type: ignore[no-untyped-call]
    for scheme in ("syslog", "dbus", "macosx"):
        assert _imported(Path(inspect.getfile(manager[scheme]))) & local, "what the test looks for"
    for plugin in plugins:
        source = Path(inspect.getfile(plugin))
        alone = source.parent.name == "plugins"
        for path in [source] if alone else source.parent.glob("*.py"):
            assert not _imported(path) & local, path


def _imported(path: Path) -> set[str]:
    """The packages that a module imports, apart from its own."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that reaches the root logger, however small: where the log of a system comes from."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_service_that_fails_is_told_without_anything_secret(logged: io.StringIO) -> None:
    """Not in the sentence, and not in the log, to which apprise would write parts of the URL."""
    service = Service(f"json://anna:{SECRET}@127.0.0.1:1/hook/{SECRET}?+X-Key={SECRET}")
    logging.getLogger("other").debug("this one arrives")
    with pytest.raises(NoticeNotSent, match=r"did not accept the message: .*127\.0\.0\.1") as refusal:
        service.send("title", "body", Severity.ERROR)
    assert SECRET not in str(refusal.value)
    assert "anna" not in str(refusal.value)
    assert refusal.value.__context__ is None or SECRET not in str(refusal.value.__context__)
    assert logged.getvalue() == "this one arrives\n"


def test_a_plugin_that_raises_is_a_message_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("json://127.0.0.1:1/")

    def broken(**_: object) -> bool:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(service._service, "notify", broken)
    with pytest.raises(NoticeNotSent, match="cannot send: RuntimeError") as refusal:
        service.send("title", "body", Severity.ERROR)
    assert SECRET not in "".join(traceback.format_exception(refusal.value)), "whoever logs it logs its causes"


def test_only_what_the_own_thread_logs_is_a_reason() -> None:
    logger = logging.getLogger("apprise")
    with urls._reasons() as lines:
        logger.warning("mine")
        other = threading.Thread(target=logger.warning, args=("of another",))
        other.start()
        other.join()
        logger.debug("small")
    assert lines == ["mine"]


@pytest.mark.parametrize("url", ["json://[::1", "json://host:port/x", "json://host:99999/"])
def test_a_url_with_a_broken_authority_is_hidden_whole(url: str) -> None:
    assert shown_url(url) == "json://…"


def test_a_reason_with_parts_of_the_url_is_told_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(f"json://anna:p%40ss{SECRET}@hooks.example/way/{SECRET}?+X-Key=k3yk3y")

    def refuse(**_: object) -> bool:
        words = ["hooks.example", "anna", f"p@ss{SECRET}", f"/way/{SECRET}", "k3yk3y", "X-Key", "said\nno\x1b[2J"]
        logging.getLogger("apprise").warning(" ".join(words))
        return False

    monkeypatch.setattr(service._service, "notify", refuse)
    with pytest.raises(NoticeNotSent) as refusal:
        service.send("title", "body", Severity.ERROR)
    assert str(refusal.value) == "the service did not accept the message: hooks.example … … /… … X-Key said no [2J"


def test_a_long_reason_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a whole page of the other end."""
    service = Service("json://127.0.0.1:1/")
    monkeypatch.setattr(service._service, "notify", lambda **_: logging.getLogger("apprise").warning("x" * 5000))
    with pytest.raises(NoticeNotSent) as refusal:
        service.send("title", "body", Severity.ERROR)
    assert str(refusal.value).count("x") == urls.REASON_CHARACTERS_MAX


def test_a_host_that_is_a_token_is_hidden_in_reasons_too(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(f"ntfy://{SECRET}/another")

    def refuse(**_: object) -> bool:
        logging.getLogger("apprise").warning("cannot reach https://ntfy.sh/%s", SECRET)
        return False

    monkeypatch.setattr(service._service, "notify", refuse)
    with pytest.raises(NoticeNotSent, match=r"message: cannot reach https://ntfy\.sh/…$"):
        service.send("title", "body", Severity.ERROR)
