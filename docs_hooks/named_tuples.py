"""The signature of each NamedTuple, from its fields; griffe, which reads the code for the API page, has none."""

from typing import Any

from griffe import Class, Extension, Function, Parameter, ParameterKind, Parameters


class NamedTuples(Extension):
    """Gives every NamedTuple the `__init__` that its fields make."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Called by griffe with each class, once its members are known."""
        if not any(str(base) == "NamedTuple" for base in cls.bases):
            return
        kind = ParameterKind.positional_or_keyword
        fields = [
            Parameter(name, annotation=field.annotation, kind=kind, default=field.value)
            for name, field in cls.attributes.items()
        ]
        own = Parameter("self", kind=kind)
        cls.set_member(
            "__init__", Function("__init__", parameters=Parameters(own, *fields), returns="None", parent=cls)
        )
