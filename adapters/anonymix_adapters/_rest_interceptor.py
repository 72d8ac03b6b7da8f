"""An interceptor that knows the options of its adapter, and writes down what a service confirmed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

from anonymix_adapters._wire import current
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule, Whose
from anonymix_plugin.errors import UsageError
from anonymix_plugin.values import CancelableFace

FieldRule: TypeAlias = Literal["subject", "label"] | Callable[[str], str | None]
"""What the API's own field for a name (ExternalImageId, PersonId, subject, name, user_id) is.

"subject": the person's id; `subject=` or a block that say another are refused. "label": the entry's own, an
image's number say; the person is named by `subject=` or the block. A function: it is given the field, and
returns the person's id, or None where the field names nobody."""

Entry: TypeAlias = tuple[Any, CancelableFace, Whose]
"""What the service's answer calls an entry, the face that it was made from, and whose it is."""


class CloudInterceptor(Interceptor):
    """Like `Interceptor`; two of them do the same only if the adapter's own options are the same.

    Args:
        mixer: See `Interceptor`.
        adapter: See `Interceptor`.
        keys: See `Interceptor`.
        scope: See `Interceptor`.
        field: See `FieldRule`.
        options: What else the adapter was told: fetching, detection, ...

    Raises:
        UsageError: There is no such rule.
    """

    def __init__(
        self,
        mixer: FaceMixer,
        adapter: str,
        *,
        keys: KeyUse,
        scope: ScopeRule,
        field: FieldRule = "subject",
        **options: object,
    ) -> None:
        super().__init__(mixer, adapter, keys=keys, scope=scope)
        if not callable(field) and field not in {"subject", "label"}:
            raise UsageError("there is no such rule", where="field", fix="use 'subject', 'label' or a function")
        self.field, self.options = field, options

    def same_as(self, other: Interceptor) -> bool:
        """See `Interceptor.same_as`."""
        return (
            super().same_as(other)
            and isinstance(other, CloudInterceptor)
            and (other.field, other.options) == (self.field, self.options)
        )

    def person(self, field: str | None) -> str | None:
        """Whom the API's own field names, by the rule; None for nobody."""
        if field is None or self.field == "label":
            return None
        return self.field(field) if callable(self.field) else field

    def whose_call(self, field: str | None = None, *, collection: str = "", enrol: bool = False) -> Whose:
        """`Interceptor.whose` for the call that is being made: its `subject=`, its field, the block around it."""
        call = current(self)
        argument = call.subject if call else None
        return self.whose(argument=argument, field=self.person(field), collection=collection, enrol=enrol)

    def keep(self, made: Iterable[Entry], *, collection: str, undo: Callable[[list[str]], object]) -> None:
        """Write down the entries that the service says it made: all of them, or take them back.

        Args:
            made: Each entry; one that is named twice is written down once.
            collection: Of the service.
            undo: Is given the entries' ids and deletes them from the service, or raises.

        Raises:
            EnrolmentError: The service did not say what an entry is called, or could not delete one.
        """
        entries = {name if isinstance(name, str) else "": (face, whose) for name, face, whose in made}
        written: list[str] = []
        try:
            for name, (face, whose) in entries.items():
                self.record(face, whose, collection=collection, external_id=name)  # refuses no name
                written.append(name)
        except Exception as error:
            names = [name for name in entries if name]
            if names:
                self.roll_back(lambda: undo(names), error)
            for name in written:
                self.forget_entry(collection, name)
            raise

    def gone(self, collection: str, fits: Callable[[str], bool] = lambda _: True) -> None:
        """Write down that the service deleted the entries of a collection whose id fits."""
        for entry in self.entries(collection):
            if fits(entry.external_id):
                self.removed(entry)
