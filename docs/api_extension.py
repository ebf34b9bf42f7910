"""For mkdocstrings: what griffe does not know about Equinox modules and doctests."""

import inspect
import re

import griffe
import hindgrad


class Api(griffe.Extension):
    """Gives public Equinox modules their signature, and fences the examples in docstrings."""

    def on_class(self, *, cls, **_):
        public = getattr(hindgrad, cls.name, None)
        if not isinstance(public, type) or "__init__" in cls.members or "NamedTuple" in str(cls.bases):
            return
        parameters = [
            griffe.Parameter(
                p.name,
                kind=griffe.ParameterKind(p.kind.description),
                default=None if p.default is p.empty else repr(p.default),
            )
            for p in inspect.signature(public).parameters.values()
        ]
        me = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(me, *parameters)))

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The same text, with each run of indented or `>>>` lines in a fence."""
    return re.sub(r"(?m)^(>>> .*(?:\n.+)*)", r"```pycon\n\1\n```", text)
