"""Globally unique ids, from any of their written forms to the one that addresses have.

Belongs here: sites, areas, lines, devices, machines, variables, streams and streamers as values that are compared and
hashed by their text. Does not belong here: whether a service knows them.

An id is a whole number, or hexadecimal digits: `a`, `000a`, `0000-000a`, with or without the type before (`d--000a`).
Digits that stand in groups stand in groups of four, of which only the first may be shorter: `0001-90` could be two
different ids, and is refused like everything else that is no id, with a ValueError.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_DIGITS = re.compile(r"[0-9a-fA-F]{1,16}|[0-9a-fA-F]{1,4}(-[0-9a-fA-F]{4})+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARENTS = {"sl": "pl", "sa": "pa", "ss": "ps", "sd": "pl", "s": "pl"}  # the type of a stream: that of its parent
_STREAMS = {"pl": "sl", "pa": "sa", "ps": "ss"}


def _number(given: object, bits: int, what: str) -> int:
    """The number that is meant by a number or by digits without a type."""
    if isinstance(given, str):
        if not _DIGITS.fullmatch(given):
            raise ValueError(f"{given!r} is no id of a {what}: wanted are hexadecimal digits, in groups of four")
        given = int(given.replace("-", ""), 16)
    if isinstance(given, bool) or not isinstance(given, int):
        raise ValueError(f"{given!r} is no id of a {what}: wanted is a whole number or text")
    if not 0 <= given < 1 << bits:
        raise ValueError(f"{given} is no id of a {what}: it has to be at least 0 and less than 2^{bits}")
    return given


def _groups(number: int, count: int) -> str:
    digits = f"{number:0{4 * count}x}"
    return "-".join(digits[start : start + 4] for start in range(0, 4 * count, 4))


class ArchFxCloudSlug:
    """What all ids share: their text (`str`), equality and hash."""

    _slug: str = ""

    def __str__(self) -> str:
        return self._slug

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._slug!r})"

    def __hash__(self) -> int:
        return hash(self._slug)

    def __eq__(self, other: object) -> bool:
        return self._slug == other._slug if isinstance(other, ArchFxCloudSlug) else NotImplemented

    def formatted_id(self) -> str:
        """The text without its type."""
        return self._slug.partition("--")[2]

    def get_id(self) -> int:
        """The number; ValueError for ids that are made of several."""
        raise ValueError(f"{self._slug!r} is made of several ids and has no number of its own")


class ArchFxParentSlug(ArchFxCloudSlug):
    """A site (`ps--0000-0001`), an area (`pa--...`) or a line (`pl--...`), 32 bits.

    `ptype` is the type where `id` does not say it.
    """

    _type: str
    _id: int

    def __init__(self, id: int | str | ArchFxParentSlug, ptype: str = "pl") -> None:
        if isinstance(id, ArchFxParentSlug):
            self._type, self._id = id.get_type(), id.get_id()
        else:
            self._type = ptype
            if isinstance(id, str) and "--" in id:
                self._type, _, id = id.partition("--")
            if self._type not in _STREAMS:
                raise ValueError(f"{self._type!r} is no type of a site (ps), an area (pa) or a line (pl)")
            self._id = _number(id, 32, "site, area or line")
        self._slug = f"{self._type}--{_groups(self._id, 2)}"

    def get_type(self) -> str:
        """`ps`, `pa` or `pl`."""
        return self._type

    def get_id(self) -> int:
        return self._id


class ArchFxDeviceSlug(ArchFxCloudSlug):
    """A device or a machine, `d--0000-0000-0000-0001`: 64 bits, or 48 where `allow_64bits` is off. Machines have a
    second group that is not zero; `m--` is read as `d--`."""

    def __init__(self, id: int | str | ArchFxDeviceSlug, allow_64bits: bool = True) -> None:
        if isinstance(id, ArchFxDeviceSlug):
            self._id = id.get_id()
        else:
            if isinstance(id, str) and "--" in id:
                kind, _, id = id.partition("--")
                if kind not in ("d", "m"):
                    raise ValueError(f"{kind!r} is no type of a device (d) or a machine (m)")
            self._id = _number(id, 64 if allow_64bits else 48, "device")
        self._slug = f"d--{_groups(self._id, 4)}"

    def get_id(self) -> int:
        return self._id


class ArchFxVariableID(ArchFxCloudSlug):
    """A variable, `0001-5090`: 16 bits of scope and 16 of the variable itself, also as a pair `(scope, variable)`. It
    means something only together with a device or a machine, and has no type."""

    def __init__(self, id_: int | str | tuple[int | str, int | str] | ArchFxVariableID) -> None:
        if isinstance(id_, ArchFxVariableID):
            self._id = id_.get_id()
        elif isinstance(id_, tuple):
            scope, variable = (
                f"{_number(part, 16, 'variable'):04x}" if isinstance(part, int) else part for part in id_
            )
            self._id = _number(f"{scope}-{variable}", 32, "variable")
        else:
            self._id = _number(id_, 32, "variable")
        self._slug = _groups(self._id, 2)

    def formatted_id(self) -> str:
        return self._slug

    def get_id(self) -> int:
        return self._id

    @property
    def scope(self) -> int:
        """The upper 16 bits."""
        return self._id >> 16

    @property
    def var_id(self) -> int:
        """The lower 16 bits."""
        return self._id & 0xFFFF

    @property
    def scope_hex(self) -> str:
        """The scope's four digits."""
        return self._slug[:4]

    @property
    def var_hex(self) -> str:
        """The variable's four digits, without its scope."""
        return self._slug[5:]


