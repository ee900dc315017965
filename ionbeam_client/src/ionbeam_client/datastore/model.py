"""What all objects of the service have in common: fields that become attributes, and an address of their own.

Belongs here: how an answer becomes an object. Does not belong here: which objects there are (models.py).
"""

from __future__ import annotations

import typing
import warnings
from datetime import datetime
from typing import Any, ClassVar, Self

from ionbeam_client.datastore import calls
from ionbeam_client.datastore.calls import Fields
from ionbeam_client.datastore.errors import APICompatibilityError
from ionbeam_client.datastore.http import Call, arun, run
from ionbeam_client.datastore.twins import twins


class Model:
    """An object of the service: every field of its answer is an attribute, known to this version or not.

    Fields that hold a timestamp become datetimes with a zone (UTC where the service names none); all others keep the
    value that the service gave. Made from an `id` alone it has no other attribute before `update()`.

    Raises APICompatibilityError where a field that should be a timestamp is none.
    """

    id: int
    _declared: ClassVar[dict[str, bool]] = {}
    """The fields that a class names, and whether each is a timestamp."""

    def __init_subclass__(cls) -> None:
        hints = typing.get_type_hints(cls)
        cls._declared = {name: datetime in typing.get_args(hint) for name, hint in hints.items()}

    def __init__(self, id: int, auth_token: str | None = None, **fields: Any) -> None:
        self.id = id
        self._auth_token = auth_token
        self._take(fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={vars(self).get('id')!r})"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{self!r} has no {name!r}; update() or aupdate() loads what the service has", name=name, obj=self
        )

    def _take(self, fields: Fields) -> None:
        for name, value in fields.items():
            if name.startswith("_") or hasattr(type(self), name):
                warnings.warn(f"{self!r}: the field {name!r} has the name of a method and is left out; as_dict=True "
                              "gives it", RuntimeWarning, stacklevel=3)  # fmt: skip
                continue
            setattr(self, name, self._converted(name, value))

    def _converted(self, name: str, value: Any) -> Any:
        is_timestamp = self._declared.get(name)
        if not isinstance(value, str) or is_timestamp is False or not (is_timestamp or calls.is_timestamp(value)):
            return value
        try:
            return calls.timestamp(value)
        except ValueError:
            if is_timestamp:
                raise APICompatibilityError(f"{self!r}: {name} is no timestamp: {value!r}") from None
            return value

    @classmethod
    def _of(cls, fields: Fields, auth_token: str | None, id: Any = None) -> Self:
        made = cls(fields.get("id", id), auth_token)
        made._take(fields)
        return made

    @classmethod
    def _all_of(cls, all_fields: list[Fields], auth_token: str | None) -> list[Self]:
        if without := next((fields for fields in all_fields if "id" not in fields), None):
            raise APICompatibilityError(f"{cls.__name__}: no id in {str(without)[:200]}")
        return [cls._of(fields, auth_token) for fields in all_fields]


class Resource(Model):
    """What has an address of its own."""

    _kind: ClassVar[str]
    """Its part of the address."""

    @classmethod
    def get_model(cls, id: int, auth_token: str | None = None, as_dict: bool = False, **filters: Any) -> Any:
        """The one with this id; with `as_dict` the service's answer as a dict.

        `auth_token` goes before the variables TALLY_AUTH_TOKEN and RESTREAM_AUTH_TOKEN, here and in all methods of the
        object and of what it leads to. `filters` are parameters of the address.

        Raises AuthError (401, 403, no token), APICompatibilityError (404, or an answer of another shape),
        APIConcurrencyLimitError (429 that lasts) or ServiceError, as all calls do.
        """
        return run(cls._get_model(id, auth_token, as_dict, filters))

    @classmethod
    async def aget_model(cls, id: int, auth_token: str | None = None, as_dict: bool = False, **filters: Any) -> Any:
        """`get_model`, for asyncio."""
        return await arun(cls._get_model(id, auth_token, as_dict, filters))

    @classmethod
    def get_models(cls, auth_token: str | None = None, as_dict: bool = False, **filters: Any) -> Any:
        """A list of all that you may see and that pass the `filters` (for pads: `complete`, `well_api`, `site_pk`)."""
        return run(cls._get_models(auth_token, as_dict, filters))

    @classmethod
    async def aget_models(cls, auth_token: str | None = None, as_dict: bool = False, **filters: Any) -> Any:
        """`get_models`, for asyncio."""
        return await arun(cls._get_models(auth_token, as_dict, filters))

    @classmethod
    def _get_model(cls, id: int, auth_token: str | None, as_dict: bool, filters: Fields) -> Call[Any]:
        fields = yield from calls.one(f"{cls._kind}/{{id}}/", id, auth_token, filters)
        return fields if as_dict else cls._of(fields, auth_token, id)

    @classmethod
    def _get_models(cls, auth_token: str | None, as_dict: bool, filters: Fields) -> Call[Any]:
        found = yield from calls.many(f"{cls._kind}/", auth_token, filters)
        return found if as_dict else cls._all_of(found, auth_token)

    def _update(self) -> Call[None]:
        """Load the attributes that the service has now."""
        self._take((yield from calls.one(f"{self._kind}/{{id}}/", self.id, self._auth_token, {})))

    update, aupdate = twins(_update)
