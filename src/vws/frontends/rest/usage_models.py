"""The shape of a report on usage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Amount(BaseModel):
    node_hours: float = Field(description="Workspaces times hours.", examples=[12.5])
    cpu_hours: float = Field(description="CPUs times hours.", examples=[50.0])
    charge: float = Field(description="By the site's tariff, in its unit.", examples=[25.0])


class UsageRow(BaseModel):
    """What one user, VO, lease or day has; the others of these are empty."""

    user: str
    vo: str = Field(description='"": users of no VO.')
    lease: str
    name: str = Field(description="The lease's.")
    day: str = Field(description="By the site's clock.", examples=["2026-10-03"])
    reserved: Amount
    used: Amount


class UsageTotal(BaseModel):
    reserved: Amount = Field(description="What the site kept free for leases, as agreed.")
    used: Amount = Field(description="What really ran.")


class UsageReport(BaseModel):
    """Usage over an interval. Of leases that go on, what was until its end."""

    by: Literal["user", "vo", "lease", "day"]
    from_: float = Field(alias="from", description="UTC seconds.")
    to: float = Field(description="UTC seconds; not beyond now.")
    time: float = Field(description="Now, UTC seconds.")
    time_zone: str = Field(description="Of the site's clock.", examples=["Europe/Zurich"])
    unit: str = Field(description="What charges are in.", examples=["credit"])
    events: int = Field(description="How many were read for this.")
    rows: list[UsageRow]
    total: UsageTotal
