"""Settings: set, show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from offsite.events import SETTING_CHANGED
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.system import Context, System
from offsite.store.settings import ALL, TIME_ZONE, Setting

COMMANDS = Subject("Settings")


@dataclass(frozen=True, slots=True)
class SettingView:
    setting: Setting[Any]
    value: str


SETTING = ObjectType[SettingView](
    "settings",
    "setting",
    (
        properties.text("name", lambda view: view.setting.name, "Name", key=True),
        properties.text("value", lambda view: view.value, "Value"),
        properties.text("default", lambda view: view.setting.default, "Default"),
        properties.text("limits", lambda view: view.setting.limits, "Limits"),
        properties.text("description", lambda view: view.setting.help, "Description"),
    ),
)
_BY_NAME = {each.name: each for each in ALL}
NAME = values.choice(*_BY_NAME)
VALUE = values.special(values.ValueKind.TEXT, "value", parser=str)  # what it may be is up to the setting


@COMMANDS.command(
    "set setting",
    "Changes a setting. `show settings` lists the settings and their limits.",
    keyword("name", NAME, "Name of the setting.", required=True),
    keyword("value", VALUE, "New value.", required=True),
    examples=("set setting name runs-at-a-time value 4",),
    returns=(SETTING,),
)
def set_setting(context: Context, name: str, value: str) -> Reply:
    system, setting = context.system, _BY_NAME[name]
    before = system.settings.text(setting)
    system.settings.set(setting, value)
    if setting is TIME_ZONE:
        system.schedules.zone_changed()
    if value != before:
        system.events.report(SETTING_CHANGED, f"Setting {name} was changed from {_told(before)} to {_told(value)}.")
    return Reply(f"Setting {name} is now {_told(value)}.", (_row(system, setting),))


@COMMANDS.command(
    "show settings",
    "Lists the settings of the system.",
    positional("name", NAME, "Name of the setting to show. Default: all.", required=False),
    role=Role.MONITOR,
    returns=(SETTING,),
)
def show_settings(context: Context, name: str | None = None) -> Reply:
    wanted = ALL if name is None else (_BY_NAME[name],)
    return Reply(rows=tuple(_row(context.system, each) for each in wanted))


def _told(value: str) -> str:
    return value or "empty"


def _row(system: System, setting: Setting[Any]) -> Row:
    return SETTING.row(SettingView(setting, system.settings.text(setting)))
