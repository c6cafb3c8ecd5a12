"""The shape of a calendar."""

from __future__ import annotations

from pydantic import BaseModel, Field

from vws.core.calendar import Step


class Bar(BaseModel):
    """One step of one workspace on a node; or a maintenance, across the whole node."""

    node: str = Field(description="The node's name.", examples=["node-1"])
    start: int = Field(description="UTC seconds.", examples=[1795420800])
    end: int
    step: Step = Field(description="saved: suspended, its memory on the node's disk. migrate: on both nodes.")
    lease: str = Field(description="Its id; of a maintenance the maintenance's.", examples=["lse-01jd3k9q4t7c2vw"])
    label: str = Field(description="The lease's name, if you may know it; a maintenance's reason.")
    kind: str = Field(examples=["reservation"])
    workspace: str = Field(description="The same for all steps of one workspace.", examples=["cluster-1"])
    owner: str = Field(description="Empty if it is another's and you are no administrator.")
    state: str = Field(description="Of the workspace, or of its lease while there is none.", examples=["running"])
    cpus: int
    memory_mib: int


class Calendar(BaseModel):
    """Who has which node when. What begins after `now` is planned."""

    title: str = Field(description="The site's name.")
    nodes: list[str] = Field(description="Names, in the order of their joining.")
    bars: list[Bar]
    start: int = Field(description="UTC seconds.")
    end: int
    now: int
    virtual: bool = Field(description="Always false; simulations have other clocks.")
