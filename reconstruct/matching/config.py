"""Section ``match`` of a pipeline file: the settings of one of the registered matchers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Field

from reconstruct.matching import MATCHERS, MatcherConfig, config_class
from reconstruct.matching.mutual_nn import MutualNNConfig

DEFAULT = "mutual_nn"
"""The matcher of a section that names none."""


def _complete(section: Any) -> Any:
    """A section as it is written, with its method; what goes with other methods only is left out
    where it stands at its default: ``--set match.method=dense`` need not remove ``ratio: null``."""
    if not isinstance(section, dict):
        return section
    method = section.get("method", DEFAULT)
    if not isinstance(method, str) or method not in MATCHERS:
        return section
    own = config_class(method).model_fields
    kept = {**section, "method": method}
    for other in MATCHERS:
        for name, field in config_class(other).model_fields.items():
            if name in kept and name not in own and kept.pop(name) != field.default:
                raise ValueError(f"`{name}` goes with `method: {other}`, not with {method}")
    return kept


if TYPE_CHECKING:
    MatchConfig = MatcherConfig
else:  # told apart by `method`
    _choices = tuple(config_class(method) for method in MATCHERS)
    MatchConfig = Annotated[
        Union[_choices],  # noqa: UP007
        Field(discriminator="method"),
        BeforeValidator(_complete),
    ]


def default_match() -> MatcherConfig:
    """The settings of a section ``match: {}``."""
    return MutualNNConfig()
