"""Client of personad: trees of conversation, and what the model thinks in them.

Client blocks, AsyncClient is for asyncio; both have the same methods (see personad.aio). When the
daemon goes away they wait for it to come back, ask again, and go on where they were.
"""
from .aio import AsyncClient, AsyncSession
from .blocking import Client, Session
from .connection import default_socket
from .types import (Alternative, Compared, ConnectionLost, Difference, Distribution, Expanded,
                    Expansion, Group, Human, Member, Node, Note, Numbers, PersonadError, Piece,
                    Position, Scored, Verification)

__all__ = ["Alternative", "AsyncClient", "AsyncSession", "Client", "Compared", "ConnectionLost",
           "Difference", "Distribution", "Expanded", "Expansion", "Group", "Human", "Member",
           "Node", "Note", "Numbers", "PersonadError", "Piece", "Position", "Scored", "Session",
           "Verification", "default_socket"]
