"""Which URLs notices take, and that nothing secret of one is ever told."""

from __future__ import annotations

import ast
import inspect
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from apprise.manager_plugins import NotificationManager

from offsite.errors import BadParameter
from offsite.events import Severity
from offsite.management import notice_urls
from offsite.management.notice_urls import (
    PARAMETERS_REFUSED,
    SCHEMES,
    NoticeNotSent,
    Service,
    check_url,
    shown_url,
)

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
        (f"json://{SECRET} json://b", "no space"),
        (f"json://h/\n{SECRET}", "cannot be printed"),
        (SECRET, "does not begin with one of the schemes"),
        (f"nope://{SECRET}", "does not begin with one of the schemes"),
        (f"https://example.org/{SECRET}", "not one that https:// takes"),
        (f"https://api.day.app/{SECRET}", "not one that https:// takes"),
        (f"https://media.guilded.gg/webhooks/1234567890/{SECRET}", "not one that https:// takes"),  # apprise knows it
        (f"discord://{SECRET}", "not one that discord:// takes"),
        (f"json://:{SECRET}@", "not one that json:// takes"),
        (f"slack://{SECRET}", "not one that slack:// takes"),
    ],
)
def test_other_urls_are_refused_without_being_repeated(url: str, rule: str) -> None:
    with pytest.raises(BadParameter, match=rule) as refusal:
        check_url(url)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("url", ["syslog://", "dbus://", "gnome://", "macosx://", "windows://", "blink1://", "glib://"])
def test_what_acts_on_the_machine_itself_is_refused(url: str) -> None:
    with pytest.raises(BadParameter, match="does not begin with one of the schemes"):
        check_url(url)


@pytest.mark.parametrize("parameter", [*sorted(PARAMETERS_REFUSED), "Template", "%74emplate"])
def test_parameters_that_read_files_are_refused(parameter: str) -> None:
    with pytest.raises(BadParameter, match="reads files of this system"):
        check_url(f"mailto://anna:{SECRET}@mail.example?{parameter}=/etc/passwd")


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


def test_every_parameter_of_a_taken_plugin_that_names_a_file_is_known() -> None:
    """Fails when a newer apprise has another: then refuse it, or see that it is of the other end."""
    # Of what the other end does: parts of URLs, files that it fetches, names in what it receives.
    remote = {"path", "filename", "file_url", "attach", "attach-as"}
    words = ("file", "path", "template", "pgp", "attach")
    found = {
        name
        for plugin in _plugins()
        for name in plugin.template_args  # type: ignore[attr-defined]
        if any(word in name for word in words)
    }
    assert found - remote <= PARAMETERS_REFUSED


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
    with pytest.raises(NoticeNotSent, match=r"was not taken: .*127\.0\.0\.1") as refusal:
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
    with pytest.raises(NoticeNotSent, match="failed with RuntimeError") as refusal:
        service.send("title", "body", Severity.ERROR)
    assert SECRET not in str(refusal.value)


def test_only_what_the_own_thread_logs_is_a_reason() -> None:
    logger = logging.getLogger("apprise")
    with notice_urls._reasons() as lines:
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
        words = ["hooks.example", "anna", f"p@ss{SECRET}", f"/way/{SECRET}", "k3yk3y", "X-Key", "said\nno"]
        logging.getLogger("apprise").warning(" ".join(words))
        return False

    monkeypatch.setattr(service._service, "notify", refuse)
    with pytest.raises(NoticeNotSent) as refusal:
        service.send("title", "body", Severity.ERROR)
    assert str(refusal.value) == "the message was not taken: hooks.example … … /… … X-Key said no"


def test_a_host_that_is_a_token_is_hidden_in_reasons_too(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(f"ntfy://{SECRET}")

    def refuse(**_: object) -> bool:
        logging.getLogger("apprise").warning("cannot reach https://ntfy.sh/%s", SECRET)
        return False

    monkeypatch.setattr(service._service, "notify", refuse)
    with pytest.raises(NoticeNotSent, match=r"taken: cannot reach https://ntfy\.sh/…$"):
        service.send("title", "body", Severity.ERROR)