class ArchFxStreamSlug(ArchFxCloudSlug):
    """A stream, `sl--0000-0001--0000-0000-0000-0001--0000-5051`: what a variable of a device or a machine gives at a
    site, an area or a line, perhaps with its start as a fifth part. Without an argument it waits for `from_parts()`."""

    stype = "sd"

    def __init__(self, sid: str | None = None) -> None:
        if not sid:
            return
        if not isinstance(sid, str):
            raise ValueError(f"{sid!r} is no stream: wanted is text")
        stype, *parts = sid.split("--")
        if stype not in _PARENTS or not 3 <= len(parts) <= 4:
            raise ValueError(f"{sid!r} is no stream: wanted is s<type>--<parent>--<device>--<variable>[--<start>]")
        parent, device, variable, *start = parts
        self._join(
            stype,
            ArchFxParentSlug(parent or 0),
            ArchFxDeviceSlug(device),
            ArchFxVariableID(variable),
            _start(start[0]) if start else None,
        )

    def from_parts(
        self,
        parent: int | str | ArchFxParentSlug | None,
        device: int | str | ArchFxDeviceSlug | None,
        variable: int | str | tuple[int | str, int | str] | ArchFxVariableID,
        start: int | str | datetime | None = None,
    ) -> None:
        """Become the stream of these parts.

        Parent and device may be missing. `start` is a time (without a zone: UTC) or microseconds since 1970.
        """
        stype = "sd" if parent is None or parent == "" else _STREAMS[ArchFxParentSlug(parent).get_type()]
        self._join(
            stype,
            ArchFxParentSlug(0 if parent is None or parent == "" else parent),
            ArchFxDeviceSlug(0 if device is None or device == "" else device),
            ArchFxVariableID(variable),
            None if start is None else _start(start),
        )

    def get_parts(self) -> dict[str, str | None]:
        """`parent` and `variable` as they are written, `block`, `scope` and the rest of the device's groups (`device`),
        the device as a whole (`device_slug`), and `start`: 16 digits of microseconds since 1970, or None."""
        if not self._slug:
            raise ValueError("this stream has no parts yet: from_parts() gives it some")
        stype, parent, device, variable, *start = self._slug.split("--")
        block, scope, rest = device.split("-", 2)
        return {
            "parent": f"{_PARENTS[stype]}--{parent}",
            "block": block,
            "scope": scope,
            "device": rest,
            "device_slug": f"d--{device}",
            "variable": variable,
            "start": start[0] if start else None,
        }

    def _join(
        self,
        stype: str,
        parent: ArchFxParentSlug,
        device: ArchFxDeviceSlug,
        variable: ArchFxVariableID,
        start: str | None,
    ) -> None:
        parts = [stype, parent.formatted_id(), device.formatted_id(), str(variable)]
        self.stype = stype
        self._slug = "--".join(parts if start is None else [*parts, start])


def _start(given: int | str | datetime) -> str:
    if isinstance(given, datetime):
        aware = given if given.tzinfo else given.replace(tzinfo=UTC)
        given = (aware - _EPOCH) // timedelta(microseconds=1)
    text = str(given)
    if not re.fullmatch("[0-9]{1,16}", text):
        raise ValueError(f"{text} is no start of a stream: wanted are 1 to 16 digits of microseconds since 1970")
    return text.zfill(16)


class ArchFxStreamerSlug(ArchFxCloudSlug):
    """What sends a device's reports, `t--0000-0000-0000-0001--0000`: a device and an index of 16 bits."""

    def __init__(self, device: int | str | ArchFxDeviceSlug, index: int | str) -> None:
        self._device = ArchFxDeviceSlug(device)
        self._index = _groups(_number(int(index), 16, "streamer"), 1)
        self._slug = f"t--{self._device.formatted_id()}--{self._index}"

    def get_device(self) -> str:
        """The text of its device."""
        return str(self._device)

    def get_index(self) -> str:
        """The index as four digits."""
        return self._index
