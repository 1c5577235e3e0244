"""What every part of a report is made from."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from quantship.frozen import Frozen

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(Frozen):
    """A part of the report; refuses NaN and infinity, which JSON cannot hold."""

    model_config = ConfigDict(allow_inf_nan=False)
