"""For the API page: what griffe does not know about Equinox modules and about doctests."""

import inspect
import re

import griffe

import hindgrad


class Api(griffe.Extension):
    """Gives public Equinox modules the signature of their `__init__`, and fences doctests."""

    def on_class_members(self, *, cls, **_):
        public = getattr(hindgrad, cls.name, None) or getattr(hindgrad.learned, cls.name, None)
        if not isinstance(public, type) or "__init__" in cls.members:
            return
        if inspect.isabstract(public) or issubclass(public, tuple):
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
        init = griffe.Function("__init__", parameters=griffe.Parameters(me, *parameters))
        cls.set_member("__init__", init)

    def on_object(self, *, obj, **_):
        if obj.docstring:
            fenced = re.sub(r"(?m)^(>>> .*(?:\n.+)*)", r"```pycon\n\1\n```", obj.docstring.value)
            obj.docstring.value = fenced
